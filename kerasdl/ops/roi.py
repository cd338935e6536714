"""What a map holds within a region, in a fixed number of bins: RoI pooling, RoI align and warping.

Source: Girshick et al. 2014, https://arxiv.org/abs/1311.2524, appendix A (warping); Girshick 2015,
        https://arxiv.org/abs/1504.08083, section 2.1 (max pooling); He et al. 2017,
        https://arxiv.org/abs/1703.06870, section 3 (align); Lin et al. 2017,
        https://arxiv.org/abs/1612.03144, equation 1 (levels).
"""

import math

import numpy as np
from keras import ops

TOGETHER = 8  # samples of a bin along one axis that are in memory at once


def roi_align(maps, boxes, size, scale=1.0, sampling=2, aligned=True):
    """Means of bilinear samples in the bins of regions.

    The weights of a region's samples are a product of those along y and along x, so that all is two
    matrix products.

    Args:
        maps: float `(B, H, W, C)`.
        boxes: float `(B, R, 4)`, `ymin xmin ymax xmax` in pixels of the picture.
        size: `(P, Q)` bins.
        scale: Pixels of the map in one of the picture, a number or `(sy, sx)`.
        sampling: Samples of a bin along each axis; None is one per pixel of the map, at most so
            many as a region of twice the map has.
        aligned: Whether the centers of pixels lie at halves; else a region is at least 1 pixel.

    Returns:
        float `(B, R, P, Q, C)`.
    """
    wy, wx = _align_weights(maps, boxes, size, scale, sampling, aligned)
    return _weighted(maps, wy, wx)


def multiscale_roi_align(
    levels, boxes, size, scales, canonical=(224.0, 4), sampling=2, aligned=False
):
    """`roi_align` of every region on the one map that suits its size.

    Args:
        levels: Maps `(B, H, W, C)`, the finest first; each halves the one before.
        boxes, size, sampling, aligned: Of `roi_align`.
        scales: `scale` of each map; the first is a power of two.
        canonical: The side of a region in pixels, and its level, `log2` of the map's stride.

    Returns:
        float `(B, R, P, Q, C)`.
    """
    side, level = canonical
    first = -math.log2(np.max(scales[0]))
    ymin, xmin, ymax, xmax = _scalars(boxes)
    root = ops.sqrt(ops.maximum(ymax - ymin, 1e-6) * ops.maximum(xmax - xmin, 1e-6))
    wanted = ops.floor(level + ops.log(root / side) / math.log(2) + 1e-6) - first
    wanted = ops.clip(wanted, 0, len(levels) - 1)
    total = 0
    for i, (maps, scale) in enumerate(zip(levels, scales, strict=True)):
        wy, wx = _align_weights(maps, boxes, size, scale, sampling, aligned)
        here = ops.expand_dims(ops.cast(wanted == i, wy.dtype), -1)
        total = total + _weighted(maps, wy * here, wx)
    return total


def _weighted(maps, wy, wx):
    rows = ops.einsum("brph,bhwc->brpwc", wy, maps)
    return ops.einsum("brqw,brpwc->brpqc", wx, rows)


def _align_weights(maps, boxes, size, scale, sampling, aligned):
    """`(B, R, P, H)` and `(B, R, Q, W)`."""
    scale = np.broadcast_to(scale, 2).tolist()
    weights, numbers = [], _scalars(boxes)
    for axis in (0, 1):
        low, high = numbers[axis] * scale[axis], numbers[axis + 2] * scale[axis]
        weights.append(_hats(low, high, maps.shape[1 + axis], size[axis], sampling, aligned))
    return (ops.cast(w, maps.dtype) for w in weights)


def _scalars(boxes):
    """`ymin xmin ymax xmax` of boxes `(B, R, 4)`, each `(B, R, 1)`."""
    return ops.unstack(ops.expand_dims(boxes, 3), axis=2)


def _hats(low, high, n, bins, sampling, aligned):
    """Weights `(B, R, bins, n)` of `n` pixels in the bins between `low` and `high` `(B, R, 1)`.

    They are one sum over samples `(B, R, bins, S, n)`.
    """
    if aligned:
        low, length = low - 0.5, high - low
    else:
        length = ops.maximum(high - low, 1.0)
    dtype = length.dtype

    def constant(value):
        return ops.convert_to_tensor(value, dtype)

    limit = sampling or math.ceil(2 * n / bins)
    count = ops.ones_like(length) * limit
    if not sampling:
        count = ops.clip(ops.ceil(length / bins), 1.0, limit)
    count = ops.expand_dims(count, -1)
    start = constant(np.arange(bins)[:, None])
    # So late: TensorFlow would put two divisions in one, and round otherwise
    width, low = ops.expand_dims(length / bins, -1), ops.expand_dims(low, -1)
    pixels, part = constant(np.arange(n)), 1 / count
    total = 0
    for first in range(0, limit, TOGETHER):
        sample = constant(np.arange(first, min(first + TOGETHER, limit)))  # (S,), of a bin
        at = low + (start + (sample + 0.5) / count) * width  # (B, R, bins, S)
        counts = (at >= -1) & (at <= n)
        if not sampling:
            counts = counts & (sample < count)
        share = ops.expand_dims(ops.where(counts, part, 0), -1)
        at = ops.expand_dims(ops.clip(at, 0, n - 1), -1)
        hat = ops.maximum(1 - ops.abs(at - pixels), 0)
        total = total + ops.sum(hat * share, axis=-2)
    return total


