"""A gradient that is not finite on one of two replicas, in float16: `one_nan.py OUT.npz`.

A classifier, and a GAN with its two optimizers, each take a good step, one with a NaN in the second
replica's images, and another good one.
"""

import sys

import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.columns import DataInfo
from kerasdl.ops import noise
from kerasdl.recipe import Recipe
from kerasdl.store import runs
from kerasdl.training import schedules, step, strategy

INFO = DataInfo.of_images((8, 8, 1), "abcd")


def batch_of(size, spoilt):
    rng = np.random.default_rng(0)

    def share(replica):
        image = rng.random((size, 8, 8, 1), "float32")
        image = image * np.nan if spoilt and replica.replica_id_in_sync_group == 1 else image
        return {
            "image": tf.constant(image),
            "label": tf.constant(rng.integers(0, 4, size), "int32"),
            "key": noise.keys(0, 0, np.arange(size)),
        }

    return share


def main(out):
    place, _ = strategy.make(Recipe(strategy="mirrored", logical_devices=2))
    runs.set_precision("mixed_float16")
    result = {}
    for name, arguments in (("mlp", {"dims": (6,)}), ("gan_mlp", {"hidden_dim": 8})):
        recipe = Recipe(model=name, precision="mixed_float16", opt="adam", sched="constant")
        task = tasks.get(catalog.row(name).task)(INFO, recipe)
        with place.scope():
            net = catalog.build(name, **task.arguments(), **arguments)
            trainer = step.Trainer(net, task, recipe, schedules.from_recipe(recipe, 1, 10))

        @tf.function(autograph=False)
        def update(batch, trainer=trainer):
            place.run(trainer.update, args=(batch,))

        for number, spoilt in enumerate((False, True, False)):
            update(place.experimental_distribute_values_from_function(batch_of(8, spoilt)))
            for key, variable in trainer.state().items():
                copies = place.experimental_local_results(variable.value)
                result[f"{name}/{number}/{key}"] = np.stack([np.asarray(c) for c in copies])
    np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
