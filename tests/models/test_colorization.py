"""What the papers on colorization and on split-brain autoencoders promise."""

import keras
import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.models.selfsupervised import colorization, split_brain
from kerasdl.ops.lab import lab_to_rgb, rgb_to_lab

FILTERS = ((4, 5), (6,), (7,), (8,), (9,))
HALF = {"depths": (1, 1), "filters": 4, "grid": 40, "lightness_bins": 6}


def recolored(x):
    """Images of the same lightness, and other colors."""
    lab = np.asarray(rgb_to_lab(x))
    return np.asarray(lab_to_rgb(lab * np.array([1.0, 0.0, 0.0])))


def test_sizes_of_the_paper():
    """Table 4: 313 classes for each place of a map of a quarter of the size."""
    with keras.StatelessScope(initialize_variables=False):
        model = colorization.colorization()
    assert model.backbone.last_map() == (32, 32) and model.head.predict.units == 313
    keras.backend.clear_session()
    model = colorization.colorization((16, 24, 3), block_filters=FILTERS, head_filters=6)
    x = np.zeros((2, 16, 24, 3))
    assert model(x)["ab"].shape == (2, 4, 6, 313)
    convs = [block.convs[0] for block in model.backbone.blocks]
    assert [conv.dilation_rate[0] for conv in convs] == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("backbone", [{"block_filters": FILTERS}, {"backbone": "resnet20"}])
def test_color_is_predicted_of_lightness_alone(rng, backbone):
    model = colorization.colorization((16, 24, 3), **backbone, head_filters=6, grid=40)
    x = rng.random((2, 16, 24, 3))
    for seen in (lambda x: model(x)["ab"], model.features):
        np.testing.assert_allclose(seen(recolored(x)), seen(x), atol=2e-4)
        assert np.abs(seen(1 - x) - seen(x)).max() > 1e-3
    colored = np.asarray(model.colored(x, 0.38))
    assert colored.shape == x.shape
    again = np.asarray(model.colored(recolored(x), 0.38))
    np.testing.assert_allclose(again, colored, atol=1e-3)


def test_halves_see_different_channels(rng):
    model = split_brain.split_brain_small((8, 12, 3), **HALF)
    x = 0.25 + rng.random((2, 8, 12, 3)) / 2
    lab = np.asarray(rgb_to_lab(x))
    darker = np.asarray(lab_to_rgb(lab - np.array([10.0, 0.0, 0.0])))
    first, gray, dark = (model(a) for a in (x, recolored(x), darker))
    assert {name: tuple(y.shape) for name, y in first.items()} == {
        "ab": (2, 4, 6, len(model.bins["ab"])),
        "lightness": (2, 4, 6, 6),
    }
    for name, same, other in (("ab", gray, dark), ("lightness", dark, gray)):
        np.testing.assert_allclose(same[name], first[name], atol=2e-3)
        assert np.abs(other[name] - first[name]).max() > 0.02
    features = np.asarray(model.features(x))
    np.testing.assert_allclose(model.features(recolored(x))[:, :8], features[:, :8], atol=2e-3)
    np.testing.assert_allclose(model.features(darker)[:, 8:], features[:, 8:], atol=2e-3)


def test_regression_predicts_numbers(rng):
    x = rng.random((2, 8, 12, 3))
    model = split_brain.split_brain_small((8, 12, 3), **HALF, objective="regression")
    outputs = model(x)
    assert outputs["ab"].shape == (2, 4, 6, 2) and outputs["lightness"].shape == (2, 4, 6, 1)
    np.testing.assert_allclose(model.colors(outputs["ab"], 0.38), 110 * outputs["ab"], rtol=1e-6)


def test_what_is_refused():
    with pytest.raises(UserError, match=r"image_shape \(8, 8, 1\): colors are learned from"):
        colorization.colorization((8, 8, 1))
    with pytest.raises(UserError, match="objective 'regresion': not one of .*did you mean regres"):
        split_brain.split_brain_small((8, 8, 3), objective="regresion")
    with pytest.raises(UserError, match="grid 0: must be a whole number from 1 on"):
        colorization.colorization_small((8, 8, 3), grid=0)
