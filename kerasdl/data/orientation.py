"""How a camera was held: the orientation tag of EXIF, read in graph operations and from headers.

Source: Exif 2.32 (JEITA CP-3451), 4.5.4 and 4.6.4 (the segment APP1, TIFF's directory, tag 274).
"""

import functools

import tensorflow as tf

from kerasdl.data.headers import bytes_at

TAG = 0x0112
UPRIGHT = 1
SHORT, LONG = 3, 4  # types of a tag
ORDERS = (b"II*\0", b"MM\0*")  # of bytes: the lowest first, the highest first
SOI, TABLES = b"\xff\xd8", b"\xff\xdb"  # how a JPEG begins; what comes first that must
JFIF = SOI + b"\xff\xe0\0\x10"  # and the length of its segment
START = 22  # bytes that tell whether there are no other segments
SEGMENTS = 256  # that may stand before EXIF


def of_jpeg(content):
    """The orientation of an encoded JPEG, from its bytes.

    Args:
        content: string scalar.

    Returns:
        int32 scalar in 1..8; 1, upright, where there is none.
    """

    numbers = functools.partial(bytes_at, content)

    def other(position, head):  # a segment of a program or a comment, but not EXIF
        marker = head[1]
        kept = ((marker >= 0xE0) & (marker <= 0xEF)) | (marker == 0xFE) | (marker == 0xFF)
        return (head[0] == 0xFF) & kept & ~_is_exif(head)

    def following(position, head):
        filled = head[1] == 0xFF  # a marker may have more of them before it
        position += tf.where(filled, 1, 2 + 256 * head[2] + head[3])
        return position, numbers(position, 10)

    def searched():
        position, head = tf.while_loop(
            other,
            following,
            (tf.constant(2), numbers(2, 10)),
            maximum_iterations=SEGMENTS,
            parallel_iterations=1,
        )
        there = (head[0] == 0xFF) & _is_exif(head)
        return tf.cond(there, lambda: read(position, head), lambda: tf.constant(UPRIGHT))

    def read(position, head):
        start = position + 10
        directory, length = numbers(start, 8), 256 * head[2] + head[3]
        little, big = (tf.reduce_all(tf.equal(directory[:4], [*o])) for o in ORDERS)

        def number(value):  # (..., 2) or (..., 4) bytes
            places = tf.constant([256**i for i in range(value.shape[-1])], tf.int32)
            return tf.reduce_sum(value * tf.where(little, places, places[::-1]), axis=-1)

        first = number(directory[4:])
        inside = (little | big) & (first >= 8) & (first < length)
        first = start + tf.where(inside, first, 0)
        count = tf.where(inside, number(numbers(first, 2)), 0)
        count = tf.minimum(count, (position + length - first) // 12)  # what the segment holds
        entries = tf.reshape(numbers(first + 2, 12 * tf.maximum(count, 1)), (-1, 12))
        kind = number(entries[:, 2:4])
        short, long = number(entries[:, 8:10]), number(entries[:, 8:12])
        value = tf.where(kind == LONG, long, short)
        valid = (number(entries[:, :2]) == TAG) & ((kind == SHORT) | (kind == LONG))
        valid &= (value > UPRIGHT) & (value <= 8)
        return tf.reduce_max(tf.concat([tf.where(valid, value, UPRIGHT), [UPRIGHT]], 0))

    return tf.cond(is_plain_jpeg(content), lambda: tf.constant(UPRIGHT), searched)


def is_plain_jpeg(content):
    """Whether a file is a JPEG whose tables follow on its start, or on JFIF's segment: most have no
    other, and so no EXIF."""
    start = tf.strings.substr(tf.strings.substr(content, 0, START) + bytes(START), 0, START)
    jfif = tf.strings.substr(start, 0, len(JFIF)) == JFIF
    tables = tf.strings.substr(start, tf.where(jfif, 20, 2), 2) == TABLES
    return tables & (jfif | (tf.strings.substr(start, 0, 2) == SOI))


def is_plain_start(start: bytes) -> bool:
    """`is_plain_jpeg` of the first `START` bytes of a file, without a graph."""
    jfif = start.startswith(JFIF)
    return start[20:22] == TABLES if jfif else start.startswith(SOI + TABLES)


def _is_exif(head):
    return tf.reduce_all(tf.equal(head[1:2], 0xE1)) & tf.reduce_all(
        tf.equal(head[4:10], [*b"Exif\0\0"])
    )


def transposed(orientation):
    """Whether rows are shown as columns."""
    return orientation >= 5


def mirrored(orientation):
    """Whether rows, and whether columns, are turned around, after they were exchanged."""
    return tuple(
        tf.reduce_any(tf.equal(orientation, which)) for which in ((3, 4, 7, 8), (2, 3, 6, 7))
    )


def upright(image, orientation):
    """Turn an image `(H, W, C)` as its orientation says."""

    def turned():
        rows, columns = mirrored(orientation)
        result = tf.cond(
            transposed(orientation), lambda: tf.transpose(image, (1, 0, 2)), lambda: image
        )
        return tf.reverse(result, tf.where([rows, columns])[:, 0])

    return tf.cond(tf.equal(orientation, UPRIGHT), lambda: tf.identity(image), turned)


def of_header(image):
    """The size of an image as `images.decode` gives it, by its header.

    Args:
        image: An opened image of Pillow.

    Returns:
        `(height, width, unread)`: whether it has an orientation that is not applied, as only that
        in the EXIF of a JPEG is.
    """
    applied = 1
    from PIL import Image

    applied = anywhere = UPRIGHT
    try:
        anywhere = image.getexif().get(TAG, UPRIGHT)
        if image.format in ("JPEG", "MPO"):
            own = Image.Exif()  # without what Pillow reads elsewhere, as in XMP
            own.load(image.info.get("exif", b""))
            applied = own.get(TAG, UPRIGHT)
    except Exception:  # noqa: BLE001, S110 of damaged EXIF Pillow raises many kinds of errors
        pass
    size = (image.height, image.width)
    turned = applied in range(5, 9)
    unread = anywhere != applied and anywhere in range(2, 9)
    return *(size[::-1] if turned else size), unread
