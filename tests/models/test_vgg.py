"""What the VGG paper promises."""

import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.models.cnn import vgg

GOLDEN = Path(__file__).parents[1] / "goldens" / "vgg_bn.npz"
# Table 2 gives them in millions: 133, 133, 138 and 144.
COUNTS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
}


@pytest.mark.parametrize("name", COUNTS)
def test_trainable_parameters(name):
    with keras.StatelessScope(initialize_variables=False):  # allocates nothing
        model = getattr(vgg, name)()
    keras.backend.clear_session()
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == COUNTS[name]
    assert catalog.row(name).parameters == COUNTS[name]
    assert model.fc1.kernel.shape == (7, 7, 512, 4096)


def test_stages_are_those_of_table_1():
    backbone = vgg.vgg16(image_shape=(64, 96, 3), features=True)
    assert [block.name for block in backbone.blocks][4:8] == [
        "stage3_conv1",
        "stage3_conv2",
        "stage3_conv3",
        "stage4_conv1",
    ]
    assert list(backbone.channels.values()) == [64, 128, 256, 512, 512]
    maps = backbone(np.zeros((1, 64, 96, 3), "float32"))
    for stage, x in maps.items():
        stride = backbone.strides[stage]
        assert x.shape == (1, 64 // stride, 96 // stride, backbone.channels[stage])


def test_logits_equal_those_of_timm():
    with np.load(GOLDEN) as file:
        golden = dict(file)
    sizes = json.loads(str(golden["config"]))["init"]
    assert sizes["cfg"] == [6, 8, "M", 10, "M", 12, 14, "M"]
    x = golden["inputs/x"].transpose(0, 2, 3, 1)
    model = vgg.vgg11_bn(
        image_shape=x.shape[1:],
        num_classes=sizes["num_classes"],
        stages=((6, 8), (10,), (12, 14)),
        fc_dim=sizes["head_hidden_size"],
    )
    weights = iter([v for k, v in golden.items() if k.startswith("weights/") and v.ndim])
    for block in model.backbone.blocks:
        block.conv.kernel.assign(next(weights).transpose(2, 3, 1, 0))
        block.conv.bias.assign(next(weights))
        for weight in block.norm.weights:  # gamma, beta, mean and variance in both
            weight.assign(next(weights))
    for layer in (model.fc1, model.fc2):
        layer.kernel.assign(next(weights).transpose(2, 3, 1, 0))
        layer.bias.assign(next(weights))
    model.head.kernel.assign(next(weights).T)
    model.head.bias.assign(next(weights))
    assert next(weights, None) is None

    features = list(model.backbone(x).values())[-1]
    expected = golden["outputs/features"].transpose(0, 2, 3, 1)
    np.testing.assert_allclose(features, expected, atol=1e-4)
    np.testing.assert_allclose(model(x), golden["outputs/logits"], atol=1e-4)


def test_dense_layers_average_over_a_larger_image(rng):
    """Section 3.2: what a larger image gives is the mean over its windows."""
    model = vgg.vgg11(image_shape=(16, 16, 1), num_classes=5, stages=((4,), (6,)), fc_dim=8)
    assert model.window == (4, 4)
    left, right = rng.random((2, 1, 16, 16, 1)).astype("float32")
    features = [list(model.backbone(x).values())[-1] for x in (left, right)]
    wide = keras.ops.concatenate(features, axis=2)  # (1, 4, 8, 6): windows at 0, 1, .. 4
    windows = [model.pool({"last": wide[:, :, i : i + 4]}) for i in range(5)]
    np.testing.assert_allclose(model.pool({"last": wide}), sum(windows) / 5, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model(left), model.head(model.pool({"x": features[0]})), rtol=1e-5)


def test_dropout_follows_both_dense_layers():
    model = vgg.vgg11(**vgg.TINY["vgg11"])
    assert (model.drop1.rate, model.drop.rate) == (0.1, 0.1)
    assert vgg.VGG(image_shape=(8, 8, 1), fc_dim=4, stages=((4,),)).drop1.rate == 0.5


def test_an_image_too_small_is_refused():
    with pytest.raises(ValueError, match="VGG takes .* of at least 32x32 pixels"):
        vgg.vgg11(image_shape=(31, 40, 3))
