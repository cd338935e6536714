"""The examples that exported files are calibrated with and judged on."""

import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.catalog import nearest
from kerasdl.data import sources
from kerasdl.data.images import to_float

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
JUDGED = 2000  # at most so many test examples stand in the card
CALIBRATION = 200
BYTES = 2**28  # and at most so many bytes of them


def read(recipe, info, split: str = "test", most: int | None = None) -> dict:
    """Examples of the data that a model was trained on, as the model is given them.

    Args:
        recipe: The run's settings.
        info: Facts of its data.
        split: "train", "val" or "test".
        most: At most so many, evenly spread over the split; all if None.

    Returns:
        `{"image": float32 (N, H, W, C) in [0, 1], "label": (N,)}`.

    Raises:
        ValueError: No such split, or the data are other ones now.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: not one of train, val, test{nearest(split, SPLITS)}")
    return _take(_open(recipe, info), split, most)


def parts_of(run, weights: str | None = None, say=print):
    """What `exporter.export` takes, of a run: a float32 rebuild, and examples of its data."""
    from kerasdl.export.exporter import Parts

    model, task = run.restore(weights=weights, dtype="float32", say=say)
    source = _open(run.recipe, run.info)
    most = max(1, min(JUDGED, BYTES // (4 * int(np.prod(run.info.image_shape)))))
    figures = run.metrics() or {}
    return Parts(
        model=model,
        model_name=run.model_name,
        task=task,
        info=run.info,
        recipe=run.recipe,
        train=_take(source, "train", min(most, CALIBRATION)),
        test=_take(source, "test", most),
        model_arguments=run.model_arguments,
        # Lists are the confusion matrix and the mistakes: the report's.
        figures={k: v for k, v in figures.items() if not isinstance(v, list)},
    )


def _open(recipe, info):
    source = sources.open_source(
        recipe.dataset,
        image_size=tuple(info.image_shape[:2]),
        val_split=recipe.val_split,
        data_dir=recipe.data_dir,
        skip_bad_files=recipe.skip_bad_files,
        seed=recipe.seed,
        task=tasks.get(catalog.row(recipe.model).task),
    )
    if tuple(source.info.class_names) != tuple(info.class_names):
        raise ValueError(f"{recipe.dataset}: has other classes now than when it was trained on")
    return source


def _take(source, split, most=None):
    part = getattr(source, SPLITS[split])
    count = min(len(part), most or len(part))
    batch = part.read(np.linspace(0, len(part) - 1, count).round().astype(int))
    return {"image": to_float(tf.constant(batch["image"])).numpy(), "label": batch["label"]}
