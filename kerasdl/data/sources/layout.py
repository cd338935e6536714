"""Folders as people have them: which entries are examples, where the parts are, and what is left
out, of which there is a note each."""

import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

from kerasdl.data.reading import readable
from kerasdl.errors import UserError

PARTS = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid", "dev"),
    "test": ("test", "testing"),
}
_PART_OF = {name: part for part, names in PARTS.items() for name in names}
SYSTEM = ("__macosx", "thumbs.db", "desktop.ini")
MAX_DEPTH = 64  # levels of folders
MAX_VISITS = 16  # of one folder, by links: links to links could lead on without an end
PREFIXES = {  # of the data set in a file, by its ending
    **dict.fromkeys((".csv",), "csv"),
    **dict.fromkeys((".npz", ".npy"), "npz"),
    **dict.fromkeys((".tsv",), "pairs"),
    **dict.fromkeys((".txt", ".md", ".text"), "text"),
}


def part_of(name) -> str | None:
    """The part that a folder's name, or a value of a column, stands for in any case, or None."""
    return _PART_OF.get(str(name).strip().casefold())


def part_in(name) -> str | None:
    """The part that a word in a name stands for, `validation` of `instances_val2017`, or None."""
    words = re.findall(r"[^\W\d_]+", str(name))
    return next((part for word in words if (part := part_of(word))), None)


def natural(text):
    """A key that sorts texts with the numbers in them by their value."""
    return [
        (0, int(word), "") if word.isdecimal() else (1, 0, word)
        for word in re.split(r"(\d+)", text)
        if word
    ], text


def prefix_of(path) -> str | None:
    """How a file or folder that is there is given as a data set, `folder:PATH`, say, or None."""
    if not os.path.exists(path):
        return None
    if os.path.isdir(path):
        names = _names(path)
        if any("-images" in name and "idx3" in name for name in names):
            return f"idx:{path}"
        folded = {name.casefold() for name in names}
        if {"images", "masks"} <= folded:
            return f"masks:{path}"
        if {"jpegimages", "annotations"} <= folded:
            return f"voc:{path}"
        inside = [path, *(os.path.join(path, n) for n in names if n == "annotations" or part_of(n))]
        if any(
            _is_coco(name) for folder in filter(os.path.isdir, inside) for name in _names(folder)
        ):
            return f"coco:{path}"
        for kind, endings in (("text", (".txt", ".md")), ("pairs", (".tsv",))):
            if names and all(name.lower().endswith(endings) for name in names):
                return f"{kind}:{path}"
        return f"folder:{path}"
    kind = PREFIXES.get(os.path.splitext(path)[1].lower())
    return kind and f"{kind}:{path}"


def _names(folder):
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _is_coco(name):
    return name.lower().endswith(".json") and ("annotations" in name or "instances" in name)


def other_prefix(path) -> str:
    """What a message adds where a path is of another kind: `; give csv:x.csv`, say."""
    right = prefix_of(path)
    return f"; give {right}" if right else ""


class LeftOut:
    """What is not read of a folder, by reason.

    Args:
        root: The folder; examples are named from here.
    """

    def __init__(self, root):
        self.root = os.fspath(root)
        self._entries = {}  # {reason: [paths]}

    def add(self, reason, path):
        """Note one entry; `reason` continues "left out 3 ..."."""
        self._entries.setdefault(reason, []).append(os.fspath(path))

    def notes(self) -> list[str]:
        """A line for each reason, with the count and the first entry."""
        lines = []
        for reason, paths in self._entries.items():
            first = readable(os.path.relpath(paths[0], self.root))
            kinds = ""
            if reason == OTHER_FILES:
                endings = Counter(os.path.splitext(p)[1].lower() or "without ending" for p in paths)
                kinds = " (" + ", ".join(f"{n} {k}" for k, n in endings.most_common(10)) + ")"
            lines.append(f"left out {len(paths)} {reason}{kinds}, the first {first}")
        return lines


OTHER_FILES = "files of other types"
HIDDEN = "hidden or system files and folders"
LOOPS = "links that lead back into folders already read"
BROKEN = "broken links"
SPECIAL = "entries that are neither files nor folders"
UNREADABLE = "folders that cannot be read"
DEEP = f"folders more than {MAX_DEPTH} levels deep"
EMPTY = "folders without images"


@dataclass
class Folder:
    """A folder and what is in it.

    Attributes:
        path: Of the folder.
        files: Names of the examples directly in it, sorted.
        folders: The folders in it, by name.
        count: Examples at any depth.
    """

    path: str
    files: list[str] = field(default_factory=list)
    folders: list["Folder"] = field(default_factory=list)
    count: int = 0

    @property
    def name(self) -> str:
        """The last part of its path."""
        return os.path.basename(self.path)

    @property
    def holding(self) -> list["Folder"]:
        """The folders in it that hold examples."""
        return [folder for folder in self.folders if folder.count]

    def paths(self) -> list[str]:
        """The paths of all examples at any depth, sorted by their folders' names and theirs."""
        found, waiting = [], [self]
        while waiting:
            folder = waiting.pop()
            found += [os.path.join(folder.path, name) for name in folder.files]
            waiting += folder.folders
        return sorted(found, key=lambda path: path.split(os.sep))


