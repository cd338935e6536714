"""Mean intersection over union, against sets of pixels."""

import itertools
import math

import numpy as np
import pytest

from kerasdl.metrics.segmentation import MeanIoU

NAMES = ("background", "cat", "dog", "never")


def batches(rng, count=5):
    """Truth with pixels that are not labeled, predictions of which most are right."""
    for _ in range(count):
        true = rng.integers(0, 3, (4, 6, 5)).astype(np.int32)
        predicted = np.where(rng.random(true.shape) < 0.7, true, rng.integers(0, 3, true.shape))
        true[rng.random(true.shape) < 0.1] = 255
        yield {"mask": predicted}, {"mask": true, "weight": np.array([1.0, 0, 1, 1], np.float32)}


def expected(data):
    """The same from sets of pixels: intersection over union per class, mean, accuracy."""
    true, predicted = {}, {}
    for number, (outputs, batch) in enumerate(data):
        for place in itertools.product(*map(range, batch["mask"].shape)):
            if batch["weight"][place[0]] == 0 or batch["mask"][place] == 255:
                continue
            true[number, *place] = int(batch["mask"][place])
            predicted[number, *place] = int(outputs["mask"][place])
    iou = {}
    for k, name in enumerate(NAMES):
        a = {p for p, value in true.items() if value == k}
        b = {p for p, value in predicted.items() if value == k}
        iou[name] = len(a & b) / len(a | b) if a | b else None
    real = [value for value in iou.values() if value is not None]
    accuracy = sum(true[p] == predicted[p] for p in true) / len(true)
    return iou, sum(real) / len(real), accuracy


def counted(data):
    metric = MeanIoU(NAMES)
    for outputs, batch in data:
        metric.update(outputs, batch)
    return metric


def test_equals_sets_of_pixels(rng):
    data = list(batches(rng))
    iou, mean, accuracy = expected(data)
    result = counted(data).result()
    assert result["iou"] == iou
    assert result["iou"]["never"] is None
    assert result["test"]["mean_iou"] == pytest.approx(mean, abs=1e-15)
    assert result["test"]["pixel_accuracy"] == accuracy
    assert 0.3 < mean < 0.9


def test_merged_states_equal_one(rng):
    data = list(batches(rng))
    merged = MeanIoU(NAMES)
    for part in (data[3:], data[:1], [], data[1:3]):
        merged.merge(counted(part).state())
    assert merged.result() == counted(data).result()


def test_state_is_a_copy(rng):
    data = list(batches(rng))
    metric = counted(data[:1])
    state = metric.state()
    before = state["confusion"].copy()
    metric.update(*data[1])
    np.testing.assert_array_equal(state["confusion"], before)


def test_only_predicted_class_has_zero():
    metric = MeanIoU(NAMES)
    mask = np.zeros((1, 2, 2), np.int32)
    predicted = np.array([[[0, 0], [0, 2]]])
    metric.update({"mask": predicted}, {"mask": mask, "weight": np.ones(1)})
    result = metric.result()
    assert result["iou"] == {"background": 0.75, "cat": None, "dog": 0.0, "never": None}
    assert result["test"] == {"mean_iou": 0.375, "pixel_accuracy": 0.75}


def test_nothing_labeled_is_nan():
    metric = MeanIoU(NAMES)
    mask = np.full((1, 2, 2), 255, np.int32)
    metric.update({"mask": np.zeros_like(mask)}, {"mask": mask, "weight": np.ones(1)})
    assert all(math.isnan(value) for value in metric.result()["test"].values())


@pytest.mark.parametrize(
    ("true", "predicted", "message"),
    [
        (4, 0, r"true classes 4\.\.4: must be 0\.\.3"),
        (0, -1, r"predicted classes -1\.\.-1: must be 0\.\.3"),
    ],
)
def test_unnamed_classes_are_refused(true, predicted, message):
    shape = (1, 2, 2)
    batch = {"mask": np.full(shape, true), "weight": np.ones(1)}
    with pytest.raises(ValueError, match=message):
        MeanIoU(NAMES).update({"mask": np.full(shape, predicted)}, batch)


def test_shapes_and_states_must_fit():
    metric = MeanIoU(NAMES)
    batch = {"mask": np.zeros((1, 2, 2), int), "weight": np.ones(1)}
    with pytest.raises(ValueError, match=r"predicted masks \(1, 2, 3\): must be \(1, 2, 2\)"):
        metric.update({"mask": np.zeros((1, 2, 3), int)}, batch)
    with pytest.raises(ValueError, match="state of 2 classes: must be 4"):
        metric.merge(MeanIoU(("a", "b")).state())
