"""Decoding and resizing, against Pillow."""

import io
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from kerasdl.data import images, orientation
from kerasdl.data.images import STEP, Fit, decode, kind_of, read, resize, to_float
from kerasdl.data.sources import folder, open_source
from tests.data.shared import bounded


def encoded(array, mode=None, kind="PNG"):
    stream = io.BytesIO()
    image = Image.fromarray(array)
    image = image.convert(mode) if mode else image
    image.save(stream, kind)
    return stream.getvalue()


def color(height=7, width=5):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


def luma(image):
    return np.rint(image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32))


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_lossless_color_is_exact(kind):
    image = color()
    result = decode(encoded(image, kind=kind), 3)
    assert result.dtype == tf.float32
    np.testing.assert_array_equal(result, image.astype(np.float32) * STEP)
    np.testing.assert_allclose(
        decode(encoded(image, kind=kind), 1)[..., 0] * 255, luma(image), atol=1
    )


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_gray_files(kind):
    gray = color()[..., 0]
    for channels in (1, 3):
        result = decode(encoded(gray, kind=kind), channels).numpy()
        assert result.shape == (7, 5, channels)
        for c in range(channels):
            np.testing.assert_array_equal(result[..., c], gray.astype(np.float32) * STEP)


def test_alpha_is_dropped():
    rgba = np.dstack([color(), np.arange(35, dtype=np.uint8).reshape(7, 5)])
    np.testing.assert_array_equal(decode(encoded(rgba), 3), rgba[..., :3].astype(np.float32) * STEP)
    gray_alpha = encoded(rgba, "LA")
    gray = np.asarray(Image.open(io.BytesIO(gray_alpha)))[..., 0]
    for channels in (1, 3):
        result = decode(gray_alpha, channels)
        assert result.shape == (7, 5, channels)
        np.testing.assert_array_equal(result[..., 0], gray.astype(np.float32) * STEP)


def test_palette_and_bits():
    palette = encoded(color(), "P")
    expected = np.asarray(Image.open(io.BytesIO(palette)).convert("RGB"))
    np.testing.assert_array_equal(decode(palette, 3), expected.astype(np.float32) * STEP)
    bit = np.eye(6, dtype=bool)
    np.testing.assert_array_equal(decode(encoded(bit), 1)[..., 0], np.eye(6))


def test_jpeg_is_near_pillow():
    smooth = np.dstack([np.add.outer(np.arange(40), np.arange(32)) * s for s in (1, 2, 3)])
    data = encoded(smooth.astype(np.uint8), kind="JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_allclose(decode(data, 3) * 255, expected, atol=4)
    assert decode(encoded(smooth[..., 0].astype(np.uint8), kind="JPEG"), 3).shape == (40, 32, 3)


def test_the_first_frame_of_a_moving_gif():
    frames = [Image.fromarray(np.full((4, 6), v, np.uint8)) for v in (10, 200)]
    stream = io.BytesIO()
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(
        decode(stream.getvalue(), 1), np.float32(10) * STEP * np.ones((4, 6, 1))
    )


@pytest.mark.parametrize("data", [b"", b"no image", encoded(color())[:60]])
def test_undecodable_bytes_raise(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(data, 3)


def test_fit_is_the_identity_where_the_size_agrees():
    image = tf.constant(np.random.default_rng(0).random((7, 5, 3)), tf.float32)
    np.testing.assert_array_equal(resize(image, (7, 5)), image)


@pytest.mark.parametrize("size", [(14, 10), (3, 4), (28, 2)])
def test_fit_is_near_pillow_and_of_255ths(size):
    image = color(28, 20)
    result = resize(to_float(tf.constant(image)), size).numpy()
    expected = np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR))
    assert result.shape == (*size, 3)
    np.testing.assert_allclose(result * 255, expected, atol=2)
    np.testing.assert_array_equal(result, np.rint(result * 255).astype(np.float32) * STEP)


