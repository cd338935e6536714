"""What a discriminator is told of the other images of its batch."""

import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.layers.core import keep_statistics
from kerasdl.layers.minibatch import MinibatchStd
from kerasdl.ops.gradient import gradient


def expected_std(x):
    return np.sqrt(x.var(axis=0) + 1e-8).mean()


@pytest.mark.parametrize("shape", [(5, 4), (5, 2, 3, 4)])
def test_it_is_the_mean_standard_deviation_of_the_batch(rng, shape):
    x = rng.normal(size=shape).astype("float32")
    y = np.asarray(MinibatchStd()(x, training=True))
    np.testing.assert_array_equal(y[..., :-1], x)
    np.testing.assert_allclose(y[..., -1], expected_std(x), rtol=1e-5)


def test_inference_uses_the_moving_average_and_leaves_it(rng):
    layer, average = MinibatchStd(momentum=0.8), 1.0
    for _ in range(3):
        x = rng.normal(size=(6, 4)).astype("float32")
        layer(x, training=True)
        average = 0.8 * average + 0.2 * expected_std(x)
    for size in (1, 6):  # one by one, and together
        y = np.asarray(layer(x[:size]))
        np.testing.assert_allclose(y[:, -1], average, rtol=1e-5)
    np.testing.assert_allclose(layer.moving_std.numpy(), average, rtol=1e-5)


def test_statistics_can_be_kept(rng):
    layer, x = MinibatchStd(), rng.normal(size=(6, 4)).astype("float32")
    with keep_statistics():
        y = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(y[:, -1], expected_std(x), rtol=1e-5)
    assert layer.moving_std.numpy() == 1


def test_its_second_derivative_is_right(rng):
    """Against differences of the first: a gradient penalty needs it."""
    x, direction = rng.normal(size=(2, 4, 3))
    layer = MinibatchStd(dtype="float64")
    layer.build((None, 3))

    def slope(x):
        return gradient(lambda x: ops.sum(layer(x, training=True)[..., -1] ** 3), x)

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        along = ops.sum(slope(x) * direction)
    step = 1e-5 * direction
    differences = (np.asarray(slope(x + step)) - np.asarray(slope(x - step))) / 2e-5
    np.testing.assert_allclose(tape.gradient(along, x), differences, rtol=1e-5, atol=1e-8)


def test_synchronized_on_one_device_is_the_same(rng):
    x = rng.normal(size=(8, 3))
    layer = MinibatchStd(dtype="float64")
    layer.synchronized = True
    layer.build((None, 3))
    whole = np.asarray(layer(x, training=True))
    np.testing.assert_allclose(whole[:, -1], expected_std(x), rtol=1e-12)
