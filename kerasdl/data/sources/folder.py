"""`folder:PATH`: image files, one sub-folder per class; and what all sources of files share."""

import functools
import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.data import orientation, wanted
from kerasdl.data.images import FORMATS, SQUASH, read
from kerasdl.data.reading import readable
from kerasdl.data.sources import layout
from kerasdl.data.sources.layout import PARTS
from kerasdl.data.splits import (
    ArraySplit,
    FileSplit,
    check_val_split,
    make_source,
    rare_classes,
    split_indices,
)
from kerasdl.errors import SizesDiffer, UserError

__all__ = ["GIVES", "PARTS", "load", "read_files"]

GIVES = {"image": "image", "label": "label"}
MEMORY_BYTES = 512 * 2**20  # decoded images up to this size are kept in memory
GRAY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")
OUTSIDE = "images outside the folders of classes"
BESIDE = "images in folders beside those of the parts"


def load(where, options):
    """A folder of classes, or of `train/`, `val/` and `test/`, each with a folder per class.

    Class names are the sub-folders', sorted. Images directly in the folder, or in its parts, have
    no classes. Parts may be spelled as in `layout.PARTS`, in any case; missing ones are sampled
    from the training images with the seed. A single folder around all of it is left aside. Images
    are gray if all of them are. Up to 512 MiB of decoded images are read at once, and unreadable
    ones are refused then; of more, only the headers are read.
    """
    if not os.path.isdir(where):
        right = layout.other_prefix(where)
        raise UserError(f"{options.name}: there is no folder {readable(where)}{right}")
    left, notes = layout.LeftOut(where), []
    tree = layout.read_tree(where, FORMATS, left, options.skip_bad_files)
    root = layout.unwrapped(tree)
    if root is not tree:
        notes.append(f"the data set lies in {readable(os.path.relpath(root.path, where))}")
    parts = _parts(root, options, left, notes)
    if not tree.count:
        raise UserError(
            f"{options.name}: there must be images ({' '.join(FORMATS)}) in sub-folders, "
            "one per class" + "".join(f"; {note}" for note in left.notes())
        )
    if not parts["train"].count:
        raise UserError(f"{options.name}: the train folder holds no images")
    flat = not parts["train"].holding
    class_of, nested = {}, []
    if not flat:
        names = {part: [inner.name for inner in top.holding] for part, top in parts.items()}
        class_of = layout.joined_names(names, notes)
        for top in parts.values():
            for name in top.files:
                left.add(OUTSIDE, os.path.join(top.path, name))
    _check_classes(parts["train"] if flat else None, parts, class_of, options)
    files = {}
    for part, top in parts.items():
        found = files[part] = {}
        for inner in [top] if flat else top.holding:
            for path in inner.paths():
                name = class_of.get(inner.name)
                found[os.path.relpath(path, root.path)] = (os.path.abspath(path), name)
                if not flat and os.path.dirname(path) != inner.path:
                    nested.append(path)
        if not found:
            del files[part]  # as if it were not there
    if nested:
        first = readable(os.path.relpath(nested[0], where))
        notes.append(
            f"{len(nested)} images in sub-folders of a class are of that class, the first {first}"
        )
    for level in {id(f): f for f in _around(tree, root, parts)}.values():
        for inner in level.folders:
            if not inner.count:
                left.add(layout.EMPTY, inner.path)
    notes += left.notes()
    return read_files(files, sorted(set(class_of.values())), options, notes)


def _parts(root, options, left, notes):
    """`{part: Folder}`; all is `train` where there are no parts."""
    parts = layout.part_folders(root, options.name)
    if not parts:
        if any(layout.part_of(inner.name) for inner in root.holding):
            notes.append("folders with the names of parts are taken for classes")
        return {"train": root}
    for name in root.files:
        left.add(BESIDE, os.path.join(root.path, name))
    for inner in root.holding:
        if inner not in parts.values():
            for path in inner.paths():
                left.add(BESIDE, path)
    inside = {part: layout.unwrapped(top, within_part=True) for part, top in parts.items()}
    if all(inside[part] is not top for part, top in parts.items() if top.count):
        for part, top in inside.items():
            if top is not parts[part]:
                where = readable(os.path.relpath(top.path, root.path))
                notes.append(f"the classes of the {part} part lie in {where}")
        parts = inside
    return {part: parts[part] for part in PARTS if part in parts}


def _around(tree, root, parts):
    """The folders whose sub-folders may be empty ones: from the outermost to those of the parts."""
    folder = tree
    while folder is not root:
        yield folder
        folder = folder.holding[0]
    yield root
    yield from parts.values()


