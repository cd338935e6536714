"""Boxes and masks of TensorFlow Datasets: which features they are, and their arrays."""

import numpy as np
import tensorflow as tf

from kerasdl.columns import VOID, Column, DataInfo
from kerasdl.data.images import resize, to_float
from kerasdl.data.placing import Placed
from kerasdl.data.sources import objects
from kerasdl.data.sources.objects import Object, Picture
from kerasdl.data.splits import ArraySplit, check_val_split, make_source, split_indices
from kerasdl.errors import UserError

BOXES = ("boxes", "labels", "valid", "crowd")
IGNORED = ("is_crowd", "is_difficult")


def box_keys(tfds, info):
    """The name of the image and the paths of boxes, and of labels and ignored ones or None; or
    None where there are no boxes."""
    features = info.features
    image = _only_image(tfds, features)
    for name, feature in features.items() if image else ():
        inner = getattr(feature, "feature", None)  # of a sequence
        if isinstance(inner, tfds.features.BBoxFeature):
            return [image, (name,), None, None]
        entries = dict(inner.items()) if isinstance(inner, tfds.features.FeaturesDict) else {}
        of_kind = {
            kind: [key for key, entry in entries.items() if isinstance(entry, kind)]
            for kind in (tfds.features.BBoxFeature, tfds.features.ClassLabel)
        }
        boxes, labels = of_kind.values()
        if boxes:
            label = "label" if "label" in labels else next(iter(labels), None)
            ignored = next((key for key in IGNORED if key in entries), None)
            paths = [key and (name, key) for key in (boxes[0], label, ignored)]
            return [image, *paths]
    return None


def mask_keys(tfds, info):
    """The names of the image and of the mask of its pixels' classes, or None."""
    features = info.features
    image = _only_image(tfds, features)
    masks = [name for name, f in features.items() if isinstance(f, tfds.features.LabeledImage)]
    masks += [name for name in features if name == "segmentation_mask" and name not in masks]
    kinds = tfds.features.Image, tfds.features.LabeledImage
    if not image or not masks or not isinstance(features[masks[0]], kinds):
        return None
    return [image, masks[0]] if features[masks[0]].shape[-1] == 1 else None


def _only_image(tfds, features):
    """The name of the image that is no mask, where there is one."""
    images = [
        name
        for name, feature in features.items()
        if isinstance(feature, tfds.features.Image)
        and not isinstance(feature, tfds.features.LabeledImage)
        and name != "segmentation_mask"
    ]
    return "image" if "image" in images else images[0] if len(images) == 1 else None


def read_boxes(builder, keys, names, shape, options, notes):
    """A source of images and boxes; see `box_keys`."""
    image, boxes, label, ignored = keys
    feature = _at(builder.info.features, boxes)
    kind = getattr(feature, "bbox_format", None) or getattr(feature, "feature", feature)
    kind = getattr(kind, "bbox_format", kind)
    if getattr(kind, "value", "REL_YXYX") != "REL_YXYX":
        raise UserError(f"{options.name}: boxes of the format {kind.value} are not read")
    class_names = _at(builder.info.features, label).names if label else [boxes[0]]
    told, pictures, place, images = objects.Told(), {}, {}, {}
    for part, split in names.items():
        pictures[part], place[part], images[part] = [], [], []
        for number, (pixels, size, row) in enumerate(_rows(builder, split, image, shape, options)):
            placed = Placed(size, shape[:2], options.fit)
            corners = _at(row, boxes).astype(np.float64) * np.tile(size, 2)
            labels = _at(row, label) if label else np.zeros(len(corners), int)
            crowd = _at(row, ignored) if ignored else np.zeros(len(corners), bool)
            found = [
                Object(int(k), tuple(box), bool(c))
                for k, box, c in zip(labels, corners.tolist(), crowd, strict=True)
                if k >= 0  # a label that is not known
            ]
            for _ in range(len(labels) - len(found)):
                told.add("left out {} objects without a label", f"{split}/{number}")
            for _ in range(sum(one.crowd for one in found)):
                kind = ignored[-1].removeprefix("is_")
                told.add(f"{{}} objects are {kind}: {objects.NOT_LEARNED}", f"{split}/{number}")
            picture = Picture("", f"{split}/{number}", found)
            objects.keep_visible(picture, placed, told)
            for rows, new in ((pictures, picture), (place, placed), (images, pixels)):
                rows[part].append(new)
    count = max([1, *(len(one.objects) for of_part in pictures.values() for one in of_part)])
    parts = {}
    for part, of_part in pictures.items():
        rows = objects.small_rows(of_part, place[part], count)
        parts[part] = {"image": np.stack(images[part]), **{name: rows[name] for name in BOXES}}
    columns = {
        "image": Column("image", shape),
        "boxes": Column("boxes", (count, 4)),
        "labels": Column("label", (count,), tuple(class_names)),
        "valid": Column("valid", (count,)),
        "crowd": Column("valid", (count,)),
    }
    return _divided(parts, columns, options, [*notes, *told.notes()])


