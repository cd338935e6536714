"""Random shifts, flips, crops and rotations: of uniform numbers, where output pixels come from.

All return transforms float32 `(B, 8)`, see `kerasdl.data.pixels.warp`, for a size `(H, W)`.

Source: He et al. 2015, https://arxiv.org/abs/1512.03385, section 4.2 (shift and flip);
        Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, section 6 (area and aspect ratio);
        Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A (for contrastive views).
"""

import math

import tensorflow as tf

from kerasdl.ops.noise import LANES

RATIO = (3 / 4, 4 / 3)  # width to height of a crop
ANGLE = math.radians(15)


def shift_flip(size, shift, flip, vertical=None):
    """Crop at random from the zero-padded image, and mirror half of the images.

    Args:
        size: `(H, W)`; padded by 1 pixel where a side is under 16, else an eighth.
        shift: uniform `(B, >= 2)`, or None for no shift.
        flip: uniform `(B, >= 1)`, or None for no flip.
        vertical: Likewise, for half of them upside down; one of the three is given.
    """
    height, width = size
    zero = tf.zeros_like(next(u for u in (shift, flip, vertical) if u is not None)[:, 0])
    one = zero + 1.0
    dy, dx = zero, zero
    if shift is not None:
        py, px = (1 if n < 16 else n // 8 for n in (height, width))
        dy = tf.floor(shift[:, 0] * (2 * py + 1)) - py
        dx = tf.floor(shift[:, 1] * (2 * px + 1)) - px
    sx = sy = one
    if flip is not None:
        mirror = flip[:, 0] < 0.5
        sx, dx = tf.where(mirror, -one, one), tf.where(mirror, width - 1.0 - dx, dx)
    if vertical is not None:
        mirror = vertical[:, 0] < 0.5
        sy, dy = tf.where(mirror, -one, one), tf.where(mirror, height - 1.0 - dy, dy)
    # Output pixel (x, y) is input pixel (sx x + dx, sy y + dy): whole numbers, so a pure copy.
    return tf.stack([sx, zero, dx, zero, sy, dy, zero, zero], axis=1)


def crop_box(size, u, scale, ratio=RATIO):
    """A random box of an image of any size, in its own proportions.

    Args:
        size: float32 `(2,)`, height and width.
        u: uniform `(>= 4,)`: area, ratio, top, left.
        scale: `(min, max)` of the box's area, as a fraction of the image; it is smaller where a box
            of its ratio would not fit.
        ratio: `(min, max)` of its width to its height.

    Returns:
        float32 `(2,)` its top and left, and `(2,)` its height and width.
    """
    area = (scale[0] + (scale[1] - scale[0]) * u[0]) * tf.reduce_prod(size)
    low, high = (math.log(a) for a in ratio)
    width_to_height = tf.exp(low + (high - low) * u[1])
    sides = tf.sqrt(tf.stack([area / width_to_height, area * width_to_height]))
    sides = tf.maximum(sides * tf.minimum(tf.reduce_min(size / sides), 1.0), 1.0)
    return u[2:4] * tf.maximum(size - sides, 0.0), sides


def resized(size, to, u):
    """Resize each image.

    Args:
        size: `(H, W)`.
        to: `(H, W)` of the result.
        u: float `(B, >= 1)`.
    """
    zero = tf.zeros_like(u[:, 0])
    sy, sx = (before / after for before, after in zip(size, to, strict=True))
    dy, dx = zero + 0.5 * sy - 0.5, zero + 0.5 * sx - 0.5
    return tf.stack([zero + sx, zero, dx, zero, zero + sy, dy, zero, zero], axis=1)


def resized_crop(size, u, scale, ratio=RATIO, to=None):
    """Resize a random box of each image to the size of the image.

    Args:
        size: `(H, W)`.
        u: uniform `(B, >= 4)`: area, aspect ratio, top, left.
        scale: `(min, max)` of the box's area, as a fraction of the image.
        ratio: `(min, max)` of its width to its height, of images that are as wide as high.
        to: `(H, W)` of the result, if not the size of the image.
    """
    height, width = size
    area = scale[0] + (scale[1] - scale[0]) * u[:, 0]
    low, high = (math.log(a) for a in ratio)
    aspect = _whole(tf.exp, low + (high - low) * u[:, 1])
    h = tf.minimum(tf.sqrt(area / aspect), 1.0)  # fractions of the image's sides
    w = tf.minimum(tf.sqrt(area * aspect), 1.0)
    # Not `u (1 - h) height`: in a batch of one, a graph's optimizer multiplies in another order.
    top, left = u[:, 2] * (height - h * height), u[:, 3] * (width - w * width)
    if to is not None:
        h, w = h * (height / to[0]), w * (width / to[1])
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
