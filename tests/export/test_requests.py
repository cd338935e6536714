"""A served model refuses what it cannot answer, in words, and goes on; fifty requests of each."""

import functools
import io
import re
import resource
import struct
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasdl import catalog
from kerasdl.bench import native
from kerasdl.data import headers
from kerasdl.export import saved_model, serving
from kerasdl.inference.requests import TOLERANCE
from kerasdl.inference.signatures import decode_batch, functions, interface, tokenizer_of
from kerasdl.recipe import Recipe
from kerasdl.tasks import bounds, sampling
from tests.export import made_up
from tests.variants import short_settings, task_of, tiny

MADE_UP = ("answers", "boxes", "instances", "masks")
# One of each kind of task; of texts one with a context and one without.
NAMES = (
    *MADE_UP,
    "lenet5",
    "char_lstm",
    "gpt2_small",
    "transformer_small",
    "ddpm_unet_small",
    "vae",
    "dcgan",
    "fcn32s_small",
    "fast_rcnn_small",
)
REQUESTS, MEMORY = 50, 500  # MiB that no request may take beyond a valid one
CLEAR = (  # how refusals begin
    "assertion failed: [",  # ours
    "Shape of tensor ",
    "cannot compute __inference",  # of another type
    "Invalid formatting on input string",  # no UTF-8
    # Of the decoders of images
    "Input is empty",
    "Unknown image file format",
    "Invalid ",
    "Incomplete ",
    "Failed to decode ",
)


class Served:
    """A model's signatures as a server runs them: no Python checks what is sent.

    Args:
        name: One of `NAMES`.
    """

    def __init__(self, name):
        if name == "answers":
            self.task = made_up.AnswerQuestions()
            model = made_up.Answers(self.task.info.vocab_size)
        elif name in MADE_UP:
            self.task, image = made_up.FindThings(), keras.Input(made_up.SHAPE)
            model = keras.Model(image, image, name=name)
        else:
            task = task_of(name)
            recipe = Recipe(model=name, task_kwargs=short_settings(name))
            self.task, model = type(task)(task.info, recipe), catalog.build(name, **tiny(name))
        self.model = model  # whose weights die with it
        self.tokenizer = tokenizer_of(self.task)
        served = functions(self.task, model, "savedmodel", self.tokenizer)
        self.endpoints = saved_model.traced(served)
        self.described = interface(self.task, model)["savedmodel"]
        self.specs = {name: specs for name, (_, specs) in served.items()}

    def ask(self, signature, request):
        """`{output: array}`."""
        endpoint = self.endpoints[signature]
        tensors = [tf.constant(request[spec.name]) for spec in self.specs[signature]]
        outputs = endpoint._call_flat(tensors, endpoint.captured_inputs)
        return {name: value.numpy() for name, value in outputs.items()}

    def refusal(self, signature, request):
        """Why it does not answer; fails where it does."""
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            self.ask(signature, request)
        return str(caught.value)

    def valid(self, signature, count=3):
        """A request that is answered."""
        rng, inputs = np.random.default_rng(0), self.described[signature]["inputs"]
        return {name: self._valid(one, count, rng) for name, one in inputs.items()}

    def _valid(self, one, count, rng):
        if one.get("encoded"):
            if one["kind"] == "image":
                pixels = rng.integers(0, 256, (count, 9, 7, 3), np.uint8)
                return np.array([tf.io.encode_png(p).numpy() for p in pixels], object)
            letters = [p.decode() for p in self.tokenizer._pieces.pieces[4:8]]
            return np.array(["".join(letters).encode()] * count, object)
        shape = [2 if isinstance(n, str) else n for n in one["shape"]]
        shape = [count] * one["batched"] + shape
        if one["dtype"] == "float32":
            return rng.random(shape).astype("float32")
        if one["kind"] == "tokens":
            return rng.integers(4, one["max"] + 1, shape).astype("int32")
        return np.full(shape, 2 if one["shape"] == [] else 1, one["dtype"])


@pytest.fixture(scope="module")
def served():
    """`Served` of a name, each made once."""
    return functools.cache(Served)


