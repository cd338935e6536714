"""What the paper of 2014 and its code promise."""

import keras
import numpy as np
import pytest

from kerasdl.models.generative import gan


def counts(model):
    parts = (model.generator, model.discriminator)
    return [sum(int(np.prod(w.shape)) for w in part.trainable_weights) for part in parts]


def test_parameters_of_the_mnist_networks():
    generator = 100 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 784 + 784
    assert generator == 2_503_984
    maxout = (784 * 240 + 240) * 5 + (240 * 240 + 240) * 5 + 240 + 1
    with keras.StatelessScope(initialize_variables=False):
        assert counts(gan.gan_mlp()) == [generator, maxout]


def test_pixels_are_in_0_to_1_and_logits_are_not_squeezed(rng):
    model = gan.gan_mlp(**gan.TINY["gan_mlp"])
    for weight in model.trainable_weights:
        weight.assign(3 * rng.normal(size=weight.shape))
    x = {"image": rng.random((6, 8, 8, 1)), "latent": rng.normal(size=(6, 5))}
    answer = {k: np.asarray(v) for k, v in model(x).items()}
    assert answer["image"].shape == (6, 8, 8, 1)
    assert answer["image"].min() >= 0
    assert answer["image"].max() <= 1
    assert np.abs(answer["real"]).max() > 1
    np.testing.assert_allclose(answer["image"], model.generate(x["latent"]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(answer["real"], model.discriminate(x["image"]), rtol=1e-5)
    np.testing.assert_allclose(answer["fake"], model.discriminate(answer["image"]), rtol=1e-5)


def test_discriminator_drops_pixels_and_units_while_training(rng):
    images = rng.random((4, 8, 8, 1)).astype("float32")
    for rates, changes in (((0.0, 0.0), False), ((0.2, 0.0), True), ((0.0, 0.5), True)):
        layer = gan.MaxoutDiscriminator(7, 3, *rates)
        first, second = (np.asarray(layer(images, training=True)) for _ in range(2))
        assert np.any(first != second) == changes, rates


def test_bad_arguments():
    with pytest.raises(ValueError, match="latent_prior 'unifrom'.*uniform"):
        gan.gan_mlp(latent_prior="unifrom")
    with pytest.raises(ValueError, match="norm 'bach': not one of batch, none"):
        gan.gan_mlp(norm="bach")
    with pytest.raises(ValueError, match="latent_dim 0"):
        gan.gan_mlp(latent_dim=0)
    with pytest.raises(ValueError, match="image_shape"):
        gan.gan_mlp(image_shape=(28, 28))
    with pytest.raises(ValueError, match="no argument 'hidden'.*hidden_dim"):
        gan.gan_mlp(hidden=5)
