"""Adversarial training: whose loss is what, and who is left alone."""

import math
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasdl.columns import DataInfo
from kerasdl.layers.core import Model
from kerasdl.models.generative import dcgan, gan
from kerasdl.ops import noise
from kerasdl.recipe import Recipe
from kerasdl.tasks.adversarial import LOSSES, TASK, linear, slerp
from kerasdl.training import schedules
from kerasdl.training.step import Trainer
from tests.fork_server import python

SHAPE = (8, 8, 1)


def make_task(label_smoothing=0.0, **settings):
    recipe = Recipe(task_kwargs=settings, label_smoothing=label_smoothing)
    return TASK(DataInfo.of_images(SHAPE), recipe)


def make_model(**kwargs):
    return dcgan.dcgan(image_shape=SHAPE, base_filters=4, latent_dim=6, smallest=2, **kwargs)


def make_batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    image = tf.constant(rng.random((size, *SHAPE)), keras.config.floatx())
    return {"image": image, "key": noise.keys(seed, 0, ops.arange(size))}


def make_trainer(model, task, **settings):
    recipe = Recipe(lr=0.01, **settings)
    return Trainer(model, task, recipe, schedules.from_recipe(recipe, 10, 100))


def test_the_task_offers_the_losses_that_a_gan_has():
    assert LOSSES == gan.LOSSES
    model = make_model()
    for one in (
        lambda: model.generator_loss("huber", 0.0),
        lambda: model.discriminator_loss("huber", 0.0, 0.0),
    ):
        with pytest.raises(ValueError, match="loss 'huber': not one of non_saturating"):
            one()


class Known(Model):
    """Images are all `level`; logits are `slope sum(image) + shift`."""

    latent_dim, latent_prior = 3, "normal"
    discriminator_loss = gan.Gan.discriminator_loss
    generator_loss = gan.Gan.generator_loss

    def __init__(self, slope=0.0, shift=0.0, level=0.5, **kwargs):
        super().__init__(**kwargs)
        self.slope, self.shift, self.level = slope, shift, level

    def generate(self, latent, training=False):
        return ops.zeros((latent.shape[0], *SHAPE), "float64") + self.level

    def discriminate(self, image, training=False):
        return self.slope * ops.sum(ops.cast(image, "float64"), axis=(1, 2, 3)) + self.shift


def losses_of(model, training=False, **settings):
    task, batch = make_task(**settings), make_batch()
    result = {}
    for player in task.players:
        loss, metrics = task.losses(model, batch, player, training=training)
        assert loss.shape == metrics["score"].shape == (8,)
        result[player] = np.asarray(loss), np.asarray(metrics["score"])
    return result


def test_a_discriminator_that_cannot_tell():
    """D = 1/2 everywhere: the value is -log 4, the generator's loss log 2."""
    result = losses_of(Known())
    np.testing.assert_allclose(-result["discriminator"][0], -1.3862943611198906, rtol=1e-12)
    np.testing.assert_allclose(result["generator"][0], 0.6931471805599453, rtol=1e-12)
    for _, score in result.values():
        np.testing.assert_allclose(score, 0.5, rtol=1e-12)
    minimax = losses_of(Known(), loss="minimax")
    total = minimax["discriminator"][0] + 2 * minimax["generator"][0]
    np.testing.assert_allclose(total, 0, atol=1e-12)  # E log(1 - D) is half of the value


