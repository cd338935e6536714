"""Images told by the likeliest of some texts, by `predict` and by each kind of file."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.columns import Column, DataInfo
from kerasdl.data.text.captions import caption_ids
from kerasdl.data.text.tokenizer import Tokenizer
from kerasdl.errors import UserError
from kerasdl.export import exporter
from kerasdl.inference import candidates, interface, signatures
from kerasdl.inference.predict import line, predict
from kerasdl.models.multimodal.clip import TINY, clip_small
from kerasdl.recipe import Recipe
from kerasdl.store import load
from kerasdl.tasks.contrast_texts import ContrastTexts
from tests.variants import letters

TEXTS = ["a", "bcd", "ia"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, its task, its `.keras` file, and images in files."""
    folder, sizes = tmp_path_factory.mktemp("candidates"), TINY["clip_small"]
    columns = {
        "image": Column("image", sizes["image_shape"]),
        "caption_ids": Column("tokens", ("N",), tokenizer="text", max_length=sizes["max_length"]),
    }
    info = DataInfo(columns, {"text": letters(sizes["vocab_size"])})
    recipe = Recipe(model="clip_small")
    task = ContrastTexts(info, recipe)
    model = clip_small(**{**sizes, **task.arguments()})
    model.logit_scale.assign(1.0)
    path = folder / "model.keras"
    exporter.save_keras(model, load.Metadata("clip_small", info, recipe), path)
    rng, files, pixels = np.random.default_rng(0), [], []
    for number in range(2):
        image = rng.integers(0, 256, sizes["image_shape"], dtype=np.uint8)
        files.append(str(folder / f"{number}.png"))
        tf.io.write_file(files[-1], tf.io.encode_png(image))
        pixels.append(image[None].astype("float32") / 255)
    return SimpleNamespace(model=model, task=task, path=path, files=files, pixels=pixels)


def expected(made, image):
    tokenizer = Tokenizer.from_json(made.task.info.tokenizer)
    texts = made.model.encode_text(caption_ids(tokenizer, {"": TEXTS})[""])
    scores = made.model.logits(made.model.encode_image(image), texts)
    return np.asarray(tf.nn.softmax(scores))[0]


def test_predict_ranks_the_texts_for_each_image(made):
    results = predict(made.path, [made.files[0], *TEXTS, made.files[1]])
    assert [one["file"] for one in results] == made.files
    for one, image in zip(results, made.pixels, strict=True):
        right = expected(made, image)
        assert one["class_name"] == TEXTS[right.argmax()]
        assert one["probability"] == pytest.approx(right.max(), rel=1e-4)
        assert [n["class_name"] for n in one["top5"]] == [TEXTS[i] for i in np.argsort(-right)]
        assert line(one).startswith(f"{one['file']}: {one['class_name']} 0.")


def test_either_alone_is_embedded(made):
    (image,) = predict(made.path, made.files[:1])
    right = made.model.encode_image(made.pixels[0])[0]
    np.testing.assert_allclose(image["image_embeds"], right, rtol=1e-4, atol=1e-5)
    (text,) = predict(made.path, ["bcd"])
    np.testing.assert_allclose(np.linalg.norm(text["text_embeds"]), 1.0, rtol=1e-5)
    json.dumps([image, text])


def test_what_it_does_not_take(made):
    for texts, message in (
        (["a", "abcabca"], "text 2: candidates: a text has more than 6 tokens"),
        (["a", ""], "text 2: candidates: a text is empty"),
    ):
        with pytest.raises(UserError, match=message):
            predict(made.path, [made.files[0], *texts])
    with pytest.raises(UserError, match="makes a class, not a picture"):
        predict(made.path, [made.files[0], "a"], output="a.png")
    with pytest.raises(UserError, match="--temperature does not apply to clip_small"):
        predict(made.path, [made.files[0], "a"], {"temperature": 1.0})


def test_a_file_of_a_fixed_number_of_texts_takes_fewer(made):
    served = signatures.functions(made.task, made.model, "tflite")
    function, specs = served["classify"]
    assert [spec.shape.as_list() for spec in specs] == [[1, 8, 12, 1], [1, 10, 8]]

    def answer(name, inputs):
        tensors = [tf.constant(inputs[spec.name], spec.dtype) for spec in specs]
        return {k: v.numpy() for k, v in function(*tensors).items()}

    lite = SimpleNamespace(
        interface=interface.of_model(made.task, made.model, "tflite"), answer=answer
    )
    answers = candidates.choose(lite, made.pixels, TEXTS)
    for found, image in zip(answers, made.pixels, strict=True):
        np.testing.assert_allclose(found, expected(made, image), rtol=1e-4)
    with pytest.raises(UserError, match="11 texts: this file takes at most 10"):
        candidates.choose(lite, made.pixels, ["a"] * 11)
    with pytest.raises(UserError, match="at most 8 tokens"):
        candidates.choose(lite, made.pixels, ["abcabca"])


def test_a_server_checks_its_texts(made):
    tokenizer = signatures.tokenizer_of(made.task)
    served = signatures.functions(made.task, made.model, "savedmodel", tokenizer)
    function, specs = served["classify"]
    assert [spec.name for spec in specs] == ["image", "candidates"]
    call = tf.function(function, input_signature=specs)
    image = tf.constant(np.concatenate(made.pixels))
    found = call(image, tf.constant(TEXTS))["probabilities"]
    right = np.stack([expected(made, one) for one in made.pixels])
    np.testing.assert_allclose(found, right, rtol=1e-4)
    for texts, message in (
        (["a", ""], "a text is empty"),
        (["abcabca"], "more than 6 tokens"),
        (np.zeros(0, "S1"), "at least 1 and at most"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=message):
            call(image, tf.constant(texts, tf.string))
