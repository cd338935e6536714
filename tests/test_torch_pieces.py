"""Pieces of networks equal torch's: convolutions, resizing, norms, activations and losses."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl.data import images
from kerasdl.layers.activation import Activation
from kerasdl.layers.core import Conv, upsample2x
from kerasdl.layers.norm import LocalResponseNorm
from kerasdl.layers.position import resize_grid
from kerasdl.ops.losses import cross_entropy, token_cross_entropy

FILE = Path(__file__).parent / "goldens" / "torch_pieces.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(FILE) as arrays:
        return dict(arrays)


def last(x):
    """With the channels last."""
    return np.moveaxis(x, 1, -1)


def given_weights(layer, golden, name, x):
    layer.build(x.shape)
    kernel = golden[f"weights/{name}/weight"].transpose(2, 3, 1, 0)
    layer.set_weights([kernel, golden[f"weights/{name}/bias"]])
    return np.asarray(layer(x))


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("k3d2p2g1", lambda: Conv(6, 3, dilation_rate=2)),
        ("k3d3p3g3", lambda: Conv(6, 3, dilation_rate=3, groups=3)),
        ("k3d4p0g1", lambda: keras.layers.Conv2D(6, 3, dilation_rate=4)),
    ],
)
def test_convolutions(golden, name, layer):
    result = given_weights(layer(), golden, f"conv/{name}", last(golden["inputs/x"]))
    np.testing.assert_allclose(result, last(golden[f"outputs/conv/{name}"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "side", "stride", "cut"),
    [
        ("k2s2p0o0", 2, 2, 0),
        ("k3s2p1o1", 3, 2, 1),
        ("k4s2p1o0", 4, 2, 1),
        ("k5s3p2o2", 5, 3, 2),
        ("k3s1p0o0", 3, 1, 0),
    ],
)
def test_transposed_convolutions(golden, name, side, stride, cut):
    expected = last(golden[f"outputs/conv_transpose/{name}"])
    x = last(golden["inputs/x"])
    whole = keras.layers.Conv2DTranspose(4, side, stride)
    result = given_weights(whole, golden, f"conv_transpose/{name}", x)
    height, width = expected.shape[1:3]
    result = result[:, cut : cut + height, cut : cut + width]
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    if cut == 1 and side == 4:  # as generators use it
        same = keras.layers.Conv2DTranspose(4, side, stride, "same")
        result = given_weights(same, golden, f"conv_transpose/{name}", x)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(20, 28), (7, 9), (13, 5)])
def test_antialiased_resizing(golden, size):
    """Of images bilinear, of learned positions bicubic."""
    x = last(golden["inputs/x"])
    name = "outputs/interpolate/{}_{}x{}_corners0_antialias"
    sides = tf.constant(x.shape[1:3], tf.float32)
    result = images._sampled(tf.constant(x), tf.zeros(2), sides, tf.constant(size))
    expected = last(golden[name.format("bilinear", *size)])
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
    expected = last(golden[name.format("bicubic", *size)])
    for one, right in zip(x, expected, strict=True):
        np.testing.assert_allclose(resize_grid(one, *size), right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(20, 28), (7, 9), (13, 5)])
def test_plain_resizing(golden, size):
    x = last(golden["inputs/x"])
    expected = last(golden["outputs/interpolate/bilinear_{}x{}_corners0".format(*size)])
    result = keras.ops.image.resize(x, size, "bilinear", data_format="channels_last")
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_twice_as_large(golden):
    result = upsample2x(last(golden["inputs/x"]))
    np.testing.assert_array_equal(result, last(golden["outputs/interpolate/nearest_20x28"]))


@pytest.mark.parametrize(("n", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 2.0), (3, 0.3, 0.6, 1.0)])
def test_local_response_norm(golden, n, alpha, beta, k):
    name = f"outputs/local_response_norm/n{n}_alpha{alpha:.4g}_beta{beta}_k{k}"
    result = LocalResponseNorm(n, alpha, beta, k)(last(golden["inputs/wide"]))
    np.testing.assert_allclose(result, last(golden[name]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gelu", "gelu_tanh", "silu", "elu", "leaky_relu"])
def test_activations(golden, name):
    result = Activation(name)(golden["inputs/line"])
    np.testing.assert_allclose(result, golden[f"outputs/activation/{name}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "smoothing"), [("", 0.0), ("_smoothing0.1", 0.1)])
def test_cross_entropy(golden, name, smoothing):
    classes, logits = golden["inputs/classes"], golden["inputs/logits"]
    right = golden[f"outputs/cross_entropy{name}"]
    label = np.eye(logits.shape[-1], dtype="float32")[classes]
    result = np.mean(cross_entropy(label, logits, smoothing))
    np.testing.assert_allclose(result, right, rtol=1e-6)
    tokens = token_cross_entropy(classes[None].astype("int32"), logits[None], smoothing)
    np.testing.assert_allclose(np.mean(tokens), right, rtol=1e-6)
