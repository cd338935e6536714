"""`idx:FOLDER`: the files of the MNIST family, gzipped or not.

Source: http://yann.lecun.com/exdb/mnist (the format's description).
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from kerasdl.data.splits import from_arrays
from kerasdl.errors import UserError

GIVES = {"image": "image", "label": "label"}
DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}
PARTS = {"train": "train", "test": "t10k"}
TEST_FRACTION = 0.2  # where only one part is there


def load(where, options):
    """A folder with `train-images-idx3-ubyte[.gz]`, `train-labels-idx1-ubyte[.gz]` and the same
    for `t10k`, or one of the two pairs."""
    folder = Path(where)
    if not folder.is_dir():
        raise UserError(f"{options.name}: there is no folder {where}")
    parts, prefixes = {}, []
    for part, prefix in PARTS.items():
        files = [_find(folder, f"{prefix}-{kind}") for kind in ("images", "labels")]
        if all(files):
            parts[part] = tuple(read_idx(file) for file in files)
            prefixes.append(prefix)
        elif any(files):
            raise UserError(f"{options.name}: {prefix} must have both images and labels")
    if not parts:
        raise UserError(
            f"{options.name}: there are no files train-images* and train-labels*, nor t10k-*"
        )
    notes = []
    if len(parts) == 1:
        parts = {"train": next(iter(parts.values()))}
        notes.append(f"only the {prefixes[0]} files are there")
    return from_arrays(parts, options, notes=notes, test_fraction=TEST_FRACTION)


def _find(folder, start):
    """The file whose name starts so, with any of the separators in use, or None."""
    return next(iter(sorted(f for f in folder.iterdir() if f.name.startswith(start))), None)


def read_idx(path):
    """The array in an IDX file; UserError where it is none, or is incomplete."""
    data = Path(path).read_bytes()
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: broken gzip file ({error})") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in DTYPES or not data[3]:
        raise UserError(f"{path}: not an IDX file")
    dtype, start = np.dtype(DTYPES[data[2]]), 4 + 4 * data[3]
    shape = [int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise UserError(f"{path}: has {len(data)} bytes, but must have {expected} by its header")
    return np.frombuffer(data, dtype, offset=start).reshape(shape)
