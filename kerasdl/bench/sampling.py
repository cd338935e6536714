"""The sampler in one graph, against a loop in Python over `predict` and against its parts."""

import numpy as np
import tensorflow as tf
from keras import ops

import kerasdl
from kerasdl.columns import DataInfo
from kerasdl.ops import noise
from kerasdl.recipe import Recipe
from kerasdl.tasks.denoise import Denoise

SIZE = {"steps": 50, "batch": 64}
DIGITS = DataInfo.of_images((8, 8, 1), "0123456789")


def cases(size=None, arguments=None):
    """Yield `(name, steps)` for `paired.compare`; there is no XLA in them.

    Args:
        size: `{"steps", "batch"}`; `SIZE` if None.
        arguments: Of `ddpm_unet_small`.
    """
    steps, batch = (size or SIZE).values()
    model = kerasdl.create_model("ddpm_unet_small", **(arguments or {}))
    settings = {"conditional": True, "steps": steps}
    task = Denoise(DIGITS, Recipe(model="ddpm_unet_small", task_kwargs=settings))

    @tf.function(autograph=False)
    def sample(key, label):
        return task.sample(model, key, label)

    @tf.function(autograph=False)
    def chain(x, label):
        t = ops.ones_like(x[:, 0, 0, 0])

        def step(i, x):
            return model({"image": x, "time": t, "label": label}, training=False)

        return ops.fori_loop(0, steps, step, x)

    def ours(count):
        key, label = noise.sample_keys((0, 0), count), tf.zeros(count, "int32")
        return lambda: sample(key, label).numpy()

    one = f"DDIM, {steps} steps of ddpm_unet_small, 1 image / a loop over predict"
    yield one, {("ours", False): ours(1), ("peer", False): lambda: _predict_loop(model, task, 1)}
    x = tf.random.stateless_normal((batch, *DIGITS.image_shape), (0, 0))
    label = tf.zeros(batch, "int32")
    many = f"DDIM, {steps} steps of ddpm_unet_small, {batch} images / {steps} times the network"
    peer = {("peer", False): lambda: chain(x, label).numpy()}
    yield many, {("ours", False): ours(batch), **peer}


def _predict_loop(model, task, count):
    """As in tutorials: every step a call of `predict`, the update in numpy."""
    x = np.random.default_rng(0).standard_normal((count, *DIGITS.image_shape)).astype("float32")
    label = np.zeros(count, "int32")
    for t, p, q, of_x, of_clean, *_ in task.sampler.table().astype("float32"):
        inputs = {"image": x, "time": np.full(count, t), "label": label}
        predicted = model.predict(inputs, batch_size=count, verbose=0)
        clean = np.clip(p * x + q * predicted, -1, 1)
        x = of_x * x + of_clean * clean
    return (x + 1) / 2
