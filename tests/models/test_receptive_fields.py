"""How much of an image a unit sees: the places of a pulse that it answers to."""

import keras
import numpy as np
import pytest

from kerasdl.layers.core import Conv
from kerasdl.models.cnn import alexnet, resnet, vgg


def field(network, image_shape, unit):
    """Width of the receptive field of the unit in that column of `network`'s answer, first row.

    All weights are positive and so are all images, so that a unit's answer to a pulse is above 0
    where it sees it, and 0 where it does not.
    """
    height, width, _ = image_shape
    images = np.zeros((width, *image_shape), "float32")
    images[np.arange(width), height // 2, np.arange(width)] = 1.0
    seen = np.flatnonzero(np.asarray(network(images))[:, 0, unit, 0])
    assert seen[0] > 0 and seen[-1] < width - 1  # it ends within the image
    assert len(seen) == seen[-1] - seen[0] + 1
    return len(seen)


def positive(backbone):
    """Kernels that add up, biases of 0; norms stay the identity that they start as."""
    for weight in backbone.trainable_weights:
        if len(weight.shape) == 4:
            weight.assign(np.full(weight.shape, 0.5))
    return backbone


@pytest.mark.parametrize("count", [2, 3])
def test_small_kernels_in_a_row(count):
    network = keras.Sequential([Conv(1, 3, use_bias=False) for _ in range(count)])
    network.build((None, 1, 15, 1))
    assert field(positive(network), (1, 15, 1), 7) == 2 * count + 1


def test_alexnet():
    shape = (67, 259, 1)
    backbone = positive(alexnet.alexnet(shape, filters=(2,) * 5, features=True))
    assert field(lambda x: backbone(x)["stage3"], shape, 3) == 195


def test_vgg16():
    shape = (32, 448, 1)
    model = vgg.vgg16(shape, stages=tuple((1,) * len(f) for f in VGG16), fc_dim=1)
    backbone = positive(model.backbone)
    assert field(lambda x: backbone(x)["stage5"], shape, 6) == 212

    kernel = np.ones((1, 7, 1, 1), "float32")
    assert field(lambda x: keras.ops.conv(backbone(x)["stage5"], kernel), shape, 4) == 404


VGG16 = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)


@pytest.mark.parametrize(("in_3x3", "width"), [(True, 427), (False, 483)])
def test_resnet50(in_3x3, width):
    shape = (32, 544, 1)
    backbone = resnet.resnet50(shape, filters=1, stride_in_3x3=in_3x3, features=True)
    positive(backbone)
    assert field(lambda x: backbone(x)["stage5"], shape, 8) == width
