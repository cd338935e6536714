"""What the paper on context encoders promises."""

import keras
import numpy as np
import pytest

from kerasdl.errors import UserError
from kerasdl.models.selfsupervised import context_encoder as module

SIZES = {"encoder_filters": (4, 6, 8), "discriminator_filters": 3, "overlap": 2}


@pytest.fixture(scope="module")
def model():
    return module.context_encoder((32, 48, 3), **SIZES, input_mean=(0.1, 0.2, 0.3))


def test_parameters_of_the_paper():
    layer = module.ChannelwiseDense()
    layer.build((None, 6, 6, 256))
    assert layer.count_params() == 331_776  # section 3.1: m n^4
    with keras.StatelessScope(initialize_variables=False):
        discriminator = module.InpaintingDiscriminator()
        discriminator.build((None, 64, 64, 3))
    trained = sum(int(np.prod(w.shape)) for w in discriminator.trainable_weights)
    assert (trained, discriminator.count_params()) == (2_766_529, 2_768_321)
    keras.backend.clear_session()


def test_each_channel_has_a_dense_layer_of_its_own(rng):
    layer = module.ChannelwiseDense()
    x = rng.random((2, 3, 4, 5), np.float32)
    y, kernel = np.asarray(layer(x)), np.asarray(layer.kernel)
    expected = np.einsum("bnc,cnm->bmc", x.reshape(2, 12, 5), kernel)
    np.testing.assert_allclose(y, expected.reshape(2, 3, 4, 5), rtol=1e-5, atol=1e-6)


def test_what_is_hidden_changes_nothing_and_the_margin_is_seen(model, rng):
    x = rng.random((2, 32, 48, 3), np.float32)
    hole = np.zeros((1, 32, 48, 1), bool)
    hole[:, 10:22, 14:34] = True  # half the sides less a margin of 2
    np.testing.assert_array_equal(model.hole, hole[0])
    shown = np.asarray(model.with_hole(x))
    expected = np.where(hole, np.float32([0.1, 0.2, 0.3]), x)
    np.testing.assert_array_equal(shown, expected)
    predicted = np.asarray(model.inpaint(x))
    assert predicted.shape == (2, 16, 24, 3)
    np.testing.assert_array_equal(model.inpaint(np.where(hole, 1 - x, x)), predicted)
    margin = x.copy()
    margin[:, 9, 20] = 1 - margin[:, 9, 20]
    assert np.abs(np.asarray(model.inpaint(margin)) - predicted).max() > 0
    filled = np.asarray(model.filled(x, predicted))
    np.testing.assert_array_equal(np.where(hole, 0, filled), np.where(hole, 0, x))
    np.testing.assert_array_equal(model.middle(filled)[:, 2:-2, 2:-2], predicted[:, 2:-2, 2:-2])
    np.testing.assert_array_equal(model.middle(x), x[:, 8:24, 12:36])


def test_any_backbone_of_the_catalogue(rng):
    small = module.context_encoder_small((16, 16, 1), depths=(1, 1, 1), filters=4)
    x = rng.random((2, 16, 16, 1), np.float32)
    assert small(x)["middle"].shape == (2, 8, 8, 1)
    maps = small.backbone(x)["stage3"]
    np.testing.assert_allclose(small.features(x), np.mean(maps, axis=(1, 2)), rtol=1e-5)
    assert small.classifier[0] == "resnet20"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"image_shape": (44, 48, 3)}, "the middle, 22x24 pixels, must be .* which has 5x6"),
        ({"overlap": 8}, "overlap 8: must be at least 0, and leave something of the 16x24 pixels"),
        ({"overlap": -1}, "overlap -1: must be at least 0"),
    ],
)
def test_sizes_that_do_not_fit(arguments, said):
    with pytest.raises(UserError, match=said):
        module.context_encoder(**{"image_shape": (32, 48, 3), **SIZES, **arguments})
