"""Images as files: grids, and moving pictures."""

import math
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

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


def write_picture(path: Path, images) -> None:
    """Write images as one PNG grid.

    Args:
        path: The file.
        images: `(N, H, W, C)`, or `(rows, columns, H, W, C)`.
    """
    images = np.asarray(images)
    columns = {}
    if images.ndim == 5:
        columns = {"columns": images.shape[1]}
        images = images.reshape(-1, *images.shape[2:])
    with replacing(path) as file:
        file.write(tf.io.encode_png(grid(images, **columns)).numpy())


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
