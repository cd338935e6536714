"""What is done to the numbers of another library's weights, and undone.

Each takes a list of arrays and gives a list of arrays. They move numbers and compute none, so that
there and back is bit-equal. Axis letters: `O` output channels, `I` input channels, `D` channels of
a token, `h` heads, `d` channels of a head, `E` experts.
"""

import math
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
    if h == k:  # whatever the heads are: a decoder may have others
        return [sizes // 3, 2 * sizes // 3]
    d = sizes // (h + 2 * k)
    return [h * d, (h + k) * d]


def _split(arrays, model):
    parts = np.split(arrays[0], heads_of(model, arrays[0].shape[-1]), axis=-1)
    return [part.T for part in parts]


def _paired(rows, heads):
    """Rows `(h d, ...)`, of which `i, i + d / 2` of a head are a pair, as `2i, 2i + 1`."""
    return rows.reshape(heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _halved(rows, heads):
    """The inverse of `_paired`."""
    return rows.reshape(heads, -1, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def _joined_pairs(arrays, shapes, model):
    """As `_joined`, of query and key that positions turn in pairs of half-split channels."""
    query, key, value = arrays
    query, key = _paired(query, model.num_heads), _paired(key, model.num_kv_heads)
    return _joined([query, key, value], shapes, model)


def _split_pairs(arrays, model):
    query, key, value = _split(arrays, model)
    return [_halved(query, model.num_heads), _halved(key, model.num_kv_heads), value]


def _below(arrays, shapes, model):
    """The outer kernels `(O, I)` of experts, one below the other: `(E I, O)`."""
    return [np.concatenate([a.T for a in arrays])]


def _apart_by_expert(arrays, model, axis):
    return [a.T for a in np.split(arrays[0], model.num_experts, axis)]


def _of_stack(arrays, shapes, model):
    """Both inner kernels of all experts, `(E, 2 O, I)`, as two of `_joined`: `(I, E O)`."""
    return [_joined(part, shapes, model)[0] for part in np.split(arrays[0], 2, axis=1)]


def _as_stack(arrays, model):
    parts = [np.stack(_apart_by_expert([a], model, -1)) for a in arrays]
    return [np.concatenate(parts, axis=1)]


def _unflattened(arrays, shapes, model):
    """Dense kernels `(O, I h w)` over a flattened map as kernels of convolutions."""
    value, (height, width, channels, _) = arrays[0], shapes[0]
    return [kernel(value.reshape(len(value), channels, height, width))]


def _flattened(arrays, model):
    value = kernel_back(arrays[0])
    return [value.reshape(len(value), -1)]


def _dense(arrays, shapes, model):
    """Kernels `(O, I, 1, 1)` of 1x1 convolutions as dense ones."""
    (value,) = arrays
    return [value.reshape(value.shape[:2]).T]


def _apart(arrays, shapes, model):
    """One dense kernel or bias as several of equal size: the two inner ones of a SwiGLU."""
    return [a.T for a in np.split(arrays[0], len(shapes))]


def _grid(arrays, shapes, model):
    """Positions `(1, P + N, D)` as those of a grid `(H, W, D)` and, if asked, the `P` before it.

    The grid is the model's, or a square where that is of another size: it is interpolated then.
    """
    (grid, *before), value = shapes, arrays[0][0]
    p = before[0][0] if before else 0
    n, (h, w) = len(value) - p, grid[:2]
    side = math.isqrt(max(0, n))
    if n != h * w and (side == 0 or n != side**2):
        raise ValueError(f"{len(value)} positions less {p} are neither {h} x {w} nor a square")
    h, w = (h, w) if n == h * w else (side, side)
    return [value[p:].reshape(h, w, -1), *([value[:p]] if before else [])]


def _flat(arrays, model):
    grid, *before = arrays
    return [np.concatenate([*before, grid.reshape(-1, grid.shape[-1])])[None]]


def _joined_heads(arrays, shapes, model):
    """Kernels `(D, h, d)` or biases `(h, d)` of query, key and value, side by side."""
    return [np.concatenate([a.reshape(*a.shape[:-2], -1) for a in arrays], axis=-1)]


def _split_heads(arrays, model):
    parts = np.split(arrays[0], heads_of(model, arrays[0].shape[-1]), axis=-1)
    d = parts[0].shape[-1] // model.num_heads
    return [part.reshape(*part.shape[:-1], -1, d) for part in parts]


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
    "flattened": Transform(_unflattened, _flattened),
    "pointwise": Transform(_dense, lambda arrays, model: [arrays[0].T[..., None, None]]),
    "join": Transform(_joined, _split),  # q, k and v, of kernels and biases
    "join_pairs": Transform(_joined_pairs, _split_pairs),  # of rotary heads
    "experts": Transform(_joined, lambda arrays, model: _apart_by_expert(arrays, model, -1)),
    "experts_out": Transform(_below, lambda arrays, model: _apart_by_expert(arrays, model, 0)),
    "stacked_experts": Transform(_of_stack, _as_stack),
    "stacked_experts_out": Transform(
        lambda arrays, shapes, model: _below(arrays[0], shapes, model),
        lambda arrays, model: [np.stack(_apart_by_expert(arrays, model, 0))],
    ),
    "apart": Transform(
        _apart, lambda arrays, model: [np.concatenate([a.T for a in arrays], axis=0)]
    ),
    "grid": Transform(_grid, _flat),  # positions of image patches
    "flat_grid": Transform(  # those without an axis of 1 before them
        lambda arrays, shapes, model: _grid([arrays[0][None]], shapes, model),
        lambda arrays, model: [_flat(arrays, model)[0][0]],
    ),
    "token": Transform(  # of every image, `(D,)` there
        lambda arrays, shapes, model: [a[None, None] for a in arrays],
        lambda arrays, model: [a.reshape(-1) for a in arrays],
    ),
    "join_heads": Transform(_joined_heads, _split_heads),  # q, k and v of Keras
    "merge_heads": Transform(  # the kernel behind the heads, `(h, d, D)` there
        lambda arrays, shapes, model: [arrays[0].reshape(-1, arrays[0].shape[-1])],
        lambda arrays, model: [arrays[0].reshape(model.num_heads, -1, arrays[0].shape[-1])],
    ),
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
    "row": Transform(  # of one row, `(1, N)`
        lambda arrays, shapes, model: [a.reshape(-1) for a in arrays],
        lambda arrays, model: [a[None] for a in arrays],
    ),
    "add": Transform(_added, lambda arrays, model: [arrays[0], np.zeros_like(arrays[0])]),
}
