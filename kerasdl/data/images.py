"""The one way from encoded image bytes to the floats that a model is given.

Folders of images, and the exported `serve_bytes`, use these same functions, so that a served model
sees the pixels that it was trained on. Every value is a whole multiple of 1/255.
"""

import numpy as np
import tensorflow as tf

FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
# Multiplied by, not divided by 255: graph optimizers make the one of the other in some places and
# not in others, and the last bits would differ between training and serving.
STEP = np.float32(1 / 255)
GRAY = (0.299, 0.587, 0.114)  # luma of red, green and blue, ITU-R BT.601


def to_float(image):
    """uint8 images as floats in [0, 1]; float images as they are."""
    return tf.cast(image, tf.float32) * STEP if image.dtype == tf.uint8 else image


def quantize_8bit(image):
    """The nearest multiple of 1/255 in [0, 1]: what an 8-bit image can hold."""
    return tf.round(tf.clip_by_value(image, 0.0, 1.0) * 255.0) * STEP


def decode(image_bytes, channels):
    """Decode a PNG, JPEG, BMP or GIF (its first frame) file.

    Gray is repeated for color, color becomes luma for gray, alpha is dropped, and 16 bits become
    8. Undecodable bytes raise `tf.errors.InvalidArgumentError`.

    Args:
        image_bytes: string scalar.
        channels: 1 or 3.

    Returns:
        float32 `(H, W, channels)` in [0, 1].
    """
    image = tf.io.decode_image(image_bytes, channels=0, expand_animations=False)
    count = tf.shape(image)[-1]  # 1 gray, 2 gray and alpha, 3 color, 4 color and alpha
    # A slice of no channel is empty, so take the last color that there is.
    last = tf.where(count >= 3, 2, 0)
    red, green, blue = (tf.cast(image[..., tf.minimum(c, last)], tf.float32) for c in range(3))
    if channels == 3:
        image = tf.stack([red, green, blue], axis=-1)
    else:
        gray = tf.round(GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue)
        image = gray[..., None]
    image = image * STEP
    image.set_shape((None, None, channels))
    return image


def resize(image, image_size):
    """Resize an image, or leave it as it is where its size already agrees.

    Args:
        image: float32 `(H, W, C)` in [0, 1], or a batch of them.
        image_size: `(height, width)`, ints.

    Returns:
        float32 `(height, width, C)`, or a batch of them; bilinear, antialiased, rounded to 8 bits.
    """
    height, width = (int(n) for n in image_size)
    channels = image.shape[-1]
    size = tf.shape(image)[-3:-1]

    def resized():
        return quantize_8bit(tf.image.resize(image, (height, width), "bilinear", antialias=True))

    same = tf.reduce_all(tf.equal(size, [height, width]))
    image = tf.cond(same, lambda: tf.convert_to_tensor(image), resized)
    image.set_shape((*image.shape[:-3], height, width, channels))
    return image
