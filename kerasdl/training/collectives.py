"""What replicas tell each other inside a step, besides the sums of their gradients."""

import numpy as np
import tensorflow as tf

from kerasdl.ops import gather


def gathering():
    """Within it, `kerasdl.ops.gather` joins the rows of all replicas; for replica context."""
    return gather.over(all_gather, tf.distribute.get_replica_context().replica_id_in_sync_group)


def all_gather(x):
    """The rows of `x` of all replicas and workers, on every strategy; in replica context.

    Each replica adds its rows to zeros in the place of the others': one sum over the replicas. Its
    gradient is the sum of the replicas' gradients, of which each keeps its own rows. TensorFlow's
    `all_gather` has the same gradient, but between workers it exchanges five times (it allows
    different `B`) and loses the static shape.

    Args:
        x: `(B, ...)`, of one shape on all replicas.

    Returns:
        `(replicas B, ...)`, in the order of the replicas; static where `x` is.
    """
    replica = tf.distribute.get_replica_context()
    count = replica.num_replicas_in_sync
    if count == 1:
        return x
    own = tf.equal(tf.range(count), replica.replica_id_in_sync_group)
    own = tf.reshape(own, (count,) + (1,) * len(x.shape))
    placed = tf.where(own, x[None], tf.zeros((), x.dtype))  # (replicas, B, ...)
    rows = tf.reshape(replica.all_reduce(tf.distribute.ReduceOp.SUM, placed), _joined(x, count))
    return tf.ensure_shape(rows, (x.shape[0] and count * x.shape[0], *x.shape[1:]))


def _joined(x, count):
    """The shape of `count` times the rows of `x`."""
    shape = tf.shape(x)
    return tf.concat([[count * shape[0]], shape[1:]], 0)


def gather_bytes(strategy, workers: int, content: bytes) -> list[bytes]:
    """What every worker has to say, in their order; called by all of them alike.

    Args:
        strategy: Of all workers.
        workers: Their number.
        content: This worker's.
    """
    replicas = strategy.num_replicas_in_sync // workers  # of one worker; each says the same

    def gathered(array):
        @tf.function(autograph=False)
        def run(array):
            return strategy.run(all_gather, args=(array[None],))

        rows = strategy.experimental_local_results(run(tf.constant(array)))[0].numpy()
        return rows[::replicas]

    sizes = gathered(np.array([len(content)], np.int32))[:, 0]
    padded = content.ljust(-(-int(sizes.max()) // 4) * 4, b"\0")
    rows = gathered(np.frombuffer(padded, np.int32))
    return [row.tobytes()[:size] for row, size in zip(rows, sizes, strict=True)]
