"""What is asked of a detector: its losses, its answers, and the pictures of them."""

import keras
import numpy as np
import pytest

from kerasdl.columns import Column, DataInfo
from kerasdl.data.scenes import arrays
from kerasdl.errors import UserError
from kerasdl.metrics.detection import DetectionAP
from kerasdl.ops.colors import class_colors, outlined
from kerasdl.recipe import Recipe
from kerasdl.tasks.detect import Detect
from kerasdl.tasks.detect_masks import DetectMasks
from kerasdl.tasks.locate import Locate

NAMES = tuple("0123456789")
SIZE, OBJECTS = (48, 48), 5
INFO = DataInfo(
    {
        "image": Column("image", (*SIZE, 1)),
        "boxes": Column("boxes", (OBJECTS, 4)),
        "labels": Column("label", (OBJECTS,), NAMES),
        "valid": Column("valid", (OBJECTS,)),
    }
)


class Oracle:
    """Knows the objects: candidates are the true boxes, each twice, with scores of any class."""

    def __init__(self, batch):
        self.batch = batch

    def __call__(self, x, training=False):
        return x

    def candidates(self, x):
        boxes = np.concatenate([self.batch["boxes"], self.batch["boxes"] * 0.98], 1)
        right = np.eye(len(NAMES))[np.maximum(self.batch["labels"], 0)]
        right = right * self.batch["valid"][..., None]
        return boxes, np.concatenate([0.9 * right, 0.6 * right], 1).astype(np.float32)


@pytest.fixture(scope="module")
def batch():
    columns = arrays("test", count=24)
    columns = {name: columns[name] for name in ("image", "boxes", "labels", "valid")}
    columns["image"] = columns["image"].astype(np.float32) / 255
    columns["valid"][0], columns["labels"][0] = False, -1  # a scene without an object
    assert columns["valid"].all(1).any()  # and some with as many as there is room for
    return columns | {"index": np.arange(24), "weight": np.ones(24, np.float32)}


def task_of(kind=Detect, **settings):
    return kind(INFO, Recipe(model="yolo_v1_small", task_kwargs=settings))


def test_all_objects_are_found_once(batch):
    task = task_of()
    found = {k: np.asarray(v) for k, v in task.predict(Oracle(batch), batch).items()}
    np.testing.assert_array_equal(found["num"], batch["valid"].sum(1))
    assert found["num"][0] == 0 and (found["label"][0] == -1).all()
    (evaluator,) = task.evaluators()
    assert isinstance(evaluator, DetectionAP)
    evaluator.update(found, batch)
    assert evaluator.result()["test"]["ap"] == pytest.approx(1)


def test_settings(batch):
    few = task_of(max_objects=2).predict(Oracle(batch), batch)
    assert few["boxes"].shape == (24, 2, 4) and int(np.max(few["num"])) == 2
    both = task_of(nms_iou=1).predict(Oracle(batch), batch)["num"]
    np.testing.assert_array_equal(both, 2 * batch["valid"].sum(1))
    assert not np.any(task_of(min_score=0.95).predict(Oracle(batch), batch)["num"])
    with pytest.raises(UserError, match="max_objects=0: must be a whole number from 1 to 1,000"):
        task_of(max_objects=0)


def test_pictures_show_true_and_found_boxes(batch):
    shown = np.asarray(task_of().pictures(Oracle(batch), batch)["boxes"])
    assert shown.shape == (8, 2, *SIZE, 3)
    np.testing.assert_array_equal(shown[0, 0], np.repeat(batch["image"][0], 3, -1))
    np.testing.assert_array_equal(shown[:, 0], shown[:, 1])
    ymin, xmin, ymax, xmax = np.rint(batch["boxes"][1, 0] * 48).astype(int)
    color = class_colors(len(NAMES) + 1)[1 + batch["labels"][1, 0]]
    np.testing.assert_allclose(shown[1, 0, ymin, xmin:xmax], np.tile(color, (xmax - xmin, 1)))


def test_outlines_are_inside_the_boxes():
    boxes = np.array([[[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]]])
    image = np.zeros((1, 8, 8, 1), np.float32)
    drawn = np.asarray(outlined(image, boxes, np.array([[1, -1]]), 3))[0].max(-1) > 0
    expected = np.zeros((8, 8), bool)
    expected[2:6, 4:8] = True
    expected[3:5, 5:7] = False
    np.testing.assert_array_equal(drawn, expected)


# -- one object ---------------------------------------------------------------------------------


