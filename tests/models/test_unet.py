"""What the U-Net paper promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.models.segmentation import unet


def pair(c, d):
    """Parameters of a level: two 3x3 convolutions without bias, two batch norms."""
    return 9 * c * d + 9 * d * d + 4 * d


def test_trainable_parameters():
    with keras.StatelessScope():
        model = unet.unet_small()
    levels = sum(pair(c, d) for c, d in ((1, 16), (16, 32), (32, 64), (64, 128)))
    levels += sum(pair(2 * d, d) + 4 * 2 * d * d + d for d in (16, 32, 64))
    head = 16 * 11 + 11
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == levels + head


def test_figure_1_of_padded_convolutions():
    """Figure 1: 64 to 1,024 channels and four halvings are 31,030,658 weights and biases."""
    with keras.StatelessScope():
        model = unet.unet_small((512, 512, 1), num_classes=2, depth=4, filters=64, norm="none")
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == 31_030_658


def test_figure_1_whole(rng):
    """Without padding 572 pixels a side give 388; the sizes on the way are the figure's."""
    with keras.StatelessScope(initialize_variables=False):
        model = unet.unet()
    keras.backend.clear_session()
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == 31_030_658
    thin = unet.unet(filters=1, drop_rate=0.0)  # the same sizes
    sides = []
    for part in (*thin.downs, thin.bottom, *thin.ups):
        call = part.call
        part.call = lambda *a, call=call, **k: [sides.append((y := call(*a, **k)).shape[1]), y][1]
    assert thin(np.zeros((1, 572, 572, 1), np.float32)).shape == (1, 388, 388, 2)
    assert sides == [568, 280, 136, 64, 28, 52, 100, 196, 388]


def test_without_padding_nothing_outside_is_seen(rng):
    """The center of a larger image is what the tile there alone gives (figure 2)."""
    model = unet.unet(image_shape=(44, 44, 1), depth=2, filters=3)
    x = rng.random((1, 60, 52, 1), np.float32)
    whole = np.asarray(model(x))
    assert whole.shape == (1, 20, 12, 2)
    np.testing.assert_allclose(model(x[:, 8:52, 4:48]), whole[:, 8:12, 4:8], atol=1e-5)


def test_up_convolution_halves_channels_and_doubles_sides(rng):
    level = unet.UpLevel(3, norm="none")
    x, skip = rng.random((2, 2, 4, 6), np.float32), rng.random((2, 4, 8, 3), np.float32)
    assert level(x, skip).shape == skip.shape
    assert level.convs.conv1.kernel.shape == (3, 3, 6, 3)  # the skip and the up-convolution's


@pytest.mark.parametrize("shape", [(8, 24, 1), (16, 16, 3)])
def test_a_class_for_every_pixel(shape):
    x = np.zeros((2, *shape), np.float32)
    logits = unet.unet_small(shape, num_classes=4, filters=2)(x)
    assert logits.shape == (2, *shape[:2], 4)


def test_skips_carry_single_pixels(rng):
    """With the path through the bottom silent, a pixel still reaches its own output."""
    model = unet.unet_small((8, 8, 1), depth=2, filters=4, norm="none")
    for up in model.ups:
        up.up.kernel.assign(np.zeros(up.up.kernel.shape))
    x = rng.random((1, 8, 8, 1), np.float32)
    changed = x.copy()
    changed[0, 3, 4] += 1
    difference = np.abs(model(changed) - model(x)).max(axis=(0, 3))
    assert difference[3, 4] > 0
    ys, xs = np.nonzero(difference)  # four 3x3 convolutions reach four pixels
    assert np.abs(ys - 3).max() <= 4 and np.abs(xs - 4).max() <= 4


def test_the_bottom_sees_further_than_skips(rng):
    model = unet.unet_small((16, 16, 1), depth=2, filters=8, norm="none")
    x = rng.random((1, 16, 16, 1), np.float32)
    changed = x.copy()
    changed[0, 0, 0] += 1
    difference = np.abs(model(changed) - model(x)).max(axis=(0, 3))
    assert np.nonzero(difference)[0].max() > 4


@pytest.mark.parametrize("norm", unet.NORMS)
def test_blocks_can_be_built_from_shapes(norm, rng):
    """`build` makes the same weights as a call does."""
    x, skip = rng.random((2, 2, 2, 6), np.float32), rng.random((2, 4, 4, 3), np.float32)
    built, called = unet.UpLevel(3, norm=norm), unet.UpLevel(3, norm=norm)
    built.build(x.shape, skip.shape)
    shapes = [w.shape for w in built.weights]
    called(x, skip)
    assert shapes == [w.shape for w in called.weights]
    built(x, skip)
    assert shapes == [w.shape for w in built.weights]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (48, 52, 1)}, r"multiples of 8 .* \(48, 48, 1\), --image-size 48 48"),
        ({"image_shape": (4, 4, 1)}, r"the nearest is \(8, 8, 1\)"),
        ({"image_shape": (48, 48)}, r"must be \(height, width, channels\)"),
        ({"norm": "layer"}, "norm 'layer': not one of batch, none"),
        ({"padding": "full"}, "padding 'full': not one of same, valid"),
        ({"padding": "valid"}, r"must be 92 and multiples of 8 more .*is \(92, 92, 1\)"),
        (
            {"padding": "valid", "image_shape": (121, 250, 1)},
            r"the nearest is \(124, 252, 1\), --image-size 124 252",
        ),
        ({"depth": 0}, "depth 0: must be a whole number from 1 on"),
        ({"fliters": 8}, "no argument 'fliters' .*filters"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        unet.unet_small(**arguments)
