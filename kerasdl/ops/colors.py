"""The colors that classes are shown in."""

import numpy as np
from keras import ops

# Neighbors are far apart on the color circle; what goes beyond begins again a little further on.
HUES = np.array([0.0, 0.6, 0.33, 0.13, 0.8, 0.5, 0.93, 0.22, 0.7, 0.42])


def class_colors(num_classes: int) -> np.ndarray:
    """Red, green and blue in [0, 1] of each class, float64 `(num_classes, 3)`."""
    k = np.arange(num_classes)
    hue = (HUES[k % len(HUES)] + 0.05 * (k // len(HUES))) % 1.0
    return np.clip(np.abs((6 * hue[:, None] + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)


def outlined(image, boxes, labels, num_classes: int):
    """Images with the outlines of boxes in the colors of their classes, the first box uppermost.

    Args:
        image: float `(B, H, W, C)` in [0, 1].
        boxes: float `(B, M, 4)`, `ymin xmin ymax xmax` in [0, 1].
        labels: int `(B, M)`, negative where there is no box.
        num_classes: How many classes there are.

    Returns:
        float32 `(B, H, W, 3)`.
    """
    image = _colored(image)
    colors = ops.cast(class_colors(num_classes + 1)[1:], "float32")  # none is the background's
    within, edges = [], []
    for axis, size in enumerate(image.shape[1:3]):
        low = ops.floor(ops.cast(boxes[..., axis], "float32") * size + 0.5)[..., None]
        high = ops.floor(ops.cast(boxes[..., axis + 2], "float32") * size + 0.5)[..., None] - 1
        low, high = ops.clip(low, 0, size - 1), ops.clip(ops.maximum(low, high), 0, size - 1)
        at = ops.arange(size, dtype="float32")
        within.append((at >= low) & (at <= high))  # (B, M, size)
        edges.append((at == low) | (at == high))
    (rows, columns), (top, side) = within, edges
    inside = rows[..., :, None] & columns[..., None, :]
    line = inside & (top[..., :, None] | side[..., None, :]) & (labels >= 0)[..., None, None]
    color = ops.take(colors, ops.maximum(labels, 0), axis=0)  # (B, M, 3)
    for m in reversed(range(boxes.shape[1])):
        image = ops.where(line[:, m, :, :, None], color[:, m, None, None, :], image)
    return image


def tinted(image, masks, labels, num_classes: int, opacity: float = 0.6):
    """Images with objects' pixels in the colors of their classes, the first object uppermost.

    Args:
        image: float `(B, H, W, C)` in [0, 1].
        masks: uint8 `(B, M, H, W)`, 1 where an object is.
        labels: int `(B, M)`, negative where there is none.
        num_classes: How many classes there are.
        opacity: Of the color.

    Returns:
        float32 `(B, H, W, 3)`.
    """
    image = _colored(image)
    colors = ops.cast(class_colors(num_classes + 1)[1:], "float32")  # none is the background's
    color = ops.take(colors, ops.maximum(labels, 0), axis=0)  # (B, M, 3)
    inside = (masks > 0) & (labels >= 0)[..., None, None]
    result = image
    for m in reversed(range(masks.shape[1])):
        mixed = (1 - opacity) * image + opacity * color[:, m, None, None, :]
        result = ops.where(inside[:, m, :, :, None], mixed, result)
    return result


def _colored(image):
    """float32 `(B, H, W, 3)`."""
    image = ops.convert_to_tensor(image, "float32")
    return image if image.shape[-1] == 3 else ops.repeat(image[..., :1], 3, axis=-1)
