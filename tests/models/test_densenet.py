"""What the densely connected networks' paper promises."""

import keras
import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.models.cnn import densenet


def convolutions(model):
    return [x for x in model._flatten_layers() if isinstance(x, keras.layers.Conv2D)]


ROWS = [row.name for row in catalog.ROWS if row.module == "cnn.densenet"]


@pytest.mark.parametrize("name", ROWS)
def test_depth(name):
    with keras.StatelessScope():  # allocates nothing
        model = getattr(densenet, name)()
    depth = int(name.removeprefix("densenet").removeprefix("_bc_").split("_")[0])
    # The dense layer is the last; the paper's table 1 gives 265 layers to the one it calls 264.
    assert len(convolutions(model)) + 1 == depth + (depth == 264)


def test_layer_concatenates_k_channels():
    layer = densenet.DenseLayer(5)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 7)).astype("float32")
    y = layer(x)
    assert y.shape == (2, 3, 4, 7 + 5)
    np.testing.assert_array_equal(y[..., :7], x)
    assert layer.conv1.kernel.shape == (1, 1, 7, 20)  # the bottleneck has 4 k channels
    assert layer.conv2.kernel.shape == (3, 3, 20, 5)


def test_transition_halves_channels_and_map():
    layer = densenet.Transition()
    x = np.random.default_rng(0).normal(size=(1, 5, 4, 7)).astype("float32")
    layer(x)
    kernel = np.zeros((1, 1, 7, 3))
    kernel[0, 0, :3] = np.eye(3)
    layer.conv.kernel.assign(kernel)
    expected = x[:, :4, :, :3].reshape(1, 2, 2, 2, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)


def test_stages_of_table_1():
    with keras.StatelessScope():
        backbone = densenet.densenet121(depths=(2, 4, 2, 1), features=True)
        maps = backbone(keras.Input((224, 224, 3)))
    assert backbone.strides == {f"stage{s + 1}": 2 ** (s + 1) for s in range(5)}
    # 2 k + 2 k, half of it + 4 k, ...
    assert list(backbone.channels.values()) == [64, 128, 192, 160, 112]
    for stage, x in maps.items():
        side = 224 // backbone.strides[stage]
        assert x.shape == (None, side, side, backbone.channels[stage])


def test_stages_of_cifar_sizes():
    backbone = densenet.densenet_bc_40_12(image_shape=(8, 8, 1), features=True)
    assert backbone.strides == {"stage1": 1, "stage2": 2, "stage3": 4}
    assert backbone.channels == {"stage1": 96, "stage2": 120, "stage3": 132}  # 24 + 72, ...
    maps = backbone(np.zeros((2, 8, 8, 1), "float32"))
    assert [tuple(x.shape) for x in maps.values()] == [
        (2, 8, 8, 96),
        (2, 4, 4, 120),
        (2, 2, 2, 132),
    ]


def test_dropout_follows_every_convolution_but_the_first():
    model = densenet.densenet_bc_40_12(image_shape=(8, 8, 1), depths=(1, 2), drop_rate=0.2)
    drops = [x for x in model._flatten_layers() if type(x).__name__ == "Dropout" and x.rate == 0.2]
    assert len(drops) == len(convolutions(model)) - 1
    x = np.ones((1, 8, 8, 1), "float32")
    assert np.any(model(x, training=True).numpy() != model(x, training=True).numpy())
    np.testing.assert_array_equal(model(x), model(x))


@pytest.mark.parametrize(
    ("builder", "shape"),
    [
        (densenet.densenet121, (31, 64, 3)),
        (densenet.densenet_bc_40_12, (8, 3, 1)),
        (densenet.densenet_bc_40_12, (8, 8)),
    ],
)
def test_image_too_small(builder, shape):
    with pytest.raises(ValueError, match=r"image_shape .* at least \d+x\d+ pixels"):
        builder(image_shape=shape)
