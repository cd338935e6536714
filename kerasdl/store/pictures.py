"""Images as files: grids, and moving pictures."""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from kerasdl.columns import VOID
from kerasdl.errors import UserError
from kerasdl.ops.colors import class_colors
from kerasdl.system.files import replacing

# Milliseconds of a moving picture: all frames, the last one, and the least that viewers heed.
MOVING, LAST_FRAME, SHORTEST_FRAME = 2500, 1500, 40


def grid(images, columns: int = 8, scale: int = 6) -> np.ndarray:
    """`(N, H, W, C)` uint8 or floats in [0, 1] as one uint8 picture `(h, w, 3)`, small ones larger.

    Args:
        images: What is shown.
        columns: Images per row.
        scale: How many times images under 32 pixels are enlarged.
    """
    images = np.asarray(images)
    if images.dtype != np.uint8:
        images = (np.clip(images, 0, 1) * 255).round().astype(np.uint8)
    if images.shape[-1] != 3:
        images = np.repeat(images[..., :1], 3, -1)
    scale = scale if max(images.shape[1:3]) < 32 else 1
    images = images.repeat(scale, 1).repeat(scale, 2)
    images = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=255)
    rows = -(-len(images) // columns)
    blank = np.full((rows * columns - len(images), *images.shape[1:]), 255, np.uint8)
    images = np.concatenate([images, blank])
    n, h, w, c = images.shape
    images = images.reshape(rows, columns, h, w, c).swapaxes(1, 2)
    return images.reshape(rows * h, columns * w, c)


def write_picture(path: Path, images, columns: int = 8) -> None:
    """Write images as one PNG grid.

    Args:
        path: The file.
        images: `(N, H, W, C)`, or `(rows, columns, H, W, C)`.
        columns: Images per row of the former.
    """
    images = np.asarray(images)
    if images.ndim == 5:
        columns = images.shape[1]
        images = images.reshape(-1, *images.shape[2:])
    with replacing(path) as file:
        file.write(tf.io.encode_png(grid(images, columns)).numpy())


def overlay(image, mask, num_classes: int, opacity: float = 0.6) -> np.ndarray:
    """A picture with the classes of its pixels laid over it; class 0 and `VOID` leave it as it is.

    Args:
        image: `(H, W, C)` uint8, or floats in [0, 1].
        mask: int `(H, W)`, classes below `num_classes`, or `VOID`.
        num_classes: How many classes there are.
        opacity: Of the color.

    Returns:
        float32 `(H, W, 3)` in [0, 1].
    """
    image, mask = _colored(image), np.asarray(mask)
    hidden = (mask <= 0) | (mask == VOID) | (mask >= num_classes)
    color = class_colors(num_classes)[np.where(hidden, 0, mask)]
    mixed = (1 - opacity) * image + opacity * color
    return np.where(hidden[..., None], image, mixed).astype(np.float32)


def rectangles(image, boxes, labels, num_classes: int) -> np.ndarray:
    """A picture with the outlines of boxes in the colors of their classes.

    Args:
        image: `(H, W, C)` uint8, or floats in [0, 1].
        boxes: `(M, 4)`, `ymin xmin ymax xmax` in [0, 1]; what lies outside is cut off.
        labels: int `(M,)`.
        num_classes: How many classes there are.

    Returns:
        float32 `(H, W, 3)` in [0, 1].
    """
    pixels = (_colored(image) * 255).round().astype(np.uint8)
    height, width = pixels.shape[:2]
    colors = (class_colors(num_classes + 1)[1:] * 255).astype(int)  # without the background's
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for box, label in zip(np.nan_to_num(np.asarray(boxes)), np.asarray(labels), strict=True):
        top, left, bottom, right = np.clip(box, 0, 1) * (height, width, height, width)
        ends = max(left, right - 1), max(top, bottom - 1)  # the last pixels within
        draw.rectangle((left, top, *ends), outline=tuple(colors[label % num_classes].tolist()))
    return np.asarray(picture, np.float32) / 255


def labeled_table(values, rows, columns, cell: int = 22) -> np.ndarray:
    """A table of shades, the darker the larger, with a text beside each row and above each column.

    Args:
        values: float `(R, C)` in [0, 1].
        rows: `R` texts.
        columns: `C` texts, written upwards.
        cell: Side of a cell in pixels.

    Returns:
        float32 `(H, W, 3)` in [0, 1].
    """
    font = ImageFont.load_default(cell // 2)
    left, top = (
        max((math.ceil(font.getlength(text)) for text in texts), default=0) + 8
        for texts in (rows, columns)
    )
    shades = np.kron(1 - np.asarray(values), np.ones((cell, cell)))[..., None] * 255
    canvas = np.full((top + len(rows) * cell, left + len(columns) * cell, 3), 255, np.uint8)
    canvas[top:, left:] = shades.round().astype(np.uint8)
    picture = Image.fromarray(canvas)
    draw = ImageDraw.Draw(picture)
    for i, text in enumerate(rows):
        draw.text((left - 4, top + (i + 0.5) * cell), text, (0, 0, 0), font, anchor="rm")
    for i, text in enumerate(columns):
        line = Image.new("L", (top, cell))
        ImageDraw.Draw(line).text((4, cell / 2), text, 255, font, anchor="lm")
        place = (left + i * cell, 0)
        picture.paste((0, 0, 0), place, line.transpose(Image.Transpose.ROTATE_90))
    return np.asarray(picture, np.float32) / 255


def _colored(image):
    """Floats in [0, 1] `(H, W, 3)`."""
    image = np.asarray(image)
    image = image / 255 if image.dtype == np.uint8 else np.clip(image, 0, 1)
    return image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, -1)


def check_output(file, flag: str = "--output") -> None:
    """Refuse a file that `write_output` could not write, before anything is computed.

    Raises:
        UserError: It is no PNG, or there is no such folder.
    """
    file = Path(file)
    if file.suffix.lower() != ".png":
        raise UserError(f"{flag} {file}: must end in .png")
    if not file.parent.is_dir():
        raise UserError(f"{flag} {file}: there is no folder {file.parent}")


def write_output(file, images, columns: int = 8) -> Path:
    """Write images as `write_picture` does, at the place that a user gave; returns the file's path.

    Raises:
        UserError: It cannot be written.
    """
    try:
        write_picture(Path(file), images, columns)
    except OSError as error:
        raise UserError(f"--output {file}: cannot be written: {error.strerror}") from None
    return Path(file)


def write_moving_picture(path: Path, images) -> None:
    """Write images as a GIF that begins again when it has ended.

    Args:
        path: The file.
        images: `(rows, columns, H, W, C)`: each column is a frame, its images tiled into a grid.
    """
    images = np.asarray(images)
    columns = math.ceil(math.sqrt(len(images)))
    frames = [grid(images[:, i], columns) for i in range(images.shape[1])]
    if images.shape[-1] != 3:  # all grays fit into a GIF's table of colors
        frames = [frame[..., 0] for frame in frames]
    first, *rest = map(Image.fromarray, frames)
    each = max(SHORTEST_FRAME, MOVING // len(frames))
    times = [each] * len(rest) + [LAST_FRAME]
    with replacing(path) as file:
        first.save(file, "GIF", save_all=True, append_images=rest, duration=times, loop=0)
