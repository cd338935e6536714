"""One warp of an example, done to every column of it by its kind."""

import tensorflow as tf

from kerasdl.columns import ABSENT, PIXELS, VOID
from kerasdl.data.pixels import warp

PLACED = (*PIXELS, "mask", "instances", "boxes", "regions")  # what has a place in the picture
OF_OBJECTS = ("instances", "boxes", "valid", "label")  # what has a row per object
SMALLEST = 0.5  # pixels of a side, and
KEPT = 0.1  # fraction of a box: where less is in sight, the object is absent
BESIDE = 1.0  # pixels that a box may be larger than what is seen of the object


def size_of(columns):
    """`(H, W)` of the first column of pixels of `{name: Column}`."""
    return next(c.shape[-3:-1] for c in columns.values() if c.kind in PIXELS)


def move(batch, columns, transforms, interpolation, *, edge="CONSTANT", pixels=True, to=None):
    """Warp the columns of a batch that have a place in the picture.

    New pixels are 0, in masks `VOID`. Masks and instances take the nearest pixel. Boxes become the
    smallest upright ones around what they were, clipped to the picture, and where there are
    instances to a pixel around what is seen of theirs. An object of whose box less than a tenth, or
    half a pixel, is left, or all of whose pixels leave the picture, is absent from there on: all
    its rows are 0, its label `ABSENT`.

    Args:
        batch: `{name: tensor (B, ...)}`.
        columns: `{name: Column}` of it.
        transforms: float32 `(B, 8)`, see `kerasdl.data.pixels.warp`, for the size of the first
            column of pixels.
        interpolation: Of pixels, `NEAREST` or `BILINEAR`.
        edge: See `kerasdl.data.pixels.warp`.
        pixels: Whether images and videos are moved too.
        to: `(H, W)` of the images that come out, if not that of those that go in; only where there
            are images and nothing else that has a place in the picture.

    Returns:
        The batch, its other columns as they are.
    """
    before, batch, size = batch, dict(batch), size_of(columns)
    for name, column in columns.items():
        value, kind = batch[name], column.kind
        if kind in PIXELS and not pixels or kind not in PLACED:
            continue
        if kind in ("boxes", "regions"):
            batch[name] = move_boxes(value, transforms, size)
            continue
        own = {"mask": column.shape, "instances": column.shape[1:]}.get(kind, column.shape[-3:-1])
        scaled = rescaled(transforms, size, own)
        if kind == "image":
            batch[name] = warp(value, scaled, interpolation, 0.0, edge, to)
        elif kind == "video":
            batch[name] = per_frame(
                value, lambda v, t: warp(v, t, interpolation, 0.0, edge), scaled
            )
        elif kind == "mask":
            batch[name] = warp(value[..., None], scaled, "NEAREST", VOID, edge)[..., 0]
        else:
            seen = tf.transpose(value, (0, 2, 3, 1))  # (B, H, W, M)
            seen = warp(seen, scaled, "NEAREST", 0, edge)
            batch[name] = tf.transpose(seen, (0, 3, 1, 2))
    return _without_absent(_tightened(batch, before, columns), columns)


def per_frame(video, function, *more):
    """Call `function(images (B T, H, W, C), ...)` with all frames of videos `(B, T, H, W, C)`.

    Args:
        video: `(B, T, H, W, C)`.
        function: Returns images.
        *more: Tensors `(B, ...)`, which all frames of a video get alike.
    """
    batch, frames, *shape = video.shape
    more = [tf.repeat(value, frames, axis=0) for value in more]
    return tf.reshape(function(tf.reshape(video, (batch * frames, *shape)), *more), video.shape)


def rescaled(transforms, size, other):
    """Transforms for pictures of the size `other` that do what `transforms` do at `size`."""
    if tuple(size) == tuple(other):
        return transforms
    sy, sx = size[0] / other[0], size[1] / other[1]  # pixels of `size` in one of `other`
    a, b, c, d, e, f, g, h = tf.unstack(transforms, axis=1)
    c = (a * (0.5 * sx - 0.5) + b * (0.5 * sy - 0.5) + c + 0.5) / sx - 0.5
    f = (d * (0.5 * sx - 0.5) + e * (0.5 * sy - 0.5) + f + 0.5) / sy - 0.5
    return tf.stack([a, b * (sy / sx), c, d * (sx / sy), e, f, g, h], axis=1)


