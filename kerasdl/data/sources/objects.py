"""Images with objects in them, as annotations in files say: what `coco:` and `voc:` share."""

import copy
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from kerasdl.columns import ABSENT, VOID, Column, DataInfo
from kerasdl.data import reading, wanted
from kerasdl.data.images import read
from kerasdl.data.placing import Placed
from kerasdl.data.reading import readable
from kerasdl.data.runs import Runs, changes
from kerasdl.data.sources.folder import (
    MEMORY_BYTES,
    common_shape,
    decode_all,
    divide_files,
    headers_of,
)
from kerasdl.data.sources.masks import refuse_or_note
from kerasdl.data.splits import ArraySplit, FileSplit, Split, make_source

GIVES = {
    "image": "image",
    "mask": "mask",
    "instances": "instances",
    "boxes": "boxes",
    "labels": "label",
    "valid": "valid",
    "crowd": "valid",
}
MAX_OBJECTS = 100  # of one image; COCO's metrics look at as many detections
BESIDE = 0.5  # pixels that a box may reach beyond the picture without a note
KEPT = 0.1  # fraction of a box that `--resize crop` must leave of an object
BACKGROUND = "background"
NOT_LEARNED = "not learned, and detections of them do not count"  # of a note


@dataclass
class Object:
    """One object of a picture.

    Attributes:
        label: Number of its class.
        box: `ymin xmin ymax xmax` in pixels, 0 and the height where the picture begins and ends.
        crowd: Whether it is not learned, and detections of it are neither right nor wrong.
        shape: What `drawn` of `load` draws it from, or None.
    """

    label: int
    box: tuple
    crowd: bool = False
    shape: object = None


@dataclass
class Picture:
    """An image file and what is said of it.

    Attributes:
        path: Of the file.
        name: Path from the data set's folder.
        objects: `Object`s.
        size: `(height, width)` that was annotated, or None.
        mask: Path of a mask of its classes, or None.
        shapes: Path of a mask of its objects, or None.
        caption: Bytes, or None.
    """

    path: str
    name: str
    objects: list = field(default_factory=list)
    size: tuple | None = None
    mask: str | None = None
    shapes: str | None = None
    caption: bytes | None = None


class Told:
    """Lines of what is left out or changed, by kind, each with a count and the first."""

    def __init__(self):
        self._kinds = {}

    def add(self, line, first):
        """Count one; `line` has a place `{}` for the count."""
        count, earlier = self._kinds.get(line, (0, first))
        self._kinds[line] = count + 1, earlier

    def notes(self) -> list[str]:
        """The lines."""
        return [
            f"{line.format(count)}, the first {readable(first)}"
            for line, (count, first) in self._kinds.items()
        ]


