"""What the paper on bootstrapping promises."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.models.selfsupervised import byol
from kerasdl.ops.losses import cosine_distance
from kerasdl.recipe import Recipe
from kerasdl.tasks.bootstrap import Bootstrap

SHAPE = (8, 8, 1)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return byol.byol_small(SHAPE, depths=(1,), filters=4, hidden_dim=6, projection_dim=5)


def task(**task_kwargs):
    info = DataInfo.of_images(SHAPE, "abc")
    return Bootstrap(info, Recipe(model="byol_small", task_kwargs=task_kwargs))


def batch_of(rng, n):
    return {f"image_view{i}": rng.random((n, *SHAPE), np.float32) for i in (1, 2)}


def test_the_distance_of_equal_orthogonal_and_opposite_vectors():
    x = np.array([[3.0, 0.0]] * 3)
    y = np.array([[0.5, 0.0], [0.0, 2.0], [-7.0, 0.0]])
    np.testing.assert_array_equal(cosine_distance(x, y), [0, 2, 4])


def test_each_view_predicts_the_target_of_the_other(model, rng):
    batch = batch_of(rng, 3)
    loss, _ = task().losses(model, batch)
    predicted = [np.asarray(model(batch[f"image_view{i}"])) for i in (1, 2)]
    targets = [np.asarray(model.targets(batch[f"image_view{i}"])) for i in (1, 2)]
    expected = cosine_distance(predicted[0], targets[1]) + cosine_distance(predicted[1], targets[0])
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_no_gradient_reaches_the_targets(model, rng):
    """With a perfect predictor nothing would be learned but for the other view's prediction."""
    x = tf.constant(rng.random((3, *SHAPE), np.float32))
    with tf.GradientTape() as tape:
        tape.watch(x)
        targets = model.targets(x)
    assert tape.gradient(targets, x) is None
    assert not [w.path for w in model.trainable_variables if "target_" in w.path]
    assert [w.path for w in model.trainable_variables if "/predictor/" in w.path]


def test_without_stop_gradient_the_target_is_the_online_network(model, rng):
    batch = batch_of(rng, 3)
    usual, other = (task(stop_gradient=on).losses(model, batch)[0] for on in (True, False))
    np.testing.assert_allclose(usual, other, rtol=1e-4)  # the target starts as it
    for weight in model.target_head.weights:
        weight.assign(weight + rng.random(weight.shape))
    moved, kept = (task(stop_gradient=on).losses(model, batch)[0] for on in (True, False))
    np.testing.assert_array_equal(kept, other)
    assert np.abs(np.asarray(moved) - usual).max() > 1e-3


def test_the_momentum_rises_to_1_as_half_a_cosine():
    made = task(momentum=0.9)
    assert made.momentum(7) == 0.9  # without a training
    made.total_steps = 10
    for step, expected in ((0, 0.9), (5, 0.95), (10, 1.0), (99, 1.0)):
        np.testing.assert_allclose(made.momentum(step), expected, atol=1e-6)
    right = 1 - 0.1 * (math.cos(math.pi * 0.3) + 1) / 2  # section 3.3
    np.testing.assert_allclose(made.momentum(3), right, atol=1e-6)
    constant = task(momentum=0.9, final_momentum=0.9)
    constant.total_steps = 10
    np.testing.assert_allclose(constant.momentum(3), 0.9, atol=1e-6)


def test_a_new_training_forgets_the_updates(model):
    made = task(momentum=0.5)
    for weight in model.trainable_variables:
        weight.assign(weight + 1.0)
    made.after_update(model, {})
    assert int(model.step.value) == 1
    made.begin(model)
    assert int(model.step.value) == 0
    for own, copy in zip(model.backbone.weights, model.target_backbone.weights, strict=True):
        np.testing.assert_array_equal(own, copy)
