"""What every source is made of: random-access splits, their checks, and their division."""

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from kerasdl.columns import PARTS, DataInfo
from kerasdl.data import fingerprint, reading, wanted
from kerasdl.data.images import SQUASH, Fit, is_plain, read
from kerasdl.data.kept import Kept
from kerasdl.errors import UserError


@dataclass(frozen=True)
class Options:
    """The arguments of `open_source`, checked; `image_size` is `()` or `(height, width)`,
    `division` is `{relative path: part}` of an earlier run: these files keep their part, new ones
    join training; `pretrained` is the tokenizer of initial weights, as JSON."""

    name: str
    image_size: tuple = ()
    fit: Fit = SQUASH
    val_split: float = 0.1
    data_dir: str | None = None
    skip_bad_files: bool = False
    seed: int = 0
    task: object = None
    tokenizer: str | None = None
    vocab_size: int | None = None
    max_length: int | None = None
    info: DataInfo | None = None
    columns: tuple = ()
    division: dict | None = None
    pretrained: str | None = None


class Split:
    """One part of a data set: examples by number.

    Attributes:
        arrays: `{column: array}` of the whole part in memory, or None where it is read on demand.
    """

    arrays: dict[str, np.ndarray] | None = None

    def __len__(self):
        raise NotImplementedError

    def columns(self) -> dict[str, np.ndarray]:
        """One row per example: the examples themselves, or what `load` makes them from."""
        raise NotImplementedError

    def load(self, rows: dict) -> dict:
        """A batch of examples from rows of `columns`, in graph operations; keeps other entries,
        `index` and `key` among them."""
        raise NotImplementedError

    def only(self, names) -> "Split":
        """The same examples with no other columns than `names`."""
        return self

    def digest(self) -> str:
        """A digest of the examples, which tells other ones from them."""
        return fingerprint.of_arrays(self.columns())

    def cropped(self, crop) -> "Split | None":
        """The same examples with a random box of each as it is stored, or None where they are not
        stored at a size of their own.

        Args:
            crop: `(key, size) -> box`, see `kerasdl.data.augment.Augment.crop`.
        """
        return None

    def read(self, indices) -> dict[str, np.ndarray]:
        """The examples `indices` `(n,)` as `load` makes them, without a key: nothing is random."""
        indices = np.asarray(indices)
        rows = {name: column[indices] for name, column in self.columns().items()}
        if self.arrays is not None:
            return {name: np.asarray(value) for name, value in self.load(rows).items()}
        with tf.device("CPU:0"), reading.named_errors():
            data = tf.data.Dataset.from_tensors(rows).map(self.load)
            return next(data.as_numpy_iterator())


class ArraySplit(Split):
    """A split that lies in memory.

    Args:
        arrays: `{column: array (n, ...)}`.
    """

    def __init__(self, arrays):
        self.arrays = arrays

    def __len__(self):
        return len(next(iter(self.arrays.values())))

    def columns(self):
        return self.arrays

    def load(self, rows):
        return rows

    def only(self, names):
        return ArraySplit({name: self.arrays[name] for name in names})


