"""What a person would want to know of a data set before training on it."""

import hashlib
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl.data.images import to_float
from kerasdl.data.splits import evenly

CHUNK = 256  # examples that are read at once
LOOKED_AT = 20_000  # images of a part, at most, evenly spread
LISTED = 10  # of each kind of what is reported
PER_CLASS, CLASSES = 8, 20  # of the grid
FLAT = 1e-6  # standard deviation of an image's values, at most, of a constant one


def examine(source) -> dict:
    """Sizes of files, examples that are in two parts, and images without content.

    Args:
        source: A `Source`.

    Returns:
        `{"smallest", "largest": [{"file", "bytes"}], "duplicates": {"count", "examples": [[example,
        ...]]}, "constant": {"count", "examples": [example]}, "looked_at": images}`; an example is
        `part/number` or `part: file`. Without files there are no sizes, and without images nothing
        is constant.
    """
    result = {}
    if source.files is not None:
        sizes = sorted(
            (Path(path).stat().st_size, name)
            for of_part in source.files.values()
            for name, (path, _) in of_part.items()
        )
        for key, chosen in (("smallest", sizes[:3]), ("largest", sizes[:-4:-1])):
            result[key] = [{"file": name, "bytes": size} for size, name in chosen]
    repeated = _duplicates(source)
    result["duplicates"] = {"count": len(repeated), "examples": repeated[:LISTED]}
    if source.info.named("image"):
        constant, seen = _constant(source)
        result["constant"] = {"count": len(constant), "examples": constant[:LISTED]}
        result["looked_at"] = seen
    return result


def example_grid(source, seed=0):
    """Random training examples, a row for each class.

    Args:
        source: A `Source` with images.
        seed: Of the choice.

    Returns:
        `(images (rows, 8, H, W, C) uint8 or float in [0, 1], names of the rows)`; the last images
        of a row are white where a class has fewer examples.
    """
    image = next(iter(source.info.named("image")))
    labels = {n: c for n, c in source.info.named("label").items() if not c.shape}
    label = next(iter(labels), None)
    order = np.random.default_rng(seed).permutation(len(source.train))
    rows = source.train.columns()
    if label in rows:
        names = labels[label].class_names[:CLASSES]
        chosen = [order[rows[label][order] == k][:PER_CLASS] for k in range(len(names))]
    else:
        names, chosen = ["examples"], [order[:PER_CLASS]]
    pictures = []
    for numbers in chosen:
        shape = (PER_CLASS, *source.info.columns[image].shape)
        row = np.ones(shape, np.float32)
        if len(numbers):
            row[: len(numbers)] = to_float(tf.constant(source.train.read(numbers)[image]))
        pictures.append(row)
    return np.stack(pictures), list(names)


def _duplicates(source):
    """Groups of equal examples that are not all in one part."""
    places = {}
    for part, split in source.parts.items():
        for name, content in _contents(source, part, split):
            places.setdefault(content, []).append((part, name))
    return [
        [name for _, name in group]
        for group in places.values()
        if len({part for part, _ in group}) > 1
    ]


def _contents(source, part, split):
    """Yield `(example, digest of its content)` of a part that lies in files or in memory."""
    if source.files is not None:
        for name, (path, _) in source.files[part].items():
            with open(path, "rb") as file:
                yield f"{part}: {name}", hashlib.file_digest(file, "blake2b").digest()
        return
    arrays = split.arrays
    names = [n for n, c in source.info.columns.items() if c.kind != "label"]
    if arrays is None or not names:
        return
    for number in range(len(arrays[names[0]])):
        content = b"".join(np.ascontiguousarray(arrays[name][number]).tobytes() for name in names)
        yield f"{part}/{number}", hashlib.blake2b(content).digest()


def _constant(source):
    """Images all of whose pixels are alike, and how many were looked at."""
    image, result, seen = next(iter(source.info.named("image"))), [], 0
    for part, split in source.parts.items():
        split = split.only([image])
        names = list(source.files[part]) if source.files is not None else None
        numbers = evenly(len(split), LOOKED_AT)
        seen += len(numbers)
        for chunk in np.array_split(numbers, -(-len(numbers) // CHUNK)):
            values = np.asarray(split.read(chunk)[image], np.float32)
            flat = values.std(axis=(1, 2)).max(axis=-1) <= FLAT
            for number in chunk[flat]:
                result.append(f"{part}: {names[number]}" if names else f"{part}/{number}")
    return result, seen