def test_the_largest_object_counts(batch):
    task = task_of(Locate, box_weight=2)
    sides = batch["boxes"][..., 2:] - batch["boxes"][..., :2]
    largest = np.argmax(sides.prod(-1) * batch["valid"], axis=-1)
    rows = np.arange(24)
    box, label = batch["boxes"][rows, largest], batch["labels"][rows, largest]
    logits = 50 * np.eye(len(NAMES), dtype=np.float32)[np.maximum(label, 0)]

    def outputs(x, training=False):
        return {"logits": logits, "boxes": box + np.float32([0.1, 0, 0, 0])}

    (loss, count), metrics = task.losses(outputs, batch)
    np.testing.assert_array_equal(count, np.r_[0, np.ones(23)])  # the first has no object
    np.testing.assert_allclose(loss, 0.02 * np.asarray(count), atol=1e-6)
    assert np.all(np.asarray(metrics["top1"][0]) == count)
    found = {k: np.asarray(v) for k, v in task.predict(outputs, batch).items()}
    np.testing.assert_array_equal(found["label"][1:, 0], label[1:])
    assert found["boxes"].shape == (24, 1, 4) and (found["num"] == 1).all()
    overlap = np.asarray(metrics["iou"][0])[1:]
    height = sides[rows, largest, 0][1:]
    np.testing.assert_allclose(overlap, (height - 0.1) / height, atol=1e-5)


def test_pictures_of_one_object(batch):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(4)])

    def outputs(x, training=False):
        return {"logits": np.zeros((24, 10), np.float32), "boxes": model(x)}

    shown = np.asarray(task_of(Locate).pictures(outputs, batch)["boxes"])
    assert shown.shape == (8, 2, *SIZE, 3) and np.isfinite(shown).all()


# -- masks of the objects -----------------------------------------------------------------------


class MaskOracle(Oracle):
    """Knows the pixels of the objects too, and says which of the boxes found is which object."""

    def object_masks(self, predictions, boxes, label):
        distance = np.abs(np.asarray(boxes)[:, :, None] - self.batch["boxes"][:, None]).sum(-1)
        pixels = np.take_along_axis(
            self.batch["instances"], distance.argmin(-1)[..., None, None], axis=1
        )
        return 0.1 + 0.8 * pixels.astype(np.float32)


@pytest.fixture(scope="module")
def with_pixels(batch):
    pixels = arrays("test", count=24)["instances"]
    return batch | {"instances": pixels * batch["valid"][..., None, None]}


def test_masks_of_all_objects(with_pixels):
    task = task_of(DetectMasks)
    assert task.targets["instances"].shape == (OBJECTS, *SIZE)
    assert "instances" not in Detect.targets
    found = {
        k: np.asarray(v) for k, v in task.predict(MaskOracle(with_pixels), with_pixels).items()
    }
    assert found["masks"].dtype == np.uint8 and found["masks"].shape == (24, 20, *SIZE)
    # None where there is no object, whatever the model says there
    np.testing.assert_array_equal(found["masks"].any((2, 3)), found["label"] >= 0)
    (evaluator,) = task.evaluators()
    evaluator.update(found, with_pixels)
    result = evaluator.result()["test"]
    assert result["ap"] == pytest.approx(1) and result["mask_ap"] == pytest.approx(1)
    found["masks"] = found["masks"] * (np.arange(48)[:, None] >= 24)  # the lower halves alone
    (evaluator,) = task.evaluators()
    evaluator.update(found, with_pixels)
    result = evaluator.result()["test"]
    assert result["ap"] == pytest.approx(1) and 0.1 < result["mask_ap50"] < 0.9


def test_pictures_show_true_and_found_masks(with_pixels):
    task = task_of(DetectMasks)
    shown = np.asarray(task.pictures(MaskOracle(with_pixels), with_pixels)["boxes"])
    assert shown.shape == (8, 2, *SIZE, 3)
    np.testing.assert_allclose(shown[:, 0], shown[:, 1], atol=1e-6)
    colored = np.ptp(shown[:, 0], axis=-1) > 0.1
    pixels = with_pixels["instances"][:8].any(1)
    assert colored[pixels].mean() > 0.95 and colored[~pixels].mean() < 0.4  # boxes besides


def test_losses_are_named(batch):
    class Model(Oracle):
        def detection_losses(self, predictions, batch, training=False):
            return np.ones(24), np.full(24, 2.0), np.full(24, 4.0)

    loss, metrics = task_of(DetectMasks).losses(Model(batch), batch)
    assert np.all(loss == 7) and list(metrics) == ["class_loss", "box_loss", "mask_loss"]
    assert np.all(metrics["mask_loss"] == 4)
