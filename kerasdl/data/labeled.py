"""Which examples of the training part are labeled, where a run uses the labels of few."""

import numpy as np

from kerasdl.data.splits import Subset
from kerasdl.errors import UserError
from kerasdl.ops.labels import balanced


def positions(source, task_class, recipe) -> np.ndarray | None:
    """Of the training examples whose labels are used, int `(n,)`; None where all are.

    Args:
        source: A `Source`.
        task_class: The task's class.
        recipe: The settings, of which `labels` or `labels_per_class` says how many.

    Raises:
        UserError: The task needs no label, or there is not one for each example.
    """
    name = next((n for n in ("labels", "labels_per_class") if getattr(recipe, n)), None)
    if name is None:
        return None
    given = f"--{name.replace('_', '-')} {getattr(recipe, name)}"
    column = next(iter(source.info.named("label")), None)
    if column is None or source.info.columns[column].shape:
        raise UserError(f"{given}: {source.name} has not one label per example")
    if column in task_class.optional or column not in task_class.targets:
        raise UserError(f"{given}: {recipe.model} learns without labels")
    label = np.asarray(source.train.columns()[column])
    return balanced(label, recipe.labels, recipe.labels_per_class, recipe.seed)


def repeated(split, positions) -> Subset:
    """Some examples over and over, as many as `split` has: an epoch keeps its number of steps."""
    return Subset(split, np.resize(positions, len(split)))


def line(source, positions) -> str:
    """What a user is told."""
    return (
        f"the labels of {len(positions):,} of {len(source.train):,} training examples are used; an "
        "epoch repeats them"
    )
