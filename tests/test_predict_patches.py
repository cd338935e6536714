"""InfoNCE against a double loop, and the task that predicts patches with it."""

import math

import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.models.selfsupervised.cpc import TINY, cpc_small
from kerasdl.ops import gather, noise
from kerasdl.ops.losses import info_nce
from kerasdl.recipe import Recipe
from kerasdl.tasks.predict_patches import PredictPatches, cropped


def by_loops(prediction, targets, place):
    """Equation 4, prediction by prediction: losses and who scores highest, `(B, M)` each."""
    losses, highest = np.zeros(prediction.shape[:2]), np.zeros(prediction.shape[:2])
    for b, row in enumerate(prediction):
        for m, p in enumerate(row):
            scores = {(n, at): t @ p for n, all_ in enumerate(targets) for at, t in enumerate(all_)}
            right = scores.pop((b, place[m]))
            total = math.exp(right) + sum(math.exp(s) for s in scores.values())
            losses[b, m] = -math.log(math.exp(right) / total)
            highest[b, m] = right > max(scores.values())
    return losses, highest


def made(rng, n=6):
    """Predictions `(n, 3, 4)` near to targets of `(n, 5, 4)`, and which ones."""
    targets, place = rng.normal(size=(n, 5, 4)), np.array([4, 1, 1])
    return targets[:, place] + 0.5 * rng.normal(size=(n, 3, 4)), targets, place


