"""The derivative that `keras.ops` lacks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.ops.gradient import gradient, value_and_gradient


def cubes(x):
    """Of each row, `sum(x^3)`, whose gradient is `3 x^2`."""
    return ops.sum(x**3, axis=-1)


def test_gradient_of_a_known_function(rng):
    x = rng.normal(size=(4, 3)).astype("float32")
    value, result = value_and_gradient(cubes, x)
    np.testing.assert_allclose(value, (x**3).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(result, 3 * x**2, rtol=1e-5)
    np.testing.assert_array_equal(gradient(cubes, x), result)


@pytest.mark.parametrize("autograph", [True, False])
def test_it_can_be_differentiated_again(rng, autograph):
    x = rng.normal(size=(4, 3)).astype("float32")
    weight = keras.Variable(2.0)

    @tf.function(autograph=autograph)
    def slope():
        with tf.GradientTape() as tape:
            result = gradient(lambda x: weight * cubes(x), x)  # 3 w x^2
            penalty = ops.sum(ops.square(result))  # 9 w^2 sum x^4
        return tape.gradient(penalty, weight.value)

    np.testing.assert_allclose(slope(), 18 * 2.0 * (x**4).sum(), rtol=1e-5)


def test_what_does_not_depend_on_x_has_gradient_0():
    np.testing.assert_array_equal(gradient(lambda x: ops.ones((2,)), np.ones((2, 3))), 0)
