"""The examples that exported files are calibrated with and judged on."""

from dataclasses import replace

import numpy as np
import tensorflow as tf

from kerasdl.catalog import nearest
from kerasdl.data import sources
from kerasdl.data.images import to_float
from kerasdl.data.splits import evenly

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
CALIBRATION = 200
BYTES = 2**28  # of the test examples that files are judged on, at most


def read(task, split: str = "test", most: int | None = None) -> dict:
    """Examples of the data that a model was trained on, as its signatures are given them.

    Args:
        task: The run's task, with its settings and the facts of its data.
        split: "train", "val" or "test".
        most: At most so many, evenly spread over the split; all if None.

    Returns:
        `{input or target: (N, ...)}`, such as `image` float32 `(N, H, W, C)` in [0, 1] and `label`
        `(N,)`.

    Raises:
        ValueError: No such split, or the data are other ones now.
    """
    split = split_name(split)
    return _take(open_data(task), task, split, most)


def split_name(split: str) -> str:
    """The attribute of a `Source` that "train", "val" or "test" stands for, or a ValueError."""
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: not one of train, val, test{nearest(split, SPLITS)}")
    return SPLITS[split]


def parts_of(run, weights: str | None = None, settings: dict | None = None, say=print):
    """What `exporter.export` takes, of a run: a float32 rebuild, and examples of its data.

    Args:
        run: The run.
        weights: "best" or "last"; the run's own setting if None.
        settings: Of the task, in place of the run's.
        say: Where a damaged checkpoint is named.

    Raises:
        ValueError: A setting that cannot be another one now.
    """
    from kerasdl.export.exporter import Parts

    model, task = run.restore(weights=weights, dtype="float32", say=say)
    for name in settings or ():
        if name not in task.changeable:
            raise ValueError(
                f"--task-kwargs {name}: cannot be changed after training"
                f"{nearest(name, task.changeable)}; "
                f"what can be: {', '.join(task.changeable) or 'nothing'}"
            )
    if settings:
        recipe = replace(run.recipe, task_kwargs={**run.recipe.task_kwargs, **settings})
        task = type(task)(task.info, recipe)
    source = open_data(task)
    most = max(1, min(task.served_examples, BYTES // _bytes_of_one(source.test)))
    figures = run.metrics() or {}
    return Parts(
        model=model,
        model_name=run.model_name,
        task=task,
        info=run.info,
        recipe=task.run_recipe,
        train=_take(source, task, "train", min(most, CALIBRATION)),
        test=_take(source, task, "test", most),
        model_arguments=run.model_arguments,
        # Lists are the confusion matrix and the mistakes: the report's.
        figures={k: v for k, v in figures.items() if not isinstance(v, list)},
    )


def open_data(task):
    """The data set that a task was made for.

    Raises:
        ValueError: It has other classes now.
    """
    recipe, info = task.run_recipe, task.info
    source = sources.from_recipe(recipe, type(task), info)
    if tuple(source.info.class_names) != tuple(info.class_names):
        raise ValueError(f"{recipe.dataset}: has other classes now than when it was trained on")
    return source


def _bytes_of_one(split):
    return 4 * sum(int(np.prod(v.shape[1:])) for v in split.read([0]).values())


def _take(source, task, split, most=None):
    part = getattr(source, split)
    batch = part.read(evenly(len(part), most or len(part)))
    if "image" in batch:
        batch["image"] = to_float(tf.constant(batch["image"])).numpy()
    return task.served(batch)
