"""Max pooling that remembers where its maxima were, and its inverse.

Written in comparisons and reshapes, all of which TFLite has.
"""

from keras import ops


def max_pool_with_indices(x):
    """2x2 max pooling at stride 2, and where in its window each maximum is.

    Args:
        x: float `(B, H, W, C)`; an odd last row or column is left out.

    Returns:
        float `(B, h, w, C)`, and int32 of the same shape: 0 to 3 in the order of rows, the first of
        equal values.

    Source: Badrinarayanan et al. 2015, https://arxiv.org/abs/1511.00561, section 3.
    """
    pooled = ops.max_pool(x, 2, 2)
    height, width = (2 * side for side in pooled.shape[1:3])
    first = ops.full_like(pooled, 3, dtype="int32")
    for place in (2, 1, 0):
        corner = x[:, place // 2 : height : 2, place % 2 : width : 2]
        first = ops.where(corner == pooled, place, first)
    return pooled, first


def max_unpool(x, indices, size):
    """Put values where the maxima were, and zeros elsewhere.

    Args:
        x: float `(B, h, w, C)`.
        indices: int `(B, h, w, C)` of `max_pool_with_indices`.
        size: `(H, W)` of the result; zeros fill an odd last row or column.

    Returns:
        float `(B, H, W, C)`.

    Source: Badrinarayanan et al. 2015, https://arxiv.org/abs/1511.00561, figure 3.
    """
    return _woven([ops.where(indices == place, x, 0.0) for place in range(4)], size)


def bed_of_nails(x, size):
    """Put each value in the upper left of a 2x2 window of zeros.

    Args:
        x: float `(B, h, w, C)`.
        size: `(H, W)` of the result; zeros fill an odd last row or column.

    Returns:
        float `(B, H, W, C)`.
    """
    zeros = ops.zeros_like(x)
    return _woven([x, zeros, zeros, zeros], size)


def _woven(corners, size):
    """`(B, H, W, C)` of the four corners `(B, h, w, C)` of its 2x2 windows."""
    _, height, width, channels = corners[0].shape
    rows = [
        ops.reshape(ops.concatenate(pair, axis=-1), (-1, height, 2 * width * channels))
        for pair in (corners[:2], corners[2:])
    ]
    x = ops.reshape(ops.concatenate(rows, axis=-1), (-1, 2 * height, 2 * width, channels))
    more = [(0, side - 2 * half) for side, half in zip(size, (height, width), strict=True)]
    return ops.pad(x, ((0, 0), *more, (0, 0))) if any(n for _, n in more) else x
