"""What is done to the numbers of another library's weights, and undone.

Each takes a list of arrays and gives a list of arrays. They move numbers and compute none, so that
there and back is bit-equal. Axis letters: `O` output channels, `I` input channels, `D` channels of
a token, `h` heads, `d` channels of a head.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Transform:
    """One of `TRANSFORMS`.

    Attributes:
        to_ours: `(arrays, shapes, model) -> arrays`; `shapes` are those of our weights.
        to_theirs: `(arrays, model) -> arrays`.
    """

    to_ours: Callable
    to_theirs: Callable


def kernel(value):
    """`(O, I, ...)` as `(..., I, O)`, of a dense layer or a convolution."""
    return np.moveaxis(value, (0, 1), (-1, -2))


def kernel_back(value):
    """The inverse of `kernel`."""
    return np.moveaxis(value, (-1, -2), (0, 1))


def _joined(arrays, shapes, model):
    """Dense kernels or biases side by side: query, key and value in one projection."""
    return [np.concatenate([a.T for a in arrays], axis=-1)]


def heads_of(model, sizes):
    """Split positions of `[q, k, v]` side by side, of `sizes` channels in all.

    The model has `num_heads` and `num_kv_heads` (or no such attribute where they are equal).
    """
    h = getattr(model, "num_heads", 1)
    k = getattr(model, "num_kv_heads", None) or h
    d = sizes // (h + 2 * k)
    return [h * d, (h + k) * d]


def _split(arrays, model):
    parts = np.split(arrays[0], heads_of(model, arrays[0].shape[-1]), axis=-1)
    return [part.T for part in parts]


def turned(value):
    """The gates z, r, g of a GRU as r, z, n and back, side by side on the last axis."""
    first, second, third = np.split(value, 3, axis=-1)
    return np.concatenate([second, first, third], axis=-1)


def _added(arrays, shapes, model):
    """Two biases that are added, as the one of ours."""
    first, second = arrays
    return [first + second if second.any() else first]  # what was written comes back bit by bit


TRANSFORMS = {
    "same": Transform(lambda arrays, shapes, model: arrays, lambda arrays, model: arrays),
    "kernel": Transform(
        lambda arrays, shapes, model: [kernel(a) for a in arrays],
        lambda arrays, model: [kernel_back(a) for a in arrays],
    ),
    "join": Transform(_joined, _split),  # q, k and v, of kernels and biases
    "gates": Transform(  # the kernel of a GRU
        lambda arrays, shapes, model: [turned(a.T) for a in arrays],
        lambda arrays, model: [turned(a).T for a in arrays],
    ),
    "stack": Transform(  # two biases
        lambda arrays, shapes, model: [np.stack(arrays)],
        lambda arrays, model: list(arrays[0]),
    ),
    "stack_gates": Transform(  # the two of a GRU
        lambda arrays, shapes, model: [np.stack([turned(a) for a in arrays])],
        lambda arrays, model: [turned(a) for a in arrays[0]],
    ),
    "add": Transform(_added, lambda arrays, model: [arrays[0], np.zeros_like(arrays[0])]),
}
