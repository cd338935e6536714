"""Proposals of the images of a data set: a column made by selective search, once per image."""

from dataclasses import replace

import numpy as np

from kerasdl.columns import Column
from kerasdl.data import wanted
from kerasdl.data.selective_search import proposals
from kerasdl.data.splits import Split

CHUNK = 256  # images that are read at a time


def added(source, task, recipe):
    """A `Source` with the regions that a task wants, where it has none.

    They are of the image as it is stored, so every epoch and every resumed run has the same; what
    moves the image in training moves them too.

    Args:
        source: The data.
        task: The task's class, or the task.
        recipe: The settings of the run.
    """
    missing = [
        name
        for name, spec in wanted.specs(task).items()
        if spec.kind in wanted.MADE and name not in source.info.columns
    ]
    settings = task.checked(recipe) if missing else {}
    if settings.get("proposals") != "search":
        return source
    (name,), count = missing, settings["max_proposals"]
    image = next(iter(source.info.named("image")))
    columns = {**source.info.columns, name: Column("regions", (count, 4))}
    splits = {part: Proposed(split, image, name, count) for part, split in source.parts.items()}
    note = f"{name}: up to {count} regions of each image, by selective search; once per run"
    return replace(
        source, info=replace(source.info, columns=columns), notes=(*source.notes, note), **splits
    )


class Proposed(Split):
    """A split whose images have proposals, which are made when they are first needed.

    Args:
        split: The split.
        image, name: The columns of the images and of their proposals.
        count: How many there is room for, `R`.
        made: A list that holds them, float32 `(n, R, 4)`, once they are made; or None.
    """

    def __init__(self, split, image, name, count, made=None):
        self.split, self.image, self.name, self.count = split, image, name, count
        self.batched = split.batched
        self.made = [] if made is None else made

    def __len__(self):
        return len(self.split)

    @property
    def arrays(self):
        return None if self.split.arrays is None else self.columns()

    def columns(self):
        if not self.made:
            self.made.append(self._search())
        return {**self.split.columns(), self.name: self.made[0]}

    def _search(self):
        images, result = self.split.only([self.image]), []
        for start in range(0, len(images), CHUNK):
            rows = np.arange(start, min(start + CHUNK, len(images)))
            result += [proposals(one, self.count) for one in images.read(rows)[self.image]]
        return np.stack(result)

    def load(self, row):
        row = dict(row)
        regions = row.pop(self.name)
        return {**self.split.load(row), self.name: regions}

    def only(self, names):
        if self.name not in names:
            return self.split.only(names)
        rest = self.split.only([name for name in names if name != self.name])
        return Proposed(rest, self.image, self.name, self.count, self.made)

    def digest(self):
        return self.split.digest()
