"""A training step that computes its blocks' values again, against one that keeps them: its time."""

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.columns import DataInfo
from kerasdl.recipe import Recipe
from kerasdl.training import schedules, step

# Of each model: examples in a batch, side of the images, arguments.
SIZES = {"vit_s16": (8, 224, {}), "ddpm_unet": (16, 32, {"dim": 64})}


def cases(sizes=None):
    """Yield `(name, steps)` for `paired.compare`; there is no XLA in them.

    Args:
        sizes: As `SIZES`, which it is if None.
    """
    for name, (batch, side, arguments) in (sizes or SIZES).items():
        case = f"A step of {name}, {batch} images of {side} x {side}, with --remat / without"
        sides = {"ours": True, "peer": False}
        yield (
            case,
            {(s, False): train(name, batch, side, arguments, on) for s, on in sides.items()},
        )


def train(name, batch, side, arguments, on):
    """A function that trains a model one step on noise, and returns the sum of its losses.

    Args:
        name: Of the model, of images.
        batch: Examples.
        side: Of the images, in pixels.
        arguments: Of the model.
        on: Whether its blocks are recomputed.
    """
    shape = (side, side, 3)
    recipe = Recipe(model=name, remat=on)
    keras.utils.set_random_seed(0)
    task = tasks.get(catalog.row(name).task)(DataInfo.of_images(shape, "abcd"), recipe)
    model = catalog.build(name, **{**task.arguments(), **arguments})
    trainer = step.Trainer(model, task, recipe, schedules.from_recipe(recipe, 1, 10))
    rng = np.random.default_rng(0)
    examples = {
        "image": tf.constant(rng.random((batch, *shape)), "float32"),
        "label": tf.constant(rng.integers(0, 4, batch), "int32"),
        "weight": tf.ones(batch),
        "key": tf.constant(rng.integers(0, 2**31, (batch, 2)), "uint32"),
    }
    update = tf.function(trainer.update, autograph=False)
    return lambda: float(update(examples)[0][0, 0])
