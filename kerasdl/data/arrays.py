"""Arrays of images and labels as data sets: their checks, and their division."""

from collections import Counter

import numpy as np
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.data.images import SQUASH, resize, to_float
from kerasdl.data.splits import (
    ArraySplit,
    check_val_split,
    make_source,
    rare_classes,
    split_indices,
)
from kerasdl.errors import UserError

MAX_LABEL = 2**31 - 1


def check_images(images, where):
    """Images as uint8, or float32 in [0, 1], `(n, H, W, C)`.

    Args:
        images: `(n, H, W)` or `(n, H, W, C)`; integers must lie in 0..255.
        where: What the error message calls them.
    """
    if images.ndim not in (3, 4):
        raise UserError(f"{where}: images must have 3 or 4 axes, got {images.ndim}")
    if not len(images):
        raise UserError(f"{where}: there are no images")
    images = images[..., None] if images.ndim == 3 else images
    if 0 in images.shape:
        raise UserError(f"{where}: images must not be empty, got the shape {images.shape[1:]}")
    if _channels_first(*images.shape[1:]):
        raise UserError(
            f"{where}: images must be (height, width, channels) each, but {images.shape[1:]} has "
            "the channels first: np.transpose(x, (0, 2, 3, 1)) moves them"
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind not in "iufb":
        raise UserError(f"{where}: images must be numbers, got {images.dtype}")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise UserError(f"{where}: images must be finite, but hold NaN or infinite values")
    low, high = images.min(), images.max()
    if images.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise UserError(f"{where}: integer images must lie in 0..255, got {low}..{high}")
        return images.astype(np.uint8)
    if low < 0 or high > 1:
        raise UserError(
            f"{where}: float images must lie in [0, 1], got {low:g}..{high:g}"
            + ("; x.astype('uint8') or x / 255 does it" if 0 <= low and high <= 255 else "")
        )
    return images.astype(np.float32)


def _channels_first(first, second, third):
    """Whether the three axes of an image are its channels, height and width."""
    if first <= 4 < third:
        return first != second or first == 1  # else a small patch of many channels
    return first in (1, 3) and second == third and third not in (1, 3)


def whole_labels(labels, n, where, notes):
    """Labels as an integer or text array `(n,)`, and the number of classes of a one-hot array.

    Args:
        labels: Integers, floats that are whole numbers, truth values or texts, `(n,)` or `(n, 1)`;
            or one-hot, `(n, K)`.
        n: Number of images.
        where: What the error message calls them.
        notes: Told of what was converted.

    Returns:
        `(labels, K)`, or `(labels, None)` where they are not one-hot.
    """
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    kind = labels.dtype.kind
    if labels.shape[:1] != (n,) or labels.ndim > 2:
        raise UserError(f"{where}: {n} images need labels of the shape ({n},), got {labels.shape}")
    if kind == "f" and not np.isfinite(labels).all():
        raise UserError(f"{where}: labels must be integers, but hold NaN or infinite values")
    if labels.ndim == 2:
        return _of_one_hot(labels, where, notes), labels.shape[1]
    if kind in "SU":
        return _texts(labels, f"{where}: labels"), None
    if kind == "b":
        notes.append("labels: False and True are the classes 0 and 1")
        return labels.astype(np.int32), None
    if kind == "f":
        rest = labels[labels != np.round(labels)]
        if len(rest):
            raise UserError(
                f"{where}: labels must be integers, got {labels.dtype} such as {rest[0]:g}"
            )
        if abs(labels).max() <= MAX_LABEL:
            notes.append(f"labels: {labels.dtype}, all of them whole numbers")
            return labels.astype(np.int64), None
        raise UserError(f"{where}: labels must be 0 or more, and below 2^31, got {labels.max():g}")
    if kind not in "iu":
        raise UserError(f"{where}: labels must be integers, got {labels.dtype}")
    return labels, None


def _of_one_hot(labels, where, notes):
    n, count = labels.shape
    wrong = np.zeros(n, bool) if count and labels.dtype.kind in "iufb" else np.ones(n, bool)
    if not wrong.any():
        wrong = ((labels != 0) & (labels != 1)).any(1) | ((labels != 0).sum(1) != 1)
    if wrong.any():
        raise UserError(
            f"{where}: {n} images need labels of the shape ({n},), or rows of one 1 and zeros, got "
            f"{labels.shape} with another row {int(np.argmax(wrong))}; soft labels and several "
            "labels are not taken"
        )
    notes.append(f"labels: one-hot rows, taken as {count} classes")
    return labels.argmax(1)


def _texts(array, where):
    """Texts or bytes as a text array; UserError where one is empty or is not UTF-8."""
    try:
        array = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({error.object!r})") from None
    if (array == "").any():
        raise UserError(f"{where}: number {int(np.argmax(array == ''))} is empty")
    return array


def check_labels(labels, num_classes, where):
    """Whole numbers `(n,)` as int32; UserError unless they are 0 or more, and below
    `num_classes`."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        hint = "; they start at 1: subtract 1" if low == 1 and high == num_classes else ""
        allowed = f"0..{num_classes - 1}"
        if num_classes > MAX_LABEL:
            allowed = "0 or more" if low < 0 else "below 2^31"
        raise UserError(f"{where}: labels must be {allowed}, got {low}..{high}{hint}")
    return labels.astype(np.int32)


def check_names(names, where):
    """The names of classes as a tuple of texts.

    Args:
        names: Array of texts, bytes or integers, or any sequence of texts.
        where: What the error message calls them.

    Raises:
        UserError: They are not one row of different texts.
    """
    names = np.asarray(names)
    if names.ndim != 1 or not len(names) or names.dtype.kind not in "SUiu":
        raise UserError(
            f"{where} must be one row of texts, got the shape {names.shape} of {names.dtype}"
        )
    names = tuple(map(str, _texts(names, where) if names.dtype.kind in "SU" else names))
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"{where}: {count} classes are called {name}")
    return names


def numbered(parts, class_names, name, notes):
    """Labels as the numbers of classes.

    Args:
        parts: `{part: (labels, images)}`, labels as users have them and the number of images.
        class_names: One per class, or None.
        name: Of the data set.
        notes: Told of what was converted.

    Returns:
        `{part: int32 (n,)}`, and the class names: where none are given, those of the training part,
        which are `0`, `1`, ... up to its largest label, or its texts in their order.
    """
    given, told = {}, []
    for part, (labels, n) in parts.items():
        given[part] = whole_labels(labels, n, f"{name} ({part})", told)
    notes += dict.fromkeys(told)
    labels = {part: one for part, (one, _) in given.items()}
    train = labels["train"]
    kinds = {one.dtype.kind == "U" for one in labels.values()}
    if len(kinds) > 1:
        raise UserError(f"{name}: labels must be numbers in all parts, or texts in all of them")
    if kinds == {True}:
        if class_names is None:
            texts = set(train.tolist())
            class_names = tuple(sorted(texts, key=_by_value if _numbers(texts) else None))
            notes.append("labels: texts, which are the names of the classes, sorted")
        for part, one in labels.items():
            unknown = sorted(set(one.tolist()) - set(class_names))
            if unknown:
                raise UserError(
                    f"{name} ({part}): the label {unknown[0]!r} is no class: "
                    f"{', '.join(class_names[:10])}{', ...' * (len(class_names) > 10)}"
                )
        number = {text: k for k, text in enumerate(class_names)}
        return {
            part: np.array([number[text] for text in one.tolist()], np.int32)
            for part, one in labels.items()
        }, class_names
    count = len(class_names) if class_names is not None else MAX_LABEL + 1
    labels = {part: check_labels(one, count, f"{name} ({part})") for part, one in labels.items()}
    if class_names is None:
        # Of the training part: what it does not hold cannot be learned.
        top = max(int(labels["train"].max()) + 1, given["train"][1] or 0)
        total = sum(map(len, labels.values()))
        if top > total and given["train"][1] is None:
            raise UserError(
                f"{name}: the label {top - 1} makes {top:,} classes of {total:,} examples; number "
                "them from 0 on: classes, y = np.unique(y, return_inverse=True)"
            )
        labels = {part: check_labels(one, top, f"{name} ({part})") for part, one in labels.items()}
        class_names = tuple(str(k) for k in range(top))
        low = min(int(one.min()) for one in labels.values())
        if low == 1:
            notes.append(
                "labels: they start at 1, so that class 0 has no example; subtract 1 to have one "
                "class less"
            )
    return labels, class_names


def _numbers(texts):
    return all(text.isdecimal() for text in texts)


def _by_value(text):
    return int(text), text


def resize_all(images, image_size, fit=SQUASH):
    """A checked array of images, resized as by `images.resize`, to their own size where
    `image_size` is `()`."""
    image_size = tuple(image_size) or images.shape[1:3]
    if fit.fraction == 1 and images.shape[1:3] == image_size:
        return images
    parts = []
    for start in range(0, len(images), 256):
        part = to_float(tf.convert_to_tensor(images[start : start + 256]))
        part = resize(part, image_size, fit).numpy()
        parts.append(np.rint(part * 255).astype(np.uint8) if images.dtype == np.uint8 else part)
    return np.concatenate(parts)


def from_arrays(parts, options, class_names=None, notes=(), seed=None, test_fraction=None):
    """A source of arrays, checked and divided.

    Args:
        parts: `{"train": (images, labels), "validation": ..., "test": ...}`; only the first must
            be there.
        options: Of `open_source`.
        class_names: One per class, or None for `0`, `1`, ... up to the largest label.
        notes: Further lines for the user.
        seed: Seed that missing parts are sampled with; None takes the last examples.
        test_fraction: Fraction of the examples for a missing test part; `val_split` if None.
    """
    notes = list(notes)
    parts = {part: tuple(map(np.asarray, arrays)) for part, arrays in parts.items()}
    for part, (images, labels) in parts.items():
        count = len(labels) if labels.ndim else 0
        if images.ndim == 4 and len(images) != count == images.shape[-1]:
            raise UserError(
                f"{options.name} ({part}): images must be (n, height, width, channels), but "
                f"{images.shape} has the {count} images last: np.moveaxis(x, -1, 0)"
            )
        check_images(images[:1] if images.ndim else images, f"{options.name} ({part})")
    if class_names is not None:
        class_names = check_names(class_names, f"{options.name}: class_names")
    counts = {part: (labels, len(images)) for part, (images, labels) in parts.items()}
    labels, class_names = numbered(counts, class_names, options.name, notes)
    checked = {}
    for part, (images, _) in parts.items():
        images = check_images(images, f"{options.name} ({part})")
        images = resize_all(images, options.image_size, options.fit)
        checked[part] = {"image": images, "label": labels[part]}
    shapes = {arrays["image"].shape[1:] for arrays in checked.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{options.name}: the images of all parts must have one shape, got {sorted(shapes)}"
        )

    if seed is not None and len(checked) < 3:
        notes += rare_classes(checked["train"]["label"], class_names, 4 - len(checked))
    for part, fraction in (("test", test_fraction), ("validation", None)):
        if part in checked:
            continue
        if fraction is None:
            check_val_split(options)
            fraction = options.val_split
        whole = checked["train"]
        part_seed = None if seed is None else [seed, len(part)]
        kept, held = split_indices(len(whole["label"]), fraction, part_seed, whole["label"])
        checked["train"], checked[part] = (
            {name: array[rows] for name, array in whole.items()} for rows in (kept, held)
        )
        how = (
            f"the last {fraction:.0%}" if seed is None else f"{len(held)} sampled with seed {seed}"
        )
        notes.append(f"{part} part: {how} of {len(whole['label'])} training examples")
    info = DataInfo.of_images(shapes.pop(), class_names)
    splits = {part: ArraySplit(arrays) for part, arrays in checked.items()}
    return make_source(options, splits, info, notes)
