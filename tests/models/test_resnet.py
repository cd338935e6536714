"""What the residual networks' paper promises."""

import keras
import numpy as np
import pytest

from kerasdl.models.cnn import resnet


def test_stages_of_table_1():
    with keras.StatelessScope():
        backbone = resnet.resnet50(depths=(1, 1, 1, 1), features=True)
        maps = backbone(keras.Input((224, 224, 3)))
    assert backbone.strides == {f"stage{s + 1}": 2 ** (s + 1) for s in range(5)}
    assert list(backbone.channels.values()) == [64, 256, 512, 1024, 2048]
    for stage, x in maps.items():
        side = 224 // backbone.strides[stage]
        assert x.shape == (None, side, side, backbone.channels[stage])


def test_stages_of_cifar_sizes():
    backbone = resnet.resnet20(features=True)
    assert backbone.strides == {"stage1": 1, "stage2": 2, "stage3": 4}
    assert backbone.channels == {"stage1": 16, "stage2": 32, "stage3": 64}


def test_option_a_shortcut_has_no_weights():
    block = resnet.ResidualBlock(6, stride=2, option="A")
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 4)).astype("float32")
    block(x)
    assert {w.path.split("/")[1] for w in block.weights} == {"conv1", "conv2"}
    # with the convolutions silent only the shortcut remains: every second pixel, zero channels
    for layer in (block.conv1, block.conv2):
        layer.conv.kernel.assign(np.zeros(layer.conv.kernel.shape))
    expected = np.zeros((2, 3, 2, 6))
    expected[..., :4] = np.maximum(x[:, ::2, ::2], 0)
    np.testing.assert_allclose(block(x), expected, atol=1e-6)


def test_option_b_projects_only_where_shapes_change():
    for stride, channels, projects in ((1, 6, False), (1, 4, True), (2, 6, True)):
        block = resnet.ResidualBlock(6, stride=stride)
        block(np.zeros((1, 4, 4, channels), "float32"))
        assert (block.project is not None) == projects


@pytest.mark.parametrize("in_3x3", [False, True])
def test_stride_of_bottleneck(in_3x3):
    block = resnet.Bottleneck(2, stride=2, stride_in_3x3=in_3x3)
    assert block(np.zeros((1, 7, 8, 3), "float32")).shape == (1, 4, 4, 8)
    assert block.conv1.conv.strides == ((1, 1) if in_3x3 else (2, 2))
    assert block.conv2.conv.strides == ((2, 2) if in_3x3 else (1, 1))


def test_strided_convolutions_pad_symmetrically():
    stem = resnet.ConvNorm(1, 3, 2)
    x = np.zeros((1, 4, 4, 1), "float32")
    x[0, 0, 0] = 1  # the first window's center
    stem.build(x.shape)
    kernel = np.zeros((3, 3, 1, 1))
    kernel[1, 1] = 1
    stem.conv.kernel.assign(kernel)
    assert stem.conv(x)[0, 0, 0, 0] == 1


@pytest.mark.parametrize(
    ("builder", "shape"),
    [
        (resnet.resnet18, (31, 64, 3)),
        (resnet.resnet20, (8, 3, 1)),
        (resnet.resnet20, (8, 8)),
    ],
)
def test_image_too_small(builder, shape):
    with pytest.raises(ValueError, match=r"image_shape .* at least \d+x\d+ pixels"):
        builder(image_shape=shape)
