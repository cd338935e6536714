"""What the papers on contrastive predictive coding promise."""

import math

import keras
import numpy as np
import pytest

from kerasdl.models.cnn.resnet_v2 import resnet101v2
from kerasdl.models.selfsupervised import cpc

SIZES = {"depths": (1,), "filters": (8,), "stem_filters": 4, "groups": 2}
SMALL = {**SIZES, "patch_size": (4, 6), "stride": (2, 3), "steps": (1, 3), "target_dim": 5}


@pytest.fixture(scope="module")
def model():
    """A grid of 4x3 patches of 4x6 pixels, which overlap by half."""
    return cpc.cpc_small((10, 12, 1), **SMALL)


def count(variables):
    return sum(math.prod(v.shape) for v in variables)


def test_the_papers_encoder():
    sizes = {"depths": (3, 4, 23), "filters": (256, 512, 1024)}
    with keras.StatelessScope():  # allocates nothing
        normed = resnet101v2((64, 64, 3), features=True, **sizes)
        model = cpc.cpc()
    assert (count(normed.weights), count(normed.trainable_variables)) == (27_611_072, 27_531_840)
    assert count(model.backbone.trainable_variables) == 27_531_840
    assert count(model.weights) == count(model.trainable_variables)  # no batch statistics
    assert (model.grid, model.backbone.width, len(model.steps)) == ((7, 7), 1024, 5)


def test_patches_overlap(model, rng):
    image = rng.random((2, 10, 12, 1), np.float32)
    patches = np.asarray(model.patches(image))
    assert model.grid == (4, 3) and patches.shape == (2, 12, 4, 6, 1)
    np.testing.assert_array_equal(patches[:, 7], image[:, 4:8, 3:9])
    for y, x, patch in zip(*model.corners(), np.moveaxis(patches, 1, 0), strict=True):
        np.testing.assert_array_equal(patch, image[:, y : y + 4, x : x + 6])


@pytest.mark.parametrize("context", ["masked", "gru"])
def test_predictions_see_no_row_below(context, rng):
    model = cpc.cpc_small((10, 12, 1), context=context, context_depth=3, **SMALL)
    patches = rng.random((1, 4, 3, 4, 6, 1), np.float32)

    def predictions(patches):
        return np.asarray(model(patches.reshape(1, 12, 4, 6, 1))["predictions"])

    before = predictions(patches)
    assert before.shape == (1, 4, 3, 2, 5)
    for row in range(4):
        changed = patches.copy()
        changed[:, row, 1] = rng.random((4, 6, 1), np.float32)
        moved = np.abs(predictions(changed) - before).max(axis=(0, 3, 4))
        assert (moved[:row] == 0).all() and (moved[row:, 1] > 0).all()
        beside = moved[row:, [0, 2]] > 0
        assert beside.all() if context == "masked" else not beside.any()


def test_a_linear_map_for_each_step(model, rng):
    """Equation 3: `z . W_k c`, of encodings or of what one matrix makes of them."""
    patches = rng.random((2, 12, 4, 6, 1), np.float32)
    outputs, z = model(patches), model.encode(patches)
    kernel, bias = (np.asarray(w).reshape(-1, 2, 5) for w in model.head.weights)
    for k in range(2):
        expected = (model.autoregressor(z) @ kernel[:, k] + bias[:, k]) / math.sqrt(5)
        np.testing.assert_allclose(outputs["predictions"][..., k, :], expected, atol=1e-5)
    np.testing.assert_allclose(outputs["targets"], z @ model.target.weights[0], atol=1e-5)
    rows = cpc.cpc_rows(dims=(9,), context_dim=7)
    outputs = rows(rng.random((2, 8, 1, 8, 1), np.float32))
    assert outputs["targets"].shape == (2, 8, 1, 9)
    assert outputs["predictions"].shape == (2, 8, 1, 3, 9)


@pytest.mark.parametrize("pooling", cpc.POOLINGS)
def test_features_are_a_mean_over_the_grid(pooling, rng):
    model = cpc.cpc_small((10, 12, 1), pooling=pooling, context="gru", **SMALL)
    image = rng.random((2, 10, 12, 1), np.float32)
    z = model.encode(model.patches(image))
    assert z.shape == (2, 4, 3, 8)
    each = z if pooling == "encodings" else model.autoregressor(z)
    np.testing.assert_allclose(model.features(image), np.mean(each, axis=(1, 2)), atol=1e-6)


def test_each_patch_is_encoded_alone(model, rng):
    patches = rng.random((2, 12, 4, 6, 1), np.float32)
    z = np.asarray(model.encode(patches, training=True))  # as with batch norm it would not be
    alone = np.asarray(model.encode(np.repeat(patches[:1, 5:6], 12, axis=1), training=True))
    np.testing.assert_allclose(alone[0, 0, 0], z[0, 1, 2], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"patch_size": 40}, r"patch_size \(40, 40\): larger than images of \(32, 32\)"),
        ({"patch_size": (8, 8, 3)}, "must be one number, or a height and a width"),
        ({"stride": 0}, "stride 0: must be a whole number from 1"),
        ({"steps": (1, 7)}, r"steps \(1, 7\): must be whole numbers from 1 to 6, of 7 rows"),
        ({"steps": ()}, "steps"),
        ({"context": "lstm"}, "context 'lstm': not one of masked, gru"),
        ({"pooling": "last"}, "pooling 'last': not one of encodings, context"),
    ],
)
def test_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        cpc.cpc_small((32, 32, 3), **{"patch_size": 8, "stride": 4, **arguments})
