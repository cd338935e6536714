"""What replicas share: `gathering.py STRATEGY OUT.npz`, in a process of its own.

A contrastive loss, and what a task does after an update.

`mirrored` writes what one device and what two parts of the CPU compute, each name with its prefix;
`multi_worker_mirrored` what this worker does.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from kerasdl.ops import gather, losses
from kerasdl.recipe import Recipe
from kerasdl.training import collectives, strategy
from tests.training import queueing

EXAMPLES, INPUTS, DIM, STEPS, RATE = 6, 5, 3, 3, 0.5
rng = np.random.default_rng(0)
VIEWS = rng.normal(size=(EXAMPLES, 2, INPUTS))
KERNEL = rng.normal(size=(INPUTS, DIM))


def step(views, kernel, joined):
    """One step of gradient descent in replica context.

    Args:
        views: `(B, 2, INPUTS)`.
        kernel: `(INPUTS, DIM)`.
        joined: Takes `z` `(B, 2, DIM)`, gives the rows that it is compared with.

    Returns:
        The next kernel, the summed loss, and the gradient with respect to this replica's `views`
        of the sum of all replicas' losses.
    """
    replica = tf.distribute.get_replica_context()
    with collectives.gathering(), tf.GradientTape() as tape:
        tape.watch([views, kernel])
        z = tf.tanh(views @ kernel)
        loss, _ = losses.nt_xent(z, joined(z), gather.offset(z), temperature=0.2)
        total = tf.reduce_sum(loss) / EXAMPLES
    by_views, by_kernel = tape.gradient(total, [views, kernel])
    total, by_kernel = replica.all_reduce("SUM", [total, by_kernel])
    return kernel - RATE * by_kernel, total, by_views


def train(strategy, joined=gather.gather):
    """`STEPS` steps inside one function's loop, and the gathered rows, of every local replica."""

    def part(context):
        size = EXAMPLES // context.num_replicas_in_sync
        start = context.replica_id_in_sync_group * size
        return VIEWS[start : start + size]

    def first(views):
        with collectives.gathering():
            rows = gather.gather(views)
            assert rows.shape == VIEWS.shape  # static
            return rows, gather.offset(views)

    def body(views, kernel):
        return step(views, kernel, joined)

    @tf.function
    def loop(views, kernel, n):
        kernel, total, by_views = strategy.run(body, args=(views, kernel))
        for _ in tf.range(n - 1):
            kernel, total, by_views = strategy.run(body, args=(views, kernel))
        return kernel, total, by_views

    views = strategy.experimental_distribute_values_from_function(part)
    kernel = strategy.experimental_distribute_values_from_function(lambda _: KERNEL)
    results = loop(views, kernel, tf.constant(STEPS))
    results += tf.function(lambda v: strategy.run(first, args=(v,)))(views)
    names = ("kernel", "loss", "by_views", "rows", "offset")
    local = [[v.numpy() for v in strategy.experimental_local_results(r)] for r in results]
    return {name: np.stack(values) for name, values in zip(names, local, strict=True)}


def main(kind, out):
    keras.config.set_floatx("float64")
    logical = 2 if kind == "mirrored" else None
    made, _ = strategy.make(Recipe(model="simclr_small", strategy=kind, logical_devices=logical))
    result = {f"replicas/{k}": v for k, v in train(made).items()}
    result |= {f"replicas/{k}": v for k, v in queueing.train(made).items()}
    if kind == "mirrored":
        one = tf.distribute.OneDeviceStrategy("CPU:0")
        result |= {f"one/{k}": v for k, v in (train(one) | queueing.train(one)).items()}
        cut = train(made, lambda z: tf.stop_gradient(gather.gather(z)))
        result |= {f"cut/{k}": v for k, v in cut.items()}
    np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
