"""Exported files are evaluated batch by batch."""

from pathlib import Path

import numpy as np
import pytest

from kerasdl.data.splits import ArraySplit
from kerasdl.inference import artifact, dataset
from kerasdl.metrics import exported
from kerasdl.metrics.detection import DetectionAP
from kerasdl.metrics.segmentation import MeanIoU


@pytest.mark.parametrize("file", ["", "tflite/float32.tflite", "assets.extra/model.keras"])
def test_no_more_than_a_batch_is_read_at_once(exported, file, monkeypatch):
    read, rows = ArraySplit.read, []

    def counted(self, indices):
        rows.append(len(indices))
        return read(self, indices)

    def whole(self):
        raise AssertionError("the whole part was asked for")

    monkeypatch.setattr(ArraySplit, "read", counted)
    monkeypatch.setattr(dataset, "take", whole)
    result = artifact.evaluate_artifact(Path(exported["folder"]) / file)
    classes, balanced = result.pop("classes"), result.pop("balanced_accuracy")
    assert result == pytest.approx(exported["artifacts"]["savedmodel"]["test"], abs=1e-4)
    assert sum(one["support"] for one in classes.values()) == 360
    assert balanced == pytest.approx(np.mean([one["recall"] for one in classes.values()]))
    right = sum(one["recall"] * one["support"] for one in classes.values())
    assert right / 360 == pytest.approx(result["top1"], abs=1e-4)
    if file.endswith(".keras"):
        return  # read by the pipeline that training reads with
    assert max(rows) == artifact.BATCH and sum(rows) == result["examples"] == 360
    rows.clear()
    artifact.evaluate_all(exported["folder"])
    assert max(rows) == artifact.BATCH


class Echo:
    """Answers with its input, and keeps the sizes that it was asked for."""

    def __init__(self):
        self.sizes = []

    def answer(self, signature, inputs):
        self.sizes.append(len(inputs["x"]))
        return {"x": inputs["x"]}


def by(loss, target="y"):
    """What `Task.evaluated_by` says of an echo."""
    how = {"signature": "s", "inputs": ["x"], "output": "x", "target": target}
    return how | ({"loss": loss} if loss else {})


def test_metrics_of_batches_are_those_of_the_whole(rng):
    logits, label = rng.normal(size=(50, 7)).astype("float32"), rng.integers(0, 7, 50)
    image, clean = rng.random((2, 50, 3, 3, 1))
    for loss, examples, whole in [
        ("cross_entropy", {"x": logits, "y": label}, exported.metrics(logits, label)),
        ("hinge", {"x": logits, "y": label}, exported.metrics(logits, label, "hinge")),
        ("mse", {"x": image, "y": clean}, {"mse": np.square(image - clean).mean()}),
        (None, {"x": label % 2, "y": label}, {"exact_match": np.mean(label % 2 == label)}),
    ]:
        echo = Echo()
        result = exported.evaluate(echo, exported.split(examples, 8), by(loss), 3)
        assert result == pytest.approx({**whole, "examples": 50}), loss
        assert max(echo.sizes) == 3


def test_intersection_over_union_is_that_of_training(rng):
    mask = rng.integers(0, 5, (20, 6, 6))
    mask[rng.random(mask.shape) < 0.2] = 255
    guess = np.where(rng.random(mask.shape) < 0.7, mask % 5, rng.integers(0, 4, mask.shape))
    result = exported.evaluate(Echo(), exported.split({"x": guess, "y": mask}, 8), by("iou"))
    evaluator = MeanIoU("abcdef")  # one of which never occurs
    evaluator.update({"mask": guess}, {"mask": mask, "weight": np.ones(20)})
    assert result == pytest.approx({**evaluator.result()["test"], "examples": 20})


