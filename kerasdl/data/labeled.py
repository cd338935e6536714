"""Which examples of the training part are labeled, where a run uses the labels of few."""

import numpy as np

from kerasdl.columns import ABSENT
from kerasdl.data.splits import Split, Subset
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


class Unlabeled(Split):
    """A split in which most labels are `ABSENT`.

    Args:
        split: The split.
        column: The name of its labels.
        positions: int `(n,)`, of the examples that keep theirs.
    """

    def __init__(self, split, column, positions):
        self.split, self.column, self.positions = split, column, positions

    def __len__(self):
        return len(self.split)

    def columns(self):
        columns = dict(self.split.columns())
        label = np.full_like(columns[self.column], ABSENT)
        label[self.positions] = columns[self.column][self.positions]
        return {**columns, self.column: label}

    def load(self, rows):
        return self.split.load(rows)

    def only(self, names):
        split = self.split.only(names)
        return Unlabeled(split, self.column, self.positions) if self.column in names else split

    def cropped(self, crop):
        split = self.split.cropped(crop)
        return split and Unlabeled(split, self.column, self.positions)


def used(source, positions, others=False) -> Split:
    """What is trained on: the examples at those positions, `repeated`; with `others` all examples,
    of which the others have no label."""
    if not others:
        return repeated(source.train, positions)
    return Unlabeled(source.train, next(iter(source.info.named("label"))), positions)


def line(source, positions, others=False) -> str:
    """What a user is told; `others` is whether those without labels are used too."""
    return (
        f"the labels of {len(positions):,} of {len(source.train):,} training examples are used; "
        + ("the teacher answers on all" if others else "an epoch repeats them")
    )
