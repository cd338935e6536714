"""Data sets by name: what a name means, and how it is divided into training, validation and test.

Every source ends in three `Split`s of random access. `open_source` is the only door; each kind of
source has a file of its own beside this one.
"""

import importlib

import numpy as np
import tensorflow as tf

from kerasdl.catalog import nearest
from kerasdl.data.images import to_float
from kerasdl.data.splits import Options, Source, Split

__all__ = ["Source", "Split", "input_statistics", "open_source"]

# Each module has `load(where, options) -> Source`.
KINDS = ("digits", "synthetic", "folder", "npz", "idx", "tfds")
OFFLINE = "digits, synthetic, folder:PATH, npz:PATH, idx:FOLDER"
STATISTICS_IMAGES = 2000  # of a split that is read from files


def open_source(
    name, *, image_size=(), val_split=0.1, data_dir=None, skip_bad_files=False, seed=0, task=None
) -> Source:
    """Open a data set by name.

    Args:
        name: `digits`, `synthetic`, `folder:PATH`, `npz:PATH`, `idx:FOLDER`, `tfds:NAME[:config]`
            or any other TFDS name.
        image_size: What images are resized to: `()` for as they are, `(side,)` or
            `(height, width)`.
        val_split: Share of the training examples held out where there is no validation part.
        data_dir: Where TFDS keeps its data.
        skip_bad_files: Leave out unreadable images instead of refusing.
        seed: Of divisions that are drawn, and of `synthetic`.
        task: A task, or its class, whose specs `synthetic` follows.

    Raises:
        ValueError: An unknown name, missing or broken files, or data of an unfit kind.
    """
    kind, _, where = str(name).partition(":")
    if kind not in KINDS:
        if where:
            raise ValueError(
                f"unknown source {name!r}{nearest(kind, KINDS)}; there are {OFFLINE}, tfds:NAME"
            )
        kind, where = "tfds", kind
    if kind in ("folder", "npz", "idx", "tfds") and not where:
        raise ValueError(f"{kind} needs a {'name' if kind == 'tfds' else 'path'}: {kind}:...")
    size = tuple(int(side) for side in image_size)
    if len(size) > 2 or any(side < 1 for side in size):
        raise ValueError(f"--image-size {size}: must be a side, or a height and a width")
    size = size * 2 if len(size) == 1 else size
    options = Options(str(name), size, val_split, data_dir, skip_bad_files, seed, task)
    return importlib.import_module(f"kerasdl.data.{kind}").load(where, options)


def input_statistics(split: Split) -> tuple[tuple, tuple]:
    """Mean and standard deviation per channel of a split's images in [0, 1].

    Args:
        split: The training part; of one that is read from files at most 2,000 evenly spaced
            images are looked at.

    Returns:
        `(mean, std)`, tuples of floats; a channel that never varies has the deviation 1.
    """
    n = len(split)
    if split.arrays is not None or n <= STATISTICS_IMAGES:
        indices = np.arange(n)
    else:
        indices = np.linspace(0, n - 1, STATISTICS_IMAGES).astype(np.int64)
    count, total, squares = 0, 0.0, 0.0
    for chunk in np.array_split(indices, -(-len(indices) // 256)):
        image = to_float(tf.convert_to_tensor(split.read(chunk)["image"])).numpy()
        image = image.reshape(-1, image.shape[-1]).astype(np.float64)
        count += len(image)
        total = total + image.sum(axis=0)
        squares = squares + (image**2).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    std = np.where(std < 1e-6, 1.0, std)
    return tuple(map(float, mean)), tuple(map(float, std))
