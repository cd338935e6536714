"""The task of masks: its losses, weights of classes, and maps smaller than the image."""

import keras
import numpy as np
import pytest

from kerasdl.columns import VOID, Column, DataInfo
from kerasdl.data.splits import ArraySplit, Split
from kerasdl.metrics import exported
from kerasdl.metrics.segmentation import MeanIoU
from kerasdl.ops import losses
from kerasdl.recipe import Recipe
from kerasdl.tasks.segment import Segment

NAMES = ("sky", "sea", "land")
INFO = DataInfo({"image": Column("image", (6, 8, 1)), "mask": Column("mask", (6, 8), NAMES)})


def task(*words, **settings):
    return Segment(INFO, Recipe(model="unet_small", class_weight=words, task_kwargs=settings))


class Given(keras.Model):
    """Says what it is told to, whatever the image."""

    def __init__(self, logits):
        super().__init__()
        self.logits = keras.ops.convert_to_tensor(logits)

    def call(self, x, training=False):
        return self.logits


@pytest.fixture
def example(rng):
    """Logits of the whole image and a batch, one of whose masks has no label."""
    mask = rng.integers(0, 3, (3, 6, 8)).astype(np.int32)
    mask[rng.random(mask.shape) < 0.2] = VOID
    mask[1] = np.where(mask[1] == 2, 0, mask[1])  # two classes
    mask[2] = VOID
    batch = {"image": np.zeros((3, 6, 8, 1), np.float32), "mask": mask}
    return rng.normal(size=(3, 6, 8, 3)).astype(np.float32), batch


def softmax(logits):
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def expected(logits, mask, loss, weights, gamma):
    """Sums and weights, pixel by pixel and class by class."""
    p, result = softmax(logits.astype(np.float64)), []
    for i in range(len(mask)):
        there = mask[i] != VOID
        true, own = mask[i][there], p[i][there]  # (n,), (n, K)
        if loss == "dice":
            each = {
                k: 1 - 2 * own[true == k, k].sum() / ((true == k).sum() + own[:, k].sum())
                for k in set(true.tolist())
            }
            result.append(
                [sum(weights[k] * v for k, v in each.items()), sum(weights[k] for k in each)]
            )
            continue
        q = own[np.arange(len(true)), true]
        each = -np.log(q) * ((1 - q) ** gamma if loss == "focal" else 1)
        result.append([(each * weights[true]).sum(), weights[true].sum()])
    return np.array(result).T


@pytest.mark.parametrize("words", [(), ("sea=3", "land=0.5")])
@pytest.mark.parametrize(
    "settings", [{}, {"loss": "focal"}, {"loss": "focal", "gamma": 0.5}, {"loss": "dice"}]
)
def test_losses(example, settings, words):
    logits, batch = example
    weights = np.array([1, 3, 0.5]) if words else np.ones(3)
    made = task(*words, **settings)
    for training in (True, False):  # without training all classes count alike
        (sums, counts), metrics = made.losses(Given(logits), batch, training=training)
        each = weights if training else np.ones(3)
        loss, gamma = settings.get("loss", "cross_entropy"), settings.get("gamma", 2.0)
        values = expected(logits, batch["mask"], loss, each, gamma)
        np.testing.assert_allclose([sums, counts], values, rtol=1e-5)
        assert counts[2] == 0 == sums[2]
        right = (logits.argmax(-1) == batch["mask"]).sum((1, 2))
        np.testing.assert_array_equal(metrics["pixel_accuracy"][0], right)


def test_known_values():
    """Focal loss of p = 0.9, and Dice of {1, 1, 0, 0} and {1, 0, 1, 0}."""
    log_p = np.log(np.array([0.9, 0.5, 1.0]))
    np.testing.assert_allclose(losses.focal(log_p, 0), -log_p)
    assert float(losses.focal(log_p)[0]) == pytest.approx(0.01 * 0.1053605157, abs=1e-9)
    assert np.isfinite(losses.focal(log_p, 0.5)).all()
    one, other = (np.array(v, float).reshape(1, 4, 1) for v in ([1, 1, 0, 0], [1, 0, 1, 0]))
    assert float(losses.dice(one, other)[0, 0]) == 0.5
    assert float(losses.dice(one, one)[0, 0]) == 0 and float(losses.dice(one, 1 - one)[0, 0]) == 1


@pytest.mark.parametrize("on_demand", [False, True])
def test_balanced_weights_count_pixels(on_demand):
    mask = np.full((2, 6, 8), VOID, np.int32)
    mask[0, 0], mask[1, :3] = 0, 1  # 8 and 24 pixels, and none of land
    made, split = task("balanced"), ArraySplit({"mask": mask})
    if on_demand:
        split = _OnDemand(split)
    (line, none) = made.measure(split)
    assert "sky 2, sea 0.6667, land 0" in line and "land" in none
    np.testing.assert_allclose(made.class_weights, [2, 2 / 3, 0])


class _OnDemand(Split):
    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def columns(self):
        return {"path": np.arange(len(self))}

    def only(self, names):
        return self

    def read(self, indices):
        return self.split.read(indices)


@pytest.mark.parametrize("size", [(6, 8), (4, 4), (3, 5)])
def test_a_smaller_map_is_the_center(rng, size):
    """Pixels around it do not count: in the loss, the metrics, and of exported files."""
    mask = rng.integers(0, 3, (2, 6, 8)).astype(np.int32)
    logits = rng.normal(size=(2, *size, 3)).astype(np.float32)
    top, left = (6 - size[0]) // 2, (8 - size[1]) // 2
    place = (slice(None), slice(top, top + size[0]), slice(left, left + size[1]))
    batch = {"image": np.zeros((2, 6, 8, 1), np.float32), "mask": mask}
    made, model = task(), Given(logits)
    (sums, counts), _ = made.losses(model, batch, training=True)
    values = expected(logits, mask[place], "cross_entropy", np.ones(3), 0)
    np.testing.assert_allclose([sums, counts], values, rtol=1e-5)
    predicted = np.asarray(made.predict(model, batch)["mask"])
    assert predicted.shape == mask.shape and predicted.dtype == np.int32
    np.testing.assert_array_equal(predicted[place], logits.argmax(-1))
    assert (predicted == VOID).sum() == 2 * (48 - size[0] * size[1])
    metric = MeanIoU(NAMES)
    metric.update({"mask": predicted}, {"mask": mask, "weight": np.ones(2)})
    assert metric.confusion.sum() == 2 * size[0] * size[1]
    inner = MeanIoU(NAMES)
    inner.update({"mask": predicted[place]}, {"mask": mask[place], "weight": np.ones(2)})
    assert metric.result() == inner.result()
    files = exported.mean_iou(exported.pixel_pairs(mask, predicted))
    assert files == pytest.approx(metric.result()["test"], abs=1e-12)
    shown = np.asarray(made.pictures(model, batch)["masks"])
    assert shown.shape == (2, 3, 6, 8, 3)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"loss": "hinge"}, "loss=hinge: not one of cross_entropy, focal, dice"),
        ({"gamma": -1}, "gamma=-1: must be a number from 0 to 100"),
    ],
)
def test_refused(settings, line):
    with pytest.raises(ValueError, match=line):
        task(**settings)
