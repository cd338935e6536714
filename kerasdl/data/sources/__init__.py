"""Data sets by name: what a name means, and how it is divided into training, validation and test.

Every source ends in three `Split`s of random access. `open_source` is the only door; each kind of
source has a file of its own beside this one.
"""

import importlib
import os

import numpy as np
import tensorflow as tf

from kerasdl.columns import PIXELS
from kerasdl.data import proposals, summary, wanted
from kerasdl.data.images import SQUASH, Fit, to_float
from kerasdl.data.sources import layout
from kerasdl.data.splits import Options, Source, Split, evenly
from kerasdl.data.text import tokenizer as tokenizers
from kerasdl.errors import UserError
from kerasdl.system.names import nearest

__all__ = ["Source", "Split", "from_recipe", "input_statistics", "open_source"]

# Each module has `load(where, options) -> Source`, and `GIVES`, the columns `{name: kind}` that it
# can give, or None where the task decides; with some arguments it gives `MORE[argument]` too.
NAMES = tuple(
    "digits synthetic folder csv npz idx masks coco voc digit_rows photos scenes python_docs text "
    "dates pairs tfds".split()
)
PATHS = {
    "folder": "PATH",
    "csv": "FILE",
    "npz": "PATH",
    "idx": "FOLDER",
    "masks": "FOLDER",
    "coco": "FOLDER",
    "voc": "FOLDER",
    "text": "FILE_OR_FOLDER",
    "pairs": "FILE_OR_FOLDER",
    "tfds": "NAME",
}
# By the name and the seed
GENERATED = ("digits", "digit_rows", "photos", "synthetic", "scenes", "dates")
MADE = ("synthetic", "scenes")  # at any size
TABLES = ("csv", "pairs")  # whose columns can be named
STATISTICS_IMAGES = 2000  # of a split that is read from files


def open_source(
    name,
    *,
    image_size=(),
    fit=SQUASH,
    val_split=0.1,
    data_dir=None,
    skip_bad_files=False,
    seed=0,
    task=None,
    tokenizer=None,
    vocab_size=None,
    max_length=None,
    info=None,
    columns=(),
    division=None,
    pretrained=None,
) -> Source:
    """Open a data set by name.

    Args:
        name: `digits`, `digit_rows`, `photos`, `photos:size=64`, `photos:classes=pictures`,
            `synthetic`, `scenes`, `scenes:colors=6`, `scenes:digits=1`, `scenes:digits=2`,
            `scenes:colors=6,digits=1`, `scenes:colors=6,digits=2`, `folder:PATH`, `csv:FILE`,
            `npz:PATH`, `idx:FOLDER`, `masks:FOLDER`, `coco:FOLDER`, `voc:FOLDER`, `python_docs`,
            `text:FILE_OR_FOLDER`, `dates`, `pairs:FILE_OR_FOLDER`, `tfds:NAME[:config]` or any
            other TFDS name.
        image_size: Size that images are resized to: `()` keeps theirs; `(side,)` or
            `(height, width)`.
        fit: How images come to that size, a `kerasdl.data.images.Fit`.
        val_split: Fraction of the training examples held out where there is no validation part.
        data_dir: Where TFDS keeps its data.
        skip_bad_files: Leave out unreadable images and texts instead of refusing.
        seed: Of random divisions, and of `synthetic`, `scenes` and `dates`.
        task: A task, or its class, whose specs say which columns are wanted; all if None.
        tokenizer: Kind of the tokenizer of texts; None for the data's default.
        vocab_size: Maximum size of its vocabulary, or None.
        max_length: Maximum tokens of a window of text, or of a source and a target; or None.
        info: The `DataInfo` of an earlier run, whose tokenizer and `max_length` are then used;
            or None.
        columns: Columns of a table that are read, by name or number: of csv path and label, of
            pairs source and target.
        division: `{relative path: part}` of an earlier run: these files keep their part, new ones
            join training; or None.
        pretrained: The tokenizer of weights that training starts from, as JSON, or None; texts are
            then read by it, where `info` has none.

    Raises:
        UserError: An unknown name, missing or broken files, or data without the columns.
    """
    kind, _, where = str(name).partition(":")
    if kind not in NAMES:
        _check_is_no_path(str(name))
        if where:
            raise UserError(
                f"unknown data set {name!r}{nearest(kind, NAMES)}; it must be one of "
                f"{', '.join(names())}"
            )
        kind, where = "tfds", kind
    if kind in PATHS and not where:
        what = "name" if kind == "tfds" else "path"
        more = f"; the set of TFDS is tfds:{kind}" if kind in ("coco", "voc") else ""
        raise UserError(f"{kind} needs a {what}: {kind}:{PATHS[kind]}{more}")
    if columns and kind not in TABLES:
        raise UserError(f"--columns applies to {' and '.join(TABLES)} only; {name} is no table")
    if kind in PATHS and kind != "tfds":
        where = os.path.expanduser(where)
    size = tuple(int(side) for side in image_size)
    if len(size) > 2 or any(side < 1 for side in size):
        raise UserError(
            f"--image-size {size}: must be one side, or a height and a width, each 1 or more"
        )
    size = size * 2 if len(size) == 1 else size
    module = _module(kind)
    if module.GIVES is not None:
        more = getattr(module, "MORE", {}).get(where, {})
        _check_fits(name, module.GIVES | more, task)
    if tokenizer is not None and tokenizer not in tokenizers.KINDS:
        raise UserError(
            f"--tokenizer {tokenizer}: not one of {', '.join(tokenizers.KINDS)}"
            f"{nearest(tokenizer, tokenizers.KINDS)}"
        )
    options = Options(
        name=str(name),
        image_size=size,
        fit=fit,
        val_split=val_split,
        data_dir=data_dir,
        skip_bad_files=skip_bad_files,
        seed=seed,
        task=task,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        max_length=max_length,
        info=info,
        columns=tuple(columns),
        division=division,
        pretrained=pretrained,
    )
    try:
        source = module.load(where, options)
    except UserError as error:
        if kind == "tfds" and where == name and (right := layout.prefix_of(name)):
            raise UserError(f"{error}; for what is here, give {right}") from error
        raise
    _check_fits(name, wanted.kinds(source.info.columns), task)
    _check_used(options, source.info)
    source.generated = kind in GENERATED
    source.notes = (*source.notes, *summary.notes(source.info, source.parts))
    return source


