"""What the variational autoencoders' papers promise."""

import math

import keras
import numpy as np
import pytest

from kerasdl.models.generative import vae as module
from kerasdl.models.generative.vae import vae, vae_mlp


def count(builder, **kwargs):
    with keras.StatelessScope():
        return sum(math.prod(v.shape) for v in builder(**kwargs).trainable_variables)


def test_parameters_of_the_papers_network():
    assert count(vae_mlp) == 815_824
    assert count(vae_mlp, likelihood="gaussian") == 815_825  # one variance for all pixels


def test_zero_logits_cost_ln_2_each():
    model = vae_mlp()
    model.pixels.kernel.assign(np.zeros(model.pixels.kernel.shape))
    image = np.random.default_rng(0).random((2, 28, 28, 1)).astype("float32")
    logits = model.decode(np.ones((2, 20), "float32"))
    np.testing.assert_allclose(model.nll(image, logits), 543.4273895589971, rtol=1e-6)


def test_the_image_is_decoded_from_the_mean():
    for model in (vae_mlp(image_shape=(8, 8, 1)), vae(image_shape=(8, 8, 1))):
        x = np.random.default_rng(0).random((3, 8, 8, 1)).astype("float32")
        outputs = model(x)
        expected = keras.ops.sigmoid(model.decode(outputs["mean"]))
        np.testing.assert_allclose(outputs["image"], expected, atol=1e-6)
        for name in ("mean", "log_variance"):
            np.testing.assert_allclose(outputs[name], model.encode(x)[name], atol=1e-5)


def test_gaussian_variance_is_learned_and_bounded():
    model = vae(image_shape=(8, 8, 1), likelihood="gaussian")
    variance = model.pixel_log_variance
    assert any(v is variance for v in model.trainable_variables)
    logits = np.zeros((1, 8, 8, 1), "float32")
    image = np.full((1, 8, 8, 1), 0.5, "float32")  # met exactly
    for value, expected in ((-2.0, -2.0), (-100.0, 2 * math.log(1 / 256 / math.sqrt(12)))):
        variance.assign(value)
        nll = 64 * 0.5 * (math.log(2 * math.pi) + expected)
        np.testing.assert_allclose(model.nll(image, logits), [nll], rtol=1e-5)


def test_doubled_copies_pixels():
    x = np.random.default_rng(0).random((2, 3, 4, 5))
    np.testing.assert_array_equal(module.upsample2x(x), x.repeat(2, 1).repeat(2, 2))


@pytest.mark.parametrize("shape", [(8, 8, 1), (4, 12, 3), (32, 32, 1)])
def test_sizes_that_can_be_halved(shape):
    model = vae(image_shape=shape, filters=(4, 6), hidden_dim=8)
    assert model(np.zeros((2, *shape), "float32"))["image"].shape == (2, *shape)
    assert model.small == (shape[0] // 4, shape[1] // 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_shape": (30, 27, 1)}, r"multiples of 4 .* nearest is \(32, 28, 1\), .* 32 28"),
        ({"image_shape": (1, 8, 3)}, r"nearest is \(4, 8, 3\)"),
        ({"image_shape": (12, 12, 1), "filters": (4, 4, 4)}, r"multiples of 8 .*\(16, 16, 1\)"),
        ({"image_shape": (8, 8)}, r"image_shape \(8, 8\)"),
        ({"likelihood": "normal"}, "likelihood 'normal': not one of bernoulli, gaussian"),
        ({"beta": -1.0}, "beta -1.0: must be a number from 0 on"),
        ({"filters": (4, 0)}, r"filters\[1\] 0: must be a whole number"),
        ({"filters": ()}, r"filters \(\): must hold the channels of at least one stage"),
        ({"latent_dim": 0}, "latent_dim 0: must be a whole number"),
        ({"hidden_dim": 0}, "hidden_dim 0: must be a whole number"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        vae(**arguments)


def test_every_weight_matters_to_call():
    x = np.random.default_rng(0).random((2, 8, 8, 1)).astype("float32")
    for name, builder in (("vae_mlp", vae_mlp), ("vae", vae)):
        model = builder(**module.TINY[name])
        before = {k: np.asarray(v) for k, v in model(x).items()}
        for weight in model.weights:
            if weight.name == "pixel_log_variance":  # of the loss, not of the mean image
                continue
            kept = weight.numpy()
            weight.assign(kept + 0.5)
            after = model(x)
            assert any(np.abs(after[k] - before[k]).max() > 1e-6 for k in before), weight.path
            weight.assign(kept)
