"""Transposed convolutions that start as bilinear interpolation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.layers.upsampling import Bilinear, bilinear_upsampling


def test_kernel_of_stride_2():
    kernel = np.asarray(Bilinear()((4, 4, 3, 3)))
    expected = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16
    for i in range(3):
        for j in range(3):
            np.testing.assert_array_equal(kernel[..., i, j], expected if i == j else 0 * expected)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(Bilinear()))
    np.testing.assert_array_equal(again((4, 4, 3, 3)), kernel)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_it_interpolates(factor, rng):
    x = rng.random((2, 5, 6, 3), np.float32)
    y = np.asarray(bilinear_upsampling(3, factor)(x))
    assert y.shape == (2, 5 * factor, 6 * factor, 3)
    expected = np.asarray(tf.image.resize(x, y.shape[1:3]))
    inner = slice(factor // 2, -(factor // 2))  # at the border zeros are mixed in
    np.testing.assert_allclose(y[:, inner, inner], expected[:, inner, inner], atol=1e-6)
    constant = np.asarray(bilinear_upsampling(1, factor)(np.ones((1, 4, 4, 1), np.float32)))
    np.testing.assert_allclose(constant[:, inner, inner], 1, atol=1e-6)


@pytest.mark.parametrize(("size", "factor", "expected"), [(16, 32, 544), (4, 2, 10), (5, 8, 48)])
def test_without_padding_there_is_a_border(size, factor, expected, rng):
    x = rng.random((1, size, size, 1), np.float32)
    whole = np.asarray(bilinear_upsampling(1, factor, "valid")(x))
    assert whole.shape == (1, expected, expected, 1)
    inner = slice(factor // 2, factor // 2 + factor * size)
    center = np.asarray(bilinear_upsampling(1, factor)(x))
    np.testing.assert_allclose(whole[:, inner, inner], center, atol=1e-6)
