"""Likelihoods, and the task of autoencoders."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.columns import DataInfo
from kerasdl.models.generative.autoencoder import autoencoder
from kerasdl.models.generative.vae import VariationalAutoencoder, vae_mlp
from kerasdl.ops import likelihood, noise
from kerasdl.recipe import Recipe
from kerasdl.tasks.reconstruct import Reconstruct

MANY = 200_000


def task_of(**settings):
    return Reconstruct(DataInfo.of_images((8, 8, 1)), Recipe(task_kwargs=settings))


def example_batch(size, seed=0):
    image = np.random.default_rng(seed).random((size, 8, 8, 1)).astype("float32")
    return {"image": ops.convert_to_tensor(image), "key": noise.keys(seed, 0, np.arange(size))}


def normal_draws(stream=0):
    """float64 `(MANY, 1)`."""
    return noise.normal(noise.keys(0, 0, np.arange(MANY)), (1,), stream, "float64")


class LinearGaussian:
    """`z ~ N(0, 1)`, `x ~ N(w z, s2)`, with a posterior of our choice; the exact one by default."""

    variational, latent_dim, beta = True, 1, 1.0
    w, s2 = 2.0, 0.5

    def __init__(self, shift=0.0, log_scale=0.0):
        self.shift, self.log_scale = shift, log_scale

    def encode(self, image, training=False):
        x = ops.reshape(image, (-1, 1))
        precision = 1.0 + self.w**2 / self.s2
        mean = self.w / self.s2 / precision * x + self.shift
        return {"mean": mean, "log_variance": 0 * x - math.log(precision) + self.log_scale}

    objective = VariationalAutoencoder.objective

    def decode(self, z, training=False):
        return self.w * z

    def nll(self, image, mean):
        return likelihood.gaussian_nll(ops.reshape(image, (-1, 1)), mean, math.log(self.s2))


def linear_batch(size=1):
    image = ops.full((size, 1, 1, 1), 1.3, dtype="float64")
    return {"image": image, "key": noise.keys(3, 0, np.arange(size))}


LOG_P = -1.8587550093705874  # of x = 1.3: log N(x; 0, w^2 + s2)


# -- likelihoods ------------------------------------------------------------------------------


def test_kl_of_normal_laws():
    def kl(mean, std, dims=1):
        shape = (1, dims)
        return float(likelihood.normal_kl(np.full(shape, mean), np.full(shape, 2 * np.log(std)))[0])

    assert kl(1.0, 2.0) == pytest.approx(1.3068528194400546, abs=1e-9)
    assert kl(1.0, 2.0, 20) == pytest.approx(26.137056, abs=1e-6)
    assert kl(0.0, 1.0, 20) == pytest.approx(0.0, abs=1e-12)


def test_kl_and_its_gradient_against_monte_carlo():
    mean, std = tf.Variable([[1.0]], dtype="float64"), tf.Variable([[2.0]], dtype="float64")
    with tf.GradientTape() as tape:
        log_variance = 2 * tf.math.log(std)
        z = likelihood.reparameterize(mean, log_variance, normal_draws())
        log_q = -likelihood.gaussian_nll(z, mean + 0 * z, log_variance)
        log_p = -likelihood.gaussian_nll(z, 0 * z, 0.0)
        estimate = tf.reduce_mean(log_q - log_p)
    d_mean, d_std = tape.gradient(estimate, [mean, std])
    exact = likelihood.normal_kl(mean, log_variance)
    np.testing.assert_allclose(estimate, exact[0], atol=0.02)
    # of the closed form: m, and s - 1 / s
    np.testing.assert_allclose([d_mean[0, 0], d_std[0, 0]], [1.0, 1.5], atol=0.02)


def test_gradient_by_reparameterization():
    mean, std = tf.Variable([[0.7]], dtype="float64"), tf.Variable([[0.3]], dtype="float64")
    with tf.GradientTape() as tape:
        z = likelihood.reparameterize(mean, 2 * tf.math.log(std), normal_draws())
        value = tf.reduce_mean(z**2)
    d_mean, d_std = tape.gradient(value, [mean, std])
    np.testing.assert_allclose([d_mean[0, 0], d_std[0, 0]], [1.4, 0.6], atol=0.02)


def test_bernoulli_of_intensities():
    image = np.random.default_rng(0).random((3, 28, 28, 1))
    zero = likelihood.bernoulli_nll(image, np.zeros_like(image))
    np.testing.assert_allclose(zero, 543.4273895589971, atol=1e-6)
    # least at the intensities themselves, where it is their entropy
    logits = np.log(image / (1 - image))
    entropy = -(image * np.log(image) + (1 - image) * np.log(1 - image)).sum((1, 2, 3))
    np.testing.assert_allclose(likelihood.bernoulli_nll(image, logits), entropy, rtol=1e-9)
    assert np.all(likelihood.bernoulli_nll(image, logits + 0.1) > entropy)
    extreme = likelihood.bernoulli_nll(np.array([[1.0, 0.0]]), np.array([[800.0, -800.0]]))
    np.testing.assert_allclose(extreme, [0.0], atol=1e-12)


def test_bits_per_dim():
    assert likelihood.bits_per_dim(0.0, 64, levels=256) == pytest.approx(8)  # the uniform density
    assert likelihood.bits_per_dim(784 * math.log(2), 784) == pytest.approx(1)


def test_the_bound_is_tight_at_the_exact_posterior():
    model, batch = LinearGaussian(), linear_batch()
    encoded = model.encode(batch["image"])
    for value in (-1.0, 0.0, 2.0):
        z = np.array([[value]])
        nll = model.nll(batch["image"], model.decode(z))
        log = likelihood.log_weight(nll, z, encoded["mean"], encoded["log_variance"])
        np.testing.assert_allclose(log, [LOG_P], atol=1e-9)


def test_importance_weights_tighten_the_bound():
    model, batch = LinearGaussian(shift=0.3, log_scale=1.0), linear_batch(4000)
    _, metrics = task_of().losses(model, batch)
    bounds = [-np.mean(metrics["reconstruction"] + metrics["kl"])]
    for number in (5, 50, 500):
        task = task_of(importance_samples=number)
        bounds.append(np.mean(task.log_likelihood(model, batch)))
    assert bounds == sorted(bounds)
    assert bounds[0] < LOG_P - 0.3
    assert bounds[-1] == pytest.approx(LOG_P, abs=0.005)
    exact = task_of(importance_samples=3).log_likelihood(LinearGaussian(), linear_batch(5))
    np.testing.assert_allclose(exact, LOG_P, atol=1e-5)


# -- the task ---------------------------------------------------------------------------------


def test_losses_are_the_bounds_parts():
    model = vae_mlp(image_shape=(8, 8, 1), latent_dim=3, hidden_dim=16, beta=0.25)
    task, batch = task_of(), example_batch(4)
    loss, metrics = task.losses(model, batch)
    np.testing.assert_allclose(loss, metrics["reconstruction"] + 0.25 * metrics["kl"], rtol=1e-6)
    encoded = model.encode(batch["image"])
    std = np.exp(encoded["log_variance"] / 2)
    z = encoded["mean"] + std * noise.normal(batch["key"], (3,))
    p = 1 / (1 + np.exp(-np.asarray(model.decode(z), np.float64)))
    x = np.asarray(batch["image"], np.float64)
    expected = -(x * np.log(p) + (1 - x) * np.log(1 - p)).sum((1, 2, 3))
    np.testing.assert_allclose(metrics["reconstruction"], expected, rtol=1e-5)
    # the noise is the example's: its place in the batch does not matter
    part, _ = task.losses(model, {k: v[2:] for k, v in batch.items()})
    np.testing.assert_allclose(part, loss[2:], rtol=1e-5)


@pytest.mark.parametrize(("schedule", "more"), [("bernoulli", 0), ("gaussian", 8)])
def test_summary(schedule, more):
    task, means = task_of(), {"loss": 5.0, "reconstruction": 20.0, "kl": 4.0}
    task.losses(vae_mlp(image_shape=(8, 8, 1), beta=0.5, likelihood=schedule), example_batch(1))
    result = task.summarize(means, "test")
    assert result["elbo"] == -24.0 and result["loss"] == 5.0
    assert result["bits_per_dim"] == pytest.approx(24 / 64 / math.log(2) + more)


def test_an_autoencoder_has_no_prior():
    model = autoencoder(image_shape=(8, 8, 1), latent_dim=3, dims=(16,))
    task, batch = task_of(), example_batch(3)
    loss, metrics = task.losses(model, batch)
    np.testing.assert_array_equal(metrics["kl"], np.zeros(3))
    np.testing.assert_array_equal(loss, metrics["reconstruction"])
    means = {"loss": 9.0, "reconstruction": 9.0, "kl": 0.0}
    assert task.summarize(means, "test") == means
    assert task.sampling_modes(model) == {}
    assert [s.name for s in task.signatures(model)] == ["reconstruct", "encode", "decode"]
    assert set(task.pictures(model, batch)) == {"reconstructions", "walk", "interpolation"}
    with pytest.raises(ValueError, match="importance_samples: an autoencoder has no prior"):
        task_of(importance_samples=2).predict(model, batch)


def test_evaluator_of_the_importance_weighted_likelihood():
    model = vae_mlp(image_shape=(8, 8, 1), latent_dim=3, hidden_dim=16)
    batch = example_batch(4)
    assert task_of().evaluators() == []
    task = task_of(importance_samples=7)
    (evaluator,) = task.evaluators()
    outputs = {k: np.asarray(v) for k, v in task.predict(model, batch).items()}
    evaluator.update(outputs, {"weight": np.array([1, 1, 1, 0])})
    expected = outputs["log_likelihood"][:3].mean()
    assert evaluator.result()["test"]["log_likelihood"] == pytest.approx(expected)


def test_draws_are_functions_of_their_keys():
    model = vae_mlp(image_shape=(8, 8, 1), latent_dim=3, hidden_dim=16)
    task, keys = task_of(), noise.sample_keys((1, 2), 6)
    assert task.sampling_modes(model) == {"samples": {}}
    images = task.sample(model, keys)
    expected = ops.sigmoid(model.decode(noise.normal(keys, (3,))))
    np.testing.assert_allclose(images, expected, atol=1e-6)
    np.testing.assert_allclose(task.sample(model, keys[4:]), images[4:], atol=1e-6)
    assert np.std(np.asarray(images), axis=0).max() > 0.01


@pytest.mark.parametrize("size", [1, 20])
def test_pictures(size):
    model = vae_mlp(image_shape=(8, 8, 1), latent_dim=5, hidden_dim=16)
    batch = example_batch(size)
    shown = min(size, 8)
    pictures = task_of().pictures(model, batch)
    shapes = {name: tuple(value.shape[:2]) for name, value in pictures.items()}
    assert shapes == {
        "reconstructions": (2, shown),
        "walk": (5, 9),
        "interpolation": (shown, 9),
        "samples": (8, 8),
    }
    outputs = model(batch["image"])
    for name, first, second in (
        ("reconstructions", batch["image"][:shown], outputs["image"][:shown]),
        ("interpolation", outputs["image"][0], outputs["image"][1 % size]),
    ):
        grid = np.asarray(pictures[name])
        ends = grid if name == "reconstructions" else (grid[0, 0], grid[0, -1])
        np.testing.assert_allclose(ends[0], first, atol=1e-5)
        np.testing.assert_allclose(ends[1], second, atol=1e-5)
    if size > 1:  # of one image nothing differs
        steps = np.abs(np.diff(pictures["walk"], axis=1)).max((1, 2, 3, 4))
        assert (steps > 0).all()


def test_signatures_answer_as_the_model():
    model = vae_mlp(image_shape=(8, 8, 1), latent_dim=3, hidden_dim=16)
    task, batch = task_of(), example_batch(3)
    result = {s.name: s for s in task.signatures(model)}
    assert list(result) == ["reconstruct", "encode", "decode", "sample"]
    outputs = model(batch["image"])
    image = result["reconstruct"].function(image=batch["image"])["image"]
    np.testing.assert_allclose(image, outputs["image"], atol=1e-6)
    code = result["encode"].function(image=batch["image"])
    assert set(code) == {"mean", "log_variance"}
    image = result["decode"].function(latent=code["mean"])["image"]
    np.testing.assert_allclose(image, outputs["image"], atol=1e-6)
    sampled = result["sample"].function(num=4, seed=np.array([1, 2]))["image"]
    np.testing.assert_allclose(sampled, task.sample(model, noise.sample_keys((1, 2), 4)), atol=1e-6)
    assert result["sample"].formats == ("savedmodel",)


@pytest.mark.parametrize("value", [-1, 2.5, 10_001, "many", True])
def test_bad_settings(value):
    with pytest.raises(ValueError, match="importance_samples=.* whole number from 0 to 10,000"):
        task_of(importance_samples=value)


def test_float64_throughout():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    model = vae_mlp(image_shape=(8, 8, 1), latent_dim=3, hidden_dim=16, likelihood="gaussian")
    batch = example_batch(3)
    loss, metrics = task_of().losses(model, batch, training=True)
    outputs = task_of(importance_samples=2).predict(model, batch)
    for name, value in {"loss": loss, **metrics, **outputs}.items():
        assert value.dtype == "float64", name
