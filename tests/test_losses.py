"""Losses, activations and optimizers against numbers worked out by hand."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.layers.activation import Maxout, make_activation
from kerasdl.metrics import exported
from kerasdl.ops.losses import cross_entropy, multiclass_hinge
from kerasdl.tasks.classify import rank_of


def one_hot(labels, k, dtype="float64"):
    return np.eye(k, dtype=dtype)[labels]


def test_equal_scores():
    label, logits = one_hot([0, 3], 10), np.zeros((2, 10))
    np.testing.assert_allclose(cross_entropy(label, logits), 2.302585092994046, atol=1e-6)
    np.testing.assert_allclose(multiclass_hinge(label, logits), 9, atol=1e-6)


def test_smoothed_cross_entropy_is_least_at_the_smoothed_label():
    label = one_hot([2], 10)
    best = np.log(label * 0.9 + 0.01)
    np.testing.assert_allclose(cross_entropy(label, best, 0.1), 0.5002880350577578, atol=1e-6)
    for other in (best + 0.01 * np.eye(10)[2], best - 0.01 * np.eye(10)[5], np.zeros((1, 10))):
        assert float(cross_entropy(label, other, 0.1)[0]) > 0.5002880350577578


def test_hinge_is_zero_beyond_the_margin_and_mixes_with_the_label():
    logits = np.array([[3.0, 1.0, 0.0], [3.0, 2.5, 0.0]])
    np.testing.assert_allclose(multiclass_hinge(one_hot([0, 0], 3), logits), [0.0, 0.5])
    first, second = (multiclass_hinge(one_hot([y, y], 3), logits) for y in (0, 1))
    mixed = multiclass_hinge(0.3 * one_hot([0, 0], 3) + 0.7 * one_hot([1, 1], 3), logits)
    np.testing.assert_allclose(mixed, 0.3 * first + 0.7 * second)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_does_not_overflow(smoothing):
    logits = np.array([[1e4, -1e4, 0.0]], "float32")
    loss = cross_entropy(one_hot([1], 3, "float32"), logits, smoothing)
    assert np.isfinite(loss).all()


@pytest.mark.parametrize(
    "loss",
    [
        cross_entropy,
        lambda y, s: cross_entropy(y, s, 0.1),
        multiclass_hinge,
    ],
    ids=["cross_entropy", "smoothed", "hinge"],
)
def test_gradients_are_those_of_central_differences(loss, rng):
    label = one_hot([0, 4, 2], 5)
    logits = rng.normal(size=(3, 5)) * 2
    x = tf.Variable(logits)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loss(label, x))
    analytic = tape.gradient(total, x).numpy()
    numeric, h = np.zeros_like(logits), 1e-6
    for i in np.ndindex(*logits.shape):
        step = np.zeros_like(logits)
        step[i] = h
        up, down = (np.sum(loss(label, logits + s)) for s in (step, -step))
        numeric[i] = (up - down) / (2 * h)
    error = np.abs(analytic - numeric).max() / np.abs(analytic).max()
    assert error < 1e-6


def test_maxout_of_two_pieces_is_relu_and_absolute_value(rng):
    x = rng.normal(size=(4, 6)).astype("float32")
    maxout = Maxout(2)
    np.testing.assert_array_equal(maxout(np.concatenate([x, 0 * x], -1)), np.maximum(x, 0))
    np.testing.assert_array_equal(maxout(np.concatenate([x, -x], -1)), np.abs(x))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("relu", lambda x: max(x, 0)),
        ("leaky_relu", lambda x: x if x > 0 else 0.01 * x),
        ("prelu", lambda x: x if x > 0 else 0.25 * x),
        ("elu", lambda x: x if x > 0 else math.exp(x) - 1),
        ("gelu", lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2)))),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("tanh", math.tanh),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
    ],
)
def test_activations_are_those_of_their_papers(name, expected):
    x = np.linspace(-4, 4, 33, dtype="float32")[:, None]
    np.testing.assert_allclose(
        make_activation(name)(x)[:, 0], [expected(v) for v in x[:, 0].tolist()], atol=1e-6
    )


def test_first_step_of_adam_is_the_rate_times_the_sign():
    w = keras.Variable([1.0, 1.0])
    keras.optimizers.Adam(0.1).apply([np.array([3.0, -300.0], "float32")], [w])
    np.testing.assert_allclose(w, [0.9, 1.1], atol=1e-6)


def test_momentum_multiplies_a_constant_gradient_by_ten():
    w = keras.Variable([0.0])
    optimizer = keras.optimizers.SGD(1.0, momentum=0.9)
    for _ in range(120):
        before = float(w[0])
        optimizer.apply([np.ones(1, "float32")], [w])
    assert before - float(w[0]) == pytest.approx(10, abs=1e-3)


def test_rank_counts_ties_by_label_and_what_is_no_number_as_last():
    logits = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [np.nan, 0.0, 0.0]], "float32")
    rank = np.asarray(rank_of(np.array([0, 1, 0]), keras.ops.convert_to_tensor(logits)))
    assert rank.tolist() == [0, 1, 2]
    result = exported.metrics(logits[:2], np.array([0, 1]))
    assert result["top1"] == 0.5