def names(task=None) -> list[str]:
    """The sources that have what a task needs, or all, as they are typed."""
    given = {name: _module(name).GIVES for name in NAMES} if task else dict.fromkeys(NAMES)
    return [
        f"{name}:{PATHS[name]}" if name in PATHS else name
        for name, columns in given.items()
        if columns is None or wanted.fits(columns, task)
    ]


def needs_of(task) -> str:
    """The columns that a task needs, and the sources that have them, in words."""
    columns = wanted.describe(wanted.kinds(wanted.needed(task)))
    return f"the model's task needs {columns}, as in {', '.join(names(task))}"


def _check_is_no_path(name):
    """UserError where a data set's name is a path without a prefix."""
    path = os.path.expanduser(name)
    right = layout.prefix_of(path)
    ending = os.path.splitext(name)[1].lower() in layout.PREFIXES
    typed = ending or os.sep in name.rstrip(os.sep) or name.endswith(os.sep) or name in (".", "..")
    if right and typed:
        raise UserError(f"--dataset {name}: give {right}, since a path needs a prefix")
    if ":" not in name and (ending or name.startswith(("./", "../", "/", "~"))):
        what = "is no file of a known kind" if os.path.exists(path) else "does not exist"
        raise UserError(f"--dataset {name}: {what}; it must be one of {', '.join(names())}")


def _module(name):
    return importlib.import_module(f"kerasdl.data.sources.{name}")


def _check_fits(name, given, task):
    """UserError where columns `{name: kind}` lack what a task needs."""
    if not wanted.fits(given, task):
        raise UserError(f"{name} has {wanted.describe(given)}, but {needs_of(task)}")


def _check_used(options, info):
    """UserError where a setting does not apply to the data."""
    settings = {
        "--image-size": (options.image_size, info.first(*PIXELS, "mask", "instances")),
        "--tokenizer": (options.tokenizer, info.tokenizer),
        "--vocab-size": (options.vocab_size, info.tokenizer),
        "--max-length": (options.max_length, info.max_length),
    }
    for name, (value, used) in settings.items():
        if value and used is None:
            kind = "images" if name == "--image-size" else "text"
            raise UserError(f"{name} applies to {kind} only; {options.name} has no {kind}")
    if options.fit != SQUASH:
        kind = options.name.partition(":")[0]
        if kind in MADE or info.first("image") is None:
            has = "makes its images" if kind in MADE else "has none"
            raise UserError(
                f"--resize and --crop-fraction apply to stored images; {options.name} {has}"
            )


def from_recipe(recipe, task, info=None, division=None, pretrained=None) -> Source:
    """The data set that a run's settings name.

    Args:
        recipe: The settings.
        task: The task's class.
        info: The `DataInfo` of a run that is resumed or exported, or None.
        division: Of its files, see `open_source`, or None.
        pretrained: See `open_source`.
    """
    image_size = recipe.image_size
    pixels = info and info.first(*PIXELS)
    if pixels:
        image_size = tuple(pixels.shape[-3:-1])
    source = open_source(
        recipe.dataset,
        image_size=image_size,
        fit=Fit.from_recipe(recipe),
        val_split=recipe.val_split,
        data_dir=recipe.data_dir,
        skip_bad_files=recipe.skip_bad_files,
        seed=recipe.seed,
        task=task,
        tokenizer=None if recipe.tokenizer == "auto" else recipe.tokenizer,
        vocab_size=recipe.vocab_size,
        max_length=recipe.max_length,
        info=info,
        columns=recipe.columns,
        division=division,
        pretrained=pretrained,
    )
    return proposals.added(source, task, recipe)


def input_statistics(split: Split, columns: dict) -> tuple[tuple, tuple]:
    """Mean and standard deviation per channel of a split's images or videos in [0, 1].

    Args:
        split: The training part; of one that is read on demand at most 2,000 evenly spaced examples
            are measured.
        columns: `{name: Column}`; the first one of pixels is measured.

    Returns:
        `(mean, std)`, tuples of floats; a channel that never varies has the deviation 1.
    """
    name = next(name for name, column in columns.items() if column.kind in PIXELS)
    split = split.only([name])
    n = len(split)
    indices = evenly(n, n if split.arrays is not None else STATISTICS_IMAGES)
    count, total, squares = 0, 0.0, 0.0
    for chunk in np.array_split(indices, -(-len(indices) // 256)):
        image = to_float(tf.convert_to_tensor(split.read(chunk)[name])).numpy()
        image = image.reshape(-1, image.shape[-1]).astype(np.float64)
        count += len(image)
        total = total + image.sum(axis=0)
        squares = squares + (image**2).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0.0))
    std = np.where(std < 1e-6, 1.0, std)
    return tuple(map(float, mean)), tuple(map(float, std))
