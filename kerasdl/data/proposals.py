"""Proposals of the images of a data set: a column made by selective search, once per image."""

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np

from kerasdl.columns import Column
from kerasdl.data import selective_search, wanted
from kerasdl.data.splits import Split
from kerasdl.system import processes

CHUNK = 2**20  # pixels that are read at a time


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
        images = self.split.only([self.image])
        size = max(1, CHUNK // int(np.prod(images.read([0])[self.image].shape[1:3])))

        def search(start, function=searched):
            rows = np.arange(start, min(start + size, len(images)))
            return function(images.read(rows)[self.image], self.count)

        starts = range(0, len(images), size)
        if len(starts) == 1:
            return search(0, selective_search.of_images)
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            return np.concatenate(list(pool.map(search, starts)))

    def load(self, rows):
        rows = dict(rows)
        regions = rows.pop(self.name)
        return {**self.split.load(rows), self.name: regions}

    def only(self, names):
        if self.name not in names:
            return self.split.only(names)
        rest = self.split.only([name for name in names if name != self.name])
        return Proposed(rest, self.image, self.name, self.count, self.made)

    def digest(self):
        return self.split.digest()


def searched(images, count):
    """`selective_search.of_images`, in a process of its own: Python's threads would wait."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("images.npy", "proposals.npy")]
        np.save(files[0], images)
        command = [sys.executable, "-m", selective_search.__name__, *files, count]
        with processes.child(command) as (_, wait):
            status, output = wait()
        if status:
            raise RuntimeError(f"selective search failed: {processes.why(status, output)}")
        return np.load(files[1])
