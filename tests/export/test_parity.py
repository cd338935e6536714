"""The comparison itself: its arithmetic, its limits, and that it runs without Keras."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.export import exporter
from kerasdl.inference import proof
from kerasdl.metrics import exported
from kerasdl.recipe import Recipe
from kerasdl.tasks.classify import Classify


def test_difference():
    assert proof.difference([1.0, 2.0], [1.0, 3.0]) == pytest.approx(1 / 4)
    assert proof.difference([1.0], [[1.0]]) == np.inf
    assert proof.difference([np.nan], [1.0]) == np.inf


def test_agreement():
    assert proof.agreement(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.75
    names = np.array(["é".encode(), b"b"], object)
    assert proof.agreement(names, np.array(["é".encode(), b"b"])) == 1
    assert proof.agreement(np.array([1]), np.array([1, 2])) == 0


@pytest.mark.parametrize("loss", ["cross_entropy", "hinge"])
def test_figures_are_those_of_training(loss):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 7)).round(1).astype("float32")  # with ties
    label = rng.integers(0, 7, 50)
    task = Classify(
        DataInfo.of_images((2, 2, 1), "abcdefg"), Recipe(loss=loss, label_smoothing=0.1)
    )
    batch = {"image": keras.ops.convert_to_tensor(logits), "label": label}
    losses, metrics = task.losses(lambda x, training: x, batch)
    result = exported.metrics(logits, label, loss)
    assert result["loss"] == pytest.approx(float(keras.ops.mean(losses)), rel=1e-5)
    for name in ("top1", "top5"):
        assert result[name] == pytest.approx(float(keras.ops.mean(metrics[name])), abs=1e-6)
    assert result["examples"] == 50


def test_failures_name_the_output():
    good = {"difference": {"s.logits": 1e-6}, "agreement": {"s.label": 1.0}}
    bad = {"difference": {"s.logits": float("nan")}, "agreement": {"s.label": 0.5}}
    far = {"difference": {"s.logits": 0.5}, "agreement": {"s.label": 0.5}}
    report = {"artifacts": {"savedmodel": good, "tflite/float32": bad, "tflite/int8": far}}
    lines = proof.failures(report)  # int8 has figures of its own instead of a limit
    assert [line.split(" ")[:2] for line in lines] == [
        ["tflite/float32:", "s.logits"],
        ["tflite/float32:", "s.label"],
    ]
    assert proof.failures({"artifacts": {"savedmodel": good}}) == []


def test_names_that_were_not_promised(parts):
    class Other:
        signatures = ("serving_default",)

        def answer(self, signature, inputs):
            return {"scores": inputs["image"]}

    promised = {"serving_default": {"inputs": ["image"], "outputs": ["logits"]}}
    image = parts.test["image"][:4]
    examples = {"in/serving_default/image": image, "out/serving_default/logits": image}
    with pytest.raises(ValueError, match="scores"):
        proof.check(Other(), examples, promised)
    with pytest.raises(ValueError, match="signatures"):
        proof.check(Other(), examples, {})


def test_keras_cannot_be_imported_there():
    code = (
        "import sys, runpy, importlib.util\n"
        f"parity = runpy.run_path({proof.__file__!r})\n"
        "for name in parity['FORBIDDEN']: sys.modules[name] = None\n"
        "import tensorflow\n"
        "for name in parity['FORBIDDEN']:\n"
        "    try: __import__(name)\n"
        "    except ImportError: print(name)\n"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["keras", "tf_keras", "kerasdl"]


def test_it_runs_as_a_script(exported, parts, tmp_path):
    examples, meta = exporter.examples_of(parts, parts.model)
    np.savez(tmp_path / "examples.npz", meta=json.dumps(meta), **examples)
    report = tmp_path / "report.json"
    command = [sys.executable, "-P", proof.__file__, exported["folder"]]
    subprocess.run([*command, tmp_path / "examples.npz", report], check=True, cwd=tmp_path)
    result = json.loads(report.read_text())
    assert proof.failures(result) == []
    assert result["artifacts"]["savedmodel"]["agreement"]["serve_bytes.class_name"] == 1
