"""Recomputation changes the memory of a step, and nothing that the step computes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog
from kerasdl.layers import remat
from kerasdl.layers.core import ConvNorm
from kerasdl.layers.dropout import Dropout
from tests.test_every_model import BATTERY, example_batch, task_of, tiny

DROP = {"drop_rate": 0.3}
# One model for each kind of block, with dropout where it has any.
MODELS = {
    "resnet18": DROP,
    "resnet50": DROP,
    "densenet_bc_40_12": DROP,
    "googlenet": {},
    "vit_digits": {**DROP, "drop_path": 0.3},
    "ddpm_unet_small": DROP,
    "gpt2_small": DROP,
    "char_gpt": DROP,
    "transformer_small": DROP,
}


def step(model, task, batch, on, traced=True):
    """The loss, every gradient, and the state of statistics and seeds after a step."""

    def run(batch):
        with tf.GradientTape() as tape:
            with remat.remat(on):
                loss, _ = task.losses(model, batch, "model", training=True)
            total = tf.reduce_sum(loss)
        weights = [v.value for v in model.trainable_variables]
        return loss, tape.gradient(total, weights, unconnected_gradients="zero")

    before = [v.numpy() for v in model.variables]
    run = tf.function(run, autograph=False) if traced else run
    loss, gradients = run(batch)
    after = {v.path: v.numpy() for v in model.non_trainable_variables}
    for v, value in zip(model.variables, before, strict=True):
        v.assign(value)
    paths = [v.path for v in model.trainable_variables]
    gradients = [tf.convert_to_tensor(g).numpy() for g in gradients]
    return loss.numpy(), dict(zip(paths, gradients, strict=True)), after


def in_float64():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


def make(name):
    model = catalog.build(name, **{**tiny(name), **MODELS.get(name, {})})
    rng = np.random.default_rng(0)
    for v in model.trainable_variables:  # zero kernels hide gradients
        v.assign(v.value + 0.1 * rng.normal(size=v.shape))
    return model, task_of(name)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_and_state_are_the_same(name, monkeypatch):
    in_float64()
    model, task = make(name)
    batch = example_batch(task, 4)
    calls = []
    for block in remat.blocks(model):
        call = block.call
        monkeypatch.setattr(
            block, "call", lambda *a, f=call, **k: calls.append(len(calls)) or f(*a, **k)
        )
    loss, gradients, state = step(model, task, batch, on=False)
    once = len(calls)
    loss2, gradients2, state2 = step(model, task, batch, on=True)
    assert once == len(remat.blocks(model)) > 0 and len(calls) == 3 * once
    np.testing.assert_allclose(loss2, loss, rtol=1e-12)
    for path, g in gradients.items():
        worst = np.abs(gradients2[path] - g).max()
        assert worst <= 1e-12 * (1 + np.abs(g).max()), path
    assert state.keys() == state2.keys()
    for path, value in state.items():
        np.testing.assert_allclose(state2[path], value, rtol=1e-12, err_msg=path)