def test_graph_eager_and_batch_agree_bit_for_bit():
    image = color(28, 20)
    data = encoded(image)
    eager = resize(decode(data, 3), (9, 9)).numpy()
    graph = tf.function(lambda b: resize(decode(b, 3), (9, 9)))
    np.testing.assert_array_equal(graph(data), eager)
    batch = resize(to_float(tf.constant(np.stack([image] * 5))), (9, 9)).numpy()
    for one in batch:
        np.testing.assert_array_equal(one, eager)
    served = tf.function(
        lambda many: tf.map_fn(
            lambda b: resize(decode(b, 3), (9, 9)),
            many,
            fn_output_signature=tf.TensorSpec((9, 9, 3), tf.float32),
        ),
        input_signature=[tf.TensorSpec((None,), tf.string)],
    )
    np.testing.assert_array_equal(served(tf.constant([data, data]))[1], eager)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bits_become_the_nearest_of_8(channels):
    deep = np.random.default_rng(1).integers(0, 65536, (9, 7, channels)).astype(np.uint16)
    expected = np.rint(deep[..., : 3 if channels > 2 else 1] / 257.0)
    result = decode(tf.io.encode_png(deep), 3 if channels > 2 else 1)
    np.testing.assert_array_equal(result, expected.astype(np.float32) * STEP)


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_a_bmp_with_a_palette_has_its_colors(mode):
    data = encoded(color(9, 7), mode, "BMP")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_array_equal(decode(data, 3), expected.astype(np.float32) * STEP)


def bmp(bits, palette, index, *, core=False, from_top=False, compression=0):
    """A BMP as its definition has it."""
    height, width = index.shape
    per_byte = 8 // bits
    padded = np.zeros((height, -(-width * bits // 32) * 4 * per_byte), np.uint8)
    padded[:, :width] = index if from_top else index[::-1]
    rows = sum(padded[:, i::per_byte] << (bits * (per_byte - 1 - i)) for i in range(per_byte))
    entries = palette[:, ::-1] if core else np.c_[palette[:, ::-1], np.zeros(len(palette))]
    head = struct.pack("<IHHHH", 12, width, height, 1, bits)
    if not core:
        height = -height if from_top else height
        head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, *[0] * 5)
    body = entries.astype(np.uint8).tobytes()
    offset = 14 + len(head) + len(body)
    whole = offset + rows.size
    return b"BM" + struct.pack("<IHHI", whole, 0, 0, offset) + head + body + rows.tobytes()


@pytest.mark.parametrize("bits", [1, 4, 8])
@pytest.mark.parametrize("how", [{}, {"core": True}, {"from_top": True}])
def test_a_bmp_of_few_bits_in_every_layout(bits, how):
    rng = np.random.default_rng(bits)
    palette = rng.integers(0, 256, (2**bits, 3)).astype(np.uint8)
    index = rng.integers(0, 2**bits, (5, 11)).astype(np.uint8)
    result = decode(bmp(bits, palette, index, **how), 3)
    np.testing.assert_array_equal(result, palette[index].astype(np.float32) * STEP)


def test_a_bmp_that_is_not_read_says_why():
    index, palette = np.zeros((4, 4), np.uint8), np.zeros((256, 3), np.uint8)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must not be compressed"):
        decode(bmp(8, palette, index, compression=1), 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a cut BMP"):
        decode(bmp(8, palette, index)[:-1], 3)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P"])
def test_webp_is_read_as_png_is(mode):
    image = Image.fromarray(color(20, 30)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "WEBP", lossless=True, exact=True)
    expected = np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))
    np.testing.assert_array_equal(decode(stream.getvalue(), 3), expected.astype(np.float32) * STEP)
    assert images.FORMATS[-1] == ".webp"


def test_a_cmyk_jpeg_has_its_colors():
    smooth = np.dstack([np.add.outer(np.arange(40), np.arange(32)) * s for s in (1, 2, 3)])
    data = encoded(smooth.astype(np.uint8), "CMYK", "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    np.testing.assert_allclose(decode(data, 3) * 255, expected, atol=8)
    np.testing.assert_allclose(read(data, (40, 32, 3)), expected, atol=8)


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("TIFF", "a file of the kind TIFF, which is not read; PNG, JPEG"),
        ("JPEG2000", "a file of the kind JPEG 2000, which is not read"),
        ("PPM", "a file of the kind PNM"),
        ("PDF", "a file of the kind PDF"),
        ("PNG", "not an image that can be decoded"),
    ],
)
def test_what_is_not_read_is_named(kind, line):
    assert kind_of(encoded(color(16, 16), kind=kind)[:40]).startswith(line)
    assert "AVIF" in kind_of(b"\0\0\0\x1cftypavif\0\0")


