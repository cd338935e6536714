"""What the linear classifier promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.models.cnn.linear import linear
from kerasdl.ops.losses import cross_entropy, multiclass_hinge


def test_losses_start_at_those_of_equal_scores(rng):
    model = linear((8, 8, 3), 10)
    logits = model(rng.random((4, 8, 8, 3), np.float32))
    label = np.eye(10, dtype="float32")[[1, 2, 3, 4]]
    np.testing.assert_allclose(cross_entropy(label, logits), math.log(10), atol=1e-6)
    np.testing.assert_allclose(multiclass_hinge(label, logits), 9, atol=1e-6)


def test_it_is_linear_in_the_normalized_image(rng):
    model = linear((4, 5, 1), 3, input_mean=0.5, input_std=0.25)
    kernel, bias = (rng.random(w.shape, np.float32) for w in model.weights)
    model.set_weights([kernel, bias])
    x = rng.random((2, 4, 5, 1), np.float32)
    expected = ((x.reshape(2, 20) - 0.5) / 0.25) @ kernel + bias
    np.testing.assert_allclose(model(x), expected, rtol=1e-5)


def test_parameters_are_a_matrix_and_a_bias():
    assert keras.Model.count_params(linear((32, 32, 3), 10)) == 3072 * 10 + 10


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="no backbone"):
        linear(features=True)
    with pytest.raises(ValueError, match="image_shape"):
        linear((8, 8))
    with pytest.raises(ValueError, match="did you mean input_mean"):
        linear((8, 8, 1), input_men=0.0)