def other_shape(value, rng):
    """The same numbers in another shape, or more or fewer of them."""
    ways = [
        lambda x: x.reshape(len(x), -1) if x.ndim else x.reshape(1, 1),
        lambda x: x[None],
        lambda x: x.ravel(),
        lambda x: x[:0] if x.ndim else x.reshape(1)[:0],
        lambda x: np.concatenate([x, x]) if x.ndim else np.array([x, x]),
        lambda x: x[..., :-1] if x.ndim else x,
        lambda x: np.repeat(x, 2, axis=-1) if x.ndim else x,
        lambda x: np.swapaxes(x, 0, -1) if x.ndim else x,
        lambda x: x[..., :0] if x.ndim else x,
        lambda x: np.tile(x, (3001, *[1] * (x.ndim - 1))) if x.ndim and x.size < 99 else x,
        lambda x: x.ravel()[0],
    ]
    return np.asarray(ways[rng.integers(len(ways))](value), value.dtype)


def other_type(value, rng):
    """The same numbers in another type."""
    types = ["float64", "float32", "int64", "int32", "uint8", "bool", "complex64"]
    types = [t for t in types if t != value.dtype.name]
    if value.dtype == object:
        return np.ones(value.shape, types[rng.integers(len(types))])
    return value.astype(types[rng.integers(len(types))])


def other_numbers(value, rng):
    """Numbers that are too large, too small or none."""
    value = np.array(value)
    if value.dtype.kind == "f":
        odd = [np.nan, np.inf, -np.inf, -0.5, 1.5, 255.0, 1e38, -1e38]
        if rng.random() < 0.2:
            return value * np.float32(255)
    else:
        odd = [-1, -(2**31), 2**31 - 1, 2**31 - 3, 10**6, 70_000]
    flat = value.reshape(-1)
    flat[rng.integers(len(flat)) if len(flat) else slice(0)] = odd[rng.integers(len(odd))]
    return value