def roi_pool(maps, boxes, size, scale=1.0):
    """Maxima in the bins of regions that are rounded to whole pixels, both ends included.

    The maximum of a bin is that of four windows whose sides are powers of two, taken from the
    maxima of all such windows: its cost does not depend on how large the regions are.

    Args:
        maps: float `(B, H, W, C)`.
        boxes: float `(B, R, 4)`, `ymin xmin ymax xmax` in pixels of the picture.
        size: `(P, Q)` bins.
        scale: Pixels of the map in one of the picture, a number or `(sy, sx)`.

    Returns:
        float `(B, R, P, Q, C)`; 0 of a bin that lies outside.
    """
    _, height, width, channels = maps.shape
    scale = np.broadcast_to(scale, 2).tolist()
    (y0, y1), (x0, x1) = (
        _bins(boxes[..., a] * scale[a], boxes[..., a + 2] * scale[a], n, size[a])
        for a, n in ((0, height), (1, width))
    )
    rows, columns = (_windows(n) for n in (height, width))
    table, tall = [], maps
    for i in range(len(rows)):
        tall = _joined(tall, rows[i] // 2, 1) if i else tall
        both = tall
        for j in range(len(columns)):
            both = _joined(both, columns[j] // 2, 2) if j else both
            table.append(both)
    flat = ops.reshape(ops.stack(table, axis=1), (-1, channels))
    image = ops.arange(ops.shape(maps)[0], dtype="int32")[:, None, None, None]
    ky, wy = _fitting(y1 - y0, rows)
    kx, wx = _fitting(x1 - x0, columns)
    (ky, wy, y0, y1), (kx, wx, x0, x1) = (
        (v[..., :, None] for v in (ky, wy, y0, y1)),
        (v[..., None, :] for v in (kx, wx, x0, x1)),
    )
    which = (image * len(rows) + ky) * len(columns) + kx  # (B, R, P, Q)
    result = None
    for y in (y0, ops.maximum(y1 - wy, 0)):
        for x in (x0, ops.maximum(x1 - wx, 0)):
            at = (which * height + ops.minimum(y, height - 1)) * width
            one = ops.take(flat, at + ops.minimum(x, width - 1), axis=0)
            result = one if result is None else ops.maximum(result, one)
    there = ((y1 > y0) & (x1 > x0))[..., None]
    return ops.where(there, result, ops.zeros_like(result))


def warp(maps, boxes, size, context=0):
    """Regions of images, brought to one size whatever their proportions are.

    Args:
        maps: float `(B, H, W, C)`.
        boxes: float `(B, R, 4)`, `ymin xmin ymax xmax` in pixels.
        size: `(P, Q)` pixels.
        context: How many of these on each side are of what lies around the region.

    Returns:
        float `(B, R, P, Q, C)`, bilinear; 0 of what lies outside of the image.
    """
    _, height, width, channels = maps.shape
    sides = []
    for axis, n in ((0, height), (1, width)):
        low, high, count = boxes[..., axis], boxes[..., axis + 2], size[axis]
        step = (high - low) / (count - 2 * context)  # pixels of the image in one of the result
        place = ops.cast(np.arange(count) + 0.5 - context, boxes.dtype)
        at = low[..., None] + step[..., None] * place - 0.5  # (B, R, count)
        first = ops.floor(at)
        pairs = []
        for number, weight in ((first, 1 - (at - first)), (first + 1, at - first)):
            weight = ops.where((number >= 0) & (number < n), weight, 0)
            pairs.append((ops.cast(ops.clip(number, 0, n - 1), "int32"), weight))
        sides.append(pairs)
    flat = ops.reshape(maps, (-1, channels))
    image = ops.arange(ops.shape(maps)[0], dtype="int32")[:, None, None]
    result = 0
    for y, wy in sides[0]:
        for x, wx in sides[1]:
            at = ((image * height + y) * width)[..., None] + x[..., None, :]  # (B, R, P, Q)
            weight = ops.cast(wy[..., None] * wx[..., None, :], maps.dtype)
            result = result + ops.take(flat, at, axis=0) * weight[..., None]
    return result


def _bins(low, high, n, bins):
    """First and last-but-one pixels int32 `(B, R, bins)` of the bins, within `n` pixels."""
    low, high = (
        ops.cast(ops.where(v < 0, -ops.floor(0.5 - v), ops.floor(v + 0.5)), "int32")
        for v in (low, high)
    )
    # In whole numbers: those of 8-bit files are not exact.
    length, number = ops.maximum(high - low + 1, 1)[..., None], np.arange(bins, dtype="int32")
    ends = (number * length // bins, ((number + 1) * length + (bins - 1)) // bins)
    # In this order: of any other, with n = 6, the converter makes a ReLU, which integers lack.
    return tuple(ops.minimum(ops.maximum(v + low[..., None], 0), n) for v in ends)


def _windows(n):
    """Powers of two up to `n`."""
    return [2**k for k in range(int(math.log2(n)) + 1)]


def _joined(x, shift, axis):
    """Maxima of `x` and of what lies `shift` further; what goes beyond the end means nothing."""
    head, tail = (x[:, :shift], x[:, shift:]) if axis == 1 else (x[:, :, :shift], x[:, :, shift:])
    return ops.maximum(x, ops.concatenate([tail, head], axis=axis))


def _fitting(length, windows):
    """Number and size, int32, of the largest window that fits into lengths."""
    k = sum(ops.cast(length >= w, "int32") for w in windows[1:]) + ops.zeros_like(length)
    sizes = ops.convert_to_tensor(np.array(windows, np.int32))
    return k, ops.take(sizes, k, axis=0)
