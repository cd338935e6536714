"""Random shifts, flips, crops and rotations: of uniform numbers, where output pixels come from.

All return transforms float32 `(B, 8)`, see `kerasdl.data.pixels.warp`, for a size `(H, W)`.

Source: He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2 (shift and flip);
        Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, section 6 (area and aspect ratio);
        Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A (for contrastive views).
"""

import math

import tensorflow as tf

from kerasdl.ops.noise import LANES

ASPECT = (3 / 4, 4 / 3)  # width to height of a crop
ANGLE = math.radians(15)


def shift_flip(size, shift, flip):
    """Crop at random from the zero-padded image, and mirror half of the images.

    Args:
        size: `(H, W)`; padded by 1 pixel where a side is under 16, else an eighth.
        shift: uniform `(B, >= 2)`, or None for no shift.
        flip: uniform `(B, >= 1)`, or None for no flip; one of the two is given.
    """
    height, width = size
    zero = tf.zeros_like((flip if shift is None else shift)[:, 0])
    one = zero + 1.0
    dy, dx = zero, zero
    if shift is not None:
        py, px = (1 if n < 16 else n // 8 for n in (height, width))
        dy = tf.floor(shift[:, 0] * (2 * py + 1)) - py
        dx = tf.floor(shift[:, 1] * (2 * px + 1)) - px
    scale = one
    if flip is not None:
        mirror = flip[:, 0] < 0.5
        scale = tf.where(mirror, -one, one)
        dx = tf.where(mirror, width - 1.0 - dx, dx)
    # Output pixel (x, y) is input pixel (scale x + dx, y + dy): whole numbers, so a pure copy.
    return tf.stack([scale, zero, dx, zero, one, dy, zero, zero], axis=1)


def resized_crop(size, u, scale):
    """Resize a random box of each image to the size of the image.

    Args:
        size: `(H, W)`.
        u: uniform `(B, >= 4)`: area, aspect ratio, top, left.
        scale: `(min, max)` of the box's area, as a fraction of the image.
    """
    height, width = size
    area = scale[0] + (scale[1] - scale[0]) * u[:, 0]
    low, high = (math.log(a) for a in ASPECT)
    aspect = _whole(tf.exp, low + (high - low) * u[:, 1])
    h = tf.minimum(tf.sqrt(area / aspect), 1.0)  # fractions of the image's sides
    w = tf.minimum(tf.sqrt(area * aspect), 1.0)
    # Not `u (1 - h) height`: in a batch of one, a graph's optimizer multiplies in another order.
    top, left = u[:, 2] * (height - h * height), u[:, 3] * (width - w * width)
    # The center of output pixel x is at (x + 1/2) w + left in the image.
    zero = tf.zeros_like(h)
    dx, dy = left + 0.5 * w - 0.5, top + 0.5 * h - 0.5
    return tf.stack([w, zero, dx, zero, h, dy, zero, zero], axis=1)


def rotate(size, u):
    """Turn each image about its center by at most `ANGLE`.

    Args:
        size: `(H, W)`.
        u: uniform `(B, >= 1)`.
    """
    cx, cy = (size[1] - 1) / 2.0, (size[0] - 1) / 2.0
    angle = (2.0 * u[:, 0] - 1.0) * ANGLE
    cos, sin, zero = _whole(tf.cos, angle), _whole(tf.sin, angle), tf.zeros_like(angle)
    dx, dy = cx - cos * cx + sin * cy, cy - sin * cx - cos * cy
    return tf.stack([cos, -sin, dx, sin, cos, dy, zero, zero], axis=1)


def _whole(function, x):
    """`function(x)` of each example `(B,)`, in a vector of its own.

    Exponentials and cosines differ in the last bit between the vectorized part of an array and the
    rest at its end: so they are the same in any batch.
    """
    return function(tf.repeat(x[:, None], LANES, axis=1))[:, 0]