def load(parts, class_names, drawn, options, wrong, told, notes, columns):
    """A source of pictures with objects.

    Args:
        parts: `{part: [Picture]}`, with `train`.
        class_names: Of the objects.
        drawn: `(Picture, Placed, names of the columns of masks that are wanted) -> (semantic mask,
            [mask of each object or None])`, at the model's size; raises `ValueError` with what is
            wrong.
        options: Of `open_source`.
        wrong: `{what is wrong: [(path, detail)]}` of images that cannot be used.
        told: A `Told`.
        notes: Further lines.
        columns: Names of the columns that there are.

    Returns:
        A `Source`. Up to 512 MiB of images and masks lie in memory; of more, images are read when
        they are needed, and masks lie in memory as runs.
    """
    parts = _once(parts, told)
    pictures = [picture for of_part in parts.values() for picture in of_part]
    paths = [picture.path for picture in pictures]
    headers = headers_of(paths)
    usable = np.ones(len(pictures), bool)

    def unusable(i, reason, detail=""):
        wrong.setdefault(reason, []).append((paths[i], detail))
        usable[i] = False

    for i, (picture, header) in enumerate(zip(pictures, headers, strict=True)):
        if isinstance(header, str):
            unusable(i, "cannot be read", header)
        elif picture.size and tuple(picture.size) != tuple(header[:2]):
            sizes = f"{header[0]} x {header[1]}, not {picture.size[0]} x {picture.size[1]}"
            unusable(i, "have another size than was annotated", sizes)
    if not usable.any():
        refuse_or_note(wrong, 0, options)
    good = np.flatnonzero(usable)
    shape = common_shape([headers[i] for i in good], [paths[i] for i in good], options)
    names = wanted.used({name: GIVES.get(name, "text") for name in columns}, options.task)

    place = [None] * len(pictures)
    for i in good:
        place[i] = Placed(tuple(headers[i][:2]), tuple(shape[:2]), options.fit)
        keep_visible(pictures[i], place[i], told)
    count = max([1, *(len(pictures[i].objects) for i in good)])
    masks = _masks(pictures, place, drawn, names, count, shape, unusable, told)
    size = sum(_bytes_of(name, count, shape) for name in names) * len(good)
    images = None
    if size <= MEMORY_BYTES or options.skip_bad_files:
        skipped = ~usable
        if size <= MEMORY_BYTES:
            images, bad = decode_all(paths, skipped, shape, options.fit)
        else:
            bad = _undecodable(paths, skipped, shape, options.fit)
        for i in np.flatnonzero(bad & usable):
            unusable(i, "cannot be decoded")
    notes = [*notes, *refuse_or_note(wrong, int(usable.sum()), options)]

    rows = small_rows(pictures, place, count)
    runs = {name: Runs(of, _shape(name, count, shape), _DTYPES[name]) for name, of in masks.items()}
    files, number = {}, 0
    for part, of_part in parts.items():
        files[part] = {}
        for picture in of_part:
            annotated = _annotated(picture, number, runs)
            files[part][picture.name] = (os.path.abspath(picture.path), annotated)
            number += 1
    divided = divide_files(files, None, (), usable, options, notes)
    splits = {}
    for part, chosen in divided.items():
        own = {name: value[chosen] for name, value in rows.items() if name in names}
        if images is None:
            rows_of = {name: (one, one.rows(chosen)) for name, one in runs.items()}
            split = ObjectsSplit([paths[i] for i in chosen], shape, options.fit, own, rows_of)
        else:
            own |= {name: one.array(chosen) for name, one in runs.items()}
            split = ArraySplit({"image": images[chosen], **own})
        splits[part] = split
    of_masks = (BACKGROUND, *class_names)
    every = {
        "image": Column("image", shape),
        "mask": Column("mask", shape[:2], of_masks),
        "instances": Column("instances", (count, *shape[:2])),
        "boxes": Column("boxes", (count, 4)),
        "labels": Column("label", (count,), tuple(class_names)),
        "valid": Column("valid", (count,)),
        "crowd": Column("valid", (count,)),
        "caption": Column("text"),
    }
    info = DataInfo({name: every[name] for name in columns})
    entries = {name: entry for of_part in files.values() for name, entry in of_part.items()}
    order = [picture.name for picture in pictures]
    files = {
        part: {order[i]: entries[order[i]] for i in chosen} for part, chosen in divided.items()
    }
    return make_source(options, splits, info, [*notes, *told.notes()], files=files)


_DTYPES = {"mask": np.int32, "instances": np.uint8}


def _once(parts, told):
    """The parts without images that an earlier part has."""
    seen, result = set(), {}
    for part, of_part in parts.items():
        result[part] = [picture for picture in of_part if picture.name not in seen]
        for picture in of_part:
            if picture.name in seen:
                told.add(f"left out {{}} images of the {part} part that another has", picture.name)
        seen |= {picture.name for picture in result[part]}
    return result


def _shape(name, count, shape):
    """Of one example of a column of masks or pixels; others are small."""
    sizes = {"image": shape, "mask": shape[:2], "instances": (count, *shape[:2])}
    return sizes.get(name, ())


