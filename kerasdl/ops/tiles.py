"""Tiles of an image: where they are, and how they are cut out.

Source: Doersch et al. 2015, https://arxiv.org/abs/1505.05192, section 3 (pairs);
        Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246, section 4.2 (puzzles).
"""

import numpy as np
from keras import ops

from kerasdl.ops import noise

# From the center to its eight neighbors, row by row
DIRECTIONS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
GRID = 3  # cells of a puzzle in each direction


def cut(image, top, left, size):
    """Tiles of each image, at places of its own.

    Args:
        image: float `(B, H, W, C)`.
        top, left: int32 `(B, N)`, or `(1, N)` where they are the same of all images.
        size: `(h, w)` of a tile; all must lie in the image.

    Returns:
        `(B, N, h, w, C)`.
    """
    height, width, channels = image.shape[1:]
    batch = ops.shape(image)[0]
    y = top[:, :, None, None] + ops.arange(size[0], dtype="int32")[:, None]
    x = left[:, :, None, None] + ops.arange(size[1], dtype="int32")
    first = ops.arange(batch, dtype="int32")[:, None, None, None] * (height * width)
    pixels = ops.reshape(image, (-1, channels))
    return ops.take(pixels, first + y * width + x, axis=0)


def spread(image, size, count):
    """`count` times `count` tiles, evenly spread over each image from edge to edge.

    Args:
        image: float `(B, H, W, C)`.
        size: `(h, w)` of a tile.
        count: In each direction, at least 2.

    Returns:
        A list of `(B, h, w, C)`, row by row.
    """
    tops, lefts = (
        [round(i * (side - tile) / (count - 1)) for i in range(count)]
        for side, tile in zip(image.shape[1:3], size, strict=True)
    )
    return [image[:, y : y + size[0], x : x + size[1]] for y in tops for x in lefts]


def one_channel(tiles, key, mean, streams):
    """Tiles of which each has one channel left, at random.

    In place of the others is noise of 1/100 of its deviation around their mean. Lenses bend colors
    differently, which tells where in a photograph a tile is.

    Args:
        tiles: float `(B, N, h, w, C)`.
        key: uint32 `(B, 2)`.
        mean: Of the channels: a float, or one float per channel.
        streams: Of the key: that of which channel stays, and that of the noise.

    Returns:
        float `(B, N, h, w, C)`.

    Source: Doersch et al. 2015, https://arxiv.org/abs/1505.05192, section 3.1.
    """
    count, channels = tiles.shape[1], tiles.shape[-1]
    kept = ops.one_hot(noise.randint(key, (count,), 0, channels, streams[0]), channels)
    kept = ops.cast(kept, tiles.dtype)[:, :, None, None]  # (B, N, 1, 1, C)
    std = ops.sum(kept * ops.std(tiles, axis=(2, 3), keepdims=True), axis=-1, keepdims=True)
    mean = ops.cast(ops.convert_to_tensor(mean), tiles.dtype)
    random = ops.cast(noise.normal(key, tiles.shape[1:], streams[1], "float32"), tiles.dtype)
    return kept * tiles + (1 - kept) * (mean + 0.01 * std * random)


def pair_sides(side):
    """Sizes of two neighboring tiles within an image, in pixels, of the paper's proportions.

    There a tile of 96 pixels has a gap of 48 to its neighbor, and both are moved by up to 7.

    Args:
        side: Height or width of the image.

    Returns:
        `(tile, gap, jitter)`; `2 tile + gap + 2 jitter` is at most `side`.
    """
    tile = 96 * side // 254
    gap = tile // 2
    return tile, gap, min(round(7 * tile / 96), (side - 2 * tile - gap) // 2)


def cell_sides(side):
    """Sizes of a cell of a 3x3 puzzle and of the tile somewhere in it: 75 and 64 of 225 pixels.

    Args:
        side: Height or width of the image.

    Returns:
        `(cell, tile)`.
    """
    cell = side // GRID
    return cell, cell * 64 // 75


def distant_permutations(count=64):
    """Permutations of nine tiles, any two of which have at least 8 tiles in different places.

    No more than 72 permutations are that far apart: the maps `x -> a x + b` of the field of nine
    numbers, of which two agree at one place at most. The first is the identity.

    Args:
        count: At most 72.

    Returns:
        int32 `(count, 9)`.
    """
    numbers = [(i, j) for i in range(3) for j in range(3)]  # i + j sqrt(-1), modulo 3

    def line(a, b):
        product = [(a[0] * x - a[1] * y, a[0] * y + a[1] * x) for x, y in numbers]
        return [3 * ((x + b[0]) % 3) + (y + b[1]) % 3 for x, y in product]

    units = [(1, 0), *(a for a in numbers if a not in ((0, 0), (1, 0)))]
    return np.array([line(a, b) for a in units for b in numbers], np.int32)[:count]
