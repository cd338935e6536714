"""`masks:FOLDER`: images, and beside them PNG files of the classes of their pixels."""

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from kerasdl.columns import VOID, Column, DataInfo
from kerasdl.data.images import FORMATS
from kerasdl.data.placing import Placed
from kerasdl.data.reading import readable
from kerasdl.data.sources import layout
from kerasdl.data.sources.folder import common_shape, decode_all, headers_of
from kerasdl.data.sources.text import read_text
from kerasdl.data.splits import ArraySplit, check_val_split, make_source, split_indices
from kerasdl.errors import UserError

GIVES = {"image": "image", "mask": "mask"}
IMAGES = ("images", "image", "imgs", "jpegimages")  # names of folders, in any case
MASKS = ("masks", "mask", "labels", "annotations", "segmentationclass")
CLASSES, CLASSES_ENDING = "classes.txt", ".txt"
INDEXED = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")  # modes of files whose pixels are numbers
MEMORY_BYTES = 4 * 2**30
UNPAIRED = "masks of no image"
OTHER_MASKS = "files beside the masks that are no PNG"
BESIDE = "images beside the folders of images and masks"


def load(where, options):
    """Folders `images` and `masks`, or `train/`, `val/` and `test/` with these in each of them.

    The parts may also lie within the two folders. The mask of `images/a/1.jpg` is `masks/a/1.png`:
    a gray or palette PNG of the size of the image, whose numbers, a palette's indices, are classes;
    255 is no class. `classes.txt` names them, a line each from 0 on; without it they are called by
    their numbers. Missing parts are sampled from the training images with the seed. Images and
    masks are resized as `image_size` says, masks to the nearest pixel.
    """
    if not os.path.isdir(where):
        right = layout.other_prefix(where)
        raise UserError(f"{options.name}: there is no folder {readable(where)}{right}")
    left = layout.LeftOut(where)
    tree = layout.read_tree(where, (*FORMATS, CLASSES_ENDING), left, options.skip_bad_files)
    texts = _without_texts(tree)
    root = layout.unwrapped(tree)
    found, wrong, rows = {}, {}, []  # the folders of each part; {what is wrong: paths}
    for part, (images, masks) in _parts(root, options, left).items():
        found[part] = _pairs(images, masks, left, wrong)
        rows += [(part, *pair) for pair in found[part]]
    if not any(found.values()) and not wrong:
        raise UserError(
            f"{options.name}: the folders of images hold none ({' '.join(FORMATS)})"
            + "".join(f"; {note}" for note in left.notes())
        )
    headers = headers_of([image for _, image, _ in rows])
    for i in [i for i, header in enumerate(headers) if isinstance(header, str)]:
        wrong.setdefault("cannot be read", []).append((rows[i][1], headers[i]))
    good = [i for i, header in enumerate(headers) if not isinstance(header, str)]
    rows, headers = [rows[i] for i in good], [headers[i] for i in good]
    if not rows:
        refuse_or_note(wrong, 0, options)
    shape = common_shape(headers, [image for _, image, _ in rows], options)
    needed = len(rows) * (int(np.prod(shape)) + 4 * shape[0] * shape[1])
    if needed > MEMORY_BYTES:
        raise UserError(
            f"{options.name}: {len(rows)} images of {shape[0]}x{shape[1]} pixels and their masks "
            f"do not fit into memory ({MEMORY_BYTES >> 30} GiB); give a smaller --image-size"
        )
    masks, reasons = _read_all([row[2] for row in rows], headers, shape, options.fit)
    images, bad = decode_all(
        [row[1] for row in rows], np.zeros(len(rows), bool), shape, options.fit
    )
    for i, (_, image, mask) in enumerate(rows):
        if reasons[i]:
            wrong.setdefault(reasons[i], []).append((image, readable(mask)))
        elif bad[i]:
            wrong.setdefault("cannot be decoded", []).append((image, ""))
    usable = ~bad & np.array([not reason for reason in reasons])
    notes = refuse_or_note(wrong, int(usable.sum()), options)
    names = _class_names(texts, (root.path, where), masks, usable, rows, left, options)
    parts = np.array([part for part, *_ in rows])
    numbers = {part: np.flatnonzero((parts == part) & usable) for part in found}
    _divide(numbers, options, notes)
    splits = {
        part: ArraySplit({"image": images[chosen], "mask": masks[chosen]})
        for part, chosen in numbers.items()
    }
    columns = {"image": Column("image", shape), "mask": Column("mask", shape[:2], names)}
    return make_source(options, splits, DataInfo(columns), [*notes, *left.notes()])


