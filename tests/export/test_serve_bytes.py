"""The SavedModel answers to encoded images as the model does to their pixels."""

import dataclasses
import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_images

from kerasdl.bench import native
from kerasdl.data import images
from kerasdl.data.splits import FileSplit
from kerasdl.inference import predict
from kerasdl.inference.signatures import functions
from kerasdl.recipe import Recipe
from tests.variants import task_of


@pytest.fixture(scope="module")
def signatures(exported):
    loaded = tf.saved_model.load(exported["folder"])
    return loaded, loaded.signatures  # a signature dies with what it was loaded from


KINDS = "gray gray_alpha color rgba larger smaller jpeg gray_jpeg".split()


@pytest.mark.parametrize("kind", KINDS)
def test_equals_decode_and_fit(kind, signatures, parts, pictures):
    outputs = signatures[1]["serve_bytes"](image_bytes=tf.constant([pictures[kind]]))
    image = images.to_float(images.read(pictures[kind], (8, 8, 1)))[None]
    expected = parts.task.predict(parts.model, {"image": image})
    for name in ("logits", "probabilities"):
        np.testing.assert_allclose(outputs[name], expected[name], rtol=1e-5, atol=1e-5)
    label = int(expected["label"][0])
    assert outputs["label"].numpy() == [label]
    assert outputs["class_name"].numpy() == [parts.info.class_names[label].encode()]


def test_a_batch_of_all_kinds_equals_them_one_by_one(signatures, pictures):
    serve = signatures[1]["serve_bytes"]
    together = serve(image_bytes=tf.constant(list(pictures.values())))["logits"]
    alone = [serve(image_bytes=tf.constant([p]))["logits"][0] for p in pictures.values()]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("content", [b"no image", b"", b"\x89PNG\r\n\x1a\n"])
def test_undecodable_bytes_are_refused_and_the_next_request_answered(content, signatures, pictures):
    serve = signatures[1]["serve_bytes"]
    before = serve(image_bytes=tf.constant([pictures["rgba"]]))["logits"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        serve(image_bytes=tf.constant([pictures["rgba"], content]))
    after = serve(image_bytes=tf.constant([pictures["rgba"]]))["logits"]
    np.testing.assert_array_equal(before, after)


def test_a_server_goes_on_after_bytes_that_are_no_image(exported, pictures, replay, tmp_path):
    good, bad = [{"image_bytes": np.array([b], object)} for b in (pictures["jpeg"], b"no image")]
    requested = [("serve_bytes", inputs) for inputs in (good, bad, good)]
    before, refused, after = native.replay(replay, exported["folder"], requested, tmp_path)
    assert "Unknown image file format" in refused
    np.testing.assert_array_equal(before["logits"], after["logits"])


def turned(value, kind="JPEG"):
    """A photograph with an orientation in its EXIF."""
    tags, stream = Image.Exif(), io.BytesIO()
    tags[0x0112] = value
    image = Image.fromarray(load_sample_images().images[0][:300, :200])
    image.save(stream, kind, exif=tags, quality=95)
    return stream.getvalue()


def test_a_saved_model_turns_a_jpeg_as_its_exif_says(signatures, parts):
    contents = [turned(value) for value in range(1, 9)]
    answers = signatures[1]["serve_bytes"](image_bytes=tf.constant(contents))["logits"].numpy()
    for content, answer in zip(contents, answers, strict=True):
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("L")
        image = np.asarray(image, np.float32)[None, :, :, None] / 255
        image = tf.image.resize(image, (8, 8), antialias=True)
        expected = parts.task.predict(parts.model, {"image": image})["logits"][0]
        np.testing.assert_allclose(answer, expected, atol=0.15)
    assert np.abs(answers[:1] - answers[1:]).max(axis=1).min() > 0.3


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(resize="crop", crop_fraction=0.8)])
def test_it_sees_the_pixels_that_training_and_predict_see(parts, recipe, tmp_path):
    """Bit for bit, at the size that `--resize` and `--crop-fraction` say."""
    task = type(parts.task)(parts.info, dataclasses.replace(recipe, model="resnet20"))
    path = tmp_path / "a.jpg"
    path.write_bytes(turned(6))
    fit = images.Fit.from_recipe(recipe)
    seen = FileSplit([str(path)], None, (8, 8, 1), fit).read([0])["image"]

    def model(image, training=False):
        return tf.reshape(image, (-1, 64))[:, 20:30]

    function, specs = functions(task, model, "savedmodel")["serve_bytes"]
    served = tf.function(function, input_signature=specs, autograph=False)
    logits = served(tf.constant([path.read_bytes()]))["logits"]
    seen = images.to_float(tf.constant(seen)).numpy()
    np.testing.assert_array_equal(logits, seen.reshape(1, 64)[:, 20:30])
    picture = predict.decoded(path, path.read_bytes(), (8, 8, 1), fit)
    np.testing.assert_array_equal(picture, seen[0])


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (Recipe(), (0.25, 0.25, 0.75, 0.5)),
        (Recipe(resize="crop"), (0.25, 0.3125, 0.75, 0.5)),
        (Recipe(resize="crop", crop_fraction=0.5), (0.375, 0.40625, 0.625, 0.5)),
        (Recipe(resize="pad"), (1 / 6, 0.25, 5 / 6, 0.5)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "turned"])
def test_boxes_are_those_of_the_whole_picture(recipe, expected, kind):
    """A box in the model's image of 16 x 24, of a picture of 20 x 40."""
    stream, tags = io.BytesIO(), Image.Exif()
    if kind == "turned":
        tags[0x0112] = 6
    size = (20, 40) if kind == "turned" else (40, 20)
    Image.new("RGB", size).save(stream, "PNG" if kind == "PNG" else "JPEG", exif=tags)
    task = task_of("yolo_v1_small")
    task = type(task)(task.info, dataclasses.replace(recipe, model="yolo_v1_small"))

    class Model:
        def __call__(self, image, training=False):
            return tf.zeros(tf.shape(image)[0])

        def candidates(self, predictions):
            boxes = tf.constant([[[0.25, 0.25, 0.75, 0.5]]]) + predictions[:, None, None]
            return boxes, tf.one_hot([[2]], 5) + predictions[:, None, None]

    function, specs = functions(task, Model(), "savedmodel")["serve_bytes"]
    served = tf.function(function, input_signature=specs, autograph=False)
    outputs = served(tf.constant([stream.getvalue()] * 2))
    for boxes, number in zip(outputs["boxes"].numpy(), outputs["num"].numpy(), strict=True):
        assert number == 1 and not boxes[1:].any()
        np.testing.assert_allclose(boxes[0], expected, atol=1e-6)
