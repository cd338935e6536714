"""Group norm against Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.layers.norm import GroupNorm


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_values_and_gradients_are_those_of_keras(groups, rng):
    x = tf.constant(3 * rng.standard_normal((4, 5, 3, 6)) + 1)
    ours = GroupNorm(groups, 1e-6, dtype="float64")
    theirs = keras.layers.GroupNormalization(groups, epsilon=1e-6, dtype="float64")
    result = []
    for layer in (ours, theirs):
        layer.build(x.shape)
        for weight, value in zip(layer.weights, rng_pair(), strict=True):
            weight.assign(value)
        sources = [x, *(w.value for w in layer.weights)]
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(y**3)
        result.append([y, *tape.gradient(loss, sources)])
    for a, b in zip(*result, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-9)


def rng_pair():
    """Scale and shift, the same each time."""
    rng = np.random.default_rng(5)
    return rng.random(6) + 0.5, rng.standard_normal(6)


def test_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="groups 4: must divide the 6 channels"):
        GroupNorm(4)(np.zeros((1, 2, 2, 6), "float32"))