@pytest.mark.parametrize(
    ("loss", "of_discriminator", "of_generator"),
    [
        ("hinge", lambda r, f: max(0, 1 - r) + max(0, 1 + f), lambda f: -f),
        ("wasserstein_gp", lambda r, f: f - r, lambda f: -f),
        (
            "non_saturating",
            lambda r, f: math.log(1 + math.exp(-r)) + math.log(1 + math.exp(f)),
            lambda f: math.log(1 + math.exp(-f)),
        ),
        (
            "minimax",
            lambda r, f: math.log(1 + math.exp(-r)) + math.log(1 + math.exp(f)),
            lambda f: -math.log(1 + math.exp(f)),
        ),
    ],
)
def test_losses_by_hand(loss, of_discriminator, of_generator):
    model = Known(slope=0.1, shift=-3.0)
    result = losses_of(model, loss=loss)
    real = np.asarray(model.discriminate(make_batch()["image"]))
    fake = 0.1 * 32 - 3
    expected = [of_discriminator(r, fake) for r in real]
    np.testing.assert_allclose(result["discriminator"][0], expected, rtol=1e-6)
    np.testing.assert_allclose(result["generator"][0], of_generator(fake), rtol=1e-6)
    score = (
        (lambda z: z) if loss in ("hinge", "wasserstein_gp") else (lambda z: 1 / (1 + np.exp(-z)))
    )
    np.testing.assert_allclose(result["discriminator"][1], score(real), rtol=1e-6)
    np.testing.assert_allclose(result["generator"][1], score(fake), rtol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_penalty_of_a_known_slope(loss):
    """The gradient is `slope` at each of the 64 pixels: its norm is 8 |slope|."""
    model, slope, weight = Known(slope=-0.3), -0.3, 2.5
    plain = losses_of(model, training=True, loss=loss, gradient_penalty=0)
    with_penalty = losses_of(model, training=True, loss=loss, gradient_penalty=weight)
    evaluated = losses_of(model, training=False, loss=loss, gradient_penalty=weight)
    norm = 8 * abs(slope)
    penalty = (norm - 1) ** 2 if loss == "wasserstein_gp" else norm**2 / 2
    more = with_penalty["discriminator"][0] - plain["discriminator"][0]
    np.testing.assert_allclose(more, weight * penalty, rtol=1e-5)
    np.testing.assert_array_equal(with_penalty["generator"][0], plain["generator"][0])
    np.testing.assert_array_equal(evaluated["discriminator"][0], plain["discriminator"][0])


def test_default_penalties():
    assert make_task().gradient_penalty == 0
    assert make_task(loss="wasserstein_gp").gradient_penalty == 10
    assert make_task(loss="wasserstein_gp", gradient_penalty=0).gradient_penalty == 0


def test_penalty_of_a_network_against_differences():
    """How the mean penalty changes with each weight of the discriminator, in float64."""
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    model, task = make_model(norm="none", minibatch_std=True), make_task(gradient_penalty=50.0)
    batch = make_batch()

    def loss():
        return ops.mean(task.losses(model, batch, "discriminator", training=True)[0])

    variables = task.variables(model, "discriminator")
    with tf.GradientTape() as tape:
        value = loss()
    assert value.dtype == "float64"
    gradients = tape.gradient(value, [v.value for v in variables])
    for variable, result in zip(variables, gradients, strict=True):
        own = variable.numpy()
        step = 1e-5 * np.random.default_rng(0).normal(size=own.shape)
        sides = []
        for sign in (1, -1):
            variable.assign(own + sign * step)
            sides.append(float(loss()))
        variable.assign(own)
        slope = float(np.sum(np.asarray(result) * step))
        assert (sides[0] - sides[1]) / 2 == pytest.approx(slope, rel=1e-4), variable.path


def test_one_sided_label_smoothing():
    model = Known(slope=0.1, shift=-3.0)
    plain = losses_of(model, training=True)
    smooth = losses_of(model, training=True, label_smoothing=0.2)
    real = np.asarray(model.discriminate(make_batch()["image"]))
    d = 1 / (1 + np.exp(-real))
    change = -0.8 * np.log(d) - 0.2 * np.log(1 - d) + np.log(d)
    result = smooth["discriminator"][0] - plain["discriminator"][0]
    np.testing.assert_allclose(result, change, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(smooth["generator"][0], plain["generator"][0])
    evaluated = losses_of(model, label_smoothing=0.2)
    np.testing.assert_array_equal(evaluated["discriminator"][0], plain["discriminator"][0])


def values(part):
    return [w.numpy() for w in part.weights]


@pytest.mark.parametrize(
    ("kwargs", "settings"),
    [
        ({}, {}),
        ({"norm": "none", "minibatch_std": True}, {"gradient_penalty": 1.0}),
        ({"minibatch_std": True}, {"loss": "wasserstein_gp"}),
    ],
)
def test_a_turn_leaves_the_other_player_untouched(kwargs, settings):
    """Bit for bit, batch norm's statistics and the minibatch's too."""
    model, batch = make_model(**kwargs), make_batch()
    for mover, other in (
        (model.discriminator, model.generator),
        (model.generator, model.discriminator),
    ):
        task = make_task(**settings)
        task.players = (mover.name,)
        trainer = make_trainer(model, task)
        moved, left = values(mover), values(other)
        trainer.update(batch)
        for before, after in zip(left, values(other), strict=True):
            np.testing.assert_array_equal(before, after)
        for before, weight in zip(moved, mover.weights, strict=True):
            assert np.any(before != weight.numpy()), weight.path


def test_discriminator_steps_are_so_many_updates():
    task = make_task(discriminator_steps=3)
    trainer = make_trainer(make_model(), task)
    trainer.update(make_batch(12))
    trainer.update(make_batch(12))
    assert int(trainer.optimizers["discriminator"].iterations) == 6
    assert int(trainer.optimizers["generator"].iterations) == 2


def test_players_train_their_own_weights():
    model, task = make_model(), make_task()
    names = {p: {v.path for v in task.variables(model, p)} for p in task.players}
    assert all(path.startswith("dcgan/generator/") for path in names["generator"])
    assert all(path.startswith("dcgan/discriminator/") for path in names["discriminator"])
    every = {v.path for v in model.trainable_variables}
    assert names["generator"] | names["discriminator"] == every


def test_each_turn_draws_its_own_latents(monkeypatch):
    model, task, sampled = make_model(), make_task(), []
    monkeypatch.setattr(
        model, "generate", lambda z, training=False, f=model.generate: sampled.append(z) or f(z)
    )
    for player in task.players:
        task.losses(model, make_batch(), player, training=True)
    task.sample(model, make_batch()["key"])
    first, second, third = map(np.asarray, sampled)
    assert abs(first - second).min() > 0
    assert abs(first - third).min() > 0


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_latents_have_mean_0_and_variance_1(prior):
    model = gan.gan_mlp(**{**gan.TINY["gan_mlp"], "latent_prior": prior})
    z = np.asarray(make_task().latent(model, noise.sample_keys((1, 2), 4000)))
    np.testing.assert_allclose(z.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(z.std(0), 1, atol=0.05)
    assert (np.abs(z).max() <= math.sqrt(3)) == (prior == "uniform")


def test_draws_depend_on_their_own_keys_alone():
    model, task = make_model(), make_task()
    assert task.sampling_modes(model) == {"samples": {}}
    key = noise.sample_keys((3, 4), 5)
    image = np.asarray(task.sample(model, key))
    assert image.shape == (5, *SHAPE)
    np.testing.assert_allclose(task.sample(model, key[1:3]), image[1:3], atol=1e-6)


def test_arcs_and_lines(rng):
    a, b = rng.normal(size=(2, 5, 7))
    for blend in (linear, slerp):
        np.testing.assert_allclose(blend(a, b, 0.0), a, atol=1e-5)
        np.testing.assert_allclose(blend(a, b, 1.0), b, atol=1e-5)
    middle = np.linalg.norm(slerp(a, b, 0.5), axis=-1)
    lengths = [np.linalg.norm(v, axis=-1) for v in (a, b)]
    np.testing.assert_allclose(middle, np.mean(lengths, axis=0), rtol=1e-5)


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_pictures(prior):
    model, task = make_model(latent_prior=prior), make_task()
    shown = {k: np.asarray(v) for k, v in task.pictures(model, make_batch()).items()}
    assert shown["samples"].shape == (8, 8, *SHAPE)
    assert shown["interpolation"].shape == (8, 8, *SHAPE)
    assert shown["walk_trajectory"].shape == (4, 24, *SHAPE)
    for grid in shown.values():
        assert 0 <= grid.min() <= grid.max() <= 1
    samples = shown["samples"]
    np.testing.assert_allclose(shown["interpolation"][:, 0], samples[0], atol=1e-5)
    np.testing.assert_allclose(shown["interpolation"][:, -1], samples[1], atol=1e-5)
    again = task.pictures(model, make_batch(seed=5))
    np.testing.assert_array_equal(again["samples"], samples)


def test_signatures():
    model, task, batch = make_model(), make_task(), make_batch()
    result = {s.name: s for s in task.signatures(model)}
    assert list(result) == ["generate", "discriminate", "sample"]
    latent = result["generate"].examples["latent"]
    image = result["generate"].function(latent=latent)["image"]
    np.testing.assert_array_equal(image, model.generate(latent))
    score = result["discriminate"].function(image=batch["image"])["score"]
    np.testing.assert_array_equal(score, model.discriminate(batch["image"]))
    sampled = result["sample"].function(num=4, seed=np.array([1, 2]))["image"]
    np.testing.assert_array_equal(sampled, task.sample(model, noise.sample_keys((1, 2), 4)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "hing"}, "loss=hing.*hinge"),
        ({"loss": 3}, "loss=3: not one of non_saturating, minimax, hinge, wasserstein_gp"),
        ({"discriminator_steps": 0}, "discriminator_steps=0: must be a whole number from 1 on"),
        ({"discriminator_steps": 1.5}, "discriminator_steps=1.5"),
        ({"gradient_penalty": -1}, "gradient_penalty=-1: must be a number from 0 on"),
        ({"gradient_penalty": "big"}, "gradient_penalty=big"),
        ({"gradient_penaltty": 1}, "gradient_penaltty: no such setting.*gradient_penalty"),
        ({"loss": "hinge", "label_smoothing": 0.1}, "--label-smoothing 0.1: the hinge loss has"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_task(**settings)


def steps(replicas):
    """Three float64 updates with every kind of statistics, and a penalty, on so many replicas."""
    keras.utils.set_random_seed(0)
    devices = [f"CPU:{i}" for i in range(replicas)]
    reduction = tf.distribute.ReductionToOneDevice()
    strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
    with strategy.scope():
        model = make_model(norm="batch", minibatch_std=True)
        for layer in model._flatten_layers():
            if hasattr(layer, "synchronized"):
                layer.synchronized = True
        task = make_task(gradient_penalty=2.0, discriminator_steps=2)
        trainer = make_trainer(model, task, ema_decay=0.9)
    batch = make_batch(8)

    def share(context):
        i, size = context.replica_id_in_sync_group, 8 // replicas
        return {k: v[i * size : (i + 1) * size] for k, v in batch.items()}

    shares = strategy.experimental_distribute_values_from_function(share)
    run = tf.function(lambda batch: strategy.run(trainer.update, args=(batch,)))
    for _ in range(3):
        run(shares)
    return {v.path: v.numpy() for v in model.variables}


REPLICAS = """
import keras
import numpy as np
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
from tests.test_adversarial import steps
one, two = steps(1), steps(2)
for path, value in one.items():
    np.testing.assert_allclose(two[path], value, rtol=0, atol=1e-9, err_msg=path)
"""


@pytest.mark.slow
def test_two_replicas_equal_one_device():
    """A fresh process, whose CPU is divided in two."""
    done = subprocess.run(
        [python(), "-c", REPLICAS],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
