"""Masks of objects: pasted from the square that a network makes into the picture, and the inverse.

Source: He et al. 2017, https://arxiv.org/abs/1703.06870, section 3; torchvision's
        `paste_masks_in_image` and `project_masks_on_boxes`, whose pixels lie half a pixel off.
"""

import numpy as np
from keras import ops

from kerasdl.ops.roi import roi_align


def paste(masks, boxes, size, aligned=False):
    """Square masks enlarged bilinearly to their boxes, zeros around.

    As the weights of a mask's pixels are a product of those along y and along x, all is two matrix
    products.

    Args:
        masks: float `(B, M, P, P)`.
        boxes: float `(B, M, 4)`, `ymin xmin ymax xmax` in pixels.
        size: `(H, W)` of the picture.
        aligned: Whether the centers of pixels lie at halves; else the ends of the box, with a
            border of zeros around the mask, are cut to whole pixels, as torchvision does.

    Returns:
        float `(B, M, H, W)`; 0 of boxes without an area.
    """
    bins = masks.shape[-1]
    wy, wx = (
        ops.cast(_weights(boxes[..., i], boxes[..., i + 2], size[i], bins, aligned), masks.dtype)
        for i in (0, 1)
    )
    rows = ops.einsum("bmhp,bmpq->bmhq", wy, masks)
    return ops.einsum("bmwq,bmhq->bmhw", wx, rows)


def _weights(low, high, n, bins, aligned):
    """Of a mask's pixels in `n` pixels, `(B, M, n, bins)`."""
    padded = bins + 2
    center, half = (low + high) / 2, (high - low) / 2 * (padded / bins)
    first, end = (v[..., None, None] for v in (center - half, center + half))
    if not aligned:
        first, end = _whole(first), _whole(end) + 1
    length = ops.maximum(end - first, 1e-3 if aligned else 1)
    pixel = ops.cast(np.arange(n)[:, None], low.dtype) + 0.5
    at = ops.clip((pixel - first) * padded / length - 0.5, 0, padded - 1)
    inner = ops.cast(np.arange(1, bins + 1), low.dtype)
    there = (pixel >= first) & (pixel < end) & (high > low)[..., None, None]
    return ops.where(there, ops.maximum(1 - ops.abs(at - inner), 0), 0)


def _whole(x):
    """Cut to whole numbers, towards 0."""
    return ops.where(x < 0, -ops.floor(-x), ops.floor(x))


def cropped(masks, boxes, bins, aligned=False):
    """What masks are within boxes, in bins: what a network should make of each.

    Args:
        masks: float `(B, R, H, W)`, that of each box.
        boxes: float `(B, R, 4)` in pixels of the masks.
        bins: Along each side, `P`.
        aligned: Of `kerasdl.ops.roi.roi_align`.

    Returns:
        float `(B, R, P, P)` in [0, 1].
    """
    _, regions, height, width = masks.shape
    maps = ops.reshape(masks, (-1, height, width, 1))
    boxes = ops.reshape(boxes, (-1, 1, 4))
    crops = roi_align(maps, boxes, (bins, bins), sampling=None, aligned=aligned)
    return ops.reshape(crops, (-1, regions, bins, bins))
