"""Mosaic: four examples in the quarters of one picture, with their boxes and masks.

`keras-cv`'s layer has no seed of a call, and does not repeat: so this is an own function of the
example's key.

Source: Bochkovskiy et al. 2020, https://arxiv.org/abs/2004.10934, section 3.3 (figure 3).
"""

import tensorflow as tf

from kerasdl.columns import ABSENT
from kerasdl.data.moving import OF_OBJECTS, PLACED, move, size_of

CENTER = (0.25, 0.75)  # where the quarters meet, as fractions of the sides
QUARTERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # whether it is at the bottom, and at the right


def applies(columns) -> bool:
    """Whether all columns `{name: Column}` can be put together: none is of the whole example."""
    return all(column.kind in PLACED or _of_objects(column) for column in columns.values())


def _of_objects(column):
    return column.kind in OF_OBJECTS and bool(column.shape)


def mosaic(batch, columns, u):
    """Put each example and the three that follow it in the batch, the first after the last,
    together.

    Each keeps its size, and has its corner where the quarters meet: what is seen of it is cut off
    there. Of all their objects the largest are kept, as many as there are rows for.

    Args:
        batch: `{name: tensor (B, ...)}`.
        columns: `{name: Column}` of it; what `applies` to none stays as it is.
        u: uniform `(B, >= 2)`: where the quarters meet.

    Returns:
        The batch.
    """
    columns = {name: column for name, column in columns.items() if applies({name: column})}
    height, width = size_of(columns)
    low, high = CENTER
    center = tf.floor((low + (high - low) * u[:, :2]) * [float(height), float(width)])
    cy, cx = center[:, 0], center[:, 1]
    zero = tf.zeros_like(cy)
    one, quarters = zero + 1.0, []
    for number, (bottom, right) in enumerate(QUARTERS):
        dy = -cy if bottom else height - cy
        dx = -cx if right else width - cx
        transforms = tf.stack([one, zero, dx, zero, one, dy, zero, zero], axis=1)
        rolled = {name: tf.roll(batch[name], -number, axis=0) for name in columns}
        quarters.append(move(rolled, columns, transforms, "NEAREST"))
    result = dict(batch)
    for name, column in columns.items():
        if not _of_objects(column):
            first = (
                1 if column.kind == "mask" else len(column.shape) - 2
            )  # of the axes of a picture
            values = [quarter[name] for quarter in quarters]
            result[name] = _joined(values, first, center / [float(height), float(width)])
    return result | _largest(quarters, columns)


def _joined(values, first, center):
    """The quarters of tensors `(B, ..., H, W, ...)` whose rows are the axis `first`."""
    masks = []
    for axis in range(2):
        n = values[0].shape[first + axis]
        number = (tf.range(n, dtype=tf.float32) + 0.5) / n
        later = number >= center[:, axis, None]  # (B, n)
        shape = [1] * len(values[0].shape)
        shape[0], shape[first + axis] = -1, n
        masks.append(tf.reshape(later, shape))
    top = tf.where(masks[1], values[1], values[0])
    return tf.where(masks[0], tf.where(masks[1], values[3], values[2]), top)


def _largest(quarters, columns):
    """The columns of objects, of the largest of all quarters."""
    result, by_rows = {}, {}
    for name, column in columns.items():
        if _of_objects(column):
            by_rows.setdefault(column.shape[0], {})[name] = column.kind
    for count, kinds in by_rows.items():
        every = {name: tf.concat([q[name] for q in quarters], axis=1) for name in kinds}
        of_kind = {kind: name for name, kind in kinds.items()}
        if "boxes" in of_kind:
            boxes = every[of_kind["boxes"]]
            size = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
        elif "instances" in of_kind:
            pixels = tf.cast(every[of_kind["instances"]] > 0, tf.float32)
            size = tf.reduce_sum(pixels, axis=(2, 3))
        else:  # whatever is there
            label = every[next(iter(kinds))]
            size = tf.cast(label != ABSENT, tf.float32)
        chosen = tf.math.top_k(size, count).indices
        result |= {name: tf.gather(value, chosen, batch_dims=1) for name, value in every.items()}
    return result