def read_tree(root, formats, left, skip_bad=False) -> Folder:
    """A folder with all that is in it; links are followed.

    Args:
        root: Path of the folder.
        formats: Endings of the examples, with their dots, in lower case.
        left: A `LeftOut` that is told of all other entries.
        skip_bad: Whether folders that cannot be read are left out instead of refused.

    Raises:
        UserError: A folder cannot be read.
    """
    visits, above = Counter(), set()
    path = os.path.realpath(root)
    while True:  # a link to a folder above would lead around in a circle
        above.add(_identity(path))
        if path == os.path.dirname(path):
            break
        path = os.path.dirname(path)

    def read(path, above, depth):
        folder = Folder(path)
        try:
            with os.scandir(path) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if not skip_bad:
                raise UserError(f"{readable(path)}: {error.strerror}") from error
            left.add(UNREADABLE, path)
            return folder
        for entry in entries:
            name = entry.name
            if name.startswith(".") or name.casefold() in SYSTEM:
                left.add(HIDDEN, entry.path)
            elif _is(entry.is_dir):
                key = _identity(entry.path)
                visits[key] += 1
                if key in above or visits[key] > MAX_VISITS:
                    left.add(LOOPS, entry.path)
                elif depth == MAX_DEPTH:
                    left.add(DEEP, entry.path)
                else:
                    folder.folders.append(read(entry.path, above | {key}, depth + 1))
            elif not _is(entry.is_file):
                broken = entry.is_symlink() and not os.path.exists(entry.path)
                left.add(BROKEN if broken else SPECIAL, entry.path)
            elif os.path.splitext(name)[1].lower() in formats:
                folder.files.append(name)
            else:
                left.add(OTHER_FILES, entry.path)
        folder.count = len(folder.files) + sum(f.count for f in folder.folders)
        return folder

    return read(os.fspath(root), above, 0)


def _is(method):
    try:
        return method()
    except OSError:  # a link to itself
        return False


def _identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


def unwrapped(folder, within_part=False) -> Folder:
    """The folder inside that holds the data set, where each of the others around it only holds
    one folder with examples, and that one none of its own."""
    while not folder.files and len(folder.holding) == 1:
        inner = folder.holding[0]
        if inner.files or (part_of(inner.name) and not within_part):
            break
        folder = inner
    return folder


def part_folders(folder, name) -> dict[str, Folder]:
    """`{part: Folder}` of the folders that are named as parts; empty where none is for training.

    Args:
        folder: The data set's.
        name: What an error message calls the data set.

    Raises:
        UserError: Two folders with examples are the same part, or there are parts alone and none
            of them is for training.
    """
    parts = {}
    for inner in folder.folders:
        if part := part_of(inner.name):
            parts.setdefault(part, []).append(inner)
    for part, found in parts.items():
        holding = [inner for inner in found if inner.count]
        if len(holding) > 1:
            names = " and ".join(inner.name for inner in holding)
            raise UserError(f"{name}: the folders {names} are both the {part} part; leave one")
        parts[part] = (holding or found)[0]
    others = [inner for inner in folder.holding if not part_of(inner.name)]
    if "train" not in parts:
        if any(inner.holding or (inner.count and not others) for inner in parts.values()):
            names = ", ".join(inner.name for inner in parts.values())
            raise UserError(f"{name}: there is no folder train for the training part, but {names}")
        return {}
    train = parts["train"]
    if len(parts) == 1 and train.files and not train.holding and others:
        return {}  # a class of trains
    return parts


def joined_names(parts, notes) -> dict:
    """One name for each class, however its folders spell it.

    Names that are the same in Unicode's form NFC are one class, and so are names of different
    parts that differ in upper and lower case alone. Where one part has both of these, they are two.

    Args:
        parts: `{part: names}`.
        notes: Told of what is joined.

    Returns:
        `{name: class name}`.
    """
    form = {n: unicodedata.normalize("NFC", readable(n)) for names in parts.values() for n in names}
    for names in parts.values():
        spelled = Counter(form[name] for name in set(names))
        for name in sorted(n for n, count in spelled.items() if count > 1):
            notes.append(f"joined folders that are one class in Unicode's form NFC: {name}")
    groups = {}
    for part, names in parts.items():
        for name in sorted({form[name] for name in names}):
            groups.setdefault(name.casefold(), {}).setdefault(name, set()).add(part)
    final = {}
    for spellings in groups.values():
        words = ", ".join(spellings)
        counts = Counter(part for found in spellings.values() for part in found)
        apart = max(counts.values()) > 1
        if len(spellings) > 1:
            what = "are classes of their own" if apart else f"joined as {next(iter(spellings))}"
            notes.append(f"class names that differ in upper and lower case alone: {words}; {what}")
        final |= {name: name if apart else next(iter(spellings)) for name in spellings}
    return {name: final[short] for name, short in form.items()}
