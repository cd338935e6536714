"""One update, in one process: what is added up, clipped, decayed, averaged and skipped."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog
from kerasdl.columns import DataInfo
from kerasdl.layers import dropout
from kerasdl.recipe import Recipe
from kerasdl.tasks.classify import Classify
from kerasdl.training import optimizers, schedules, step

INFO = DataInfo.of_images((8, 8, 1), "abcd")


def make_trainer(model="linear", arguments=None, **settings):
    settings = {"opt": "sgd", "momentum": 0.0, "lr": 0.1, "sched": "constant", **settings}
    recipe = Recipe(model=model, **settings)
    keras.utils.set_random_seed(0)
    task = Classify(INFO, recipe)
    net = catalog.build(model, **task.arguments(), **(arguments or {}))
    return step.Trainer(net, task, recipe, schedules.from_recipe(recipe, 1, 10))


def make_batch(size=8, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "image": tf.constant(rng.random((size, 8, 8, 1)), "float32"),
        "label": tf.constant(rng.integers(0, 4, size), "int32"),
        "weight": tf.ones(size),
    }


def values(trainer):
    return [np.array(v) for v in trainer.net.trainable_variables]


def test_gradient_is_that_of_the_mean_and_accumulation_changes_nothing():
    batch = make_batch()
    whole, parts = make_trainer(), make_trainer(grad_accum_steps=4)
    before = values(whole)
    with tf.GradientTape() as tape:
        loss, _ = whole.task.losses(whole.net, batch, "model", training=True)
        mean = tf.reduce_mean(loss)
    gradients = tape.gradient(mean, [v.value for v in whole.net.trainable_variables])
    sums, norms = whole.update(batch, True)
    parts.update(batch)
    for old, new, micro, g, norm in zip(
        before, values(whole), values(parts), gradients, norms, strict=True
    ):
        np.testing.assert_allclose(new, old - 0.1 * g, atol=1e-6)
        np.testing.assert_allclose(micro, new, atol=1e-6)
        np.testing.assert_allclose(norm, np.linalg.norm(g), rtol=1e-5)
    np.testing.assert_allclose(sums[:, 0], [8 * mean, 8], rtol=1e-5)


def test_clipping_bounds_the_global_norm():
    trainer = make_trainer(clip_grad=0.01, lr=1.0)
    before = values(trainer)
    trainer.update(make_batch())
    moved = sum(((a - b) ** 2).sum() for a, b in zip(before, values(trainer), strict=True))
    np.testing.assert_allclose(np.sqrt(moved), 0.01, rtol=1e-4)


def test_weights_are_averaged_as_the_closed_form_says():
    trainer = make_trainer(ema_decay=0.9, lr=1e-30)  # the weights stay, the averages follow
    for mean, v in zip(trainer.ema, trainer.net.trainable_variables, strict=True):
        mean.assign(np.zeros(mean.shape))
        v.assign(np.ones(v.shape))
    for _ in range(5):
        trainer.update(make_batch())
    for mean in trainer.ema:
        np.testing.assert_allclose(mean, 1 - 0.9**5, rtol=1e-5)


@pytest.mark.parametrize("opt", ["sgd", "adamw"])
def test_weight_decay_spares_biases(opt):
    trainer = make_trainer("mlp", {"dims": (6,)}, opt=opt, weight_decay=0.5, lr=0.1)
    named = {v.path: v for v in trainer.net.trainable_variables}
    assert {optimizers.decays(v) for v in named.values()} == {True, False}
    for path, v in named.items():
        assert optimizers.decays(v) == path.endswith("kernel")


def test_decoupled_decay_shrinks_kernels_by_rate_times_decay():
    with_decay, without = (
        make_trainer("mlp", {"dims": (6,)}, opt="adamw", lr=0.01, weight_decay=d) for d in (0.5, 0)
    )
    before = values(without)
    for trainer in (with_decay, without):
        trainer.update(make_batch())
    for old, a, b in zip(before, values(with_decay), values(without), strict=True):
        shrunk = 0.01 * 0.5 * old if old.ndim > 1 else 0 * old
        np.testing.assert_allclose(b - a, shrunk, atol=1e-6)


def test_a_gradient_that_is_not_finite_skips_the_step_in_float16():
    trainer = make_trainer("mlp", {"dims": (6,)}, precision="mixed_float16", opt="adam")
    scale = float(np.array(trainer.loss_scale))
    batch = make_batch()
    trainer.update({**batch, "image": batch["image"] * np.nan})
    before = make_trainer("mlp", {"dims": (6,)}, precision="mixed_float16", opt="adam")
    for a, b in zip(values(trainer), values(before), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(np.array(trainer.loss_scale)) == scale / 2
    trainer.update(batch)
    assert all(np.isfinite(v).all() for v in values(trainer))
    assert any((a != b).any() for a, b in zip(values(trainer), values(before), strict=True))


def test_fit_of_keras_takes_the_same_step():
    ours, fitted = make_trainer(), make_trainer()
    ours.update(make_batch())
    logs = fitted.fit(tf.data.Dataset.from_tensors(make_batch()), verbose=0, shuffle=False).history
    assert set(logs) == {"loss", "top1", "top5"}
    for a, b in zip(values(ours), values(fitted), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_frozen_blocks_learn_slower_by_the_layer_decay():
    model = catalog.build("resnet20", image_shape=(8, 8, 1), num_classes=4, depths=(1, 1, 1))
    scales = optimizers.layer_scales(model.trainable_variables, 0.5)
    by_path = {v.path: s for v, s in zip(model.trainable_variables, scales, strict=True)}
    assert by_path["resnet20/head/kernel"] == 1
    assert by_path["resnet20/backbone/stage3_block1/conv1/conv/kernel"] == 0.5
    assert by_path["resnet20/backbone/stem/conv/kernel"] == 0.5**4


def test_replicas_draw_different_masks_from_one_state():
    def mask(number):
        keras.utils.set_random_seed(1)
        layer = dropout.Dropout(0.5, seed=7)
        with dropout.replica(number):
            return np.array(layer(np.ones((4, 50), "float32"), training=True))

    assert (mask(0) == mask(0)).all()
    assert (mask(0) != mask(1)).mean() > 0.3


@pytest.mark.parametrize(
    "opt", ["sgd", "nesterov", "lars", "adagrad", "adadelta", "rmsprop", "lion"]
)
def test_every_optimizer_moves_the_weights(opt):
    trainer = make_trainer(opt=opt, momentum=0.9)
    before = values(trainer)
    trainer.update(make_batch())
    assert any((a != b).any() for a, b in zip(before, values(trainer), strict=True))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_is_that_of_keras_to_the_bit(dtype, rng):
    start = rng.standard_normal((3, 5))
    gradients = [tf.constant(rng.standard_normal((3, 5)), dtype) for _ in range(4)]
    moved = []
    for made in (optimizers.Adam(0.01, beta_1=0.85), keras.optimizers.Adam(0.01, beta_1=0.85)):
        weight = keras.Variable(start, dtype=dtype)
        made.build([weight])
        for gradient in gradients:
            made.apply_gradients([(gradient, weight)])
        moved.append([np.array(v) for v in (weight, *made.variables)])
    for a, b in zip(*moved, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (moved[0][0] != start).all()


def test_lars_moves_kernels_in_proportion_to_their_norms(rng):
    """Algorithm 1 of You et al. 2017; biases move as by momentum, without decay."""
    rate, m, decay = 3.0, 0.8, 0.1
    settings = {"opt": "lars", "momentum": m, "weight_decay": decay, "lr": rate}
    trainer = make_trainer("mlp", {"dims": (6, 5)}, **settings)
    variables = trainer.net.trainable_variables
    for v in variables:
        v.assign(rng.standard_normal(v.shape))
    variables[2].assign(np.zeros(variables[2].shape))  # a kernel that has no norm
    assert sum("momentum" in name for name in trainer.state()) == len(variables)  # it is resumed
    weights, velocities = values(trainer), [0.0] * len(variables)
    for seed in range(4):
        batch = make_batch(seed=seed)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(trainer.task.losses(trainer.net, batch, "model", True)[0])
        gradients = tape.gradient(loss, [v.value for v in variables])
        for i, (w, g) in enumerate(zip(weights, gradients, strict=True)):
            g = np.asarray(g)
            if w.ndim > 1:
                norm = np.linalg.norm(w)
                trust = 0.001 * norm / (np.linalg.norm(g) + decay * norm) if norm else 1.0
                g = trust * (g + decay * w)
            velocities[i] = m * velocities[i] + rate * g
            weights[i] = w - velocities[i]
        trainer.update(batch)
        for w, new in zip(weights, values(trainer), strict=True):
            np.testing.assert_allclose(new, w, rtol=1e-5, atol=1e-6)


def test_what_no_weight_owns_is_computed_once():
    """A graph takes time to build and to start in proportion to its operations."""

    def operations(depth):
        trainer = make_trainer("mlp", {"dims": (6,) * depth}, opt="adamw", ema_decay=0.9)
        update = tf.function(lambda batch: trainer.update(batch, tf.constant(True)))
        graph = update.get_concrete_function(make_batch()).graph
        return len(graph.get_operations()), len(trainer.net.trainable_variables)

    (few, small), (many, large) = operations(1), operations(5)
    assert (many - few) / (large - small) < 40  # 56 with what belongs to no weight


class Uneven(Classify):
    """A classifier whose examples count as much as their label says; it carries the images."""

    carried = ("seen",)

    def losses(self, model, batch, player="model", training=False):
        loss, metrics = super().losses(model, batch, player, training)
        weight = tf.cast(batch["label"], loss.dtype)
        seen = tf.reduce_sum(batch["image"], (1, 2, 3))
        return (loss * weight, weight), {
            **{name: (value * weight, weight) for name, value in metrics.items()},
            "seen": seen,
        }

    def after_update(self, model, carry):
        self.kept = carry["seen"]


def uneven(**settings):
    trainer = make_trainer(**settings)
    trainer.task = Uneven(INFO, trainer.settings)
    return trainer


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_a_weighted_loss_is_divided_by_the_weight_of_the_whole_batch(micro):
    batch, trainer = make_batch(), uneven(grad_accum_steps=micro)
    weight = tf.cast(batch["label"], "float32")
    before = values(trainer)
    with tf.GradientTape() as tape:
        loss, _ = Classify(INFO, trainer.settings).losses(trainer.net, batch, training=True)
        mean = tf.reduce_sum(loss * weight) / tf.reduce_sum(weight)
    gradients = tape.gradient(mean, [v.value for v in trainer.net.trainable_variables])
    sums, _ = trainer.update(batch)
    for old, new, g in zip(before, values(trainer), gradients, strict=True):
        np.testing.assert_allclose(new, old - 0.1 * g, atol=1e-6)
    np.testing.assert_allclose(sums[0, 0] / sums[1, 0], mean, rtol=1e-5)
    np.testing.assert_allclose(sums[1], tf.reduce_sum(weight))
    # What is carried stands in the order of the batch, however it was divided.
    image = tf.reduce_sum(batch["image"], (1, 2, 3))
    np.testing.assert_allclose(trainer.task.kept, image, rtol=1e-6)


def test_a_batch_without_weight_moves_nothing():
    trainer = uneven()
    before = values(trainer)
    sums, _ = trainer.update({**make_batch(), "label": tf.zeros(8, "int32")})
    for old, new in zip(before, values(trainer), strict=True):
        np.testing.assert_array_equal(old, new)
    assert (sums.numpy() == 0).all()


def test_evaluation_counts_weights_of_examples_and_of_what_they_hold():
    batch = {**make_batch(), "weight": tf.constant([1.0] * 6 + [0.0] * 2)}
    trainer = uneven()
    loss, _ = Classify(INFO, trainer.settings).losses(trainer.net, batch)
    weight = tf.cast(batch["label"], "float32")[:6]
    sums = trainer.metric_sums(batch)
    np.testing.assert_allclose(sums[0, 0], tf.reduce_sum(loss[:6] * weight), rtol=1e-5)
    np.testing.assert_allclose(sums[1], tf.reduce_sum(weight))
