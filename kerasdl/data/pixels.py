"""Pixel operations on batches that give the same bits for an image in any batch."""

import tensorflow as tf

from kerasdl.data.images import GRAY


def warp(image, transforms, interpolation, fill, edge="CONSTANT", to=None):
    """Projective warp of each image.

    Args:
        image: `(B, H, W, C)`.
        transforms: float32 `(B, 8)`: output pixel `(x, y)` is the input at
            `(a0 x + a1 y + a2, a3 x + a4 y + a5) / (a6 x + a7 y + 1)`.
        interpolation: `NEAREST` or `BILINEAR`.
        fill: Value outside the image.
        edge: `CONSTANT`, or `NEAREST` where the edge goes on outside the image.
        to: `(H, W)` of the result, if not that of `image`.

    Returns:
        The type and, but for `to`, the shape of `image`.
    """
    size = image.shape[1:3] if to is None else to
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=image,
        transforms=transforms,
        output_shape=size,
        fill_value=fill,
        interpolation=interpolation,
        fill_mode=edge,
    )
    return tf.ensure_shape(warped, (image.shape[0], *size, image.shape[3]))


def gray(image):
    """Luma `(B, H, W, 1)` of color images; others as they are."""
    if image.shape[-1] != 3:
        return image
    return sum(image[..., c : c + 1] * weight for c, weight in enumerate(GRAY))


def mean_gray(image):
    """Mean luma `(B, 1, 1, 1)`, summed exactly, so that no batch size changes its last bit."""
    g = gray(image)
    total = tf.reduce_sum(tf.cast(tf.round(g * 65536.0), tf.int64), axis=(1, 2, 3), keepdims=True)
    count = g.shape[1] * g.shape[2] * g.shape[3]
    return tf.cast(tf.cast(total, tf.float64) / (65536.0 * count), tf.float32)


def blend(image, other, factor):
    """`factor image + (1 - factor) other`, clipped to [0, 1]; factors above 1 extrapolate."""
    return tf.clip_by_value(other + factor * (image - other), 0.0, 1.0)


def box_mask(shape, top, left, height, width):
    """Which pixels lie in a box.

    Args:
        shape: `(B, H, W, C)` of the images.
        top, left, height, width: Of the box, float `(B,)` or scalars.

    Returns:
        bool `(B, H, W, 1)`; its first axis is 1 where the box is the same for all.
    """
    y = tf.range(shape[1], dtype=tf.float32)[None, :]
    x = tf.range(shape[2], dtype=tf.float32)[None, :]
    top, left, height, width = (
        tf.reshape(tf.cast(v, tf.float32), (-1, 1)) for v in (top, left, height, width)
    )
    rows = (y >= top) & (y < top + height)
    columns = (x >= left) & (x < left + width)
    return (rows[:, :, None] & columns[:, None, :])[..., None]