def _bytes_of(name, count, shape):
    return int(np.prod(_shape(name, count, shape))) * np.dtype(_DTYPES.get(name, np.uint8)).itemsize


def clipped(objects, size, where, told):
    """The `Object`s that have an area in a picture, their boxes clipped to it.

    Args:
        objects: `Object`s whose boxes are any numbers.
        size: `(height, width)` of the picture.
        where: Of the picture, for notes.
        told: A `Told`.
    """
    bounds, kept = np.tile(size, 2), []
    for one in objects:
        box = np.array(one.box, np.float64)
        if not np.isfinite(box).all():
            told.add("left out {} objects whose box is no four numbers", where)
            continue
        inside = np.clip(box, 0, bounds)
        if (box[2:] <= box[:2]).any():
            told.add("left out {} objects of no area", where)
        elif (inside[2:] <= inside[:2]).any():
            told.add("left out {} objects outside of their images", where)
        else:
            if np.abs(inside - box).max() > BESIDE:
                told.add("{} boxes that reach beyond their images are clipped to them", where)
            one.box = tuple(inside.tolist())
            kept.append(one)
    return kept


def keep_visible(picture, place, told):
    """Leave of a picture the objects with an area in it and at the model's size, the largest ones
    where there are too many.

    Args:
        picture: A `Picture`, which is changed.
        place: Its `Placed`.
        told: A `Told`.
    """
    objects = clipped(picture.objects, place.size, picture.name, told)
    boxes = place.boxes([one.box for one in objects])
    inside = np.clip(boxes, 0, 1)
    areas, seen = ((b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, inside))
    visible = seen >= KEPT * areas
    for _ in np.flatnonzero(~visible):
        told.add(
            f"left out {{}} objects of which --resize leaves less than {KEPT:.0%}", picture.name
        )
    chosen = np.flatnonzero(visible)
    if len(chosen) > MAX_OBJECTS:
        largest = np.argsort(-areas[chosen], kind="stable")[:MAX_OBJECTS]
        for _ in range(len(chosen) - MAX_OBJECTS):
            told.add(
                f"left out {{}} objects, the smallest of images with over {MAX_OBJECTS}",
                picture.name,
            )
        chosen = np.sort(chosen[largest])
    picture.objects = [objects[i] for i in chosen]


def small_rows(pictures, place, count):
    """`{column: array}` of all that is small; empty rows for pictures that are not used.

    Args:
        pictures: `Picture`s.
        place: `Placed` of each, or None where it is not used.
        count: Rows of objects.
    """
    n = len(pictures)
    rows = {
        "boxes": np.zeros((n, count, 4), np.float32),
        "labels": np.full((n, count), ABSENT, np.int32),
        "valid": np.zeros((n, count), bool),
        "crowd": np.zeros((n, count), bool),
        "caption": np.array([picture.caption or b"" for picture in pictures], object),
    }
    for i, picture in enumerate(pictures):
        if not picture.objects or place[i] is None:
            continue
        own = i, slice(len(picture.objects))
        boxes = place[i].boxes([one.box for one in picture.objects])
        rows["boxes"][own] = np.clip(boxes, 0, 1)
        rows["labels"][own] = [one.label for one in picture.objects]
        rows["crowd"][own] = [one.crowd for one in picture.objects]
        rows["valid"][own] = ~rows["crowd"][own]
    return rows


