"""Signatures follow from the kinds of inputs and outputs, and so does asking them."""

import json
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pycocotools.mask import decode

from kerasdl import cli
from kerasdl.data import images
from kerasdl.inference import predict
from tests.export import made_up

TEXT = "what is this?"


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Task, model, and folder of a model of images and texts."""
    task = made_up.AnswerQuestions()
    model = made_up.Answers(task.tokenizer.vocab_size)
    return task, model, made_up.write(task, model, tmp_path_factory.mktemp("answers") / "1")


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Folders of models that give boxes, masks, and boxes with masks."""
    folders = {}
    for name in ("boxes", "masks", "instances"):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)], name=name)
        folders[name] = made_up.write(
            made_up.FindThings(), model, tmp_path_factory.mktemp(name) / "1"
        )
    return folders


@pytest.fixture
def picture(tmp_path):
    """A file of the size that the models take: its upper half is black, the rest white."""
    pixels = np.zeros((*made_up.SHAPE[:2], 3), np.uint8)
    pixels[3:] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    return tmp_path / "half.png"


def expected(answers, pixels, text=TEXT):
    """What the model itself says: probabilities of the answers."""
    task, model, _ = answers
    (ids,) = task.tokenizer.encode([text])
    logits = model({"image": tf.constant(pixels)[None], "token_ids": tf.constant(ids)[None]})
    return keras.ops.softmax(logits)[0].numpy()


def test_names_follow_from_the_kinds(answers, things):
    served = tf.saved_model.load(str(answers[2])).signatures
    names = {k: set(v.structured_input_signature[1]) for k, v in served.items()}
    assert names == {"serving_default": {"image", "text"}, "serve_bytes": {"image_bytes", "text"}}
    assert set(served["serve_bytes"].structured_outputs) == {
        "label",
        "probabilities",
        "class_name",
    }
    served = tf.saved_model.load(str(things["boxes"])).signatures
    assert set(served["serve_bytes"].structured_outputs) == {
        "boxes",
        "labels",
        "scores",
        "class_name",
    }


# Asks both signatures in a process that has neither Keras nor kerasdl.
SERVER = """
import sys
for name in ("keras", "tf_keras", "kerasdl"): sys.modules[name] = None
import json, numpy as np, tensorflow as tf
served = tf.saved_model.load(sys.argv[1]).signatures
content = open(sys.argv[2], "rb").read()
pixels = tf.cast(tf.io.decode_png(content), tf.float32)[None] / 255
text = tf.constant([sys.argv[3]])
a = served["serving_default"](image=pixels, text=text)
b = served["serve_bytes"](image_bytes=tf.constant([content]), text=text)
try:
    served["serve_bytes"](image_bytes=tf.constant([content]), text=tf.constant([""]))
except tf.errors.InvalidArgumentError as error:
    refused = str(error)
print(json.dumps([{k: v.numpy().tolist() if v.dtype != tf.string else v.numpy()[0].decode()
                   for k, v in x.items()} for x in (a, b)] + [refused]))
"""


