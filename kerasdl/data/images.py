"""The one way from encoded image bytes to the pixels that a model is given.

Folders of images, `predict` and the exported `serve_bytes` use these same functions, so that a
served model sees the pixels that it was trained on. Every value is a whole multiple of 1/255.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from kerasdl.data import bmp, headers, orientation

FORMATS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
READ = "PNG, JPEG, WebP, BMP and GIF"
# Multiplied by, not divided by 255: graph optimizers make the one of the other in some places and
# not in others, and the last bits would differ between training and serving.
STEP = np.float32(1 / 255)
GRAY = (0.299, 0.587, 0.114)  # luma of red, green and blue, ITU-R BT.601
BLOCK = 8  # rows that are computed from the same ones
MANY = 128**2  # pixels that are sampled faster by products of matrices
LARGE = 2**22  # numbers of an image from which on floats are made of one row at a time
KINDS = {  # by how files begin
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"\x00\x00\x01\x00": "icon",
    b"\x00\x00\x00\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cJXL": "JPEG XL",
    b"<svg": "SVG",
    b"<?xml": "SVG",
    b"P5": "PNM",
    b"P6": "PNM",
}
BRANDS = {b"avif": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC"}  # after `ftyp`


MODES = ("squash", "crop", "pad")


@dataclass(frozen=True)
class Fit:
    """How images of any size come to that of the model.

    Attributes:
        mode: `squash` takes the whole picture, and changes its proportions; `crop` the largest
            centered box that has the model's; `pad` the whole picture, with black beside it.
        fraction: Of the sides of what is taken, the centered part that is kept.
    """

    mode: str = "squash"
    fraction: float = 1.0

    @classmethod
    def from_recipe(cls, recipe) -> "Fit":
        """Of the settings of a run."""
        return cls(recipe.resize, recipe.crop_fraction)

    def box(self, size, image_size):
        """The box of an image that is taken, which may be larger than the image.

        Args:
            size: float32 `(2,)`, height and width of the image.
            image_size: `(height, width)` that it will have.

        Returns:
            float32 `(2,)` its top and left, and `(2,)` its height and width.
        """
        sides = size
        if self.mode != "squash":
            wanted = tf.constant(image_size, tf.float32)
            reduce = tf.reduce_min if self.mode == "crop" else tf.reduce_max
            sides = wanted * reduce(size / wanted)
        sides = sides * self.fraction
        return (size - sides) * 0.5, sides

    def place(self, content, image_size):
        """Where the box of an encoded image lies in it.

        Args:
            content: string scalar, as `read` takes it.
            image_size: `(height, width)` that it will have.

        Returns:
            float32 `(4,)`: top, left, height and width, in parts of the image's sides.
        """
        size = tf.cast(size_of(content), tf.float32)
        corner, sides = self.box(size, image_size)
        return tf.concat([corner / size, sides / size], 0)


SQUASH = Fit()


def to_float(image):
    """uint8 images as floats in [0, 1]; float images as they are."""
    return tf.cast(image, tf.float32) * STEP if image.dtype == tf.uint8 else image


def quantize_8bit(image):
    """The nearest multiple of 1/255 in [0, 1]: what an 8-bit image can hold."""
    return tf.round(tf.clip_by_value(image, 0.0, 1.0) * 255.0) * STEP


def kind_of(content: bytes) -> str:
    """What a file that cannot be decoded is, in words, by its first bytes."""
    if content[4:8] == b"ftyp" and content[8:12] in BRANDS:
        return f"a file of the kind {BRANDS[content[8:12]]}, which is not read; {READ} are"
    for start, name in KINDS.items():
        if content.startswith(start):
            return f"a file of the kind {name}, which is not read; {READ} are"
    return "not an image that can be decoded"


def decode(content, channels):
    """Decode all pixels of a PNG, JPEG, WebP, BMP or GIF (its first frame) file.

    Gray is repeated for color, color becomes luma for gray, alpha is dropped, and 16 bits become
    the nearest of 8. A JPEG is turned as its EXIF says. Undecodable bytes raise
    `tf.errors.InvalidArgumentError`.

    Args:
        content: string scalar.
        channels: 1 or 3.

    Returns:
        float32 `(H, W, channels)` in [0, 1].
    """
    return to_float(_decoded(content, channels))


def _decoded(content, channels):
    """`decode` as uint8."""

    def deep():
        image = tf.io.decode_png(content, channels=0, dtype=tf.uint16)

        def of(part):
            return tf.cast(tf.round(tf.cast(part, tf.float32) * np.float32(1 / 257)), tf.uint8)

        return _by_rows(of, image)

    def usual():
        return tf.io.decode_image(content, channels=0, expand_animations=False)

    def of_gif():
        picture, _ = headers.first_frame(content)
        return tf.io.decode_image(picture, channels=0, expand_animations=False)

    kinds = [(headers.is_deep, deep), (bmp.has_palette, lambda: bmp.decode(content))]
    kinds.append((headers.is_gif, of_gif))
    which = sum(tf.where(is_it(content), i, 0) for i, (is_it, _) in enumerate(kinds, 1))
    image = tf.switch_case(which, [usual, *(read for _, read in kinds)])
    image = _with_channels(image, channels)
    image = tf.cond(
        tf.io.is_jpeg(content),
        lambda: orientation.upright(image, orientation.of_jpeg(content)),
        lambda: image,
    )
    return tf.ensure_shape(image, (None, None, channels))


def size_of(content):
    """Height and width of an encoded image as it stands upright, int32 `(2,)`; of a JPEG without
    decoding it."""

    def of_jpeg():
        size = tf.io.extract_jpeg_shape(content)[:2]
        return tf.where(orientation.transposed(orientation.of_jpeg(content)), size[::-1], size)

    return tf.cond(
        tf.io.is_jpeg(content), of_jpeg, lambda: tf.shape(decode(content, 1), tf.int32)[:2]
    )


def in_whole(boxes, place):
    """Boxes in a part of an image as boxes in the image; empty ones stay as they are.

    Args:
        boxes: float `(..., 4)`, `ymin xmin ymax xmax` in [0, 1].
        place: Of the part, float `(..., 4)` as `Fit.place` gives it.

    Returns:
        float `(..., 4)` in [0, 1].
    """
    corner, sides = place[..., :2], place[..., 2:]
    whole = boxes * tf.concat([sides, sides], -1) + tf.concat([corner, corner], -1)
    there = tf.reduce_any(boxes != 0, -1, keepdims=True)
    return tf.where(there, tf.clip_by_value(whole, 0.0, 1.0), boxes)


def masks_in_whole(masks, place):
    """Masks of a part of an image as masks of the image, of the same size: the nearest pixels.

    Args:
        masks: `(B, N, H, W)`.
        place: Of the part, float `(B, 4)` as `Fit.place` gives it.

    Returns:
        `(B, N, H, W)`, 0 of what lies outside of the part.
    """
    for axis in (0, 1):
        size = masks.shape[2 + axis]
        at = (tf.range(size, dtype=tf.float32) + 0.5) / size  # in the image
        at = (at - place[:, axis, None]) / place[:, axis + 2, None]  # in the part
        inside = tf.cast((at >= 0) & (at < 1), masks.dtype)  # (B, size)
        index = tf.clip_by_value(tf.cast(at * size, tf.int32), 0, size - 1)
        count = tf.shape(masks)[1]
        index = tf.repeat(index[:, None], count, axis=1)
        masks = tf.gather(masks, index, axis=2 + axis, batch_dims=2)
        masks *= inside[:, None, None] if axis else inside[:, None, :, None]
    return masks


def read(content, shape, fit=SQUASH, box=None, plain=False):
    """Decode an encoded image at the size of a model; of a JPEG no more than is needed for it.

    Args:
        content: string scalar.
        shape: `(H, W, channels)`.
        fit: What is taken of the image.
        box: Instead of `fit`, what returns the box as `Fit.box` does: `size -> box`.
        plain: Whether the file is known to be as `is_plain` says. Nothing is otherwise but the
            time: where a graph has no conditions, tf.data runs it in one go.

    Returns:
        uint8 `(H, W, channels)`: what `resize` makes of what `decode` gives, bit for bit; of a JPEG
        within 1.
    """
    size, channels = tuple(int(n) for n in shape[:2]), shape[2]
    how = (content, size, channels, fit, box)
    if plain:
        return tf.ensure_shape(_jpeg(*how, plain=True), (*size, channels))

    def of_pixels():
        image = _decoded(content, channels)
        return _in_box(image, size, box or (lambda whole: fit.box(whole, size)))

    def others():
        return tf.cond(
            tf.io.is_jpeg(content),
            lambda: _jpeg(*how, orientation.of_jpeg(content)),
            of_pixels,
        )

    image = tf.cond(orientation.is_plain_jpeg(content), lambda: _jpeg(*how), others)
    return tf.ensure_shape(image, (*size, channels))


def is_plain(path) -> bool:
    """Whether a file is one of those that `read` needs no conditions for."""
    try:
        with open(path, "rb") as file:
            return orientation.is_plain_start(file.read(orientation.START))
    except OSError:
        return False


def resize(image, image_size, fit=SQUASH):
    """Resize an image, or leave it as it is where it is taken whole and its size already agrees.

    Args:
        image: float32 `(H, W, C)` in [0, 1], or a batch of them.
        image_size: `(height, width)`, ints.
        fit: What is taken of the image.

    Returns:
        float32 `(height, width, C)`, or a batch of them; bilinear, antialiased, rounded to 8 bits.
    """
    size = tuple(int(n) for n in image_size)
    return _in_box(image, size, lambda whole: fit.box(whole, size))


def _in_box(image, size, box_of):
    """See `resize`; uint8 of uint8."""
    channels, batch = image.shape[-1], image.shape[:-3]
    corner, sides = box_of(tf.cast(tf.shape(image)[-3:-1], tf.float32))
    wanted = tf.constant(size, tf.float32)

    def resized():
        images = image if image.dtype == tf.uint8 else tf.round(image * 255.0)
        images = images if len(batch) else images[None]
        result = tf.round(_sampled(images, corner, sides, tf.constant(size)))
        result = tf.clip_by_value(result, 0.0, 255.0)
        result = tf.cast(result, tf.uint8) if image.dtype == tf.uint8 else result * STEP
        return result if len(batch) else result[0]

    same = tf.reduce_all(tf.equal(sides, wanted) & tf.equal(corner, 0.0))
    image = tf.cond(same, lambda: tf.convert_to_tensor(image), resized)
    image.set_shape((*batch, *size, channels))
    return image


def _sampled(images, corner, sides, size):
    """A box of images `(B, H, W, C)` at a size, 0 outside of them; see `tf.image.resize`."""
    scale = tf.cast(size, tf.float32) / sides
    return tf.raw_ops.ScaleAndTranslate(
        images=images,
        size=size,
        scale=scale,
        translation=-corner * scale,
        kernel_type="triangle",
        antialias=True,
    )


def _jpeg(content, size, channels, fit, box, turned=None, plain=False):
    """`read` of a JPEG: the box is sampled as the file has it, and turned then.

    It is not decoded at a half or less of its size, as libjpeg can: on photographs that is up to 9
    of 255 from what all pixels give, and saves no more than a sixth of the time.
    """

    def exchange(pair):
        if turned is None:
            return pair
        return tf.where(orientation.transposed(turned), pair[::-1], pair)

    wanted = tf.constant(size)
    wanted = wanted if size[0] == size[1] else exchange(wanted)
    if box is None and fit == SQUASH:
        image = tf.io.decode_jpeg(content, channels=3)
        corner, sides = tf.zeros(2), tf.cast(tf.shape(image)[:2], tf.float32)
    else:
        stored = tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.float32)
        shown = exchange(stored)
        corner, sides = fit.box(shown, size) if box is None else box(shown)
        if turned is not None:
            corner = tf.where(orientation.mirrored(turned), shown - corner - sides, corner)
        corner, sides = exchange(corner), exchange(sides)
        # What the weights of the pixels at the edges reach, and some that the decoder needs.
        margin = tf.maximum(sides / tf.cast(wanted, tf.float32), 1.0) + 2.0
        first = tf.clip_by_value(tf.floor(corner - margin), 0.0, stored - 1.0)
        last = tf.clip_by_value(tf.math.ceil(corner + sides + margin), first + 1.0, stored)
        window = tf.cast(tf.concat([first, last - first], 0), tf.int32)
        image = tf.io.decode_and_crop_jpeg(content, window, channels=3)
        corner -= first
    image = image if channels == 3 else _luma(image, plain)
    how = (image[None], corner, sides, wanted)
    if size[0] * size[1] < MANY:
        sampled = _sampled(*how)
    elif plain:
        sampled = _sampled_by_products(*how)
    else:  # which makes floats of all pixels
        large = tf.size(image) > LARGE
        sampled = tf.cond(large, lambda: _sampled(*how), lambda: _sampled_by_products(*how))
    image = tf.cast(tf.round(sampled[0]), tf.uint8)
    return image if turned is None else orientation.upright(image, turned)


def _sampled_by_products(images, corner, sides, size):
    """`_sampled` of one image `(1, H, W, C)` but for rounding: of many pixels it takes half the
    time."""
    shape, channels = tf.shape(images)[1:], images.shape[-1]
    x = tf.reshape(tf.cast(images, tf.float32), (shape[0], shape[1] * channels))
    x = _rows(x, corner[0], sides[0], size[0])
    x = tf.reshape(tf.transpose(x), (shape[1], channels * size[0]))
    x = _rows(x, corner[1], sides[1], size[1])
    x = tf.transpose(tf.reshape(x, (size[1] * channels, size[0])))
    return tf.reshape(x, (1, size[0], size[1], channels))


def _rows(x, corner, side, size):
    """`size` rows of a part of `x` `(N, M)`: products of blocks of weights with the rows that they
    reach."""
    count = tf.shape(x)[0]
    scale = side / tf.cast(size, tf.float32)
    reach = tf.maximum(scale, 1.0)
    number = tf.range(-(-size // BLOCK) * BLOCK)
    centers = tf.reshape(corner + (tf.cast(number, tf.float32) + 0.5) * scale, (-1, BLOCK))
    reached = tf.cast(tf.math.ceil((BLOCK - 1) * scale + 2.0 * reach), tf.int32) + 1
    reached = tf.minimum(reached, count)
    first = tf.cast(tf.floor(centers[:, 0] - reach), tf.int32)
    rows = tf.clip_by_value(first, 0, count - reached)[:, None] + tf.range(reached)
    distance = tf.abs(tf.cast(rows, tf.float32)[:, None, :] + 0.5 - centers[:, :, None])
    weights = tf.nn.relu(1.0 - distance / reach)  # (blocks, BLOCK, reached)
    outside = (centers < 0.0) | (centers > tf.cast(count, tf.float32))
    total = tf.where(outside, 0.0, tf.reduce_sum(weights, axis=-1))
    weights = tf.math.divide_no_nan(weights, total[:, :, None])
    blocks = tf.matmul(weights, tf.gather(x, rows))
    return tf.reshape(blocks, (-1, tf.shape(x)[1]))[:size]


def _with_channels(image, channels):
    """uint8 `(H, W, 1 to 4)` with 1 or 3 channels."""
    shape = tf.shape(image)  # 1 gray, 2 gray and alpha, 3 color, 4 color and alpha

    def colors():
        return tf.ensure_shape(image[..., :3], (None, None, 3))

    def gray():
        return tf.ensure_shape(image[..., :1], (None, None, 1))

    if channels == 3:
        wide = tf.concat([shape[:2], [3]], 0)
        return tf.cond(shape[-1] >= 3, colors, lambda: tf.broadcast_to(gray(), wide))
    return tf.cond(shape[-1] >= 3, lambda: _luma(colors()), gray)


def _luma(image, plain=False):
    """Gray `(H, W, 1)` of color, uint8; gray itself stays as it is."""

    def of(part):
        red, green, blue = (tf.cast(part[..., c], tf.float32) for c in range(3))
        gray = tf.round(GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue)
        return tf.cast(gray, tf.uint8)[..., None]

    return of(image) if plain else _by_rows(of, image)


def _by_rows(function, image):
    """uint8 of an image by a function of pixels: of a large one row by row, which takes less
    memory."""

    def each():
        return tf.map_fn(function, image, fn_output_signature=tf.uint8, parallel_iterations=1)

    return tf.cond(tf.size(image) > LARGE, each, lambda: function(image))
