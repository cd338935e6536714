"""The examples that exported files are calibrated with and evaluated on."""

from dataclasses import replace

import numpy as np
import tensorflow as tf

from kerasdl.columns import PARTS
from kerasdl.data import fingerprint, sources
from kerasdl.data.images import to_float
from kerasdl.data.splits import evenly
from kerasdl.errors import UserError
from kerasdl.system.names import nearest

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
BYTES = 2**28  # maximum of the test examples that files are evaluated on


def split_name(split: str) -> str:
    """The attribute of a `Source` that "train", "val" or "test" stands for, or a ValueError."""
    if split not in SPLITS:
        raise UserError(f"split {split!r}: not one of train, val, test{nearest(split, SPLITS)}")
    return SPLITS[split]


def open_data(task, before=None, name=None, parts=PARTS):
    """The data set that a task was made for.

    Args:
        task: The task.
        before: The fingerprint of the data that its run was started with, or None.
        name: Of the data set, where it has been moved.
        parts: Those that must be as they were, where `before` holds no files.

    Raises:
        UserError: It has other classes or other examples now.
    """
    recipe, info = task.run_recipe, task.info
    recipe = replace(recipe, dataset=name) if name else recipe
    source = sources.from_recipe(recipe, type(task), info, fingerprint.division(before))
    if tuple(source.info.class_names) != tuple(info.class_names):
        raise UserError(f"{recipe.dataset}: has other classes now than in training")
    if before:
        fingerprint.check(before, fingerprint.of_source(source), recipe.dataset, parts)
    return source


def examined(task, part) -> int:
    """How many examples of a part all files of an export are evaluated on."""
    one = 4 * sum(int(np.prod(v.shape[1:])) for v in part.read([0]).values())
    return max(1, min(task.served_examples, BYTES // max(one, 1)))


def batches(source, task, split: str, size: int, examples: int | None = None):
    """Yield examples of a part of the data, as inputs of the signatures.

    Args:
        source: The data, of `open_data`.
        task: The run's task.
        split: "train", "val" or "test".
        size: Examples of a batch: no more are read at once.
        examples: Maximum number, evenly spread over the part; all if None.

    Yields:
        `{input or target: (n, ...)}`, such as `image` float32 `(n, H, W, C)` in [0, 1] and `label`
        `(n,)`.

    Raises:
        ValueError: No such split.
    """
    part = getattr(source, split_name(split))
    rows = evenly(len(part), examples or len(part))
    for start in range(0, len(rows), size):
        yield _served(part, task, rows[start : start + size], start)


def take(source, task, split: str, examples: int) -> dict:
    """A maximum number of examples of a part, as one batch of `batches`."""
    return next(batches(source, task, split, examples, examples))


def _served(part, task, rows, start):
    batch = part.read(rows)
    if "image" in batch:
        batch["image"] = to_float(tf.constant(batch["image"])).numpy()
    # What is random of an example follows from its number.
    served = task.served({**batch, "number": np.arange(start, start + len(rows))})
    return {name: value for name, value in served.items() if name != "number"}