def test_an_image_and_a_text_are_asked_without_keras(answers, picture, tmp_path):
    (tmp_path / "serve.py").write_text(SERVER)
    command = [sys.executable, "serve.py", str(answers[2]), str(picture), TEXT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    *both, refused = json.loads(done.stdout)
    right = expected(answers, images.decode(picture.read_bytes(), 3))
    for result in both:
        np.testing.assert_allclose(result["probabilities"][0], right, atol=1e-6)
        assert result["class_name"] == made_up.ANSWERS[int(np.argmax(right))]
        assert result["label"] == [int(np.argmax(right))]
    assert "text is empty" in refused


def test_predict_takes_an_image_and_a_text(answers, picture, capsys):
    folder, argv = str(answers[2]), [str(picture), TEXT]
    right = expected(answers, images.decode(picture.read_bytes(), 3))
    (result,) = predict.predict(folder, argv)
    assert (result["file"], result["text"]) == (str(picture), TEXT)
    assert result["class_name"] == made_up.ANSWERS[int(np.argmax(right))]
    assert result["probability"] == pytest.approx(right.max(), abs=1e-6)
    assert cli.main(["predict", "--saved-model", folder, *argv]) == 0
    line = f"{picture}: {TEXT}: {result['class_name']} {right.max():.4f}\n"
    assert capsys.readouterr().out == line


def test_one_text_goes_with_every_image(answers, picture):
    other = picture.with_name("other.png")
    Image.new("RGB", (9, 9), "red").save(other)
    result = predict.predict(answers[2], [picture, TEXT, other])
    assert [one["file"] for one in result] == [str(picture), str(other)]
    assert {one["text"] for one in result} == {TEXT}
    apart = predict.predict(answers[2], [other, TEXT])
    assert apart[0]["probability"] == pytest.approx(result[1]["probability"])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["half.png"], "answers takes an image file and a text, not only an image file"),
        ([TEXT], "answers takes an image file and a text, not only a text"),
        (["half.png", ""], "text 1: text is empty"),
        (["half.png", "what is this? is this what"], "text 1: text has over 20 tokens"),
        (["gone.png", TEXT], "gone.png cannot be read"),
        (["half.png", "half.png", TEXT, TEXT, TEXT], "2 files and 3 texts: give equal numbers"),
        (["half.png", TEXT, "--output", "out.png"], "answers makes a class, not a picture"),
        (["half.png", TEXT, "--top-k", "3"], "--top-k does not apply to answers"),
    ],
)
def test_what_it_does_not_take_is_one_line(answers, picture, given, line, monkeypatch, capsys):
    monkeypatch.chdir(picture.parent)
    assert cli.main(["predict", "--saved-model", str(answers[2]), *given]) == 2
    error = capsys.readouterr().err
    assert line in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_mask_is_said_and_drawn(things, picture, tmp_path, capsys):
    (result,) = predict.predict(things["masks"], [picture])
    assert result == {"file": str(picture), "mask": {"background": 0.5, "dark": 0.5}}
    out = str(tmp_path / "out.png")
    argv = ["predict", "--saved-model", str(things["masks"]), str(picture), "--output", out]
    assert cli.main(argv) == 0
    said = capsys.readouterr().out
    assert said == f"{picture}: background 0.5000, dark 0.5000\n{out}\n"
    with Image.open(out) as painted:
        pixels = np.asarray(painted)
    assert len(np.unique(pixels[8:16, 8:16].reshape(-1, 3), axis=0)) == 1
    assert pixels[8, 8].max() > 100 and pixels[-8, 8].min() == 255  # colored above, as it was below


def test_boxes_are_listed_and_drawn(things, picture, tmp_path, capsys):
    (result,) = predict.predict(things["boxes"], [picture], output=tmp_path / "out.png")
    assert [one["class_name"] for one in result["objects"]] == ["upper", "lower"]  # none is absent
    assert result["objects"][1]["box"] == [0.5, 0, 1, 1]
    assert result["objects"][0]["score"] == pytest.approx(0)
    with Image.open(tmp_path / "out.png") as painted:
        pixels = np.asarray(painted).astype(int)
    assert np.ptp(pixels[1:-1, 1:-1], axis=-1).max() > 50  # gray before, with colored lines now
    assert cli.main(["predict", "--saved-model", str(things["boxes"]), str(picture)]) == 0
    line = capsys.readouterr().out
    assert re.search(r": upper 0\.0000 at 0\.000 0\.000 0\.500 1\.000; lower 0\.0000 at", line)


def test_masks_of_objects_are_given_and_drawn(things, picture, tmp_path):
    (result,) = predict.predict(things["instances"], [picture], output=tmp_path / "out.png")
    assert json.loads(json.dumps(result)) == result
    height, width = made_up.SHAPE[:2]
    for i, one in enumerate(result["objects"]):
        expected = np.zeros((height, width), np.uint8)
        expected[i * height // 2 : (i + 1) * height // 2] = 1
        np.testing.assert_array_equal(decode(one["mask"]), expected)
    assert len(result["objects"]) == 2
    with Image.open(tmp_path / "out.png") as painted:
        pixels = np.asarray(painted).astype(int)
    scale = len(pixels) // height
    upper, lower = (pixels[1 + scale * y, 1 + scale * (width // 2)] for y in (1, height - 2))
    assert np.ptp(upper) > 50 and np.ptp(lower) > 50  # gray before, inside of the outlines
    plain = predict.predict(things["boxes"], [picture])
    assert not any("mask" in one for one in plain[0]["objects"])