def other_bytes(value, rng):
    """Damaged files and texts, and files that say that they are large."""
    one = value[0]
    huge = struct.pack(">II", *rng.integers(1, 2**31, 2))
    odd = [
        b"",
        b"\xff\xfe\x80",
        bytes(rng.integers(0, 256, 50, np.uint8)),
        one[: len(one) // 2],
        headers.PNG + b"\0\0\0\rIHDR" + huge + b"\x08\x02\0\0\0",
        b"GIF89a" + bytes(rng.integers(0, 256, 300, np.uint8)),
        b"BM" + bytes(rng.integers(0, 256, 80, np.uint8)),
        b"RIFF\x40\0\0\0WEBPVP8 " + bytes(rng.integers(0, 256, 60, np.uint8)),
        b"\xff\xd8\xff\xe0" + bytes(rng.integers(0, 256, 60, np.uint8)),
        one * 30_000,
        one + b"\0",
    ]
    value = value.copy()
    value[rng.integers(len(value))] = odd[rng.integers(len(odd))]
    return value


def allowed(described, request):
    """Whether the types, shapes and numbers of a request are what its description says."""
    texts = any(one["kind"] == "tokens" and "ids" in one for one in described.values())
    for name, one in described.items():
        value, encoded = np.asarray(request[name]), one.get("encoded")
        if value.dtype != (object if encoded else one["dtype"]):
            return False
        shape = [] if encoded else one["shape"]
        if texts and not encoded and shape == []:  # one number, or one per text
            right = value.ndim <= 1
        else:
            right = value.ndim == len(shape) + one["batched"]
            own = value.shape[value.ndim - len(shape) :]
            right &= all(a == b or isinstance(b, str) for a, b in zip(own, shape, strict=False))
        if value.dtype.kind == "f":
            low, high = one.get("min", -np.inf), one.get("max", np.inf)
            right &= bool(np.isfinite(value).all())
            right &= bool(((value >= low - TOLERANCE) & (value <= high + TOLERANCE)).all())
        elif "min" in one and not encoded:
            right &= bool(((value >= one["min"]) & (value <= one["max"])).all())
        if not right:
            return False
    return True


def some(signature, served, rng):
    """A request with one input that is not as it should be, or is after all."""
    request = served.valid(signature)
    key = sorted(request)[rng.integers(len(request))]
    ways = [other_shape, other_type, other_numbers]
    ways += [other_bytes] * 3 if request[key].dtype == object else [other_numbers]
    way = ways[rng.integers(len(ways))]
    if way is other_numbers and request[key].dtype == object:
        way = other_bytes
    return request | {key: way(request[key], rng)}


@pytest.mark.parametrize("name", NAMES)
def test_fifty_requests_are_refused_or_answered_right(name, served):
    model = served(name)
    for number, signature in enumerate(dict.fromkeys(model.endpoints.values())):
        signature = next(s for s, endpoint in model.endpoints.items() if endpoint is signature)
        rng, answered = np.random.default_rng(number), 0
        valid = model.valid(signature)
        before, memory = model.ask(signature, valid), peak()
        for _ in range(REQUESTS):
            request = some(signature, model, rng)
            try:
                outputs = model.ask(signature, request)
            except tf.errors.InvalidArgumentError as error:
                assert line(error).startswith(CLEAR), str(error)
                continue
            answered += 1
            assert allowed(model.described[signature]["inputs"], request)
            assert_same_one_by_one(model, signature, request, outputs)
        assert answered < REQUESTS / 2
        after = model.ask(signature, valid)
        assert all(np.array_equal(before[k], after[k]) for k in before)
        assert peak() - memory < MEMORY


def line(error):
    """What an error says, without where in the graph it was."""
    *_, last = re.split(r"\n\n|\n(?=\S)", str(error).split("\n\t [[")[0].strip())
    return last


def peak():
    """MiB that this process has had at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def assert_same_one_by_one(model, signature, request, outputs):
    """The answer has one row per example, that of a request with this example alone."""
    described = model.described[signature]["inputs"]
    if "num" in request:
        assert {len(value) for value in outputs.values()} == {int(request["num"])}
        return
    batched = {k: np.asarray(request[k]) for k, one in described.items() if one["batched"]}
    count = max(len(value) for value in batched.values() if value.ndim)
    assert {len(value) for value in outputs.values()} == {count}
    for i in (0, count - 1):
        alone = {k: v[i : i + 1] if v.ndim and len(v) == count else v for k, v in batched.items()}
        for k, value in model.ask(signature, request | alone).items():
            if value.dtype.kind == "f":
                np.testing.assert_allclose(outputs[k][i], value[0], rtol=1e-3, atol=1e-4)
            elif value.dtype != object:
                assert np.mean(outputs[k][i] == value[0]) > 0.99


IMAGE, OVER = np.full((3, 16, 20, 2), 0.5, "float32"), "must have at most 33,554,432 pixels"


@pytest.mark.parametrize(
    ("name", "signature", "change", "message"),
    [
        ("lenet5", "serving_default", {"image": IMAGE * 255}, "from 0 to 1 .*divided by 255"),
        ("lenet5", "serving_default", {"image": IMAGE * -1}, "from 0 to 1"),
        ("lenet5", "serving_default", {"image": IMAGE * np.float32(np.nan)}, "must be finite"),
        ("lenet5", "serving_default", {"image": IMAGE.reshape(3, -1)}, r"image \[3,640\]"),
        ("lenet5", "serving_default", {"image": IMAGE.reshape(6, 8, 20, 2)}, r"\[6,8,20,2\]"),
        ("lenet5", "serving_default", {"image": IMAGE[:0]}, "at least 1 and at most"),
        ("answers", "serving_default", {"image": np.zeros((1, 6, 5, 3), "float32")}, r"\[1 3\]"),
        ("ddpm_unet_small", "denoise", {"time": np.float32([0, 1, 1.1])}, "time .* from 0 to 1"),
        ("ddpm_unet_small", "denoise", {"time": np.float32([0, -0.1, 1])}, "time .* from 0 to 1"),
        ("ddpm_unet_small", "sample", {"guidance": np.float32(np.inf)}, "guidance must be finite"),
        ("ddpm_unet_small", "sample", {"num": np.int32(1025)}, "num must be|num entries"),
        ("ddpm_unet_small", "sample", {"label": np.int32([0, -1])}, "labels must be at least 0"),
        ("vae", "sample", {"num": np.int32(2**31 - 1)}, "at most 1024"),
        (
            "gpt2_small",
            "next_token",
            {"token_ids": np.int32([[5, -1]])},
            "token_ids must be from 0",
        ),
        ("gpt2_small", "next_token", {"token_ids": np.int32([[5, 10**6]])}, "must be from 0 to"),
        ("gpt2_small", "next_token", {"token_ids": np.zeros((3, 0), "int32")}, "at least 1 token"),
        ("char_lstm", "next_token", {"token_ids": np.full((8, 8193), 5, "int32")}, "65,536 tokens"),
        ("char_lstm", "serving_default", {"max_new_tokens": np.int32(2**31 - 1)}, "over 65536"),
        (
            "char_lstm",
            "serving_default",
            {"max_new_tokens": np.int32([0, 0, 22_000])},
            "over 65536",
        ),
        ("gpt2_small", "serving_default", {"max_new_tokens": np.int32(2**31 - 1)}, "the context"),
        (
            "char_lstm",
            "serving_default",
            {"temperature": np.float32(np.nan)},
            "temperature must be",
        ),
        ("char_lstm", "serving_default", {"seed": np.int32([1, 2])}, "seed must be one number or"),
        ("char_lstm", "serving_default", {"text": np.array([b"a" * 2**20, b"a", b"a"])}, "of text"),
        ("fast_rcnn_small", "serving_default", {"proposals": None}, "proposals must be finite and"),
    ],
)
def test_what_is_refused_with_what_words(name, signature, change, message, served):
    model = served(name)
    request = model.valid(signature)
    if "proposals" in change:  # of pixels, not in proportion
        change = {"proposals": request["proposals"] * 16}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        model.ask(signature, request | change)


def test_what_is_right_by_rounding_or_at_the_edge_is_answered(served):
    model = served("lenet5")
    model.ask("serving_default", {"image": np.float32(IMAGE * 2 + 5e-4)})
    model = served("ddpm_unet_small")
    edge = {"seed": np.int32([-(2**31), 2**31 - 1]), "guidance": np.float32(0)}
    assert len(model.ask("sample", model.valid("sample") | edge)["image"]) == 2
    edge = {"time": np.float32([0, 1, 0.5]), "image": 9 * model.valid("denoise")["image"]}
    assert len(model.ask("denoise", model.valid("denoise") | edge)["image"]) == 3


def test_a_server_in_c_changes_no_shape_and_goes_on(served, replay, tmp_path):
    saved_model.write(served("lenet5").endpoints, tmp_path / "model")
    images = [IMAGE, IMAGE.reshape(3, -1), IMAGE.reshape(6, 8, 20, 2), IMAGE * 255, IMAGE]
    requested = [("serving_default", {"image": image}) for image in images]
    first, *refused, last = native.replay(replay, tmp_path / "model", requested, tmp_path / "work")
    lines = ("[3,640] is not compatible", "[6,8,20,2] is not compatible", "[127.5] [127.5]")
    assert all(words in why for words, why in zip(lines, refused, strict=True))
    assert all(np.array_equal(first[k], last[k]) for k in first)


def encoded(mode, size, kind, **settings):
    """A picture of one color as a file."""
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, kind, **settings)
    return stream.getvalue()


KINDS = {
    "png": ("RGB", "PNG", {}),
    "palette": ("P", "PNG", {}),
    "jpeg": ("RGB", "JPEG", {}),
    "progressive": ("L", "JPEG", {"progressive": True}),
    "bmp": ("RGB", "BMP", {}),
    "bits": ("1", "BMP", {}),
    "gif": ("P", "GIF", {}),
    "webp": ("RGB", "WEBP", {}),
    "lossless": ("RGB", "WEBP", {"lossless": True}),
    "alpha": ("RGBA", "WEBP", {}),
    "exif": ("RGB", "WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_counted_by_the_header(kind):
    mode, form, settings = KINDS[kind]
    content = encoded(mode, (311, 258), form, **settings)
    assert headers.pixels(tf.constant(content)) == 311 * 258
    if kind != "gif":  # whose first picture is searched
        half = content[: max(len(content) // 2, headers.HEAD)]
        assert headers.pixels(tf.constant(half)) == 311 * 258


def test_headers_of_other_kinds():
    deep = tf.io.encode_png(np.zeros((7, 5, 3), np.uint16))
    assert headers.pixels(deep) == 2 * 7 * 5
    core = b"BM" + bytes(12) + struct.pack("<IHH", 12, 300, 200) + b"\1\0\x01\0"
    assert headers.pixels(tf.constant(core)) == 300 * 200
    down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 300, -200) + bytes(4)
    assert headers.pixels(tf.constant(down)) == 300 * 200
    for content in (b"", b"GIF89a", headers.PNG, b"BM", b"no image"):
        assert headers.pixels(tf.constant(content)) == 0


@pytest.fixture(scope="module")
def decode():
    """`decode_batch` at 8 x 8 pixels."""
    spec = [tf.TensorSpec((None,), tf.string)]
    return tf.function(lambda x: decode_batch(x, (8, 8, 3)), input_signature=spec, autograph=False)


def png(side):
    """A PNG that says that it is a gray square of so many pixels."""
    content = headers.PNG
    size = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    for name, data in ((b"IHDR", size), (b"IDAT", zlib.compress(bytes(10**7))), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data
        content += struct.pack(">I", zlib.crc32(name + data))
    return content


def says(kind, side):
    """A small picture whose header says that it is a square of so many pixels."""
    content = encoded("L", (64, 64), kind)
    form = ">HH" if kind == "JPEG" else "<HH"
    start = {"JPEG": content.find(b"\xff\xc0") + 5, "GIF": 6, "WEBP": 26}[kind]
    return content[:start] + struct.pack(form, side, side) + content[start + 4 :]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_an_image_that_is_too_large_is_refused_before_it_is_decoded(kind, decode):
    side = 30_000 if kind == "PNG" else 16_000
    content, small = png(side) if kind == "PNG" else says(kind, side), encoded("L", (9, 9), "PNG")
    decode([small])
    before = peak()
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"{OVER}, but has\] \[{side**2}\]"):
        decode([small, content])
    assert peak() - before < 20
    decode([small])


def test_of_a_moving_gif_the_first_picture_is_decoded(decode):
    rng = np.random.default_rng(0)
    frames = [Image.fromarray(rng.integers(0, 256, (90, 70, 3), np.uint8)) for _ in range(3)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    content = stream.getvalue()
    first, count = headers.first_frame(tf.constant(content))
    assert count == 90 * 70 and len(first.numpy()) < len(content) / 2
    whole = tf.io.decode_image(content, expand_animations=False)
    np.testing.assert_array_equal(tf.io.decode_image(first, expand_animations=False), whole)
    # A later picture may be of any size.
    at = content.index(b"\x2c\0\0\0\0", len(first.numpy()) - 1)
    later = content[: at + 5] + b"\xff\xff\xff\xff" + content[at + 9 :]
    np.testing.assert_array_equal(decode([later]), decode([content]))


def test_a_gif_that_never_ends_is_refused(decode):
    content = b"GIF89a" + struct.pack("<HH", 9, 9) + bytes(3) + b"\x21\xfe" + b"\1a" * 20_000
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many parts"):
        decode([content])


def test_large_images_take_as_many_bytes_as_they_have(decode):
    """Not as many floats: 8K in color is 100 MB, and 400 MB as floats."""
    decode([encoded("RGB", (9, 9), "PNG")])
    before = peak()
    for kind in ("PNG", "JPEG"):
        decode([encoded("RGB", (7680, 4320), kind)])
    assert peak() - before < 330


def test_bounds_follow_from_the_signature(served):
    described = served("vae").described
    assert described["reconstruct"]["bounds"] == {"examples": bounds.MAX_BATCH}
    assert bounds.of_request(served("fast_rcnn_small").task.signatures(None)[0], ["image"]) == {
        "examples": bounds.MAX_BATCH,
        "pixels_per_image": bounds.MAX_PIXELS,
    }
    assert bounds.examples((224, 224, 3), bounds.MAX_BATCH) == 222
    assert bounds.examples((2048, 2048, 3), bounds.MAX_BATCH) == bounds.ANY_MODEL
    texts = served("transformer_small").task.signatures(None)[0]
    assert bounds.of_request(texts, (), 100)["examples"] == 655
    assert bounds.tokens(None) == bounds.tokens(1024) == bounds.MAX_TOKENS
    assert bounds.tokens(2048) == bounds.ANY_MODEL * 2048
    assert bounds.examples((28, 28, 1), sampling.MAX_IMAGES) == sampling.MAX_IMAGES
    assert bounds.sentence(described["sample"]) == (
        "refused with: num must be at least 1 and at most 1024"
    )
    assert bounds.sentence(served("lenet5").described["serving_default"]) == (
        "at most 8,192 examples; image from 0 to 1"
    )


def test_what_a_server_that_joins_requests_is_told(tmp_path):
    """Larger ones are split; checked by the field names of the server's own tests alone."""
    serving.write_configs(tmp_path)
    lines = (tmp_path / serving.BATCHING).read_text().splitlines()
    values = dict(re.fullmatch(r"(\w+) \{ value: (\w+) \}", line).groups() for line in lines)
    assert values["max_batch_size"] == str(bounds.MAX_BATCH)
    assert values["max_execution_batch_size"] == "32"
    assert values["enable_large_batch_splitting"] == "true"