class FileSplit(Split):
    """A split of image files that are decoded when they are first needed.

    Args:
        paths: Of the files, `n` strings.
        labels: int32 `(n,)`, or None for images without labels.
        image_shape: `(H, W, C)` after resizing.
        fit: How the images come to that size.
        skip_bad: Whether the next image of its class, or of all where there are none, stands for
            one that cannot be read.
        replaced: `{path: path of what stood for it}`, which is added to; or None.
        classes: int32 `(n,)`; the labels if None.
        crop: Of `cropped`, or None.
        kept: What keeps the pixels that were decoded; a new `Kept` if None.
    """

    def __init__(
        self,
        paths,
        labels,
        image_shape,
        fit=SQUASH,
        skip_bad=False,
        replaced=None,
        classes=None,
        crop=None,
        kept=None,
    ):
        self.paths, self.labels, self.image_shape = list(paths), labels, image_shape
        self.fit, self.crop = fit, crop
        self.skip_bad, self.replaced = skip_bad, {} if replaced is None else replaced
        self.classes = labels if classes is None else classes
        self.kept = kept or Kept(len(self.paths), self.image_shape)
        self._known = []  # once the starts of the files are read
        if not skip_bad:
            reading.watch(self)

    def __len__(self):
        return len(self.paths)

    def columns(self):
        paths = np.array([os.fsencode(p) for p in self.paths])
        rows = {"path": paths, "number": np.arange(len(paths))}
        return rows if self.labels is None else {**rows, "label": self.labels}

    def load(self, rows):
        rows = dict(rows)
        path, number = rows.pop("path"), rows.pop("number")

        def example(path, key=None):
            box = None if self.crop is None else functools.partial(self.crop, key)
            pixels = functools.partial(self._pixels, box=box)
            if not self.skip_bad:
                return pixels(path)
            return reading.guarded(path, pixels, self.image_shape, self._instead)

        def each(function, *columns):
            return tf.map_fn(
                lambda row: function(*row),
                columns,
                fn_output_signature=tf.TensorSpec(self.image_shape, tf.uint8),
                parallel_iterations=os.cpu_count() or 1,
            )

        if self.crop is not None:
            return {**rows, "image": each(example, path, rows["key"])}
        images = self.kept.or_read(number, lambda some: each(example, tf.gather(path, some)))
        return {**rows, "image": images}

    def _pixels(self, path, box=None):
        return read(tf.io.read_file(path), self.image_shape, self.fit, box, self._plain())

    def _plain(self):
        """Whether `read` needs no conditions for any of the files."""
        if not self._known:
            self._known.append(all(map(is_plain, self.paths)))
        return self._known[0]

    def unreadable(self):
        """The first path that cannot be read, or None."""
        return reading.first_unreadable(map(os.fsencode, self.paths), self._pixels)

    def _instead(self, path):
        """The path of the image that stands for another, as bytes."""
        if path in self.replaced:
            return self.replaced[path]
        paths = [os.fsencode(p) for p in self.paths]
        number = paths.index(path)
        same = np.arange(len(paths))
        if self.classes is not None:
            same = np.flatnonzero(self.classes == self.classes[number])
        other = reading.first_readable(
            [paths[i] for i in sorted(same, key=lambda i: (i <= number, i))], self._pixels, path
        )
        self.replaced[path] = other
        return other

    def only(self, names):
        if "label" in names:
            return self
        return self._with(None, self.crop)

    def cropped(self, crop):
        return self._with(self.labels, crop)

    def _with(self, labels, crop):
        more = self.fit, self.skip_bad, self.replaced, self.classes, crop, self.kept
        split = FileSplit(self.paths, labels, self.image_shape, *more)
        split._known = self._known
        return split


class Beside(Split):
    """A split with more columns, which lie in memory.

    Args:
        split: The split.
        arrays: `{column: array (n, ...)}`.
    """

    def __init__(self, split, arrays):
        self.split, self.more = split, arrays
        self.arrays = None if split.arrays is None else {**split.arrays, **arrays}

    def __len__(self):
        return len(self.split)

    def columns(self):
        return {**self.split.columns(), **self.more}

    def load(self, rows):
        return self.split.load(rows)

    def only(self, names):
        more = {name: value for name, value in self.more.items() if name in names}
        return Beside(self.split.only([name for name in names if name not in more]), more)

    def cropped(self, crop):
        split = self.split.cropped(crop)
        return split and Beside(split, self.more)


class Subset(Split):
    """Some examples of a split.

    Args:
        split: The split.
        indices: int `(n,)`.
    """

    def __init__(self, split, indices):
        self.split, self.indices = split, np.asarray(indices)

    def __len__(self):
        return len(self.indices)

    def columns(self):
        return {name: np.asarray(rows)[self.indices] for name, rows in self.split.columns().items()}

    def load(self, rows):
        return self.split.load(rows)

    def only(self, names):
        return Subset(self.split.only(names), self.indices)

    def cropped(self, crop):
        split = self.split.cropped(crop)
        return split and Subset(split, self.indices)

    def read(self, indices):
        return self.split.read(self.indices[np.asarray(indices)])


def evenly(count, maximum):
    """At most `maximum` evenly spread indices below `count`: int `(min(count, maximum),)`."""
    return np.linspace(0, count - 1, min(count, maximum)).round().astype(int)