def exif(tag=0x0112, kind=3, value=6, order="<", first=8, before=0):
    """What stands in EXIF's segment: a directory with some entries before that of the tag."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", first)
    entries = [struct.pack(order + "HHIHH", 0x010F, 3, 1, 7, 0)] * before
    number = struct.pack(order + "HH", value, 0) if kind == 3 else struct.pack(order + "I", value)
    entries.append(struct.pack(order + "HHI", tag, kind, 1) + number)
    body = struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return b"Exif\0\0" + head + bytes(max(first - 8, 0)) + body


def with_segments(jpeg, *segments):
    """A JPEG with further segments `(marker, content)` behind its first two bytes."""
    made = b"".join(
        b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content
        for marker, content in segments
    )
    return jpeg[:2] + made + jpeg[2:]


def photograph(number=0):
    return load_sample_images().images[number]


def jpeg_of(image, **settings):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", **settings)
    return stream.getvalue()


def upright(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_a_jpeg_is_turned_as_its_exif_says(value, order):
    plain = jpeg_of(photograph()[:90, :140], quality=95)
    data = with_segments(plain, (0xE1, exif(value=value, order=order, before=value % 3)))
    expected = upright(data)
    assert expected.shape[:2] == ((140, 90) if value > 4 else (90, 140))
    np.testing.assert_allclose(decode(data, 3) * 255, expected, atol=3)
    whole = read(data, expected.shape).numpy().astype(int)
    np.testing.assert_allclose(whole, expected, atol=3)
    assert orientation.of_header(Image.open(io.BytesIO(data))) == (*expected.shape[:2], False)


PLACES = {
    "after JFIF, an ICC profile, XMP and a comment": [
        (0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        (0xE2, b"ICC_PROFILE\0" + bytes(30_000)),
        (0xE1, b"http://ns.adobe.com/xap/1.0/\0"),
        (0xFE, b"a comment"),
        (0xE1, exif()),
    ],
    "as a long number": [(0xE1, exif(kind=4))],
    "as a long number, the highest byte first": [(0xE1, exif(kind=4, order=">"))],
    "behind other values": [(0xE1, exif(first=200, before=40))],
}
NOT_THERE = {
    "another tag": exif(tag=0x0113),
    "a value that is none": exif(value=9),
    "a type that is none": exif(kind=2),
    "a directory beyond the segment": exif()[:10] + struct.pack("<I", 60_000) + exif()[14:],
    "no order of bytes": exif().replace(b"II*", b"JJ*"),
    "a cut segment": exif()[:20],
    "nothing": b"",
}


@pytest.mark.parametrize("name", PLACES)
def test_an_orientation_is_read_wherever_it_stands(name):
    jpeg = jpeg_of(color(8, 16))
    assert orientation.of_jpeg(with_segments(jpeg, *PLACES[name])).numpy() == 6
    filled = with_segments(jpeg, *PLACES[name]).replace(b"\xff\xe1", b"\xff\xff\xff\xe1", 1)
    assert orientation.of_jpeg(filled).numpy() == 6


@pytest.mark.parametrize("name", NOT_THERE)
def test_other_exif_leaves_a_jpeg_as_it_is(name):
    data = with_segments(jpeg_of(color(8, 16)), (0xE1, NOT_THERE[name]))
    assert orientation.of_jpeg(data).numpy() == 1
    assert read(data, (8, 16, 3)).shape == (8, 16, 3)


def test_an_orientation_that_is_not_applied_is_noticed(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    for kind in ("PNG", "WEBP", "JPEG"):
        path = tmp_path / kind
        Image.fromarray(color(8, 16)).save(path, kind, exif=tags)
        with Image.open(path) as image:
            *size, unread = orientation.of_header(image)
        assert unread == (kind != "JPEG")
        assert size == ([16, 8] if kind == "JPEG" else [8, 16])
        assert decode(path.read_bytes(), 3).shape[:2] == tuple(size)


@pytest.mark.parametrize("fit", [Fit(), Fit("crop", 0.875), Fit("pad"), Fit("squash", 0.5)])
@pytest.mark.parametrize("turned", [1, 7])
def test_a_jpeg_is_read_within_1_of_all_its_pixels(fit, turned):
    data = jpeg_of(photograph(), quality=90)  # color at half the size
    data = data if turned == 1 else with_segments(data, (0xE1, exif(value=turned)))
    for size, channels in (((32, 32), 3), ((100, 60), 1), ((48, 90), 3), ((224, 224), 3)):
        expected = np.rint(resize(decode(data, channels), size, fit).numpy() * 255)
        result = read(data, (*size, channels), fit).numpy()
        assert np.abs(result - expected).max() <= 1, size
        if turned == 1:
            np.testing.assert_array_equal(read(data, (*size, channels), fit, plain=True), result)


def test_which_files_need_no_conditions(tmp_path):
    jpeg = jpeg_of(color(8, 16))
    bare = jpeg[:2] + jpeg[20:]  # without JFIF's segment
    for data, plain in (
        (jpeg, True),
        (bare, True),
        (with_segments(jpeg, (0xE1, exif())), False),
        (with_segments(bare, (0xE1, exif())), False),
        (jpeg[:10], False),
        (encoded(color()), False),
        (b"", False),
    ):
        (tmp_path / "file").write_bytes(data)
        assert images.is_plain(tmp_path / "file") is plain
        assert bool(orientation.is_plain_jpeg(data)) is plain
    assert not images.is_plain(tmp_path / "none")


def test_what_is_no_jpeg_is_read_as_it_was_bit_for_bit():
    image = color(28, 20)
    for size in ((9, 9), (28, 20), (40, 13)):
        old = tf.image.resize(to_float(tf.constant(image)), size, "bilinear", antialias=True)
        old = tf.round(tf.clip_by_value(old, 0.0, 1.0) * 255.0) * STEP
        result = read(encoded(image), (*size, 3))
        assert result.dtype == tf.uint8
        np.testing.assert_array_equal(to_float(result), old)
        np.testing.assert_array_equal(resize(to_float(tf.constant(image)), size), old)


def test_crop_and_pad_keep_the_proportions():
    image = np.zeros((40, 80, 3), np.uint8)
    image[:, 20:60] = 200
    image = to_float(tf.constant(image))
    cropped = resize(image, (10, 10), Fit("crop")).numpy() * 255
    np.testing.assert_allclose(cropped[:, 1:-1], 200, atol=1e-3)
    inner = resize(image, (10, 10), Fit("crop", 0.5)).numpy() * 255
    np.testing.assert_allclose(inner, 200, atol=1e-3)
    padded = resize(image, (40, 40), Fit("pad")).numpy() * 255
    assert (padded[:10] == 0).all() and (padded[30:] == 0).all()
    np.testing.assert_allclose(padded[10:30, 11:29], 200, atol=1e-3)
    squashed = resize(image, (40, 40), Fit("squash", 0.5)).numpy() * 255
    np.testing.assert_allclose(squashed, 200, atol=1e-3)


def test_crop_fraction_is_the_evaluation_crop_of_imagenet():
    """The shorter side at size / fraction, then the center."""
    image = photograph()[:420, :640]
    small = Image.fromarray(image).resize((96 * 640 // 420, 96), Image.Resampling.BILINEAR)
    left = (small.width - 84) / 2
    expected = np.asarray(small.crop((left, 6, left + 84, 90)), np.float32)
    result = resize(to_float(tf.constant(image)), (84, 84), Fit("crop", 0.875)).numpy() * 255
    assert np.abs(result - expected).mean() < 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_damaged_bytes_are_an_error_or_a_picture(kind):
    image = Image.fromarray(color(40, 30))
    image = image.quantize(16) if kind == "BMP" else image
    tags = Image.Exif()
    tags[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, kind, **({"exif": tags} if kind in ("JPEG", "PNG") else {}))
    good = np.frombuffer(stream.getvalue(), np.uint8)
    rng = np.random.default_rng(0)
    graph = tf.function(
        lambda data: read(data, (9, 9, 3)), input_signature=[tf.TensorSpec((), tf.string)]
    )
    results = []
    for number in range(50):
        data = good.copy()
        top = len(data) if number % 2 else 120  # every other one in its headers
        data[rng.integers(0, top, 1 + number % 4)] ^= rng.integers(1, 256, dtype=np.uint8)
        data = data[: rng.integers(0, len(data))] if number % 5 == 0 else data
        try:
            with bounded():
                results.append(graph(data.tobytes()).shape == (9, 9, 3))
        except tf.errors.InvalidArgumentError:
            results.append(False)
    assert len(results) == 50 and not all(results)
    assert graph(good.tobytes()).shape == (9, 9, 3)


def test_a_folder_holds_upright_images_and_says_which_are_not(tmp_path):
    image, tags = color(8, 16), Image.Exif()
    tags[0x0112] = 6
    for number in range(6):
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "two").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "one" / f"{number}.jpg", exif=tags)
        Image.fromarray(image).transpose(Image.Transpose.ROTATE_90).save(
            tmp_path / "two" / f"{number}.webp", lossless=True, **({"exif": tags} if number else {})
        )
    source = open_source(f"folder:{tmp_path}")
    assert source.info.image_shape == (16, 8, 3)  # no --image-size is needed: all stand upright
    assert source.notes[0].startswith("5 images have an orientation that is not applied")
    assert source.notes[0].endswith("1.webp")


@pytest.mark.parametrize("on_demand", [False, True])
def test_a_folder_is_resized_as_the_settings_say(tmp_path, monkeypatch, on_demand):
    monkeypatch.setattr(folder, "MEMORY_BYTES", 0 if on_demand else 1 << 20)
    (tmp_path / "one").mkdir()
    for number in range(10):
        Image.fromarray(color(20 + number, 30)).save(tmp_path / "one" / f"{number}.png")
    fit = Fit("crop", 0.5)
    source = open_source(f"folder:{tmp_path}", image_size=(8,), fit=fit)
    seen = [split.read(range(len(split)))["image"] for split in (source.train, source.test)]
    expected = {
        read(path.read_bytes(), (8, 8, 3), fit).numpy().tobytes()
        for path in (tmp_path / "one").iterdir()
    }
    assert {image.tobytes() for part in seen for image in part} < expected
    assert len(expected) == 10


def test_arrays_are_resized_as_the_settings_say_and_made_ones_refuse(tmp_path):
    x, y = np.stack([color(20, 30)] * 10), np.arange(10) % 2
    np.savez(tmp_path / "a.npz", image=x, label=y)
    fit = Fit("crop", 0.5)
    for size, shape in (((8,), (8, 8)), ((), (20, 30))):
        source = open_source(f"npz:{tmp_path / 'a.npz'}", image_size=size, fit=fit)
        expected = resize(to_float(tf.constant(x[0])), shape, fit)
        np.testing.assert_array_equal(
            to_float(tf.constant(source.train.arrays["image"][0])), expected
        )
    for name in ("scenes", "synthetic"):
        with pytest.raises(ValueError, match="--resize and --crop-fraction apply to stored images"):
            open_source(name, fit=fit)
