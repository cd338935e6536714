"""Boxes: overlap, their codes relative to anchors, anchors, and which box belongs to which object.

Boxes are `(..., 4)` in the order `ymin xmin ymax xmax`, in any unit that their companions share.

Source: Girshick et al. 2014, https://arxiv.org/abs/1311.2524, appendix C (codes); Rezatofighi et
        al. 2019, https://arxiv.org/abs/1902.09630, algorithm 2 (generalized intersection over
        union); Ren et al. 2015, https://arxiv.org/abs/1506.01497, section 3.1 (anchors, matching).
"""

import math

import numpy as np
from keras import ops

from kerasdl.errors import UserError

BELOW, BETWEEN = -1, -2  # of `match`: no object, and neither one nor none
MAX_LOG = math.log(1000 / 16)  # of a decoded size relative to its anchor's
EPSILON = 1e-7


def area(boxes):
    """Areas `(...)` of boxes `(..., 4)`; 0 of those whose ends are in the wrong order."""
    low, high = ends(boxes)
    return _product(high - low)


def ends(boxes):
    """The lower and the upper ends `(..., 2)` of boxes `(..., 4)`."""
    return ops.split(boxes, 2, axis=-1)


def _product(sides):
    """Of the two sides `(..., 2)`, neither below 0."""
    y, x = ops.unstack(ops.maximum(sides, 0), axis=-1)
    return y * x


def iou(a, b):
    """Intersection over union of boxes `(..., 4)` that broadcast; 0 where both are empty."""
    return iou_of_ends(ends(a), ends(b))


def iou_of_ends(a, b):
    """`iou` of boxes whose `ends` are given."""
    shared, union = _overlap(a, b)
    return shared / ops.where(union > 0, union, 1)


def giou(a, b):
    """Generalized intersection over union: less the part of the hull that neither covers.

    Args:
        a, b: Boxes `(..., 4)` that broadcast.

    Returns:
        `(...)` in [-1, 1]; 0 where both are the same point.
    """
    a, b = ends(a), ends(b)
    shared, union = _overlap(a, b)
    hull = _product(ops.maximum(a[1], b[1]) - ops.minimum(a[0], b[0]))
    ratio = shared / ops.where(union > 0, union, 1)
    return ratio - (hull - union) / ops.where(hull > 0, hull, 1)


def pairwise(function, a, b):
    """`iou` or `giou` of every box of `a` `(..., N, 4)` with every one of `b` `(..., M, 4)`.

    Returns:
        `(..., N, M)`.
    """
    return function(ops.expand_dims(a, -2), ops.expand_dims(b, -3))


def _overlap(a, b):
    """Areas of intersection and union of boxes, given their `ends`."""
    shared = _product(ops.minimum(a[1], b[1]) - ops.maximum(a[0], b[0]))
    return shared, _product(a[1] - a[0]) + _product(b[1] - b[0]) - shared


def centers_and_sides(boxes):
    """Boxes `(..., 4)` as centers `(..., 2)` and sides `(..., 2)`, each y before x."""
    low, high = ends(boxes)
    return (low + high) / 2, high - low


def corners(center, sides):
    """The inverse of `centers_and_sides`."""
    return ops.concatenate([center - sides / 2, center + sides / 2], axis=-1)


def encode(boxes, anchors, weights=(1.0, 1.0, 1.0, 1.0)):
    """How anchors must move and grow to become boxes: `ty tx th tw`.

    Args:
        boxes: `(..., 4)`; what is empty is taken for a very small box.
        anchors: `(..., 4)`, not empty.
        weights: Factors of the four numbers.

    Returns:
        `(..., 4)`: shifts of the centers in sides of the anchors, and logarithms of the sides'
        ratios.
    """
    center, sides = centers_and_sides(boxes)
    at, lengths = centers_and_sides(anchors)
    codes = [(center - at) / lengths, ops.log(ops.maximum(sides, EPSILON) / lengths)]
    return ops.concatenate(codes, axis=-1) * _like(weights, boxes)


def decode(codes, anchors, weights=(1.0, 1.0, 1.0, 1.0)):
    """The inverse of `encode`; no side becomes longer than 1000 / 16 of its anchor's.

    Args:
        codes: `(..., 4)`.
        anchors: `(..., 4)`.
        weights: Of `encode`.

    Returns:
        Boxes `(..., 4)`.
    """
    codes = codes / _like(weights, codes)
    at, lengths = centers_and_sides(anchors)
    shift, growth = ends(codes)
    return corners(shift * lengths + at, ops.exp(ops.minimum(growth, MAX_LOG)) * lengths)


def clip(boxes, size=(1.0, 1.0)):
    """Boxes cut off at the edges of a picture of the size `(height, width)`."""
    return ops.minimum(ops.maximum(boxes, 0), _like((*size, *size), boxes))


def large(boxes, side):
    """Bool `(...)`: both sides of boxes `(..., 4)` are at least `side`."""
    low, high = ends(boxes)
    return ops.all(high - low >= side, axis=-1)


