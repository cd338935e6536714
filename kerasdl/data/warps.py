"""Random resized crops and rotations of images, drawn per example from uniform numbers.

Source: Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, section 6 (area and aspect ratio);
        Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A (for contrastive views).
"""

import math

import tensorflow as tf

from kerasdl.data.pixels import warp

AREA = (0.4, 1.0)  # of a crop, as a fraction of the image; the papers' (0.08, 1) is of photographs
ASPECT = (3 / 4, 4 / 3)
ANGLE = math.radians(15)


def resized_crop(image, u):
    """Resize a random box of each image to the size of the image.

    Args:
        image: float32 `(B, H, W, C)`.
        u: uniform `(B, >= 4)`: area, aspect ratio, top, left.

    Returns:
        float32, the shape of `image`.
    """
    return warp(image, resized_crop_transform(image.shape, u), "BILINEAR", 0.0)


def resized_crop_transform(shape, u):
    """The transforms float32 `(B, 8)` of `resized_crop`; see `kerasdl.data.pixels.warp`.

    Args:
        shape: `(B, H, W, C)` of the images.
        u: See `resized_crop`.
    """
    _, height, width, _ = shape
    area = AREA[0] + (AREA[1] - AREA[0]) * u[:, 0]
    low, high = (math.log(a) for a in ASPECT)
    aspect = tf.exp(low + (high - low) * u[:, 1])  # of width to height
    h = tf.minimum(tf.sqrt(area / aspect), 1.0)  # fractions of the image's sides
    w = tf.minimum(tf.sqrt(area * aspect), 1.0)
    top, left = u[:, 2] * (1.0 - h) * height, u[:, 3] * (1.0 - w) * width
    # The center of output pixel x is at (x + 1/2) w + left in the image.
    zero = tf.zeros_like(h)
    dx, dy = left + 0.5 * w - 0.5, top + 0.5 * h - 0.5
    return tf.stack([w, zero, dx, zero, h, dy, zero, zero], axis=1)


def rotate(image, u):
    """Turn each image about its center by at most `ANGLE`; zeros come in at the corners.

    Args:
        image: float32 `(B, H, W, C)`.
        u: uniform `(B, >= 1)`.

    Returns:
        float32, the shape of `image`.
    """
    return warp(image, rotate_transform(image.shape, u), "BILINEAR", 0.0)


def rotate_transform(shape, u):
    """The transforms float32 `(B, 8)` of `rotate`; see `kerasdl.data.pixels.warp`.

    Args:
        shape: `(B, H, W, C)` of the images.
        u: See `rotate`.
    """
    cx, cy = (shape[2] - 1) / 2.0, (shape[1] - 1) / 2.0
    angle = (2.0 * u[:, 0] - 1.0) * ANGLE
    cos, sin, zero = tf.cos(angle), tf.sin(angle), tf.zeros_like(angle)
    dx, dy = cx - cos * cx + sin * cy, cy - sin * cx - cos * cy
    return tf.stack([cos, -sin, dx, sin, cos, dy, zero, zero], axis=1)
