"""`npz:PATH`: arrays in a NumPy archive."""

import re
import zipfile
from pathlib import Path

from kerasdl.data.arrays import from_arrays
from kerasdl.data.reading import readable
from kerasdl.data.sources import layout
from kerasdl.errors import UserError
from kerasdl.system import archives

GIVES = {"image": "image", "label": "label"}
KINDS = {  # what an array's name says, in any case, besides its part
    "images": "x image images img imgs data",
    "labels": "y label labels target targets",
}
CLASS_NAMES = ("class_names", "label_names", "target_names")
MAGIC, ZIP = b"\x93NUMPY", b"PK"


def load(where, options):
    """An archive with images and labels of training, and maybe of validation and test.

    A name is that of the part, `layout.PARTS`, and one of `KINDS`, in either order and any case:
    `x_train y_train`, `train_images train_labels`, `X_valid y_valid`; or one of `KINDS` alone,
    which is training: `image label`, `X y`. `class_names` names the classes. Missing parts are
    sampled from training.
    """
    path, name = Path(where), options.name
    with opened(path, name) as archive:
        keys = names_in(archive)
        chosen, unused = chosen_keys(keys, name)
        arrays = {key: read_array(archive, keys[key], name) for key in chosen}
        notes = []
        if unused:
            shown = ", ".join(shown_header(archive, keys[key], key) for key in unused[:10])
            more = f" and {len(unused) - 10} more" * (len(unused) > 10)
            notes.append(f"not read: {shown}{more}")
    parts = {}
    for key, (part, kind) in chosen.items():
        parts.setdefault(part, {})[kind] = arrays[key]
    class_names = parts.pop("", {}).get("class_names")
    parts = {part: (one["images"], one["labels"]) for part, one in parts.items()}
    return from_arrays(parts, options, class_names=class_names, notes=notes, seed=options.seed)


def opened(path, name):
    """The archive as a `ZipFile`; UserError where it is missing, broken or something else."""
    if not path.is_file():
        right = layout.other_prefix(path) if path.is_dir() else ""
        raise UserError(f"{name}: there is no file {readable(path)}{right}")
    try:
        with open(path, "rb") as file:
            head = file.read(len(MAGIC))
        if head == MAGIC:
            raise UserError(
                f"{name}: it holds one array and is no archive; np.savez('data.npz', x_train=..., "
                "y_train=...) writes one"
            )
        if head[: len(ZIP)] != ZIP:
            raise zipfile.BadZipFile("File is not a zip file")
        return zipfile.ZipFile(path)
    except UserError:
        raise
    except Exception as error:  # damaged archives raise many kinds of errors
        raise _broken(name, error) from error


def names_in(archive) -> dict:
    """`{name: entry}` of an archive, names as NumPy gives them, without `.npy`."""
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


def chosen_keys(keys, name):
    """Which arrays are read.

    Args:
        keys: Names of arrays.
        name: Of the data set.

    Returns:
        `{key: (part, "images" or "labels")}`, with the class names as `("", "class_names")`, and
        the other keys.
    """
    places = {}
    for key in keys:
        if place := _place(key):
            places.setdefault(place, []).append(key)
    if not any(part == "train" for part, _ in places):
        places = {(part or "train", kind): found for (part, kind), found in places.items()}
    places = {place: found for place, found in places.items() if place[0]}
    for (part, kind), found in places.items():
        if len(found) > 1:
            raise UserError(
                f"{name}: {' and '.join(found)} are both the {kind} of the {part} part; leave one"
            )
        if any((part, other) not in places for other in KINDS):
            raise UserError(
                f"{name} must have both images and labels of the {part} part (x_{part} and "
                f"y_{part}), but has only {found[0]}"
            )
    if ("train", "images") not in places:
        raise UserError(
            f"{name} must have x_train and y_train, or image and label; "
            f"it holds {', '.join(keys) or 'nothing'}"
        )
    chosen = {found[0]: place for place, found in places.items()}
    named = next((key for key in CLASS_NAMES if key in keys), None)
    if named:
        chosen[named] = ("", "class_names")
    return chosen, [key for key in keys if key not in chosen]


def _place(key):
    """`(part or "", "images" or "labels")` that a name stands for, or None."""
    words = [word for word in re.split(r"[_\-. ]", key.casefold()) if word]
    parts = [layout.part_of(word) for word in words if layout.part_of(word)]
    kinds = [kind for word in words for kind, names in KINDS.items() if word in names.split()]
    if len(kinds) != 1 or len(parts) + len(kinds) != len(words) or len(parts) > 1:
        return None
    return (parts or [""])[0], kinds[0]


def shown_header(archive, entry, key) -> str:
    """An array that is not read: its name, shape and type."""
    try:
        with archive.open(entry) as file:
            shape, dtype = archives.array_header(file)
        return f"{readable(key)} {shape} {dtype}"
    except Exception:  # as above
        return f"{readable(key)} (no array)"


def read_array(archive, entry, name):
    """An array of an archive.

    Raises:
        UserError: It is broken, holds objects, or is not as large as its header says.
    """
    try:
        return archives.read_array(archive, entry)
    except Exception as error:  # as above
        raise _broken(name, error, f"{readable(entry.filename)}: ") from error


def _broken(name, error, what=""):
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{name}: not a readable .npz file ({what}{reason})")
