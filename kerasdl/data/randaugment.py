"""RandAugment: two random transformations per image, of one strength.

Source:  Cubuk et al. 2019, https://arxiv.org/abs/1909.13719 (figure 2), ranges of AutoAugment,
         https://arxiv.org/abs/1805.09501 (table 6).
Differs: equalize and sharpness are left out, and invert is in, as in AutoAugment; signs are random.
"""

import math

import tensorflow as tf

from kerasdl.data import pixels

LAYERS = 2  # the paper's N
MAGNITUDE = 0.9  # the paper's M = 9 of 10
FILL = 0.5
ANGLE = math.radians(30) * MAGNITUDE
SHEAR = 0.3 * MAGNITUDE
TRANSLATE = 0.45 * MAGNITUDE  # of the side
ENHANCE = 0.9 * MAGNITUDE
BITS = 8 - round(4 * MAGNITUDE)
THRESHOLD = 1.0 - MAGNITUDE


def randaugment(image, u):
    """Apply `LAYERS` transformations, each chosen with equal odds, to every image.

    Args:
        image: float32 `(B, H, W, C)` in [0, 1].
        u: uniform `(B, >= 2 LAYERS)`: operation and sign of each layer.

    Returns:
        float32, the shape of `image`.
    """
    for operation, sign in layers(u):
        image = apply(image, operation, sign)
    return image


def layers(u):
    """The random choices: `[(operation int32 (B,), sign float32 (B,))]` of each layer."""
    return [
        (
            tf.cast(u[:, 2 * layer] * len(OPERATIONS), tf.int32),
            tf.where(u[:, 2 * layer + 1] < 0.5, -1.0, 1.0),
        )
        for layer in range(LAYERS)
    ]


def apply(image, operation, sign):
    """One transformation per image.

    Args:
        image: float32 `(B, H, W, C)` in [0, 1].
        operation: int32 `(B,)`, positions in `OPERATIONS`.
        sign: float32 `(B,)`, 1 or -1: the direction of those that have one.

    Returns:
        float32, the shape of `image`.
    """
    # Each transformation is given its own images alone: several times faster than all of them
    # on all images and a choice afterwards.
    group = tf.gather([_GROUP_OF[name] for name in OPERATIONS], operation)
    count = len(GROUPS)
    parts = zip(
        GROUPS,
        tf.dynamic_partition(image, group, count),
        tf.dynamic_partition(operation, group, count),
        tf.dynamic_partition(sign, group, count),
        strict=True,
    )
    changed = [function(*part) for (_, function), *part in parts]
    places = tf.dynamic_partition(tf.range(image.shape[0]), group, count)
    return tf.ensure_shape(tf.dynamic_stitch(places, changed), image.shape)


def _is(name, operation):
    return operation == OPERATIONS.index(name)


def _identity(image, operation, sign):
    return image


def _autocontrast(image, operation, sign):
    """Stretch each channel to [0, 1]; one that is constant stays."""
    low = tf.reduce_min(image, axis=(1, 2), keepdims=True)
    high = tf.reduce_max(image, axis=(1, 2), keepdims=True)
    flat = high <= low
    scale = 1.0 / tf.where(flat, 1.0, high - low)
    return tf.clip_by_value((image - tf.where(flat, 0.0, low)) * scale, 0.0, 1.0)


def _invert(image, operation, sign):
    return 1.0 - image


def _solarize(image, operation, sign):
    return tf.where(image < THRESHOLD, image, 1.0 - image)


def _posterize(image, operation, sign):
    step = float(2 ** (8 - BITS))
    return tf.floor(tf.round(image * 255.0) / step) * (step / 255.0)


def _enhance(image, operation, sign):
    """Blend with black, the mean or gray, by a factor above or below 1."""
    operation = operation[:, None, None, None]
    gray = pixels.gray(image)
    other = tf.where(_is("color", operation), gray, 0.0)
    other = tf.where(_is("contrast", operation), pixels.mean_gray(image), other)
    return pixels.blend(image, other, (1.0 + ENHANCE * sign)[:, None, None, None])


def _move(image, operation, sign):
    """Rotate, shear or translate about the center."""
    return pixels.warp(image, transforms(image.shape[1:3], operation, sign), "BILINEAR", FILL)


def transforms(size, operation, sign):
    """Where each output pixel comes from, see `kerasdl.data.pixels.warp`, at a size `(H, W)`.

    Operations that move nothing have the identity.
    """
    height, width = size

    def amount(name, value):
        return tf.where(_is(name, operation), sign * value, 0.0)

    cos = tf.where(_is("rotate", operation), math.cos(ANGLE), 1.0)
    sin = amount("rotate", math.sin(ANGLE))
    a, b = cos, amount("shear_x", SHEAR) - sin
    c, d = sin + amount("shear_y", SHEAR), cos
    cx, cy = (width - 1) / 2.0, (height - 1) / 2.0
    dx = cx - a * cx - b * cy + amount("translate_x", TRANSLATE * width)
    dy = cy - c * cx - d * cy + amount("translate_y", TRANSLATE * height)
    zero = tf.zeros_like(cos)
    return tf.stack([a, b, dx, c, d, dy, zero, zero], axis=1)


# What is computed together, and by which function of (images, operations, signs).
GROUPS = (
    (("identity",), _identity),
    (("autocontrast",), _autocontrast),
    (("invert",), _invert),
    (("solarize",), _solarize),
    (("posterize",), _posterize),
    (("color", "contrast", "brightness"), _enhance),
    (("rotate", "shear_x", "shear_y", "translate_x", "translate_y"), _move),
)
_GROUP_OF = {name: i for i, (names, _) in enumerate(GROUPS) for name in names}
OPERATIONS = tuple(_GROUP_OF)