def test_info_nce_is_equation_4(rng):
    prediction, targets, place = made(rng)
    losses, highest = by_loops(prediction, targets, place)
    assert 0 < highest.mean() < 1
    loss, top1, candidates = info_nce(prediction, targets, place)
    np.testing.assert_allclose(loss, losses.mean(1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(top1, highest.mean(1), rtol=0, atol=1e-12)
    assert candidates == 30
    part, *_ = info_nce(prediction[4:], targets, place, offset=4)
    np.testing.assert_allclose(part, loss[4:], rtol=0, atol=1e-12)


def test_info_nce_of_equal_scores(rng):
    equal = np.broadcast_to([0.3, -2.0], (16, 4, 2))
    loss, top1, candidates = info_nce(rng.normal(size=(16, 3, 2)), equal, [0, 3, 1])
    np.testing.assert_allclose(loss, 4.1588830833596715, rtol=0, atol=1e-9)  # ln 64
    np.testing.assert_array_equal(top1, 0.0)
    assert candidates == 64


def test_examples_of_weight_0_are_no_negatives_of_info_nce(rng):
    prediction, targets, place = made(rng)
    few = info_nce(prediction, targets, place, 0, np.array([1.0] * 4 + [0.0] * 2))
    for value, expected in zip(few[:2], info_nce(prediction[:4], targets[:4], place), strict=False):
        np.testing.assert_allclose(value[:4], expected, rtol=0, atol=1e-12)
    assert few[2] == 20 and np.isfinite(few[0]).all()


# -- the task -----------------------------------------------------------------------------------


SHAPE = (8, 12, 1)  # a grid of 3x3 patches of 4x6 pixels; steps of 1 and 2 rows


@pytest.fixture(scope="module")
def model():
    return cpc_small(**TINY["cpc_small"])


def task(class_names=("a", "b", "c"), **task_kwargs):
    info = DataInfo.of_images(SHAPE, class_names, (0.3,))
    return PredictPatches(info, Recipe(model="cpc_small", task_kwargs=task_kwargs))


def batch_of(rng, n, weight=None):
    weight = np.ones(n, "float32") if weight is None else np.asarray(weight, "float32")
    image = rng.uniform(size=(n, *SHAPE)).astype("float32")
    return {"image": image, "weight": weight, "key": np.asarray(noise.keys(3, 0, np.arange(n)))}


def test_rows_below_are_predicted(model, rng):
    batch = batch_of(rng, 4)
    outputs = model(model.patches(batch["image"]))
    targets, predictions = (np.asarray(outputs[k]) for k in ("targets", "predictions"))
    losses = []
    for k, step in enumerate(model.steps):
        for row in range(3 - step):
            for column in range(3):
                scores = np.einsum("bd,nhwd->bnhw", predictions[:, row, column, k], targets)
                right = scores[np.arange(4), np.arange(4), row + step, column]
                losses.append(np.log(np.exp(scores).sum((1, 2, 3))) - right)
    assert len(losses) == 9  # six a row below, three two rows below
    loss, metrics = task().losses(model, batch)
    np.testing.assert_allclose(loss, np.mean(losses, axis=0), rtol=1e-5)
    np.testing.assert_allclose(metrics["information"], math.log(36) - loss, rtol=1e-5)


def test_what_fills_a_batch_up_changes_no_loss_in_evaluation(model, rng):
    full = batch_of(rng, 5, [1, 1, 1, 0, 0])
    real = {name: value[:3] for name, value in full.items()}
    for value, expected in zip(
        _values(task().losses(model, full)), _values(task().losses(model, real)), strict=True
    ):
        np.testing.assert_allclose(value[:3], expected, rtol=1e-5, atol=1e-6)


def _values(losses):
    loss, metrics = losses
    return [loss, *metrics.values()]


def test_the_patches_of_other_replicas_are_negatives(model, rng):
    batch = batch_of(rng, 4)
    whole, _ = task().losses(model, batch)
    targets = np.asarray(model(model.patches(batch["image"]))["targets"]).reshape(4, 9, -1)
    everyone = {3: targets, 1: batch["weight"]}
    second = {name: value[2:] for name, value in batch.items()}
    with gather.over(lambda x: everyone[len(x.shape)], 1):
        loss, _ = task().losses(model, second)
    np.testing.assert_allclose(loss, whole[2:], rtol=1e-5)


def test_patches_are_cropped_each_at_a_place_of_its_own(rng):
    patches = rng.uniform(0.1, 1, (50, 4, 5, 8, 2)).astype("float32")
    key = np.asarray(noise.keys(1, 0, np.arange(50)))
    result = np.asarray(
        cropped(patches, key, 0.75)
    )  # boxes of 3x6, which 1 and 1 pixels are around
    assert result.shape == patches.shape
    inside = result[:, :, 1:4, 1:7]
    assert (inside > 0).all() and np.count_nonzero(result) == inside.size
    windows = np.lib.stride_tricks.sliding_window_view(patches, (3, 6), (2, 3))
    at = (np.moveaxis(windows, 4, -1) == inside[:, :, None, None]).all(axis=(4, 5, 6))
    assert (at.sum(axis=(2, 3)) == 1).all()  # (50, 4, 3, 3)
    assert at.any(axis=(0, 1)).all()
    assert (at[:, 0] != at[:, 1]).any()


def test_color_is_dropped_patch_by_patch(rng):
    info = DataInfo.of_images((8, 8, 3), ("a", "b"), (0.5, 0.5, 0.5))
    made = cpc_small((8, 8, 3), patch_size=4, stride=4, steps=(1,), depths=(1,), filters=(8,))
    batch = {"image": rng.random((20, 8, 8, 3), np.float32)}
    batch["key"] = np.asarray(noise.keys(2, 0, np.arange(20)))
    recipe = Recipe(model="cpc_small", task_kwargs={"color": "drop"})
    patches = np.asarray(PredictPatches(info, recipe).model_inputs(made, batch))
    same = (patches == np.asarray(made.patches(batch["image"]))).all(axis=(2, 3))  # (B, N, C)
    assert (same.sum(-1) == 1).all() and same.any(axis=0).all()


def test_answers_and_probes(model, rng):
    outputs = task().predict(model, batch_of(rng, 5))
    assert outputs["features"].shape == (5, 8) and outputs["projection"].shape == (5, 9 * 12)
    known_by = np.asarray(outputs["projection"]).reshape(5, 9, 12).mean(1)
    np.testing.assert_allclose(
        known_by, outputs["features"] @ model.target.weights[0], rtol=1e-4, atol=1e-5
    )
    names = [e.metrics[0] for e in task().evaluators()]
    assert names == ["spread", "knn_top1", "linear_probe_top1"]


def test_settings_out_of_range():
    for name, value in (("crop", 0.2), ("color", "gray"), ("probe_labels", 0)):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            task(**{name: value})