def _check_classes(flat, parts, class_of, options):
    """UserError where a task needs labels and there are no two classes; `flat` is the folder of
    images without classes, or None."""
    if "label" not in wanted.needed(options.task):
        return
    if flat:
        raise UserError(
            f"{options.name}: the {len(flat.files)} images in {readable(flat.path)} have no "
            "classes, which the model's task needs: there must be a sub-folder per class, or a "
            "table of paths and labels (csv:FILE)"
        )
    if len(set(class_of.values())) > 1:
        return
    only = next(top for top in parts.values() if top.holding).holding[0]
    if inner := [readable(sub.name) for sub in only.holding]:
        more = ", ..." if len(inner) > 10 else ""
        raise UserError(
            f"{options.name}: all images are of one class, {readable(only.name)}, whose folder "
            f"holds sub-folders with images ({', '.join(inner[:10])}{more}); the folders of the "
            "classes must lie side by side, with no images beside them"
        )
    raise UserError(
        f"{options.name}: {one_class(readable(only.name))}: there must be a sub-folder for each"
    )


def one_class(name) -> str:
    """What is wrong with a data set of one class for a task that needs labels."""
    return f"all images are of one class, {name}, but the model's task needs two or more"


def read_files(files, class_names, options, notes):
    """A source of image files.

    Args:
        files: `{part: {relative path: (absolute path, class name or None)}}`, with `train`.
        class_names: In the order of their numbers; empty where there are no classes.
        options: Of `open_source`.
        notes: Lines for the user so far.
    """
    entries = [(rel, *entry) for found in files.values() for rel, entry in found.items()]
    paths = [path for _, path, _ in entries]
    number = {name: k for k, name in enumerate(class_names)}
    labels = np.array([number[name] for *_, name in entries], np.int32) if class_names else None

    headers = headers_of(paths)
    bad = np.array([isinstance(header, str) for header in headers])
    good = [header for header in headers if not isinstance(header, str)]
    if not good:
        _check_bad(paths, bad, headers, options)
    shape = common_shape(good, [p for p, b in zip(paths, bad, strict=True) if not b], options)
    images = None
    if len(good) * np.prod(shape) <= MEMORY_BYTES:
        images, unreadable = decode_all(paths, bad, shape, options.fit)
        bad |= unreadable
    _check_bad(paths, bad, headers, options)
    line = f"left out {bad.sum()} unreadable images, {_first_bad(paths, bad, headers)}"
    notes = [line, *notes] if bad.any() else list(notes)

    unread = [p for p, h in zip(paths, headers, strict=True) if not isinstance(h, str) and h[3]]
    if unread:
        notes.append(
            f"{len(unread)} images have an orientation that is not applied, as only that in the "
            f"EXIF of a JPEG is, the first {readable(unread[0])}"
        )
    rows = divide_files(files, labels, class_names, ~bad, options, notes)

    replaced = {}

    def split(numbers):
        own = None if labels is None else labels[numbers]
        if images is None:
            chosen = [paths[i] for i in numbers]
            return FileSplit(chosen, own, shape, options.fit, options.skip_bad_files, replaced)
        columns = {"image": images[numbers]}
        return ArraySplit(columns if own is None else {**columns, "label": own})

    splits = {name: split(numbers) for name, numbers in rows.items()}
    divided = {
        name: {entries[i][0]: entries[i][1:] for i in numbers} for name, numbers in rows.items()
    }
    info = DataInfo.of_images(shape, class_names)
    source = make_source(options, splits, info, notes, files=divided)
    source.replaced = replaced
    return source


def headers_of(paths):
    """Of each file `(height, width, whether gray, whether its orientation is not applied)`, or in
    words why it cannot be read, or ""."""
    from PIL import Image

    Image.init()
    formats = {Image.EXTENSION[ending] for ending in FORMATS} | {"MPO"}  # a JPEG of two images

    def header(path):
        try:
            with Image.open(path) as image:
                if image.format not in formats:
                    return f"a {image.format} file"
                height, width, unread = orientation.of_header(image)
                return height, width, image.mode in GRAY_MODES, unread
        except Image.DecompressionBombError:
            return TOO_LARGE
        except Exception:  # of damaged bytes Pillow raises many kinds
            return ""

    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor() as pool:
            headers = list(pool.map(header, paths))
        try:
            Image.MAX_IMAGE_PIXELS = None
            for i in [i for i, result in enumerate(headers) if result == TOO_LARGE]:
                size = " x ".join(map(str, header(paths[i])[:2]))
                headers[i] = f"{size} pixels, {TOO_LARGE} of {2 * limit:,}"
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    return headers