def split_indices(n, fraction, seed=None, labels=None):
    """Divide the numbers below `n` into two parts.

    Args:
        n: How many numbers.
        fraction: Size of the second part, as a fraction; the part holds at least one number.
        seed: Seed of a random second part; None takes the last numbers.
        labels: int `(n,)`, the classes: a random second part holds this fraction of each as nearly
            as whole numbers allow, and leaves one of each at least; None does not look at them.

    Returns:
        Two sorted int arrays.
    """
    held = min(max(1, round(n * fraction)), n)
    if labels is not None and seed is not None:
        return _stratified(np.asarray(labels), held, seed)
    order = np.arange(n) if seed is None else np.random.default_rng(seed).permutation(n)
    return np.sort(order[: n - held]), np.sort(order[n - held :])


def _stratified(labels, held, seed):
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    _, number, counts = np.unique(labels, return_inverse=True, return_counts=True)
    quota = counts * held / len(labels)
    sizes = np.minimum(np.floor(quota).astype(int), counts - 1)
    ties = 1e-9 * rng.random(len(counts))
    while sizes.sum() < held and (sizes < counts - 1).any():
        sizes[np.argmax(np.where(sizes < counts - 1, quota - sizes + ties, -np.inf))] += 1
    by_class = order[np.argsort(number[order], kind="stable")]
    rank = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    second = rank < np.repeat(sizes, counts)
    return np.sort(by_class[~second]), np.sort(by_class[second])


def rare_classes(labels, class_names, parts) -> list[str]:
    """A note that names the classes with fewer examples than parts, or no note.

    Args:
        labels: int `(n,)`, of all that is divided.
        class_names: One per class.
        parts: How many parts it is divided into.
    """
    counts = np.bincount(labels, minlength=len(class_names))
    rare = [
        f"{class_names[k]} {counts[k]}" for k in np.flatnonzero((counts > 0) & (counts < parts))
    ]
    if not rare:
        return []
    more = f" and {len(rare) - 10} more" if len(rare) > 10 else ""
    return [f"classes with fewer examples than the {parts} parts: {', '.join(rare[:10])}{more}"]


def check_val_split(options):
    """UserError where a validation part must be held out, but `val_split` is 0."""
    if options.val_split <= 0:
        raise UserError(
            f"--val-split {options.val_split}: must be above 0, since {options.name} has no "
            "validation part and a fraction of its training examples is held out"
        )


def check_no_argument(where, options):
    """UserError where something follows the colon of a source that takes no argument."""
    if where:
        name = options.name.partition(":")[0]
        raise UserError(f"{options.name}: {name} takes no argument; write {name}")


def make_source(options, splits, info, notes, baseline=None, files=None):
    """A `Source` of three splits, none of which may be empty, with the columns that the task
    wants; `files` is the source's."""
    names = wanted.used(wanted.kinds(info.columns), options.task)
    info = replace(info, columns={name: info.columns[name] for name in names})
    splits = {part: split.only(names) for part, split in splits.items()}
    for part, split in splits.items():
        if not len(split):
            counts = ", ".join(f"{len(s)} {p}" for p, s in splits.items())
            raise UserError(f"{options.name}: the {part} part holds no examples ({counts})")
    return Source(
        options.name,
        info,
        splits["train"],
        splits["validation"],
        splits["test"],
        tuple(notes),
        baseline,
        files,
    )


@dataclass
class Source:
    """A data set, divided.

    Attributes:
        name: As it was requested.
        info: What its columns are; those of pixels lack mean and deviation, see `input_statistics`.
        train, validation, test: `Split`s, none empty.
        notes: How it was divided and what was left out; for the user to see.
        baseline: Gives a simple method's test metrics, `{"name": ..., metric: value}`; or None.
        files: `{part: {relative path: (absolute path, class name or None)}}` where an example is a
            file, else None.
        replaced: `{path: path}`, as bytes, of files that could not be read so far, and of what
            stood for them.
        generated: Whether the name alone decides what the examples are.
    """

    name: str
    info: DataInfo
    train: Split
    validation: Split
    test: Split
    notes: tuple[str, ...] = ()
    baseline: Callable | None = None
    files: dict | None = None
    replaced: dict = field(default_factory=dict)
    generated: bool = False

    @property
    def parts(self) -> dict:
        """`{part: Split}` of all three."""
        return {part: getattr(self, part) for part in PARTS}

    def replacements(self) -> list[str]:
        """A note of the files that could not be read so far and what stood for them, if any."""
        if not self.replaced:
            return []
        (bad, other), *_ = sorted(self.replaced.items())
        return [
            f"{len(self.replaced)} unreadable images were replaced by others of their classes, "
            f"the first {reading.readable(bad)} by "
            f"{reading.readable(other)}"
        ]
