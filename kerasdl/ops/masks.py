"""Masks of objects: pasted from the square that a network makes into the picture, and the inverse.

Source: He et al. 2017, https://arxiv.org/abs/1703.06870, section 3; how ends are rounded is that of
        torchvision's `paste_masks_in_image` and `project_masks_on_boxes`.
"""

import numpy as np
from keras import ops

from kerasdl.ops.roi import roi_align


def paste(masks, boxes, size):
    """Square masks enlarged bilinearly to their boxes, zeros around.

    A mask gets a border of zeros, and its box grows with it; the ends of that are cut to whole
    pixels. As the weights of a mask's pixels are a product of those along y and along x, all is two
    matrix products.

    Args:
        masks: float `(B, M, P, P)`.
        boxes: float `(B, M, 4)`, `ymin xmin ymax xmax` in pixels.
        size: `(H, W)` of the picture.

    Returns:
        float `(B, M, H, W)`; 0 of boxes without an area.
    """
    bins = masks.shape[-1]
    wy, wx = (
        ops.cast(_weights(boxes[..., axis], boxes[..., axis + 2], size[axis], bins), masks.dtype)
        for axis in (0, 1)
    )
    rows = ops.einsum("bmhp,bmpq->bmhq", wy, masks)
    return ops.einsum("bmwq,bmhq->bmhw", wx, rows)


def _weights(low, high, n, bins):
    """Of a mask's pixels in `n` pixels, `(B, M, n, bins)`."""
    padded = bins + 2
    center, half = (low + high) / 2, (high - low) / 2 * (padded / bins)
    first, last = (_whole(v)[..., None, None] for v in (center - half, center + half))
    length = ops.maximum(last - first + 1, 1)
    pixel = ops.cast(np.arange(n)[:, None], low.dtype)
    at = ops.clip((pixel - first + 0.5) * padded / length - 0.5, 0, padded - 1)
    inner = ops.cast(np.arange(1, bins + 1), low.dtype)
    there = (pixel >= first) & (pixel <= last) & (high > low)[..., None, None]
    return ops.where(there, ops.maximum(1 - ops.abs(at - inner), 0), 0)


def _whole(x):
    """Cut to whole numbers, towards 0."""
    return ops.where(x < 0, -ops.floor(-x), ops.floor(x))


def cropped(masks, boxes, bins):
    """What masks are within boxes, in bins: what a network should make of each.

    Args:
        masks: float `(B, R, H, W)`, that of each box.
        boxes: float `(B, R, 4)` in pixels of the masks.
        bins: Along each side, `P`.

    Returns:
        float `(B, R, P, P)` in [0, 1].
    """
    _, regions, height, width = masks.shape
    maps = ops.reshape(masks, (-1, height, width, 1))
    boxes = ops.reshape(boxes, (-1, 1, 4))
    crops = roi_align(maps, boxes, (bins, bins), sampling=None, aligned=False)
    return ops.reshape(crops, (-1, regions, bins, bins))
