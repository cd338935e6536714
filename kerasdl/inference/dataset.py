"""The examples that exported files are calibrated with and judged on."""

import tensorflow as tf

from kerasdl.data import sources
from kerasdl.data.images import to_float
from kerasdl.data.splits import evenly
from kerasdl.errors import UserError
from kerasdl.system.names import nearest

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
CALIBRATION = 200
BYTES = 2**28  # of the test examples that files are judged on, at most


def read(task, split: str = "test", maximum: int | None = None) -> dict:
    """Examples of the data that a model was trained on, as its signatures are given them.

    Args:
        task: The run's task, with its settings and the facts of its data.
        split: "train", "val" or "test".
        maximum: At most so many, evenly spread over the split; all if None.

    Returns:
        `{input or target: (N, ...)}`, such as `image` float32 `(N, H, W, C)` in [0, 1] and `label`
        `(N,)`.

    Raises:
        ValueError: No such split, or the data are other ones now.
    """
    split = split_name(split)
    return take(open_data(task), task, split, maximum)


def split_name(split: str) -> str:
    """The attribute of a `Source` that "train", "val" or "test" stands for, or a ValueError."""
    if split not in SPLITS:
        raise UserError(f"split {split!r}: not one of train, val, test{nearest(split, SPLITS)}")
    return SPLITS[split]


def open_data(task):
    """The data set that a task was made for.

    Raises:
        ValueError: It has other classes now.
    """
    recipe, info = task.run_recipe, task.info
    source = sources.from_recipe(recipe, type(task), info)
    if tuple(source.info.class_names) != tuple(info.class_names):
        raise UserError(f"{recipe.dataset}: has other classes now than when it was trained on")
    return source


def take(source, task, split, maximum=None) -> dict:
    """Examples of a part of a `Source`, as `read` gives them."""
    part = getattr(source, split)
    batch = part.read(evenly(len(part), maximum or len(part)))
    if "image" in batch:
        batch["image"] = to_float(tf.constant(batch["image"])).numpy()
    return task.served(batch)