def test_average_precision_is_that_of_training(rng):
    low, sides = rng.random((2, 20, 6, 2))
    boxes, label = np.concatenate([low, low + 0.1 + sides], -1), rng.integers(0, 3, (20, 6))
    near = boxes + 0.1 * rng.random(boxes.shape)
    examples = {"image": np.zeros((20, 1)), "boxes": boxes, "labels": label}
    examples["valid"] = rng.random((20, 6)) < 0.7
    answers = {"boxes": near, "scores": rng.random((20, 6))}
    answers["label"] = np.where(rng.random((20, 6)) < 0.2, -1, label)

    class Detector:
        at = 0

        def answer(self, signature, inputs):
            at, self.at = self.at, self.at + len(inputs["image"])
            return {k: v[at : self.at] for k, v in answers.items()}

    how = {"signature": "s", "inputs": ["image"], "output": "boxes", "target": "boxes"}
    result = exported.evaluate(Detector(), exported.split(examples, 8), how | {"loss": "ap"}, 3)
    evaluator = DetectionAP("abc", (8, 8))
    evaluator.update(answers, examples | {"weight": np.ones(20), "index": np.arange(20)})
    expected = evaluator.result()["test"]
    assert 0.1 < expected["ap"] < expected["ap50"] < 0.9
    assert result == {"ap": expected["ap"], "ap50": expected["ap50"], "examples": 20}
    # And with masks, which cover more or less of the boxes
    y, x = np.mgrid[:8, :8] / 8
    sides = [boxes[..., i, None, None] for i in range(4)]
    inside = (y >= sides[0]) & (x >= sides[1]) & (y < sides[2]) & (x < sides[3])
    examples["instances"] = inside.astype("uint8")
    answers["masks"] = (inside & (rng.random(inside.shape) < 0.8)).astype("uint8")
    result = exported.evaluate(Detector(), exported.split(examples, 8), how | {"loss": "ap"}, 3)
    evaluator = DetectionAP("abc", (8, 8), masks=True)
    evaluator.update(answers, examples | {"weight": np.ones(20), "index": np.arange(20)})
    expected = evaluator.result()["test"]
    names = ("ap", "ap50", "mask_ap", "mask_ap50")
    assert result == {**{k: expected[k] for k in names}, "examples": 20}
    assert 0.1 < expected["mask_ap"] < expected["mask_ap50"] < 0.9
    assert expected["mask_ap"] != expected["ap"]


def test_without_a_target_there_are_no_metrics():
    examples = {"x": np.zeros((2, 3))}
    assert exported.evaluate(Echo(), exported.split(examples), by("mse")) is None
    assert exported.evaluate(Echo(), exported.split({}), by("mse")) is None
    assert exported.evaluate(Echo(), exported.split(examples), None) is None


def test_random_parts_of_examples_do_not_depend_on_batches():
    """A diffusion model's noise follows from the example's number."""
    from kerasdl import catalog
    from kerasdl.data.sources import open_source
    from tests.export.examples import make_parts

    name = "ddpm_unet_small"
    parts = make_parts(name, **catalog.module_of(name).TINY[name])
    source = open_source("digits")
    whole = dataset.take(source, parts.task, "test", 20)
    some = list(dataset.batches(source, parts.task, "test", 7, 20))
    assert [len(b["image"]) for b in some] == [7, 7, 6] and set(some[0]) == set(whole)
    for key, value in whole.items():
        np.testing.assert_array_equal(np.concatenate([b[key] for b in some]), value, err_msg=key)


def test_a_model_and_its_files_average_alike(exported):
    """Of the Keras file and the SavedModel, and otherwise than without."""
    folder = Path(exported["folder"])
    kept = folder / "assets.extra" / "model.keras"
    whole = artifact.evaluate_artifact(kept, "test", 5)
    file = artifact.evaluate_artifact(folder, "test", 5)
    for name, values in whole.pop("classes").items():
        assert file["classes"][name] == pytest.approx(values, abs=1e-4), name
    assert file.pop("classes") and file == pytest.approx(whole, abs=1e-4)
    assert artifact.evaluate_artifact(folder)["loss"] != pytest.approx(whole["loss"], abs=1e-4)
