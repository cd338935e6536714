"""Recomputation changes the memory of a step, and nothing that the step computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog
from kerasdl.layers import remat
from kerasdl.layers.core import ConvNorm
from kerasdl.layers.dropout import Dropout
from kerasdl.recipe import Recipe
from kerasdl.training import schedules, step
from tests.training.processes import MEMORY, difference, finish, run_script
from tests.variants import example_batch, task_of, tiny

DROP = {"drop_rate": 0.3}
# One model for each kind of block, with dropout where it has any.
MODELS = {
    "resnet18": DROP,
    "resnet50": DROP,
    "densenet_bc_40_12": DROP,
    "googlenet": DROP,
    "googlenet_small": DROP,
    "vit_digits": {**DROP, "drop_path": 0.3},
    "ddpm_unet_small": DROP,
    "gpt2_small": DROP,
    "char_gpt": DROP,
    "transformer_small": DROP,
}


def in_float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


def make(name):
    keras.utils.set_random_seed(0)
    model = catalog.build(name, **{**tiny(name), **MODELS.get(name, {})})
    rng = np.random.default_rng(0)
    for v in model.trainable_variables:  # zero kernels hide gradients
        v.assign(v.value + 0.1 * rng.normal(size=v.shape))
    return model, task_of(name)


def derive(layer, function, on, traced=True):
    """What a function gives, its gradient by every weight, and the statistics and seeds after it.

    Leaves all of them as they were.
    """

    def run():
        with tf.GradientTape() as tape:
            with remat.remat(on):
                answer = function()
            total = tf.reduce_sum(answer)
        weights = [v.value for v in layer.trainable_variables]
        return answer, tape.gradient(total, weights, unconnected_gradients="zero")

    before = [v.numpy() for v in layer.variables]
    answer, gradients = (tf.function(run, autograph=False) if traced else run)()
    result = {v.path: v.numpy() for v in layer.non_trainable_variables}
    moved = {
        v.path for v, old in zip(layer.variables, before, strict=True) if (v.numpy() != old).any()
    }
    for v, g in zip(layer.trainable_variables, gradients, strict=True):
        result[v.path] = tf.convert_to_tensor(g).numpy()
    for v, value in zip(layer.variables, before, strict=True):
        v.assign(value)
    return {"answer": answer.numpy(), **result}, moved


def check_equal(result, wanted, tolerance=1e-12):
    assert result.keys() == wanted.keys()
    for path, value in wanted.items():
        maximum = tolerance * (1 + np.abs(value).max())
        np.testing.assert_allclose(result[path], value, rtol=0, atol=maximum, err_msg=path)


def count_calls(layers, monkeypatch):
    """A list that every call of the layers makes longer."""
    calls = []
    for layer in layers:

        def call(*args, original=layer.call, **kwargs):
            calls.append(original)
            return original(*args, **kwargs)

        monkeypatch.setattr(layer, "call", call)
    return calls


@pytest.mark.parametrize("name", MODELS)
def test_gradients_statistics_and_seeds_are_the_same(name, monkeypatch):
    in_float64()
    model, task = make(name)
    batch = example_batch(task, 4)
    blocks = remat.blocks(model)
    calls = count_calls(blocks, monkeypatch)

    def losses():
        loss = task.losses(model, batch, "model", training=True)[0]
        return loss[0] if isinstance(loss, tuple) else loss

    wanted, moved = derive(model, losses, on=False)
    assert len(calls) == len(blocks) > 0
    result, also = derive(model, losses, on=True)
    assert len(calls) == 3 * len(blocks)
    check_equal(result, wanted)
    assert moved == also != set()


def test_without_training_nothing_is_recomputed(monkeypatch):
    model, task = make("vit_digits")
    calls = count_calls(remat.blocks(model), monkeypatch)
    image = example_batch(task, 2)["image"]
    derive(model, lambda: model(image, training=False), on=True)
    assert len(calls) == len(remat.blocks(model))


class Inner(remat.Block):
    """Dropout, convolution and batch norm; takes and gives what is no tensor."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.drop = Dropout(0.5, name="drop")
        self.conv = ConvNorm(3, 1, name="conv")

    def call(self, x, chosen=None, other=None, scale=1.0, training=False):
        y = self.conv(self.drop(x["image"], training=training), training=training) * scale
        return {"image": y, "count": keras.ops.sum(chosen), "other": other}


