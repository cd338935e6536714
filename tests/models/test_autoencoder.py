"""What the deep autoencoder's paper promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.models.generative.autoencoder import autoencoder


def test_layers_of_figure_1():
    with keras.StatelessScope():
        model = autoencoder()
    sizes = (784, 1000, 500, 250, 30, 250, 500, 1000, 784)
    expected = sum(a * b + b for a, b in zip(sizes, sizes[1:], strict=False))
    assert sum(math.prod(w.shape) for w in model.trainable_variables) == expected
    units = [w.shape[1] for w in model.weights if len(w.shape) == 2]
    assert sorted(units) == sorted(sizes[1:])


def test_the_code_is_linear_and_the_image_an_intensity():
    model = autoencoder(image_shape=(5, 4, 2), latent_dim=3, dims=(7,))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    x = rng.random((6, 5, 4, 2)).astype("float32")
    outputs = model(x)
    assert outputs["image"].shape == x.shape
    assert np.min(outputs["image"]) >= 0 and np.max(outputs["image"]) <= 1
    assert outputs["code"].shape == (6, 3)
    assert np.min(outputs["code"]) < 0  # no relu follows
    logits = model.decode(outputs["code"])
    np.testing.assert_allclose(outputs["image"], 1 / (1 + np.exp(-logits)), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_dim": 0}, "latent_dim 0: must be a whole number from 1 on"),
        ({"dims": (8, 2.5)}, r"dims\[1\] 2.5: must be a whole number from 1 on"),
        ({"image_shape": (8, 8)}, r"image_shape \(8, 8\): .*\(height, width, channels\)"),
        ({"latent": 3}, "no argument 'latent'.*latent_dim"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        autoencoder(**arguments)
