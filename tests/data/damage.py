"""Damage to a valid data set, by a seed, for tests that no input ends in a traceback."""

import os
import shutil
from pathlib import Path

import numpy as np

NAMES = ("test.txt", "TRAIN.tsv", "dev", ".hidden", "x.csv", "a\nb.txt", "ä", os.fsdecode(b"\xff"))


def damaged(source, target, seed):
    """Copy a folder, with one to three damages to its files.

    Args:
        source: A folder.
        target: Its copy, which is replaced.
        seed: Of the damages.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    rng = np.random.default_rng(seed)
    for _ in range(rng.integers(1, 4)):
        files = sorted(os.path.join(d, f) for d, _, names in os.walk(target) for f in names)
        if files:
            path = files[rng.integers(len(files))]
            DAMAGES[rng.integers(len(DAMAGES))](path, rng)


def contents(folder):
    """The texts of all files in a folder, without what is no UTF-8."""
    paths = [Path(d, f) for d, _, names in os.walk(folder) for f in names]
    return [path.read_bytes().decode(errors="ignore") for path in paths if os.path.isfile(path)]


def _flip(path, rng):
    if not os.path.isfile(path):
        return
    data = np.fromfile(path, np.uint8)
    if len(data):
        places = rng.integers(len(data), size=rng.integers(1, 6))
        data[places] = rng.integers(256, size=len(places))
        data.tofile(path)


def _replace(path, rng):
    """Characters that mean something: tabs, quotes, line ends, ends of files."""
    if os.path.isfile(path) and (size := os.path.getsize(path)):
        with open(path, "r+b") as file:
            for _ in range(rng.integers(1, 4)):
                file.seek(rng.integers(size))
                file.write([b"\t", b'"', b"\r", b"\0", b"\n", b","][rng.integers(6)])


def _cut(path, rng):
    if os.path.isfile(path):
        os.truncate(path, int(os.path.getsize(path) * rng.random() * rng.integers(2)))


def _rename(path, rng):
    os.rename(path, os.path.join(os.path.dirname(path), NAMES[rng.integers(len(NAMES))]))


def _link(path, rng):
    """A link in its place: to itself, to the folder above, to another file, or to nothing."""
    os.remove(path)
    folder = os.path.dirname(path)
    others = [os.path.join(folder, name) for name in sorted(os.listdir(folder))] or [folder]
    os.symlink([path, folder, others[0], "/nothing", os.devnull][rng.integers(5)], path)


def _folder(path, rng):
    os.remove(path)
    os.mkdir(path)


DAMAGES = (_flip, _replace, _cut, _rename, _link, _folder)
