"""Convolutions in groups."""

import numpy as np
import pytest
import tensorflow as tf

from kerasdl.layers.core import Conv


@pytest.mark.parametrize(("groups", "strides"), [(2, 1), (3, 2), (6, 1)])
def test_groups_are_convolutions_side_by_side(groups, strides, rng):
    x = tf.constant(rng.standard_normal((2, 7, 8, 6)))
    layer = Conv(12, 3, strides, groups=groups, dtype="float64")
    layer.build(x.shape)
    c, d = 6 // groups, 12 // groups
    dense = Conv(12, 3, strides, dtype="float64")
    dense.build(x.shape)
    kernel = np.zeros((3, 3, 6, 12))
    for g in range(groups):
        outputs = slice(g * d, (g + 1) * d)
        kernel[:, :, g * c : (g + 1) * c, outputs] = np.asarray(layer.kernel)[..., outputs]
    dense.kernel.assign(kernel)
    assert layer.kernel.value.shape.num_elements() * groups == kernel.size

    weights = rng.standard_normal(dense(x).shape)  # of what the gradient is taken of
    gradients = []
    for conv in (layer, dense):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = conv(x)
            total = tf.reduce_sum(y * weights)
        gradients.append([y, *tape.gradient(total, [x, conv.kernel.value])])
    (y, dx, dk), (expected, dense_dx, dense_dk) = gradients
    np.testing.assert_allclose(y, expected, atol=1e-12)
    np.testing.assert_allclose(dx, dense_dx, atol=1e-12)
    for g in range(groups):
        outputs = slice(g * d, (g + 1) * d)
        within = dense_dk[:, :, g * c : (g + 1) * c, outputs]
        np.testing.assert_allclose(dk[..., outputs], within, atol=1e-12)


def test_a_grouped_convolution_needs_no_compiler():
    """Keras' own is compiled by XLA where TensorFlow runs on CPUs; files run elsewhere too."""
    layer = Conv(4, 3, groups=2)
    layer.build((None, 5, 5, 4))
    graph = tf.function(layer).get_concrete_function(tf.TensorSpec((None, 5, 5, 4)))
    operations = [op.type for op in graph.graph.get_operations()]
    assert operations.count("Conv2D") == 2
    assert not [name for name in operations if "Call" in name]
