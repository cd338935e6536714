"""The memory of one training step, in a process of its own: `memory.py MODEL on|off OUT.npz`."""

import resource
import sys

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.recipe import Recipe
from kerasdl.tasks.task import DataInfo
from kerasdl.training import schedules, step

MODELS = {
    "vit": ("vit_ti16", 48, 112, {"drop_rate": 0.1}),
    "unet": ("ddpm_unet", 64, 32, {"dim": 48, "multipliers": (1, 2), "attention_levels": ()}),
}


def peak():
    """MiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(name, on, out):
    model, size, side, arguments = MODELS[name]
    info = DataInfo(image_shape=(side, side, 3), class_names=tuple("abcd"))
    recipe = Recipe(model=model, remat=on == "on")
    keras.utils.set_random_seed(0)
    task = tasks.get(catalog.row(model).task)(info, recipe)
    net = catalog.build(model, **{**task.arguments(), **arguments})
    trainer = step.Trainer(net, task, recipe, schedules.from_recipe(recipe, 1, 10))
    rng = np.random.default_rng(0)
    batch = {
        "image": tf.constant(rng.random((size, side, side, 3)), "float32"),
        "label": tf.constant(rng.integers(0, 4, size), "int32"),
        "weight": tf.ones(size),
        "key": tf.constant(rng.integers(0, 2**31, (size, 2)), "uint32"),
    }
    start = peak()
    sums, _ = tf.function(trainer.update, autograph=False)(batch)
    np.savez(out, start=start, loss=sums[1].numpy(), peak=peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
