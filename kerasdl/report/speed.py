"""How well a training used its devices: against their measured peak, and waiting for data."""

import time

import keras
import tensorflow as tf

from kerasdl.report import architecture

SIDE = {"CPU": 1024, "GPU": 8192}  # of the matrices whose product is timed
ROUNDS = 5
# Forward pass, and twice its work for the gradients; a multiply-add is two operations.
OPERATIONS = 2 * 3


def measure(loop, batch: dict) -> dict:
    """Speeds of a finished training, of the steps after compilation.

    Args:
        loop: The `Loop`.
        batch: `{name: (B, ...)}` as the task's losses take it; its first example is looked at.

    Returns:
        `examples_per_second`, and `examples_per_second_per_replica`; `data_wait_share`, of the
        steps' time; `peak_flops` of one device, measured; `flops_utilisation`, the fraction of it
        that the model's matrix products and convolutions took, or None where a loop hides their
        number.
    """
    rate = loop.examples_per_second()
    steps, seconds, waited = loop.timed
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    replicas = loop.strategy.num_replicas_in_sync
    # The logical devices of a CPU share it.
    devices = replicas if kind == "GPU" else loop.cluster.size if loop.cluster else 1
    peak = matrix_peak(SIDE[kind])
    work = example_work(loop.trainer.net, loop.trainer.task, batch)
    return {
        "examples_per_second": rate,
        "examples_per_second_per_replica": rate / replicas,
        "data_wait_share": waited / seconds if steps else None,
        "peak_flops": peak,
        "flops_utilisation": None if work is None else OPERATIONS * work * rate / (peak * devices),
    }


def line(metrics: dict) -> str:
    """The speeds in words."""
    parts = [f"{metrics['examples_per_second_per_replica']:,.0f} examples/s on each device"]
    if metrics["data_wait_share"] is not None:
        parts.append(f"{metrics['data_wait_share']:.1%} of the time waiting for data")
    if metrics["flops_utilisation"] is not None:
        peak = architecture.short(metrics["peak_flops"])
        used = metrics["flops_utilisation"]
        parts.append(f"{used:.1%} of a measured peak of {peak}FLOP/s (matrix products)")
    return ", ".join(parts)


def matrix_peak(side: int, rounds: int = ROUNDS) -> float:
    """Operations per second of a matrix product in the dtype of computation; the best of some."""
    x = tf.ones((side, side), keras.config.dtype_policy().compute_dtype)
    product = tf.function(lambda x: tf.reduce_sum(tf.matmul(x, x)))
    float(product(x))
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        float(product(x))
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def example_work(model, task, batch: dict) -> int | None:
    """Multiply-adds of the losses of all players for one example, or None where there is a loop."""

    def losses():
        one = task.prepare({name: value[:1] for name, value in batch.items()})
        for player in task.players:
            task.losses(model, one, player, training=False)

    return architecture.work_of(losses)
