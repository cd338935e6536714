"""Exported models that draw: their signatures, what they refuse, that they repeat themselves."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog
from kerasdl.export import exporter
from kerasdl.inference import sampling
from kerasdl.inference.runtimes import SavedModel, TFLite
from kerasdl.ops import noise
from tests.export.examples import make_parts, quiet

NAMES = {
    "vae": {"reconstruct", "encode", "decode", "sample", "serve_bytes", "serving_default"},
    "dcgan": {"generate", "discriminate", "sample", "serve_bytes", "serving_default"},
    "ddpm_unet_small": {"denoise", "sample_from", "sample", "serving_default"},
}
LITE = {
    "vae": {"reconstruct", "encode", "decode"},
    "dcgan": {"generate", "discriminate"},
    "ddpm_unet_small": {"denoise", "sample_from"},
}
IMAGE = {"shape": [None, 8, 8, 1], "dtype": "float32"}
STEPS = 5


@pytest.fixture(scope="module", params=NAMES)
def sampled(request, tmp_path_factory):
    """Name, parts, and card of an exported model whose weights are away from their start."""
    name = request.param
    settings = {"task_kwargs": {"steps": STEPS}} if name.startswith("ddpm") else {}
    parts = make_parts(name, **settings, **catalog.module_of(name).TINY[name])
    rng = np.random.default_rng(0)
    for weight in parts.model.trainable_variables:
        weight.assign(weight + 0.05 * rng.standard_normal(weight.shape))
    card = exporter.export(parts, ("tflite",), tmp_path_factory.mktemp("sampled"), None, quiet)
    return name, parts, card


def request_of(name, num, seed, **changes):
    """What `sample` of a model is asked."""
    result = {"num": np.int32(num), "seed": np.array(seed, "int32")}
    if name == "ddpm_unet_small":
        result |= {"label": np.arange(num, dtype="int32") % 10, "guidance": np.float32(2)}
    return result | changes


@pytest.mark.slow
def test_names_are_exact(sampled):
    name, _, card = sampled
    assert set(card["signatures"]) == NAMES[name]
    lite = TFLite(Path(card["folder"]) / "tflite" / "float32.tflite")
    assert set(lite.signatures) == LITE[name]
    result = card["signatures"]["sample"]
    assert result["inputs"] == {
        k: {"shape": [None] if k == "label" else list(v.shape), "dtype": v.dtype.name}
        for k, v in request_of(name, 3, (0, 0)).items()
    }
    image = {**IMAGE, "shape": [None, *card["data"]["columns"]["image"]["shape"]]}
    assert result["outputs"] == {"image": image}


# Draws in a process that has neither Keras nor kerasdl, and writes what it drew.
SERVER = """
import sys
for name in ("keras", "tf_keras", "kerasdl"): sys.modules[name] = None
import numpy as np, tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
given = {k: tf.constant(v) for k, v in np.load(sys.argv[2]).items()}
np.save(sys.argv[3], loaded.signatures["sample"](**given)["image"].numpy())
"""


@pytest.mark.slow
def test_the_same_request_has_the_same_answer_on_every_load(sampled, tmp_path):
    name, parts, card = sampled
    requested = request_of(name, 5, (3, -4))
    np.savez(tmp_path / "asked.npz", **requested)
    (tmp_path / "serve.py").write_text(SERVER)
    done = subprocess.run(
        [sys.executable, "serve.py", card["folder"], "asked.npz", "found.npy"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    elsewhere = np.load(tmp_path / "found.npy")
    here = SavedModel(card["folder"]).answer("sample", requested)["image"]
    np.testing.assert_array_equal(here, elsewhere)
    assert here.min() >= 0 and here.max() <= 1 and here.std() > 1e-3
    conditions = {k: requested[k] for k in ("label", "guidance") if k in requested}
    conditions = {k: float(v) if k == "guidance" else v for k, v in conditions.items()}
    python = parts.task.sample(parts.model, noise.sample_keys(requested["seed"], 5), **conditions)
    np.testing.assert_allclose(here, python, atol=1e-4)
    other = SavedModel(card["folder"]).answer("sample", request_of(name, 5, (3, 4)))["image"]
    assert np.abs(other - here).max() > 1e-3
    fewer = SavedModel(card["folder"]).answer("sample", request_of(name, 2, (3, -4)))["image"]
    np.testing.assert_allclose(fewer, here[:2], atol=1e-5)  # the first of more are the same


@pytest.mark.slow
def test_what_a_request_may_not_be(sampled):
    name, _, card = sampled
    saved = SavedModel(card["folder"])
    wrong = {
        "num must be at least 1 and at most 1024": [
            request_of(name, 0, (0, 0)),
            request_of(name, 1025, (0, 0)),
        ]
    }
    if name == "ddpm_unet_small":
        label = np.array([0, 10], "int32")
        wrong["labels must be at least 0 and at most 9"] = [
            request_of(name, 2, (0, 0), label=label)
        ]
        wrong["label must have num entries"] = [request_of(name, 3, (0, 0), label=label - 1)]
        wrong["guidance must be 0 or more"] = [request_of(name, 1, (0, 0), guidance=np.float32(-1))]
    for message, requests in wrong.items():
        for requested in requests:
            with pytest.raises(tf.errors.InvalidArgumentError, match=message):
                saved.answer("sample", requested)


@pytest.mark.slow
def test_predict_samples_what_the_signature_samples(sampled, tmp_path):
    name, _, card = sampled
    folder = card["folder"]
    images = sampling.sample_images(folder, {"num": 3, "seed": 7})
    requested = request_of(name, 3, (0, 7))
    np.testing.assert_array_equal(images, SavedModel(folder).answer("sample", requested)["image"])
    kept = sampling.sample_images(
        Path(folder) / "assets.extra" / "model.keras", {"num": 3, "seed": 7}
    )
    np.testing.assert_allclose(kept, images, atol=1e-4)
    file = sampling.write_images(folder, tmp_path / "a.png", {"num": 3})
    assert tf.io.decode_png(file.read_bytes()).shape[-1] == 3
    wrong = {
        "--num 0: must be at least 1 and at most 1024": {"num": 0},
        "--seed -1": {"seed": -1},
    }
    if name == "ddpm_unet_small":
        wrong["--label ten: not one of 0, 1"] = {"label": "ten"}
        wrong["--guidance -1.0"] = {"guidance": -1.0}
    else:
        wrong["--label 1 needs a conditional model"] = {"label": "1"}
        wrong["--guidance 2.0 cannot be used: .* is unconditional"] = {"guidance": 2.0}
    for message, settings in wrong.items():
        with pytest.raises(ValueError, match=message):
            sampling.sample_images(folder, settings)
    with pytest.raises(ValueError, match="there is no folder"):
        sampling.write_images(folder, tmp_path / "no" / "a.png")


@pytest.mark.slow
def test_a_tflite_file_samples_the_same_images(sampled):
    name, _, card = sampled
    folder = Path(card["folder"])
    settings = {"num": 5, "seed": 2**32 - 1}
    if name == "ddpm_unet_small":
        settings |= {"label": card["data"]["columns"]["label"]["class_names"][3], "guidance": 1.5}
    expected = sampling.sample_images(folder, settings)
    result = sampling.sample_images(folder / "tflite" / "float32.tflite", settings)
    np.testing.assert_allclose(result, expected, atol=1e-4)
    assert np.std(expected, axis=0).max() > 1e-3
    if "sample_from" in LITE[name]:
        with pytest.raises(ValueError, match="this file of .* has no signature sample_from"):
            sampling.sample_images(folder / "tflite" / "int8.tflite")


@pytest.mark.slow
def test_published_samplers_are_served(tmp_path):
    """Heun's method along an exploding variance, by the SavedModel and by TFLite."""
    settings = {"sampler": "heun", "karras": True, "spacing": "leading", "steps_offset": 1}
    settings |= {"schedule": "scaled_linear", "first_time": 0, "steps": STEPS}
    name = "ddpm_unet_small"
    parts = make_parts(name, task_kwargs=settings, **catalog.module_of(name).TINY[name])
    rng = np.random.default_rng(0)
    for weight in parts.model.trainable_variables:
        weight.assign(weight + 0.05 * rng.standard_normal(weight.shape))
    signatures = ("denoise", "sample", "sample_from")
    card = exporter.export(parts, ("tflite",), tmp_path, None, quiet, (), signatures)
    requested = request_of(name, 3, (0, 7))
    here = SavedModel(card["folder"]).answer("sample", requested)["image"]
    key = noise.sample_keys(requested["seed"], 3)
    expected = parts.task.sample(parts.model, key, requested["label"], 2.0)
    np.testing.assert_allclose(here, expected, atol=1e-4)
    assert here.std() > 0.05
    file = Path(card["folder"]) / "tflite" / "float32.tflite"
    drawn = sampling.sample_images(file, {"num": 2, "seed": 7, "label": "0", "guidance": 2.0})
    np.testing.assert_allclose(drawn[0], here[0], atol=1e-3)


def test_a_classifier_samples_nothing(exported):
    for file in ("", "tflite/float32.tflite"):
        with pytest.raises(ValueError, match="resnet20 samples no images"):
            sampling.sample_images(Path(exported["folder"]) / file)