def cell_anchors(sizes, ratios, rounded=False) -> np.ndarray:
    """Boxes around the origin, of every ratio and size.

    Args:
        sizes: Square roots of areas.
        ratios: Height by width.
        rounded: Whether the ends are whole numbers.

    Returns:
        float64 `(ratios * sizes, 4)`, in the order ratio, size.
    """
    ratios, sizes = np.sqrt(np.asarray(ratios, np.float64))[:, None], np.asarray(sizes, np.float64)
    half = np.stack([(ratios * sizes).ravel(), (sizes / ratios).ravel()], -1) / 2
    boxes = np.concatenate([-half, half], -1)
    return np.rint(boxes) if rounded else boxes


def anchors(cell, shape, stride, offset=0.0) -> np.ndarray:
    """Anchors at every place of a map.

    Args:
        cell: `(A, 4)` around the origin.
        shape: `(H, W)` of the map.
        stride: Distance of two places in the picture, a number or `(sy, sx)`.
        offset: Where the first place lies, in strides.

    Returns:
        float64 `(H W A, 4)`, in the order row, column, anchor.
    """
    stride = np.broadcast_to(np.asarray(stride, np.float64), 2)
    y, x = ((np.arange(n) + offset) * s for n, s in zip(shape, stride, strict=True))
    at = np.stack(np.meshgrid(y, x, indexing="ij"), -1)  # (H, W, 2)
    return (np.tile(at, 2)[:, :, None] + cell).reshape(-1, 4)


def windows(size, count) -> np.ndarray:
    """Boxes that slide over a picture: of three ratios and of sides from a fifth of its shorter one
    to all of it, as densely as their number allows.

    Args:
        size: `(height, width)`.
        count: Their maximum number, `R`.

    Returns:
        float32 `(R, 4)` in [0, 1]; zeros where there are fewer.

    Raises:
        UserError: There is no room for one of each ratio and side.
    """
    size = np.asarray(size, np.float64)
    sides = min(size) * np.geomspace(0.2, 1, 5)[:, None]
    ratios = np.sqrt([0.5, 1.0, 2.0])
    sides = np.stack([(sides * ratios).ravel(), (sides / ratios).ravel()], -1)
    sides = sides[(sides <= size).all(-1)]
    result = np.zeros((count, 4), np.float32)
    for step in np.geomspace(0.05, 20, 300):  # of a window's sides
        places = 1 + np.floor((size - sides) / (step * sides) + 1e-9).astype(int)  # (N, 2)
        if places.prod(-1).sum() <= count:
            break
    else:
        raise UserError(f"{count} windows: must be at least {len(sides)}, one of each shape")
    boxes = []
    for side, n in zip(sides, places, strict=True):
        free = size - side
        at = (np.linspace(0, w, k) if k > 1 else [w / 2] for k, w in zip(n, free, strict=True))
        low = np.stack(np.meshgrid(*at, indexing="ij"), -1).reshape(-1, 2)
        boxes.append(np.concatenate([low, low + side], -1) / np.tile(size, 2))
    boxes = np.concatenate(boxes)
    result[: len(boxes)] = boxes
    return result


def match(overlap, valid, high=0.7, low=0.3, low_quality=True):
    """Which object each box belongs to.

    Args:
        overlap: float `(..., N, M)`, intersection over union of `N` boxes with `M` objects.
        valid: bool `(..., M)`, which objects are there.
        high: From here on a box belongs to the object that it overlaps best.
        low: Below, it belongs to none.
        low_quality: Whether boxes that no other box overlaps an object better than belong to an
            object however little it is.

    Returns:
        int32 `(..., N)`: the object's number, `BELOW`, or `BETWEEN` where a box is neither.
    """
    there = ops.expand_dims(valid, -2)
    overlap = ops.where(there, overlap, -1)
    value, best = (x[..., 0] for x in ops.top_k(overlap, 1))
    best = ops.cast(best, "int32")
    result = ops.where(value >= high, best, ops.where(value < low, BELOW, BETWEEN))
    if low_quality:
        highest = ops.max(overlap, axis=-2, keepdims=True)  # of each object
        chosen = ops.any((overlap == highest) & there & (highest > 0), axis=-1)
        result = ops.where(chosen, best, result)
    return ops.cast(result, "int32")  # two Python numbers are int64 where floats are float64


def _like(values, x):
    return ops.cast(ops.convert_to_tensor(np.asarray(values, np.float64)), x.dtype)


def sample(match, random, count, fraction=0.5):
    """Some boxes of each image to learn from: as many that belong to an object as there are, up to
    a fraction, the rest of those that belong to none.

    Args:
        match: int32 `(B, N)` of `match`.
        random: float `(B, N)` in [0, 1): the highest are taken.
        count: How many boxes, at most `N`.
        fraction: Of those that belong to an object.

    Returns:
        bool `(B, N)`; fewer than `count` where there are not enough.
    """
    positive = _highest(ops.where(match >= 0, random, -1), int(count * fraction), None)
    left = count - ops.sum(ops.cast(positive, "int32"), axis=-1, keepdims=True)  # (B, 1)
    return positive | _highest(ops.where(match == BELOW, random, -1), count, left)


def _highest(values, count, limit):
    """Which of values `(B, N)` are among the `count`, or `limit` `(B, 1)`, highest, from 0 on."""
    count = min(count, values.shape[-1])
    if count < 1:
        return values > 1
    top = ops.top_k(values, count)[0]
    if limit is not None:
        top = ops.where(ops.arange(count, dtype="int32") < limit, top, 2)
    return (values >= ops.min(top, axis=-1, keepdims=True)) & (values >= 0)
