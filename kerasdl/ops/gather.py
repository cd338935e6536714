"""The rows of all replicas, for losses that couple the examples of a batch.

The loop sets how rows are joined (`over`); by default there is one replica. Gradients
flow back through what is gathered: the gradient of the sum of all replicas' losses with respect to
a replica's rows holds what the other replicas' losses contribute.

Source: none; these are the project's own conventions.
"""

import contextlib
import contextvars

from keras import ops

_replicas = contextvars.ContextVar("replicas", default=None)


@contextlib.contextmanager
def over(function, rank):
    """Within it, `gather` joins the rows of all replicas.

    Args:
        function: Takes `x` `(B, ...)`, of one shape on all replicas, and returns the rows of all of
            them `(B_total, ...)` in the order of the replicas; its gradient is the sum over the
            replicas.
        rank: This replica's number, an int or an int tensor.
    """
    token = _replicas.set((function, rank))
    try:
        yield
    finally:
        _replicas.reset(token)


def gather(x):
    """The rows of `x` of all replicas, with gradients; `x` itself where there is one replica.

    Args:
        x: float `(B, ...)`; `B` is the same on all replicas, and all of them gather alike.

    Returns:
        `(B_total, ...)`, in the order of the replicas.
    """
    replicas = _replicas.get()
    return x if replicas is None else replicas[0](x)


def offset(x):
    """Which row of `gather(x)` is this replica's first: int32 scalar."""
    replicas = _replicas.get()
    if replicas is None:
        return ops.zeros((), "int32")
    return ops.cast(replicas[1], "int32") * ops.shape(x)[0]