def _without_texts(folder):
    """Take the text files out of a tree; returns their paths."""
    paths = [path for path in folder.paths() if path.lower().endswith(CLASSES_ENDING)]

    def clean(folder):
        folder.files = [f for f in folder.files if not f.lower().endswith(CLASSES_ENDING)]
        for inner in folder.folders:
            clean(inner)
        folder.count = len(folder.files) + sum(inner.count for inner in folder.folders)

    clean(folder)
    return paths


def _parts(root, options, left):
    """`{part: (Folder of images, Folder of masks)}`; all is `train` where there are no parts."""
    pair = _pair(root)
    if pair is None:
        parts = layout.part_folders(root, options.name)
        pairs = {part: _pair(layout.unwrapped(top, True)) for part, top in parts.items()}
        lacking = [parts[part].name for part, two in pairs.items() if two is None]
        if not pairs or lacking:
            where = f" in the folder {lacking[0]}" if lacking else ""
            raise UserError(
                f"{options.name}: there must be folders images and masks{where}, or train, "
                f"validation and test with these in each; in {readable(root.path)} there are "
                f"{', '.join(readable(inner.name) for inner in root.folders) or 'no folders'}"
            )
    else:
        inside = [layout.part_folders(folder, options.name) for folder in pair]
        pairs = {"train": pair}
        if all(inside):
            none = layout.Folder(pair[1].path)
            pairs = {part: (top, inside[1].get(part, none)) for part, top in inside[0].items()}
    read = tuple(os.path.join(folder.path, "") for two in pairs.values() for folder in two)
    for path in root.paths():
        if not path.startswith(read):
            left.add(BESIDE, path)
    return {part: pairs[part] for part in layout.PARTS if part in pairs}


def _pair(folder):
    """The folders of images and of masks in a folder, or None."""
    two = []
    for names in (IMAGES, MASKS):
        known = [inner for inner in folder.holding if inner.name.casefold() in names]
        two += sorted(known, key=lambda inner: names.index(inner.name.casefold()))[:1]
    return tuple(two) if len(two) == 2 else None


def _pairs(images, masks, left, wrong):
    """`[(image, mask)]` of the files of two folders; adds to `wrong` what has no mask."""

    def stem(path, folder):
        return os.path.splitext(os.path.relpath(path, folder.path))[0]

    of_stem, by_stem = {}, {}
    for path in masks.paths():
        if path.lower().endswith(".png"):
            of_stem.setdefault(stem(path, masks), path)
        else:
            left.add(OTHER_MASKS, path)
    for path in images.paths():
        by_stem.setdefault(stem(path, images), []).append(path)
    pairs = []
    for name, paths in by_stem.items():
        mask = of_stem.pop(name, None)
        if len(paths) > 1:
            also = f"as {readable(os.path.basename(paths[1]))}"
            wrong.setdefault("have one name, so one mask", []).append((paths[0], also))
        elif mask is None:
            expected = os.path.join(masks.path, f"{name}.png")
            wrong.setdefault("have no mask", []).append((paths[0], readable(expected)))
        else:
            pairs.append((paths[0], mask))
    for path in of_stem.values():
        left.add(UNPAIRED, path)
    return pairs