def move_boxes(boxes, transforms, size):
    """Boxes float `(B, M, 4)` where a warp brings them, clipped; those out of sight are 0, as those
    of which too little is seen."""
    height, width = size
    # Not `transforms[:, i, None, None]`, of which a graph's optimizer drops the new axes.
    a, b, c, d, e, f, _, _ = (v[:, None, None] for v in tf.unstack(transforms, axis=1))
    y = tf.gather(boxes, [0, 0, 2, 2], axis=-1) * height - 0.5 - f  # (B, M, 4) corners
    x = tf.gather(boxes, [1, 3, 1, 3], axis=-1) * width - 0.5 - c
    determinant = a * e - b * d
    x, y = (e * x - b * y) / determinant, (a * y - d * x) / determinant
    x, y = (x + 0.5) / width, (y + 0.5) / height
    lows, highs = (
        tf.stack([reduce(y, axis=-1), reduce(x, axis=-1)], axis=-1)
        for reduce in (tf.reduce_min, tf.reduce_max)
    )
    sides = highs - lows
    lows, highs = tf.clip_by_value(lows, 0.0, 1.0), tf.clip_by_value(highs, 0.0, 1.0)
    left = highs - lows
    there = tf.reduce_all(left * [height, width] >= SMALLEST, axis=-1, keepdims=True)
    area, whole = (s[..., :1] * s[..., 1:] for s in (left, sides))
    there &= area >= KEPT * whole
    return tf.where(there, tf.concat([lows, highs], axis=-1), 0.0)


def _tightened(batch, before, columns):
    """The boxes of a batch clipped to what is seen of their instances, 0 where that has left."""
    of_rows = {c.shape[0]: n for n, c in columns.items() if c.kind == "instances"}
    for name, column in columns.items():
        if column.kind != "boxes" or column.shape[0] not in of_rows:
            continue
        instances = of_rows[column.shape[0]]
        boxes, seen = batch[name], batch[instances] > 0  # (B, M, 4), (B, M, H, W)
        lows, highs = [], []
        for axis in (2, 3):
            along = tf.cast(tf.reduce_any(seen, axis=5 - axis), tf.float32)  # (B, M, n)
            n = along.shape[-1]
            number = tf.range(n, dtype=tf.float32)
            lows.append((n - tf.reduce_max(along * (n - number), axis=-1) - BESIDE) / n)
            highs.append((tf.reduce_max(along * (number + 1.0), axis=-1) + BESIDE) / n)
        lows, highs = tf.stack(lows, axis=-1), tf.stack(highs, axis=-1)
        tight = tf.concat([tf.maximum(boxes[..., :2], lows), tf.minimum(boxes[..., 2:], highs)], -1)
        now, then = (
            tf.reduce_any(value > 0, axis=(2, 3)) for value in (batch[instances], before[instances])
        )
        tight = tf.where(now[..., None] & tf.reduce_any(boxes > 0, -1, keepdims=True), tight, boxes)
        batch[name] = tf.where((then & ~now)[..., None], 0.0, tight)
    return batch


def _without_absent(batch, columns):
    """The rows of objects that are out of sight made absent, in all columns of objects."""
    rows = {}  # the columns of objects by their number of rows
    for name, column in columns.items():
        if column.kind in OF_OBJECTS and column.shape:
            rows.setdefault(column.shape[0], {})[name] = column.kind
    for kinds in rows.values():
        by_kind = {kind: name for name, kind in kinds.items()}
        if "boxes" in by_kind:
            boxes = batch[by_kind["boxes"]]
            seen = tf.reduce_any(boxes > 0, axis=-1)  # (B, M)
        elif "instances" in by_kind:
            seen = tf.reduce_any(batch[by_kind["instances"]] > 0, axis=(2, 3))
        else:
            continue
        for name, kind in kinds.items():
            value = batch[name]
            there = tf.reshape(seen, (*seen.shape, *[1] * (len(value.shape) - 2)))
            absent = tf.cast(ABSENT if kind == "label" else 0, value.dtype)
            batch[name] = tf.where(there, value, absent)
    return batch
