"""The size of encoded images by their headers, in graph operations, before anything is decoded.

Source: PNG (RFC 2083, 11.2.2); Microsoft, Bitmap storage; GIF89a (CompuServe 1990); WebP container
        specification, RFC 6386 (VP8) and the WebP lossless bitstream.
"""

import numpy as np
import tensorflow as tf

HEAD = 30  # bytes that tell the size of all but JPEG and GIF
DEEP = 24  # where a PNG has its bits per channel
PNG, BMP = b"\x89PNG\r\n\x1a\n", b"BM"
CORE = BMP + b"?" * 12 + b"\x0c\0\0\0"  # the oldest header, whose numbers are of 16 bits
WEBP = b"RIFF????WEBP"
# How a file begins, and where it has its width and height: their first bytes and how many, negative
# where the highest byte comes first.
FORMATS = (
    (PNG, (16, -4), (20, -4)),
    (CORE, (18, 2), (20, 2)),
    (BMP, (18, 4), (22, 4)),
    (WEBP + b"VP8X", (24, 3), (27, 3)),  # less 1
    (WEBP + b"VP8L", (21, 4), (21, 4)),  # 14 bits each, less 1
    (WEBP + b"VP8 ", (26, 2), (28, 2)),  # the lowest 14 bits
)
TWICE = np.array([2, 1, 1, 1, 1, 1], np.int64)  # the pixels of a PNG of 16 bits
GIF, EXTENSION, IMAGE = b"GIF8", 0x21, 0x2C
FULL, AHEAD = 256, 64  # bytes of a full block of GIF, and how many blocks are read at once
STEPS = 4096  # in which the first picture of a GIF must end


def _known(start):
    """A start's bytes and which of them count."""
    pattern = np.frombuffer(start.ljust(HEAD, b"?"), np.uint8)
    return pattern, (pattern != ord("?")).astype(np.uint8)


def _weights():
    """int64 `(HEAD, 2 formats)`: what the bytes of a head count in widths and heights."""
    result = np.zeros((HEAD, 2 * len(FORMATS)), np.int64)
    for column, (at, count) in enumerate(place for one in FORMATS for place in one[1:]):
        for i in range(abs(count)):
            result[at + i, column] = 256 ** (i if count > 0 else -count - 1 - i)
    return result


def pixels(content):
    """How many pixels an encoded image has, by its header; those of a PNG of 16 bits twice.

    Args:
        content: string scalar.

    Returns:
        int64 scalar, 0 of what is no image.
    """

    def of_jpeg():
        return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64))

    def of_gif():
        return first_frame(content)[1]

    def others():
        head = tf.cast(bytes_at(content, 0, HEAD), tf.int64)
        patterns, counted = (
            np.stack(x) for x in zip(*(_known(f[0]) for f in FORMATS), strict=True)
        )
        which = tf.reduce_all(tf.equal(head * counted, patterns * counted), axis=-1)
        size = tf.reshape(tf.linalg.matvec(_weights(), head, transpose_a=True), (-1, 2))
        png, core, bmp, canvas, lossless, lossy = tf.unstack(size)
        fourteen = 2**14
        lossless = tf.stack([lossless[0] % fourteen, lossless[0] // fourteen % fourteen]) + 1
        bmp = tf.minimum(bmp, 2**32 - bmp)  # of negative height where its first row is the top
        bmp = tf.where(which[1], core, bmp)
        size = tf.stack([png, core, bmp, canvas + 1, lossless, lossy % fourteen])
        size = tf.minimum(size, 2**31)
        area = size[:, 0] * size[:, 1] * tf.where(tf.equal(head[DEEP], 16), TWICE, 1)
        return tf.reduce_max(tf.where(which, area, 0))

    which = tf.where(tf.io.is_jpeg(content), 0, tf.where(is_gif(content), 1, 2))
    return tf.switch_case(which, [of_jpeg, of_gif, others])


def is_deep(content):
    """Whether a file is a PNG of 16 bits per channel: bool scalar of a string scalar."""
    return tf.equal(tf.strings.substr(content, 0, len(PNG)), PNG) & tf.equal(
        bytes_at(content, DEEP, 1)[0], 16
    )


def is_gif(content):
    """Whether a file begins as a GIF does: bool scalar of a string scalar."""
    return tf.equal(tf.strings.substr(content, 0, len(GIF)), GIF)


def first_frame(content):
    """A GIF without what follows on its first picture, which would all be decoded.

    Args:
        content: string scalar, a GIF.

    Returns:
        string scalar, the same where it has no picture; and int64 scalar, how many pixels it has.

    Raises:
        tf.errors.InvalidArgumentError: The picture does not end within `STEPS` steps.
    """
    length = tf.strings.length(content)
    head = bytes_at(content, 0, HEAD)
    outside, extension, picture, ended = range(4)

    def table(flags):  # bytes of a table of colors
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def going(place, state, size):
        return (state < ended) & (place < length)

    def step(place, state, size):
        ahead = bytes_at(content, place, FULL * AHEAD)
        first, full = ahead[0], tf.equal(ahead[::FULL], FULL - 1)
        inside = (state == extension) | (state == picture)
        run = tf.reduce_sum(tf.math.cumprod(tf.cast(full, tf.int32)))
        # At a block of data: over all full ones, or over it; the empty one ends them.
        over = tf.where(run > 0, FULL * run, 1 + first)
        after = tf.where(first > 0, state, tf.where(state == extension, outside, ended))
        # Outside: what begins here?
        begins = (first == IMAGE) & ~inside
        skipped = tf.where(begins, 11 + table(ahead[9]), 2)
        known = tf.where(first == EXTENSION, extension, tf.where(begins, picture, ended))
        # The trailer ends it as the end of the picture does, but belongs to nothing.
        own = tf.stack([ahead[5] + 256 * ahead[6], ahead[7] + 256 * ahead[8]])
        size = tf.where(begins, own, size)
        return (
            place + tf.where(inside, over, skipped),
            tf.where(inside, after, known),
            size,
        )

    start = (13 + table(head[10]), tf.constant(outside), tf.zeros(2, tf.int32))
    place, state, own = tf.while_loop(
        going, step, start, maximum_iterations=STEPS, parallel_iterations=1
    )
    right = (state >= ended) | (place >= length)
    with tf.control_dependencies([tf.debugging.Assert(right, ["a GIF in too many parts"])]):
        there = tf.reduce_any(own > 0)
        cut = tf.strings.substr(content, 0, tf.minimum(place, length)) + b";"
    screen = tf.stack([head[6] + 256 * head[7], head[8] + 256 * head[9]])
    size = tf.cast(tf.maximum(screen, own), tf.int64)
    return tf.where(there, cut, content), tf.reduce_prod(size)


def bytes_at(content, start, count):
    """int32 `(count,)` of a file's bytes from a place on; zeros beyond its end."""
    start = tf.clip_by_value(start, 0, tf.strings.length(content))
    part = tf.strings.substr(content, start, count)
    value = tf.io.decode_raw(part, tf.uint8, fixed_length=count)
    return tf.cast(tf.ensure_shape(value, [count if isinstance(count, int) else None]), tf.int32)