def _read_all(paths, headers, shape, fit):
    """int32 `(n, H, W)` of masks at the model's size, and why each cannot be used or ""."""
    masks = np.full((len(paths), *shape[:2]), VOID, np.int32)

    def one(i):
        try:
            with Image.open(paths[i]) as image:
                if image.format != "PNG" or image.mode not in INDEXED:
                    return "have a mask whose pixels are colors, not numbers of classes"
                if (image.height, image.width) != tuple(headers[i][:2]):
                    return "have a mask of another size"
                mask = np.asarray(image).astype(np.int64)
        except Exception:  # of damaged bytes Pillow raises many kinds
            return "have a mask that cannot be read"
        if mask.min() < 0 or mask.max() > VOID:
            return f"have a mask with numbers above {VOID}"
        masks[i] = Placed(mask.shape, tuple(shape[:2]), fit).sampled(mask, VOID)
        return ""

    with warnings.catch_warnings():  # of files with many pixels
        warnings.simplefilter("ignore")
        with ThreadPoolExecutor() as pool:
            return masks, list(pool.map(one, range(len(paths))))


def refuse_or_note(wrong, usable, options):
    """UserError where images cannot be used, or a note where they may be left out."""
    if not wrong:
        return []
    count = sum(map(len, wrong.values()))
    reasons = "; ".join(
        f"{len(found)} {reason}, the first {readable(found[0][0])}"
        + (f" ({found[0][1]})" if found[0][1] else "")
        for reason, found in wrong.items()
    )
    if not usable:
        raise UserError(f"{options.name}: none of the {count} images can be used: {reasons}")
    if not options.skip_bad_files:
        raise UserError(
            f"{options.name}: {count} of {count + usable} images cannot be used: {reasons}; "
            "--skip-bad-files leaves them out"
        )
    return [f"left out {count} of {count + usable} images: {reasons}"]


def _class_names(texts, folders, masks, usable, rows, left, options):
    """The names of the classes, of the file of them or of the numbers that occur."""
    path = next((p for f in folders if (p := os.path.join(f, CLASSES)) in texts), None)
    for other in texts:
        if other != path:
            left.add(layout.OTHER_FILES, other)
    there = masks[usable]
    highest = int(there[there != VOID].max(initial=-1))
    if path is None:
        names = tuple(map(str, range(highest + 1)))
    else:
        names = tuple(line.strip() for line in read_text(path, options).strip().split("\n"))
        if "" in names or len(set(names)) < len(names) or len(names) > VOID:
            raise UserError(
                f"{options.name}: {readable(path)} must name at most {VOID} classes, a line each, "
                "no two alike"
            )
        if highest >= len(names):
            wrong = ((masks >= len(names)) & (masks != VOID)).any(axis=(1, 2)) & usable
            first = rows[int(np.flatnonzero(wrong)[0])][2]
            raise UserError(
                f"{options.name}: {readable(path)} names {len(names)} classes, 0 to "
                f"{len(names) - 1}, but {wrong.sum()} masks have others, up to {highest}, the "
                f"first {readable(first)}"
            )
    if len(names) < 2:
        raise UserError(f"{options.name}: the masks must be of two classes or more")
    return names


def _divide(numbers, options, notes):
    """Sample the parts that are missing in `{part: numbers of images}` from the training part."""
    whole = len(numbers.get("train", ()))
    if not whole:
        raise UserError(f"{options.name}: the training part holds no images that can be used")
    for number, name in enumerate(("test", "validation")):
        if name in numbers:
            continue
        check_val_split(options)
        # Both fractions are of the images that were there.
        fraction = min(options.val_split * whole / max(len(numbers["train"]), 1), 1.0)
        kept, held = split_indices(len(numbers["train"]), fraction, [options.seed, number])
        numbers[name], numbers["train"] = numbers["train"][held], numbers["train"][kept]
        notes.append(f"{name} part: {len(held)} of {whole} training images, sampled with the seed")
