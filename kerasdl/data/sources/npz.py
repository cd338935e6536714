"""`npz:PATH`: arrays in a NumPy archive."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from kerasdl.data.splits import from_arrays
from kerasdl.errors import UserError

GIVES = {"image": "image", "label": "label"}
PARTS = {
    "train": (("x_train", "y_train"), ("image", "label")),
    "validation": (("x_val", "y_val"),),
    "test": (("x_test", "y_test"),),
}


def load(where, options):
    """An archive with `x_train`, `y_train` (or `image`, `label`), and where it has them `x_test`,
    `y_test`, `x_val`, `y_val` and `class_names`. Missing parts are sampled from the first."""
    arrays = read_npz(Path(where), options.name)
    parts = {}
    for part, pairs in PARTS.items():
        for pair in pairs:
            have = [name in arrays for name in pair]
            if all(have):
                parts[part] = tuple(arrays[name] for name in pair)
            elif any(have):
                raise UserError(
                    f"{options.name} must have both of {' and '.join(pair)}, but has only "
                    f"{pair[have.index(True)]}"
                )
    if "train" not in parts:
        raise UserError(
            f"{options.name} must have x_train and y_train, or image and label; "
            f"it holds {', '.join(arrays) or 'nothing'}"
        )
    names = arrays.get("class_names")
    if names is not None:
        names = tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist())
    return from_arrays(parts, options, class_names=names, seed=options.seed)


def read_npz(path, name):
    """`{key: array}` of an archive; ValueError where it is missing, broken or holds objects."""
    if not path.is_file():
        raise UserError(f"{name}: there is no file {path}")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise UserError("it holds one array and is no archive")
            return {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name}: not a readable .npz file ({reason})") from error
