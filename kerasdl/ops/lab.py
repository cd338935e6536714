"""CIE Lab: lightness and color apart, and colors as classes.

Source: IEC 61966-2-1 (sRGB) and CIE 15 (Lab), of the white D65;
        Zhang et al. 2016, https://arxiv.org/abs/1603.08511, section 2.1 (bins, soft encoding),
        2.2 (weights), 2.3 (annealed mean).
"""

import functools

import numpy as np
from keras import ops

TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
WHITE = TO_XYZ.sum(1)
# Lab from the cube roots of X, Y and Z, and back
TO_LAB = np.array([[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]])
OFFSET = np.array([-16.0, 0.0, 0.0])
BLACK = 6.0 / 29.0  # below it the cube root is a line, lest its slope be infinite
DIRECTIONS = 3600  # in which the gamut's hull is measured
EDGE = 256  # colors along an edge of the cube of red, green and blue
FAR = 1e9  # a squared distance that no weight survives


def rgb_to_lab(image):
    """Lab of sRGB.

    Args:
        image: float `(..., 3)`, red, green and blue in [0, 1].

    Returns:
        float `(..., 3)`: `L` in [0, 100], and `a` and `b`, about -110 to 110.
    """
    x = ops.clip(image, 0.0, 1.0)
    linear = ops.where(
        x <= 0.04045, x / 12.92, ops.power((ops.maximum(x, 0.04045) + 0.055) / 1.055, 2.4)
    )
    x = _times(linear, TO_XYZ / WHITE[:, None])
    line = x / (3.0 * BLACK**2) + 4.0 / 29.0
    root = ops.where(x > BLACK**3, ops.power(ops.maximum(x, BLACK**3), 1.0 / 3.0), line)
    return _times(root, TO_LAB) + ops.convert_to_tensor(OFFSET, dtype=root.dtype)


def lab_to_rgb(lab):
    """sRGB of Lab, the inverse of `rgb_to_lab`; what no screen shows is clipped.

    Args:
        lab: float `(..., 3)`.

    Returns:
        float `(..., 3)` in [0, 1].
    """
    root = _times(lab - ops.convert_to_tensor(OFFSET, dtype=lab.dtype), np.linalg.inv(TO_LAB))
    x = ops.where(root > BLACK, root * root * root, (root - 4.0 / 29.0) * (3.0 * BLACK**2))
    x = ops.clip(_times(x, np.linalg.inv(TO_XYZ) * WHITE), 0.0, 1.0)
    curve = 1.055 * ops.power(ops.maximum(x, 0.0031308), 1.0 / 2.4) - 0.055
    return ops.where(x <= 0.0031308, 12.92 * x, curve)


def _times(x, matrix):
    """`matrix @ x` of the vectors of `x` `(..., 3)`."""
    return ops.matmul(x, ops.convert_to_tensor(matrix.T, dtype=x.dtype))


@functools.cache
def ab_bins(grid=10):
    """The colors `a`, `b` that are classes: points of a square grid, where sRGB has colors.

    They are the corners of the squares that the convex hull of the gamut touches, 313 of a grid of
    10. The paper names their number, not the rule.

    Args:
        grid: Side of a square.

    Returns:
        float32 `(Q, 2)`.
    """
    line = np.linspace(0.0, 1.0, EDGE)
    edges = [
        np.insert(np.array([[i, j]] * EDGE, float), axis, line, axis=1)
        for axis in range(3)
        for i in (0, 1)
        for j in (0, 1)
    ]
    ab = np.asarray(rgb_to_lab(np.concatenate(edges)))[:, 1:]
    angle = np.linspace(0.0, 2.0 * np.pi, DIRECTIONS, endpoint=False)
    normals = np.stack([np.cos(angle), np.sin(angle)])  # (2, directions)
    reach = (ab @ normals).max(0)
    count = int(np.ceil(np.abs(ab).max() / grid)) + 1
    corners = np.array([(i, j) for i in (0, 1) for j in (0, 1)])
    squares = np.stack(np.meshgrid(*[np.arange(-count, count)] * 2, indexing="ij"), -1)
    squares = squares.reshape(-1, 1, 2) + corners  # (squares, 4, 2)
    touched = ((grid * squares @ normals).min(1) <= reach).all(1)  # no line parts it from the hull
    return (grid * np.unique(squares[touched].reshape(-1, 2), axis=0)).astype(np.float32)


def soft_encoded(ab, bins, neighbors=5, sigma=5.0):
    """The distribution over the nearest bins that a color stands for.

    Args:
        ab: float `(..., 2)`.
        bins: float `(Q, 2)`.
        neighbors: How many bins have a probability, proportional to a Gaussian of their distance.
        sigma: Its deviation.

    Returns:
        float `(..., Q)`; sums to 1.
    """
    bins = ops.convert_to_tensor(bins, dtype=ab.dtype)
    far = ops.sum(ops.square(ab[..., None, :] - bins), axis=-1)  # (..., Q)
    nearest = -ops.top_k(-far, min(neighbors, bins.shape[0]))[0]
    # Less the nearest, lest a color far from all have no weight
    score = (nearest[..., :1] - far) / (2.0 * sigma**2)
    return ops.softmax(ops.where(far <= nearest[..., -1:], score, -FAR), axis=-1)


def annealed_mean(logits, bins, temperature=0.38):
    """The color of a distribution that is sharpened: between its mean, of 1, and its mode, of 0.

    Args:
        logits: float `(..., Q)`.
        bins: float `(Q, 2)`.
        temperature: Above 0.

    Returns:
        float `(..., 2)`.
    """
    p = ops.softmax(logits / temperature, axis=-1)
    return ops.matmul(p, ops.convert_to_tensor(bins, dtype=p.dtype))


def rebalanced(counts, bins, uniform=0.5, sigma=5.0):
    """How much a pixel of each class counts, so that rare colors are learned too.

    The weight is `1 / ((1 - uniform) p + uniform / Q)`, where `p` is the distribution of colors,
    smoothed by a Gaussian; that of all pixels is 1 in the mean.

    Args:
        counts: How many pixels each class has, numpy `(Q,)`.
        bins: float `(Q, 2)`.
        uniform: In [0, 1]; of 1 all count alike.
        sigma: Of the Gaussian.

    Returns:
        numpy float64 `(Q,)`.
    """
    far = np.square(bins[:, None] - bins).sum(-1).astype(np.float64)
    kernel = np.exp(-far / (2.0 * sigma**2))
    p = (counts / max(counts.sum(), 1)) @ (kernel / kernel.sum(1, keepdims=True))
    weights = 1.0 / ((1.0 - uniform) * p + uniform / len(bins))
    return weights / max(np.sum(p * weights), 1e-12)


def averaged(image, size):
    """Images made smaller: each pixel is the mean of the area that it covers.

    Args:
        image: float `(B, H, W, C)`.
        size: `(h, w)`.

    Returns:
        float `(B, h, w, C)`.
    """
    for axis, (side, new) in enumerate(zip(image.shape[1:3], size, strict=True), 1):
        if side == new:
            continue
        weights = ops.convert_to_tensor(_shares(side, new), dtype=image.dtype)
        image = ops.moveaxis(ops.tensordot(image, weights, axes=[[axis], [1]]), -1, axis)
    return image


def _shares(side, new):
    """Of each of `side` pixels the share in each of `new` ones, `(new, side)`; rows sum to 1."""
    start = np.arange(new)[:, None] * side / new
    first = np.arange(side)
    within = np.minimum(start + side / new, first + 1) - np.maximum(start, first)
    return np.maximum(within, 0.0) * new / side
