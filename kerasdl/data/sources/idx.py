"""`idx:FOLDER`: the files of the MNIST family, gzipped or not.

Source: http://yann.lecun.com/exdb/mnist (the format's description); Cohen et al. 2017,
https://arxiv.org/abs/1702.05373 (EMNIST).
"""

import gzip
import math
import os
import re
import string
import zlib
from pathlib import Path

import numpy as np

from kerasdl.data.arrays import from_arrays
from kerasdl.data.reading import readable
from kerasdl.errors import UserError

GIVES = {"image": "image", "label": "label"}
DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
NAME = re.compile(
    r"(?P<set>.*?)[-_.]?(?P<part>train|t10k|test)[-_.](?P<kind>images|labels)"
    r"([-_.](idx\d?([-_.]ubyte)?|ubyte))?(\.gz)?",
    re.IGNORECASE,
)
TEST_FRACTION = 0.2  # where only one part is there
DEPTH = 3  # levels of folders below the given one in which files are looked for
MAX_AXES = 32
CHUNK = 2**20  # bytes
LETTERS = 26  # classes of EMNIST's letters, from 1 on


def load(where, options):
    """A folder with `train-images-idx3-ubyte[.gz]`, `train-labels-idx1-ubyte[.gz]` and the same
    for `t10k` or `test`, or one of the two pairs.

    It may also be a folder around that one; and of several data sets in a folder, as EMNIST's,
    `FOLDER/emnist-letters` is one. EMNIST's images, which lie on their side, are turned.
    """
    folder, files, notes = _find(where, options)
    name, found = next(iter(files.items()))
    parts = {}
    for part, pair in found.items():
        if len(pair) < 2:
            raise UserError(
                f"{options.name}: {part} must have both images and labels, but there is only "
                f"{next(iter(pair.values())).name}"
            )
        parts[part] = tuple(read_idx(pair[kind]) for kind in ("images", "labels"))
    class_names = None
    if name.startswith("emnist"):
        parts, class_names = _emnist(name, parts, notes)
    if len(parts) == 1:
        (part,) = parts
        notes.append(f"only the {_of(found[part]['images'])['part']} files are there")
        parts = {"train": parts[part]}
    return from_arrays(
        parts, options, class_names=class_names, notes=notes, test_fraction=TEST_FRACTION
    )


def _find(where, options):
    """The folder; `{data set: {part: {"images": path, "labels": path}}}` of one data set; and notes
    of what is left out."""
    root, chosen, notes = Path(where), None, []
    if not root.is_dir() and root.parent.is_dir() and root.name not in ("", ".."):
        name = root.name.casefold()
        if any(_of(path).get("set", "").casefold() == name for path in _in(root.parent)):
            root, chosen = root.parent, name
    if not root.is_dir():
        raise UserError(f"{options.name}: there is no folder {readable(where)}")
    folders = {}
    for folder, below, _ in os.walk(root):
        level = len(Path(folder).relative_to(root).parts)
        below[:] = sorted(b for b in below if not b.startswith(".")) if level < DEPTH else []
        if any(map(_of, _in(folder))):
            folders[folder] = None
        if folder == str(root) and folders:
            break
    if not folders:
        raise UserError(
            f"{options.name}: there are no files train-images* and train-labels*, nor t10k-*, in "
            f"{readable(root)}"
        )
    if len(folders) > 1:
        names = ", ".join(readable(f) for f in [*folders][:5])
        raise UserError(
            f"{options.name}: {len(folders)} folders have such files, name one: {names}"
        )
    folder = Path(next(iter(folders)))
    if folder != root:
        notes.append(f"read from {readable(folder.relative_to(root))}")
    sets, left = {}, []
    for path in _in(folder):
        one = _of(path)
        name = one.get("set", "").casefold()
        kind = one.get("kind", "").casefold()
        part = "train" if one.get("part", "").casefold() == "train" else "test"
        pair = sets.setdefault(name, {}).setdefault(part, {}) if one else {}
        if not one or kind in pair or chosen not in (None, name):
            left.append(path)
        else:
            pair[kind] = path
    sets = {name: one for name, one in sets.items() if chosen in (None, name)}
    if len(sets) > 1:
        raise UserError(
            f"{options.name}: it holds {len(sets)} data sets, name one: "
            + ", ".join(f"idx:{readable(folder / (name or 'train'))}" for name in sorted(sets))
        )
    if left:
        notes.append(f"left out {len(left)} other files, the first {readable(left[0].name)}")
    return folder, sets, notes


def _in(folder):
    """The files in a folder that are not hidden, sorted: one comes before its gzipped copy."""
    try:
        paths = sorted(Path(folder).iterdir())
        return [path for path in paths if path.is_file() and not path.name.startswith(".")]
    except OSError as error:
        raise UserError(f"{readable(folder)}: {error.strerror}") from error


def _of(path) -> dict:
    """`{"set", "part", "kind"}` that a file's name stands for, or nothing."""
    match = NAME.fullmatch(path.name)
    return match.groupdict() if match else {}


def _emnist(name, parts, notes):
    """EMNIST's images upright, and its letters as classes from 0 on with their names."""
    class_names = None
    if all(images.ndim == 3 for images, _ in parts.values()):
        for part, (images, labels) in parts.items():
            parts[part] = np.ascontiguousarray(images.swapaxes(1, 2)), labels
        notes.append("EMNIST's images lie on their side, and are turned")
    labels = np.concatenate([labels.ravel() for _, labels in parts.values()])
    if name == "emnist-letters" and 1 <= labels.min() <= labels.max() <= LETTERS:
        parts = {part: (images, labels - 1) for part, (images, labels) in parts.items()}
        class_names = tuple(string.ascii_uppercase)
        notes.append(f"EMNIST's letters 1 to {LETTERS} are the classes A to Z")
    return parts, class_names


def read_idx(path):
    """The array in an IDX file; UserError where it is none, or is incomplete."""
    shown = readable(path)
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        with (gzip.open if zipped else open)(path, "rb") as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in DTYPES:
                raise UserError(f"{shown}: not an IDX file")
            dtype, axes = np.dtype(DTYPES[head[2]]), head[3]
            if not 0 < axes <= MAX_AXES:
                raise UserError(f"{shown}: not an IDX file")
            head += file.read(4 * axes)
            start = 4 + 4 * axes
            shape = [int.from_bytes(head[i : i + 4], "big") for i in range(4, start, 4)]
            expected = start + math.prod(shape) * dtype.itemsize
            data = bytearray(head)  # in pieces: the header may be wrong about the size
            while len(data) <= expected and (piece := file.read(CHUNK)):
                data += piece
    except (OSError, EOFError, zlib.error) as error:
        what = "broken gzip file" if zipped else "cannot be read"
        raise UserError(f"{shown}: {what} ({error})") from error
    if len(data) != expected or len(data) < start:
        size = f"at least {len(data)}" if len(data) > expected else len(data)
        raise UserError(
            f"{shown}: has {size} bytes, but must have {max(expected, start)} by its header"
        )
    if 0 in shape:
        raise UserError(f"{shown}: is empty, its header has the shape {shape}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)