class Outer(remat.Block):
    """A block with a block in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Inner(name="inner")

    def call(self, x, chosen=None, training=False):
        return self.inner(x, chosen=chosen, scale=2.0, training=training)


@pytest.mark.parametrize("traced", [True, False])
@pytest.mark.parametrize("kind", [Inner, Outer])
def test_of_nested_blocks_the_outermost_is_recomputed(kind, traced, rng, monkeypatch):
    in_float64()
    layer, image = kind(), rng.normal(size=(2, 4, 4, 3))
    x, chosen = {"image": tf.constant(image)}, tf.constant([1, 0])
    layer(x, chosen=chosen)
    seed, mean = (next(v for v in layer.variables if n in v.path) for n in ("seed", "mean"))

    def function():
        y = layer(x, chosen=chosen, training=True)
        assert y["other"] is None and y["count"].dtype == "int32"
        return keras.ops.square(y["image"]) + keras.ops.cast(y["count"], "float64")

    calls = count_calls([layer.inner if kind is Outer else layer], monkeypatch)
    wanted, _ = derive(layer, function, False, traced)
    result, _ = derive(layer, function, True, traced)
    check_equal(result, wanted, 0)
    assert len(calls) == 3
    assert list(result[seed.path] - seed.numpy()) == [0, 1]  # one draw
    assert (result[mean.path] != mean.numpy()).all()  # and it is what once makes of it: see above


SETTINGS = {
    "plain": {},
    "accumulated": {"grad_accum_steps": 2, "clip_grad": 0.1},
    "bfloat16": {"precision": "mixed_bfloat16"},
    "float16": {"precision": "mixed_float16"},
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_training_step_does_the_same(settings):
    settings = {"model": "resnet18", "opt": "sgd", "momentum": 0.0, "lr": 0.1, **SETTINGS[settings]}
    keras.config.set_dtype_policy(settings.get("precision", "float32"))
    result = []
    for on in (False, True):
        model, task = make("resnet18")
        recipe = Recipe(remat=on, **settings)
        trainer = step.Trainer(model, task, recipe, schedules.from_recipe(recipe, 1, 10))
        batch = {**example_batch(task, 4), "weight": tf.ones(4)}
        sums, _ = tf.function(trainer.update, autograph=False)(batch)
        weights = {v.path: v.numpy() for v in model.variables}
        assert all(np.isfinite(v).all() for v in weights.values())
        result.append({"sums": sums.numpy(), **weights})
    # The graph of the first time has fused convolutions, which round otherwise in 16 bits.
    check_equal(*result, 2e-2 if "precision" in settings else 1e-5)


def test_a_model_without_blocks_is_refused():
    recipe = Recipe(model="linear", remat=True)
    model, task = make("linear")
    with pytest.raises(ValueError, match="--remat: linear has no blocks to recompute"):
        step.Trainer(model, task, recipe, schedules.from_recipe(recipe, 1, 10))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"model": "resnet20", "sync_batch_norm": True},
        {"model": "vit_digits", "drop_rate": 0.2, "drop_path": 0.2, "grad_accum_steps": 2},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_two_replicas_train_the_same(settings, tmp_path):
    common = {"strategy": "mirrored", "logical_devices": 2, "precision": "float64", "max_steps": 4}
    kept = finish(tmp_path, "kept", **common, **settings)
    again = finish(tmp_path, "again", **common, **settings, remat=True)
    np.testing.assert_allclose(again["losses"], kept["losses"], rtol=0, atol=1e-9)
    assert difference(kept, again) < 1e-9


# MiB that tensors may take: enough for a step with recomputation, and too little without. What a
# process holds besides differs by machine.
LIMITS = {"vit": (850, 1500), "unet": (2100, 3600)}


@pytest.mark.slow
@pytest.mark.parametrize("name", LIMITS)
def test_a_step_fits_in_six_tenths_of_what_is_too_little_without(name, tmp_path):
    def step_within(limit, on):
        variables = {"TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_CPU_BFC_MEM_LIMIT_IN_MB": str(limit)}
        return run_script(MEMORY, name, on, out=tmp_path / f"{on}.npz", **variables)

    enough, too_little = LIMITS[name]
    assert enough < 0.6 * too_little
    status, result = step_within(enough, "on")
    assert status == 0 and np.isfinite(result["loss"])
    status, text = step_within(too_little, "off")
    assert status != 0 and "OOM when allocating tensor" in text
