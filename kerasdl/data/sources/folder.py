"""`folder:PATH`: image files, one sub-folder per class."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.data import orientation
from kerasdl.data.images import FORMATS, SQUASH, read
from kerasdl.data.splits import ArraySplit, FileSplit, check_val_split, make_source, split_indices
from kerasdl.errors import UserError

GIVES = {"image": "image", "label": "label"}
PARTS = {"train": ("train",), "validation": ("val", "validation"), "test": ("test",)}
MEMORY_BYTES = 512 * 2**20  # decoded images up to this size are kept in memory
GRAY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")


def load(where, options):
    """A folder of classes, or of `train/`, `val/` and `test/`, each with a folder per class.

    Class names are the sub-folders', sorted. Missing parts are sampled from the training images
    with the seed. Images are gray if all of them are. Up to 512 MiB of decoded images are
    read at once, and unreadable ones are refused then; of more, only the headers are read.
    """
    root = Path(where)
    if not root.is_dir():
        raise UserError(f"{options.name}: there is no folder {where}")
    files_of = _find(root)
    class_names = sorted({name for files in files_of.values() for name, _ in files})
    if not class_names:
        raise UserError(
            f"{options.name}: there must be images ({' '.join(FORMATS)}) in sub-folders, "
            "one per class"
        )
    paths = [path for files in files_of.values() for _, path in files]
    label = {name: k for k, name in enumerate(class_names)}
    labels = np.array([label[n] for files in files_of.values() for n, _ in files], np.int32)
    part = np.repeat(list(files_of), [len(files) for files in files_of.values()])

    with ThreadPoolExecutor() as pool:
        headers = list(pool.map(_header, paths))
    bad = np.array([header is None for header in headers])
    good = [header for header in headers if header is not None]
    if not good:
        _check_bad(paths, bad, options)
    shape = _shape(good, [p for p, b in zip(paths, bad, strict=True) if not b], options)
    images = None
    if len(good) * np.prod(shape) <= MEMORY_BYTES:
        images, unreadable = _decode_all(paths, bad, shape, options.fit)
        bad |= unreadable
    _check_bad(paths, bad, options)
    notes = []
    if bad.any():
        first = next(p for p, b in zip(paths, bad, strict=True) if b)
        notes.append(f"left out {bad.sum()} unreadable images, the first {first}")

    unread = [p for p, h in zip(paths, headers, strict=True) if h is not None and h[3]]
    if unread:
        notes.append(
            f"{len(unread)} images have an orientation that is not applied, as only that in the "
            f"EXIF of a JPEG is, the first {unread[0]}"
        )

    rows = _divide(part, ~bad, options, notes)

    def split(numbers):
        if images is not None:
            return ArraySplit({"image": images[numbers], "label": labels[numbers]})
        return FileSplit([paths[i] for i in numbers], labels[numbers], shape, options.fit)

    splits = {name: split(numbers) for name, numbers in rows.items()}
    return make_source(options, splits, DataInfo.of_images(shape, class_names), notes)


def _find(root):
    """`{part: [(class name, path), ...]}`, sorted; all is `train` where there are no parts."""

    def files(folder):
        return [
            (sub.name, str(path))
            for sub in sorted(folder.iterdir())
            if sub.is_dir() and not sub.name.startswith(".")
            for path in sorted(sub.rglob("*"))
            if path.suffix.lower() in FORMATS and path.is_file()
        ]

    if not (root / "train").is_dir():
        return {"train": files(root)}
    return {
        part: files(root / name)
        for part, names in PARTS.items()
        for name in names
        if (root / name).is_dir()
    }


def _header(path):
    """`(height, width, whether gray, whether its orientation is not applied)` of an image file, or
    None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            height, width, unread = orientation.of_header(image)
            return height, width, image.mode in GRAY_MODES, unread
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _check_bad(paths, bad, options):
    if bad.all():
        raise UserError(f"{options.name}: none of the {len(paths)} images can be read")
    if bad.any() and not options.skip_bad_files:
        first = next(p for p, b in zip(paths, bad, strict=True) if b)
        raise UserError(
            f"{options.name}: {bad.sum()} of {len(paths)} images cannot be read, the first is "
            f"{first}; --skip-bad-files leaves them out"
        )


def _shape(headers, paths, options):
    """`(H, W, C)` that all images will have."""
    channels = 1 if all(header[2] for header in headers) else 3
    if options.image_size:
        return (*options.image_size, channels)
    sizes = [header[:2] for header in headers]
    for size, path in zip(sizes, paths, strict=True):
        if size != sizes[0]:
            raise UserError(
                f"{options.name}: images differ in size ({sizes[0][0]}x{sizes[0][1]} {paths[0]}, "
                f"{size[0]}x{size[1]} {path}); give --image-size"
            )
    return (*sizes[0], channels)


def _decode_all(paths, skip, shape, fit=SQUASH):
    """uint8 `(n, H, W, C)` of all files, and which of them cannot be decoded."""
    images = np.zeros((len(paths), *shape), np.uint8)
    bad = np.zeros(len(paths), bool)

    @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
    def pixels(path):
        return read(tf.io.read_file(path), shape, fit)

    def one(i):
        try:
            images[i] = pixels(tf.constant(paths[i])).numpy()
        except tf.errors.OpError:
            bad[i] = True

    pixels.get_concrete_function()  # traced once, before the threads call it
    with ThreadPoolExecutor() as pool:
        list(pool.map(one, np.flatnonzero(~skip)))
    return images, bad


def _divide(part, usable, options, notes):
    """`{part: numbers of its files}`; missing parts are sampled from the training files."""
    rows = {name: np.flatnonzero((part == name) & usable) for name in dict.fromkeys(part)}
    if "train" not in rows:
        raise UserError(f"{options.name}: the train folder holds no images")
    whole = rows["train"]
    for number, name in enumerate(("test", "validation")):
        if name in rows:
            continue
        check_val_split(options)
        # Both fractions are of the files that were there.
        fraction = min(options.val_split * len(whole) / max(len(rows["train"]), 1), 1.0)
        kept, held = split_indices(len(rows["train"]), fraction, [options.seed, number])
        rows[name], rows["train"] = rows["train"][held], rows["train"][kept]
        notes.append(
            f"{name} part: {len(held)} of {len(whole)} training images, "
            f"sampled with seed {options.seed}"
        )
    return rows