TOO_LARGE = "more than Pillow's limit"


def _first_bad(paths, bad, headers):
    """`the first is PATH`, and why, and the first of those that are too large."""
    numbers = [int(i) for i in np.flatnonzero(bad)]
    if not numbers:
        return ""
    large = [i for i in numbers if TOO_LARGE in headers[i]]
    first = numbers[0]

    def named(i):
        reason = headers[i] if isinstance(headers[i], str) else ""
        return readable(paths[i]) + (f" ({reason})" if reason else "")

    line = f"the first is {named(first)}"
    if large and large[0] != first:
        line += f"; {len(large)} of them are too large, the first is {named(large[0])}"
    return line


def _check_bad(paths, bad, headers, options):
    if bad.all():
        raise UserError(
            f"{options.name}: none of the {len(paths)} images can be read, "
            f"{_first_bad(paths, bad, headers)}"
        )
    if bad.any() and not options.skip_bad_files:
        raise UserError(
            f"{options.name}: {bad.sum()} of {len(paths)} images cannot be read, "
            f"{_first_bad(paths, bad, headers)}; --skip-bad-files leaves them out"
        )


def common_shape(headers, paths, options):
    """`(H, W, C)` that all images will have."""
    channels = 1 if all(header[2] for header in headers) else 3
    if options.image_size:
        return (*options.image_size, channels)
    sizes = [header[:2] for header in headers]
    for size, path in zip(sizes, paths, strict=True):
        if size != sizes[0]:
            raise SizesDiffer(
                f"{options.name}: images differ in size ({sizes[0][0]}x{sizes[0][1]} "
                f"{readable(paths[0])}, {size[0]}x{size[1]} {readable(path)}); give --image-size"
            )
    return (*sizes[0], channels)


@functools.lru_cache(4)
def _pixels(shape, fit):
    """`path -> uint8 (H, W, C)`, traced."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def pixels(path):
        return read(tf.io.read_file(path), shape, fit)

    return pixels.get_concrete_function()


def decode_all(paths, skip, shape, fit=SQUASH):
    """uint8 `(n, H, W, C)` of all files, and which of them cannot be decoded."""
    images = np.zeros((len(paths), *shape), np.uint8)
    bad = np.zeros(len(paths), bool)

    def one(i):
        try:
            images[i] = pixels(tf.constant(os.fsencode(paths[i]))).numpy()
        except tf.errors.OpError:
            bad[i] = True

    pixels = _pixels(shape, fit)  # traced once, before the threads call it
    with ThreadPoolExecutor() as pool:
        list(pool.map(one, np.flatnonzero(~skip)))
    return images, bad


def divide_files(files, labels, class_names, usable, options, notes):
    """`{part: numbers of its files}`; missing parts are sampled from the training files, or are as
    in `options.division`."""
    part = np.repeat(list(files), [len(found) for found in files.values()])
    rows = {name: np.flatnonzero((part == name) & usable) for name in files}
    whole = rows["train"]
    missing = [name for name in ("test", "validation") if name not in rows]
    if options.division is not None:
        earlier = [options.division.get(rel) for found in files.values() for rel in found]
        earlier = np.array([name or "" for name in earlier])
        for name in missing:
            held = whole[earlier[whole] == name]
            rows[name], rows["train"] = held, np.setdiff1d(rows["train"], held)
            notes.append(f"{name} part: {len(held)} of {len(whole)} training images, as before")
        if new := int((earlier[usable] == "").sum()):
            joined = int((earlier[rows["train"]] == "").sum())
            notes.append(f"{new} files are new, of which {joined} join the training part")
        return rows
    if missing and labels is not None:
        notes += rare_classes(labels[whole], class_names, len(missing) + 1)
    for number, name in enumerate(("test", "validation")):
        if name in rows:
            continue
        check_val_split(options)
        # Both fractions are of the files that were there.
        fraction = min(options.val_split * len(whole) / max(len(rows["train"]), 1), 1.0)
        kept, held = split_indices(
            len(rows["train"]),
            fraction,
            [options.seed, number],
            None if labels is None else labels[rows["train"]],
        )
        rows[name], rows["train"] = rows["train"][held], rows["train"][kept]
        notes.append(
            f"{name} part: {len(held)} of {len(whole)} training images, "
            f"sampled with seed {options.seed}"
        )
    return rows
