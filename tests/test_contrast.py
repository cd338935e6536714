"""NT-Xent against a double loop, and the task that trains with it."""

import math

import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.models.selfsupervised.simclr import SimCLR
from kerasdl.ops import gather
from kerasdl.ops.losses import cross_entropy, nt_xent
from kerasdl.recipe import Recipe
from kerasdl.tasks.contrast import Contrast


def by_loops(z, temperature):
    """Equation 1 of SimCLR, view by view: losses and who is nearest, `(B, 2)` each."""
    n = len(z)
    views = [(k, v) for k in range(n) for v in range(2)]

    def similarity(a, b):
        a, b = z[a], z[b]
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    losses, nearest = np.zeros((n, 2)), np.zeros((n, 2))
    for k, v in views:
        total, best = 0.0, -np.inf
        for other in views:
            if other == (k, v):
                continue
            total += math.exp(similarity((k, v), other) / temperature)
            if other != (k, 1 - v):
                best = max(best, similarity((k, v), other))
        positive = similarity((k, v), (k, 1 - v))
        losses[k, v] = -math.log(math.exp(positive / temperature) / total)
        nearest[k, v] = positive > best
    return losses, nearest


def paired(rng, n, dim=4, noise=1.0):
    """Two projections each, near to each other; `(n, 2, dim)`."""
    return rng.normal(size=(n, 1, dim)) + noise * rng.normal(size=(n, 2, dim))


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_equation_1(temperature, rng):
    z = paired(rng, 7)
    losses, nearest = by_loops(z, temperature)
    assert 0 < nearest.mean() < 1
    loss, top1 = nt_xent(z, z, 0, temperature)
    np.testing.assert_allclose(loss, losses.mean(1), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(top1, nearest.mean(1))


def test_nt_xent_of_a_part_against_all_rows(rng):
    z = paired(rng, 7)
    whole = nt_xent(z, z)
    for start, stop in ((0, 3), (3, 7)):
        part = nt_xent(z[start:stop], z, start)
        for value, expected in zip(part, whole, strict=True):
            np.testing.assert_allclose(value, expected[start:stop], rtol=0, atol=1e-12)


def test_nt_xent_of_equal_projections():
    z = np.broadcast_to([0.3, -2.0, 1.0], (64, 2, 3))
    for temperature in (0.05, 1.0):
        loss, top1 = nt_xent(z, z, 0, temperature)
        np.testing.assert_allclose(loss, 4.844187086458591, rtol=0, atol=1e-9)  # ln(2 N - 1)
        np.testing.assert_array_equal(top1, 0.0)
    # One positive among N scores alone, as InfoNCE has it, is a cross entropy: ln N.
    info_nce = cross_entropy(np.eye(64), np.full((64, 64), 0.7))
    np.testing.assert_allclose(info_nce, 4.1588830833596715, rtol=0, atol=1e-9)


def test_examples_of_weight_0_are_no_negatives(rng):
    z = paired(rng, 7)
    loss, top1 = nt_xent(z, z, 0, 0.5, np.array([1.0] * 5 + [0.0] * 2))
    for value, expected in zip((loss, top1), nt_xent(z[:5], z[:5]), strict=True):
        np.testing.assert_allclose(value[:5], expected, rtol=0, atol=1e-12)
    assert np.isfinite(loss).all()


def test_one_example_has_nothing_to_be_told_from(rng):
    z = paired(rng, 1).astype("float32")
    loss, top1 = nt_xent(z, z)
    np.testing.assert_allclose(loss, [0.0], atol=1e-6)
    np.testing.assert_array_equal(top1, [1.0])


def test_projections_of_length_0_are_finite():
    z = np.zeros((3, 2, 4), "float32")
    np.testing.assert_allclose(nt_xent(z, z)[0], math.log(5), atol=1e-6)


# -- the task -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    built = SimCLR((8, 8, 1), "resnet20", 9, 6, depths=(1,), filters=4)
    built(built.symbolic_inputs())
    return built


def task(class_names=("a", "b", "c"), **task_kwargs):
    info = DataInfo.of_images((8, 8, 1), class_names, (0.3,))
    return Contrast(info, Recipe(model="simclr_small", task_kwargs=task_kwargs))


def batch_of(rng, n, weight=None):
    image = rng.uniform(size=(n, 8, 8, 1)).astype("float32")
    views = {f"image_view{i}": image + 0.1 * i for i in (1, 2)}
    weight = np.ones(n, "float32") if weight is None else np.asarray(weight, "float32")
    return {"image": image, "weight": weight, **views}


def test_losses_are_those_of_both_views(model, rng):
    batch = batch_of(rng, 5)
    loss, metrics = task(temperature=0.2).losses(model, batch)
    z = np.stack([model(batch[f"image_view{i}"]) for i in (1, 2)], axis=1)
    expected = nt_xent(z, z, 0, 0.2)
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
    np.testing.assert_array_equal(metrics["contrast_top1"], expected[1])


def test_what_fills_a_batch_up_changes_no_loss_in_evaluation(model, rng):
    full = batch_of(rng, 6, [1, 1, 1, 1, 0, 0])
    real = {name: value[:4] for name, value in full.items()}
    loss, _ = task().losses(model, full)
    np.testing.assert_allclose(loss[:4], task().losses(model, real)[0], rtol=1e-5)


def test_the_rows_of_other_replicas_are_negatives(model, rng):
    batch = batch_of(rng, 6)
    whole, _ = task().losses(model, batch)
    z = np.stack([model(batch[f"image_view{i}"]) for i in (1, 2)], axis=1)
    everyone = {3: z, 1: batch["weight"]}
    second = {name: value[3:] for name, value in batch.items()}
    with gather.over(lambda x: everyone[len(x.shape)], 1):
        loss, _ = task().losses(model, second)
    np.testing.assert_allclose(loss, whole[3:], rtol=1e-5)


def test_answers_and_signature(model, rng):
    made = task()
    outputs = made.predict(model, batch_of(rng, 5))
    assert outputs["features"].shape == (5, 4) and outputs["projection"].shape == (5, 6)
    signature = made.signatures(model)[0]
    assert signature.name == "serving_default" and signature.inputs["image"].kind == "image"
    served = signature.function(batch_of(rng, 2)["image"])
    assert set(served) == {"features", "projection"}
    assert made.arguments() == {"image_shape": (8, 8, 1), "input_mean": (0.3,), "input_std": 1.0}


def test_probes_need_classes():
    names = [e.metrics[0] for e in task(probe_labels=30, neighbors=3).evaluators()]
    assert names == ["spread", "knn_top1", "linear_probe_top1"]
    assert [e.metrics for e in task(class_names=()).evaluators()] == [("spread",)]


def test_settings_out_of_range():
    for name, value in (("temperature", 0), ("neighbors", 1.5), ("probe_labels", 0)):
        with pytest.raises(ValueError, match=f"{name}={value}"):
            task(**{name: value})
