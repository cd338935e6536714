"""BMP files with a palette, which TensorFlow takes for gray, in graph operations.

Source: Microsoft, Bitmap storage (BITMAPFILEHEADER, BITMAPINFOHEADER, RGBQUAD).
"""

import tensorflow as tf

from kerasdl.data.headers import bytes_at

LIMIT = 2**15  # pixels of a side
CORE = 12  # bytes of the oldest header, whose numbers are of 16 bits and colors of 24


def has_palette(content):
    """Whether a file is a BMP of at most 8 bits per pixel: bool scalar of a string scalar."""
    head = bytes_at(content, 0, 30)
    bits = tf.where(head[14] == CORE, head[24], head[28])
    return (tf.strings.substr(content, 0, 2) == b"BM") & (bits <= 8)


def decode(content):
    """Decode an uncompressed BMP of 1, 4 or 8 bits per pixel; others are an
    `InvalidArgumentError`, as those are that are cut.

    Args:
        content: string scalar.

    Returns:
        uint8 `(H, W, 3)`.
    """
    field = _fields(content)
    width, height, bits = field["width"], tf.abs(field["height"]), field["bits"]
    asserts = [
        _check((bits == 1) | (bits == 4) | (bits == 8), "a BMP must have 1, 4, 8, 24 or 32 bits"),
        _check(field["compression"] == 0, "a BMP with a palette must not be compressed"),
        _check((width > 0) & (width <= LIMIT) & (height > 0) & (height <= LIMIT), "size of a BMP"),
    ]
    with tf.control_dependencies(asserts):
        bits = tf.clip_by_value(bits, 1, 8)  # operations that stand beside a check run all the same
        stride = (tf.clip_by_value(width, 1, LIMIT) * bits + 31) // 32 * 4  # rows end at 32 bits
        needed = stride * tf.clip_by_value(height, 1, LIMIT)
        there = tf.strings.length(content) - field["offset"]
    with tf.control_dependencies([_check((field["offset"] >= 0) & (there >= needed), "a cut BMP")]):
        rows = bytes_at(content, field["offset"], needed)
    rows = tf.reshape(rows, (-1, stride, 1))
    per_byte = 8 // bits
    shift = (per_byte - 1 - tf.range(per_byte)) * bits  # the highest bits are the leftmost
    index = tf.bitwise.right_shift(rows, shift) & (tf.bitwise.left_shift(1, bits) - 1)
    index = tf.reshape(index, (-1, stride * per_byte))[:, :width]
    index = tf.cond(field["height"] > 0, lambda: index[::-1], lambda: index)  # else from the top
    entry = tf.where(field["header"] == CORE, 3, 4)
    palette = tf.reshape(bytes_at(content, 14 + field["header"], 256 * entry), (256, entry))
    return tf.cast(tf.gather(palette[:, 2::-1], index), tf.uint8)  # it holds blue, green and red


def _fields(content):
    """Numbers of the header, int32 scalars."""
    head = bytes_at(content, 0, 54)

    def number(start, count):
        return tf.reduce_sum(head[start : start + count] * [256**i for i in range(count)])

    core = number(14, 4) == CORE
    return {
        "offset": number(10, 4),
        "header": number(14, 4),
        "width": tf.where(core, number(18, 2), number(18, 4)),
        "height": tf.where(core, number(20, 2), number(22, 4)),
        "bits": tf.where(core, number(24, 2), number(28, 2)),
        "compression": tf.where(core, 0, number(30, 4)),
    }


def _check(right, message):
    return tf.debugging.Assert(right, [message])
