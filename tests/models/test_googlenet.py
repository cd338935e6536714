"""What GoogLeNet's paper promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.layers.norm import LocalResponseNorm
from kerasdl.models.cnn import googlenet

SMALLEST = 79  # its 4a has 5x5 pixels


@pytest.fixture(scope="module")
def tiny():
    return googlenet.googlenet(**googlenet.TINY["googlenet"])


def test_without_auxiliary_heads_it_has_half_the_weights():
    with keras.StatelessScope():  # allocates nothing
        model = googlenet.googlenet(aux_heads=False)
    assert sum(math.prod(v.shape) for v in model.trainable_variables) == 6_998_552


def test_stages_of_table_1():
    with keras.StatelessScope():
        backbone = googlenet.googlenet(features=True)
        maps = backbone(keras.Input((224, 224, 3)))
    assert backbone.strides == {f"stage{s + 1}": 2 ** (s + 1) for s in range(5)}
    assert list(backbone.channels.values()) == [64, 192, 480, 832, 1024]
    for stage, x in maps.items():
        side = 224 // backbone.strides[stage]
        assert x.shape == (None, side, side, backbone.channels[stage])


def test_stages_of_small():
    backbone = googlenet.googlenet_small(image_shape=(8, 9, 1), features=True)
    assert backbone.strides == {"stage1": 1, "stage2": 2, "stage3": 4}
    maps = backbone(np.zeros((2, 8, 9, 1), "float32"))
    shapes = [tuple(x.shape) for x in maps.values()]
    assert shapes == [(2, 8, 9, 120), (2, 4, 4, 208), (2, 2, 2, 256)]


def test_auxiliary_heads_are_there_always(tiny):
    x = np.random.default_rng(0).uniform(size=(3, 80, 88, 1)).astype("float32")
    for training in (False, True):
        outputs = tiny(x, training=training)
        assert set(outputs) == {"logits", "aux1", "aux2"}
        assert {tuple(y.shape) for y in outputs.values()} == {(3, 7)}
    paths = {w.path for w in tiny.weights}
    assert {p for p in paths if "aux1/fc" in p} and {p for p in paths if "aux2/head" in p}


def test_auxiliary_heads_take_4a_and_4d():
    with keras.StatelessScope():
        model = googlenet.googlenet()
    names = [layer.name for layer in model.backbone.inceptions]
    assert names[model.backbone.tap1] == "inception_4a"
    assert names[model.backbone.tap2] == "inception_4d"
    assert model.aux1.conv.kernel.shape == (1, 1, 512, 128)
    assert model.aux2.conv.kernel.shape == (1, 1, 528, 128)
    assert model.aux1.fc.kernel.shape == (4 * 4 * 128, 1024)


def test_without_auxiliary_heads_it_returns_logits():
    model = googlenet.googlenet(**{**googlenet.TINY["googlenet"], "aux_heads": False})
    assert model(np.zeros((1, 80, 88, 1), "float32")).shape == (1, 7)


@pytest.mark.parametrize("norm", [False, True])
def test_branches_of_inception(norm):
    layer = googlenet.Inception((1, 2, 3, 4, 5, 6), norm)
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 7)).astype("float32")
    assert layer(x).shape == (2, 4, 5, 1 + 3 + 5 + 6)
    kernels = {w.path.split("/")[1]: tuple(w.shape) for w in layer.weights if "kernel" in w.path}
    assert kernels == {
        "conv1": (1, 1, 7, 1),
        "reduce3": (1, 1, 7, 2),
        "conv3": (3, 3, 2, 3),
        "reduce5": (1, 1, 7, 4),
        "conv5": (5, 5, 4, 5),
        "project": (1, 1, 7, 6),
    }
    assert any("bias" in w.path for w in layer.weights) != norm


@pytest.mark.parametrize("channels", [1, 4, 9])
def test_local_response_norm_is_the_formula(channels):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, channels)).astype("float32")
    size, alpha, beta, k = 5, 0.7, 0.6, 1.5
    expected = np.zeros_like(x)
    for c in range(channels):
        window = x[..., max(0, c - 2) : c + 3]
        expected[..., c] = x[..., c] / (k + alpha / size * (window**2).sum(-1)) ** beta
    np.testing.assert_allclose(LocalResponseNorm(size, alpha, beta, k)(x), expected, rtol=1e-5)


def test_local_response_norm_in_half_precision():
    x = np.full((1, 1, 1, 8), 1000.0, "float16")  # its square is beyond float16
    y = LocalResponseNorm(dtype="mixed_float16")(x)
    assert y.dtype == "float16"
    expected = 1000 / (1 + 1e-4 / 5 * 5e6) ** 0.75
    np.testing.assert_allclose(np.asarray(y, "float32")[..., 4], expected, rtol=2e-3)


@pytest.mark.parametrize("side", range(2, 12))
def test_max_pooling_rounds_up(side):
    x = np.random.default_rng(0).uniform(size=(1, side, side, 1)).astype("float32")
    n = math.ceil((side - 3) / 2) + 1
    expected = [
        [x[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, 0].max() for j in range(n)] for i in range(n)
    ]
    np.testing.assert_array_equal(googlenet.max_pool(x)[0, ..., 0], expected)


def test_smallest_images():
    sizes = googlenet.TINY["googlenet"]
    with keras.StatelessScope():
        googlenet.googlenet(**{**sizes, "image_shape": (SMALLEST, SMALLEST, 1)})
        backbone = googlenet.googlenet(**{**sizes, "image_shape": (31, 31, 1)}, features=True)
        maps = backbone(keras.Input((31, 31, 1)))
    assert list(maps.values())[-1].shape[1:3] == (1, 1)


@pytest.mark.parametrize(
    ("builder", "kwargs"),
    [
        (googlenet.googlenet, {"image_shape": (SMALLEST - 1, 224, 3)}),
        (googlenet.googlenet, {"image_shape": (30, 31, 3), "features": True}),
        (googlenet.googlenet_small, {"image_shape": (3, 8, 1)}),
        (googlenet.googlenet_small, {"image_shape": (9, 9, 1), "aux_heads": True}),
        (googlenet.googlenet_small, {"image_shape": (8, 8)}),
    ],
)
def test_image_too_small(builder, kwargs):
    with pytest.raises(ValueError, match=r"image_shape .* at least \d+x\d+ pixels"):
        builder(**kwargs)
