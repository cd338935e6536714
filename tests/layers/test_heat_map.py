"""Dense layers turned into convolutions: what a sliding window says, at once."""

import keras
import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.layers.heat_map import heat_map

LAYERS = keras.layers


def patches(x, size, stride):
    """`{(row, column): window (B, h, w, C)}` of images."""
    return {
        (i // stride, j // stride): x[:, i : i + size[0], j : j + size[1]]
        for i in range(0, x.shape[1] - size[0] + 1, stride)
        for j in range(0, x.shape[2] - size[1] + 1, stride)
    }


def unpadded(size, *end):
    """A classifier of windows: unpadded convolutions, pooling, dense layers."""
    return keras.Sequential(
        [
            keras.Input((*size, 2)),
            LAYERS.Conv2D(4, 3, activation="relu"),
            LAYERS.MaxPooling2D(2),
            LAYERS.Conv2D(5, 2, activation="tanh"),
            *end,
            LAYERS.Dense(7, activation="relu"),
            LAYERS.Dropout(0.5),
            LAYERS.Dense(3),
        ]
    )


@pytest.mark.parametrize("end", [LAYERS.Flatten, LAYERS.GlobalAveragePooling2D])
@pytest.mark.parametrize("size", [(8, 8), (10, 8)])
def test_equals_the_sliding_window(end, size, rng):
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    classifier = unpadded(size, end())
    for weight in classifier.weights:
        weight.assign(rng.normal(size=weight.shape))
    x = rng.random((2, 21, 16, 2))
    logits = np.asarray(heat_map(classifier)(x))
    windows = patches(x, size, 2)
    assert logits.shape == (2, *(1 + n for n in max(windows)), 3) and len(windows) > 20
    for (i, j), window in windows.items():
        np.testing.assert_allclose(logits[:, i, j], classifier(window), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vgg_small", {"stages": ((4,), (6,)), "fc_dim": 9, "norm": False}),
        ("resnet20", {"depths": (1, 2), "filters": 4}),
        ("googlenet_small", {}),
    ],
)
def test_of_one_window_it_is_the_classifier(name, arguments, rng):
    size = (16, 24)
    classifier = catalog.build(name, image_shape=(*size, 3), num_classes=5, **arguments)
    model, x = heat_map(classifier), rng.random((2, *size, 3), np.float32)
    logits = np.asarray(model(x))
    assert logits.shape == (2, 1, 1, 5)
    expected = classifier(x)
    expected = expected["logits"] if isinstance(expected, dict) else expected
    np.testing.assert_allclose(logits[:, 0, 0], expected, atol=1e-5)
    larger = np.asarray(model(rng.random((2, 32, 36, 3), np.float32)))
    assert larger.shape[1] > 1 and larger.shape[2] > 1


def test_models_without_places_are_refused():
    with pytest.raises(UserError, match="vit_digits: must be a classifier whose dense layers"):
        heat_map(catalog.build("vit_digits", num_classes=4, depth=1))