def read_masks(builder, keys, names, shape, options, notes):
    """A source of images and masks; see `mask_keys`."""
    image, key = keys
    parts, highest = {}, 0
    for part, split in names.items():
        images, masks = [], []
        for pixels, size, row in _rows(builder, split, image, shape, options):
            mask = np.asarray(row[key])[..., 0].astype(np.int32)
            if mask.shape != tuple(size):
                raise UserError(
                    f"{options.name}: {split}/{len(masks)} has a mask of another size than its "
                    f"image, {mask.shape[0]} x {mask.shape[1]}"
                )
            if mask.max(initial=0) > VOID:
                raise UserError(f"{options.name}: {split}/{len(masks)} has classes above {VOID}")
            mask = Placed(size, shape[:2], options.fit).sampled(mask, VOID)
            images.append(pixels)
            masks.append(mask)
            highest = max(highest, int(mask[mask != VOID].max(initial=0)))
        parts[part] = {"image": np.stack(images), "mask": np.stack(masks)}
    class_names = getattr(builder.info.features[key], "names", None) or map(str, range(highest + 1))
    class_names = tuple(class_names)
    if highest >= len(class_names) or len(class_names) < 2:
        raise UserError(
            f"{options.name}: the masks must be of two classes or more, and of the "
            f"{len(class_names)} named ones; the highest is {highest}"
        )
    columns = {"image": Column("image", shape), "mask": Column("mask", shape[:2], class_names)}
    return _divided(parts, columns, options, notes)


def _at(values, path):
    for name in path:
        values = getattr(values, "feature", values)[name]
    return values


def _rows(builder, split, image, shape, options):
    """Yield `(pixels uint8 (H, W, C), (height, width) of the picture, its row)` in file order."""

    def example(row):
        whole = tf.ensure_shape(row[image], (None, None, shape[2]))
        pixels = resize(to_float(whole), shape[:2], options.fit)
        return tf.cast(tf.round(pixels * 255.0), tf.uint8), tf.shape(whole)[:2], row

    data = builder.as_dataset(split=split, shuffle_files=False)
    data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    for pixels, size, row in data.as_numpy_iterator():
        yield pixels, tuple(size.tolist()), row


def _divided(parts, columns, options, notes):
    """A source of arrays; missing parts are the last of the training examples."""
    notes = list(notes)
    for part in ("test", "validation"):
        if part in parts:
            continue
        check_val_split(options)
        whole = parts["train"]
        kept, held = split_indices(len(whole["image"]), options.val_split)
        parts["train"], parts[part] = (
            {name: array[rows] for name, array in whole.items()} for rows in (kept, held)
        )
        notes.append(
            f"{part} part: the last {options.val_split:.0%} of {len(whole['image'])} training "
            "examples"
        )
    splits = {part: ArraySplit(arrays) for part, arrays in parts.items()}
    return make_source(options, splits, DataInfo(columns), notes)
