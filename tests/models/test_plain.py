"""What the control of studies of depth promises."""

import math

import keras
import numpy as np
import pytest

from kerasdl.models.cnn import plain
from kerasdl.models.cnn.resnet import resnet20


def count(model):
    return sum(math.prod(w.shape) for w in model.trainable_weights)


def answer(model, x, training=False):
    return np.asarray(model(x, training=training))


@pytest.mark.parametrize("depth", [8, 20])
def test_with_residuals_it_is_a_resnet_of_cifar(depth, rng):
    """Same weights, same answers; without residuals the same weights, other answers."""
    n = (depth - 2) // 6
    sizes = {"image_shape": (9, 12, 3), "num_classes": 5}
    resnet = resnet20(**sizes, depths=(n, n, n))
    model = plain.plain(**sizes, depth=depth, residual=True)
    for weight, new in zip(resnet.weights, model.weights, strict=True):
        assert weight.shape == new.shape
        if len(weight.shape) == 1:
            weight.assign(rng.random(weight.shape) + 0.5)
        new.assign(weight)
    x = rng.random((2, 9, 12, 3), np.float32)
    np.testing.assert_allclose(model(x), resnet(x), rtol=1e-4, atol=1e-4)
    control = plain.plain(**sizes, depth=depth)
    assert [w.path for w in control.weights] == [w.path for w in model.weights]
    control.set_weights(model.get_weights())
    assert np.abs(answer(control, x) - answer(model, x)).max() > 0.1


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("norm_after", plain.ORDERS)
@pytest.mark.parametrize("norm", plain.NORMS)
def test_norms_and_their_places(norm, norm_after, residual, rng):
    sizes = {"filters": 4, "groups": 2, "norm": norm, "norm_after": norm_after}
    if (norm, norm_after) == ("instance", "activation"):
        with pytest.raises(ValueError, match="norm_after activation: not with norm instance"):
            plain.plain((8, 8, 1), residual=residual, **sizes)
        return
    model = plain.plain((8, 8, 1), residual=residual, **sizes)
    x = rng.random((3, 8, 8, 1), np.float32)
    y = answer(model, x)
    assert np.isfinite(y).all() and np.ptp(y, axis=0).max() > 1e-4  # images are told apart
    paths = {w.path.split("/")[-1] for w in model.backbone.weights}
    assert ("bias" in paths) == (norm == "none" or norm_after == "activation")
    assert ("gamma" in paths) == (norm != "none")
    # Batch norm alone answers one image by the others
    alone = answer(model, x[:1], training=True)
    others = not np.allclose(alone, answer(model, x, training=True)[:1], atol=1e-4)
    assert others == (norm == "batch")


@pytest.mark.parametrize(("norm", "axes"), [("layer", (1, 2, 3)), ("instance", (1, 2))])
def test_layer_and_instance_norm_are_group_norms(norm, axes, rng):
    x = 3 * rng.standard_normal((2, 5, 4, 6)).astype("float32") + 1
    y = plain.make_norm(norm, 6, 3)(x)
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-4, atol=1e-4)


def test_the_norm_stands_where_it_is_said_to(rng):
    x = rng.standard_normal((2, 6, 6, 3)).astype("float32")
    before = plain.ConvUnit(4, norm="instance")(x)
    after = plain.ConvUnit(4, norm="instance", norm_after="activation")(x)
    assert np.min(before) == 0  # ReLU comes last
    np.testing.assert_allclose(np.mean(after, axis=(1, 2)), 0, atol=1e-5)
    assert np.min(after) < 0


def test_three_small_kernels_cost_less_than_a_large_one():
    """Three 3x3 convolutions see what a 7x7 one does: 27 C^2 weights against 49 C^2."""
    c = 8
    with keras.StatelessScope(initialize_variables=False):
        one = [plain.Conv(c, 7, use_bias=False)]
        three = [plain.Conv(c, 3, use_bias=False) for _ in range(3)]
        for layer in (*one, *three):
            layer.build((None, None, None, c))
    keras.backend.clear_session()
    sizes = [sum(math.prod(layer.kernel.shape) for layer in layers) for layers in (one, three)]
    assert sizes == [49 * c**2, 27 * c**2]


def test_a_separable_convolution_costs_a_part(rng):
    """1 / N + 1 / k^2 of one of all channels: 12.7 % at N = 64 and k = 3."""
    shape = (None, 8, 8, 64)
    layers = [plain.SeparableConv(64, 3, use_bias=False), plain.Conv(64, 3, use_bias=False)]
    for layer in layers:
        layer.build(shape)
    separable, dense = (count(layer) for layer in layers)  # weights times places is the work
    assert separable / dense == pytest.approx(1 / 64 + 1 / 9)

    x = rng.standard_normal((1, 5, 6, 3)).astype("float32")
    layer = plain.SeparableConv(4, 3, stride=2)
    y = layer(x)
    kernel = np.einsum("hwcx,abcd->hwcd", layer.depthwise.kernel, layer.pointwise.kernel)
    whole = plain.Conv(4, 3, 2)
    whole.build(x.shape)
    whole.kernel.assign(kernel)
    np.testing.assert_allclose(y, whole(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"norm": "grup"}, "norm 'grup': not one of none, batch, .*"),
        ({"norm": None}, "norm None: not one of"),
        ({"norm_after": "relu"}, "norm_after 'relu': not one of conv, activation"),
        ({"depth": 9}, "depth 9: must be 6 n"),
        ({"depth": 2}, "depth 2: must be 6 n"),
        ({"stem_size": 4}, "stem_size 4: must be odd"),
        ({"norm": "group", "groups": 3}, "groups 3: must divide the 16 channels"),
        ({"image_shape": (4, 8, 1), "norm": "instance"}, "plain takes .* at least 5x5 pixels"),
    ],
)
def test_wrong_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        plain.plain(**kwargs)