def _masks(pictures, place, drawn, names, count, shape, unusable, told):
    """`{column: [changes of each picture]}` of those columns of masks that are wanted."""
    kinds = [name for name in _DTYPES if name in names]
    masks = {name: [changes(np.zeros(0))] * len(pictures) for name in kinds}
    for i in [i for i in range(len(pictures)) if kinds and place[i] is not None]:
        picture = pictures[i]
        try:
            semantic, each = drawn(picture, place[i], kinds)
        except ValueError as error:
            unusable(i, str(error), readable(picture.mask or ""))
            continue
        for _ in range(sum(mask is None for mask in each)):
            told.add("{} objects without a shape have that of their box", picture.name)
        if "mask" in kinds:
            masks["mask"][i] = changes(semantic)
        if "instances" in kinds:
            rows = min(len(picture.objects) + 1, count)  # what follows is 0 too
            instances = np.zeros((rows, *shape[:2]), bool)
            for row, one, mask in zip(instances, picture.objects, each, strict=False):
                row[:] = filled(one, place[i]) if mask is None or not mask.any() else mask
            masks["instances"][i] = changes(instances)
    return masks


def filled(one, place):
    """The box of an `Object` as a mask at the model's size, of one pixel or more."""
    height, width = place.image_size
    box = place.boxes([one.box])[0] * [height, width, height, width]
    first, last = np.rint(box[:2]).astype(int), np.rint(box[2:]).astype(int)
    first = np.clip(first, 0, [height - 1, width - 1])
    last = np.maximum(last, first + 1)
    mask = np.zeros((height, width), bool)
    mask[first[0] : last[0], first[1] : last[1]] = True
    return mask


def painted(objects, masks, size):
    """A semantic mask: 0 where nothing is, the class and 1 where an object is, and `VOID` where
    only a crowd is. The smallest of several objects is on top."""
    result = np.zeros(size, np.int32)
    order = sorted(
        (i for i in range(len(objects)) if masks[i] is not None),
        key=lambda i: (not objects[i].crowd, -int(masks[i].sum())),
    )
    for i in order:
        result[masks[i]] = VOID if objects[i].crowd else objects[i].label + 1
    return result


def _annotated(picture, number, runs):
    """A text that tells the annotations of a picture from others."""
    content = [(one.label, one.box, one.crowd) for one in picture.objects]
    digest = hashlib.blake2b(repr((content, picture.caption)).encode(), digest_size=8)
    for one in runs.values():
        digest.update(one.digest_of(number))
    return f"{len(content)} object{'s' * (len(content) != 1)} ({digest.hexdigest()})"


def _undecodable(paths, skip, shape, fit):
    """bool `(n,)`: which files cannot be decoded."""
    bad = np.zeros(len(paths), bool)

    def one(i):
        bad[i] = reading.first_unreadable([os.fsencode(paths[i])], pixels) is not None

    def pixels(path):
        return read(tf.io.read_file(path), shape, fit)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, np.flatnonzero(~skip)))
    return bad


class ObjectsSplit(Split):
    """A split of image files and their objects, decoded when they are first needed.

    Args:
        paths: Of the files.
        image_shape: `(H, W, C)` after resizing.
        fit: How the images come to that size.
        rows: `{column: array (n, ...)}` of what is in memory.
        runs: `{column: (Runs, int64 (n, 2))}` of masks, and of each its row.
    """

    def __init__(self, paths, image_shape, fit, rows, runs):
        self.files = FileSplit(paths, None, image_shape, fit)
        self.files.advice = "cannot be read; --skip-bad-files leaves it out"
        self.rows, self.runs, self.with_images = rows, runs, True

    def __len__(self):
        return len(self.files)

    def columns(self):
        rows = self.rows | {name: own for name, (_, own) in self.runs.items()}
        return rows | (self.files.columns() if self.with_images else {})

    def load(self, rows):
        for name, (runs, _) in self.runs.items():
            spec = tf.TensorSpec(runs.shape, runs.dtype)
            rows = rows | {name: tf.map_fn(runs.decoded, rows[name], fn_output_signature=spec)}
        return self.files.load(rows) if self.with_images else rows

    def only(self, names):
        split = copy.copy(self)
        split.rows = {name: value for name, value in self.rows.items() if name in names}
        split.runs = {name: pair for name, pair in self.runs.items() if name in names}
        split.with_images = "image" in names
        return split
