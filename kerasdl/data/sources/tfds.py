"""`tfds:NAME[:config]`, or a bare name: images, boxes, masks, texts and translations of TensorFlow
Datasets."""

import numpy as np
import tensorflow as tf

from kerasdl.data import sources, wanted
from kerasdl.data.arrays import from_arrays
from kerasdl.data.images import resize, to_float
from kerasdl.data.sources import tfds_objects
from kerasdl.data.sources.objects import GIVES as OBJECTS
from kerasdl.data.sources.pairs import divide, translation_source
from kerasdl.data.sources.text import BETWEEN, language_source, split_missing
from kerasdl.errors import SizesDiffer, UserError
from kerasdl.system.names import nearest

GIVES = None  # as the task wants, of what the data set has
READ_AS = {
    "images": {"image": "image", "label": "label"},
    "pairs": {"source_ids": "tokens", "target_ids": "tokens"},
    "text": {"token_ids": "tokens"},
    "boxes": {name: OBJECTS[name] for name in ("image", *tfds_objects.BOXES)},
    "masks": {name: OBJECTS[name] for name in ("image", "mask")},
}
OFFLINE = "available offline: " + ", ".join(n for n in sources.names() if not n.startswith("tfds"))
MEMORY_BYTES = 4 * 2**30


def load(where, options):
    """A data set of TFDS; all of it is held in memory.

    The task decides what is read: an image and a class label, a text, a translation, whose source
    is the language that the configuration names first, an image and the boxes of its objects, or
    an image and its `segmentation_mask`. Without a task it is the first of these that the data set
    has. A missing validation part is held out of the training part; the
    test part is `test`, or else the validation part.
    """
    import tensorflow_datasets as tfds

    builder = _prepared(tfds, where.replace(":", "/"), options)
    keys_of = {
        "images": _image_keys(tfds, builder.info),
        "pairs": _pair_keys(tfds, builder.info),
        "text": _text_key(tfds, builder.info),
        "boxes": tfds_objects.box_keys(tfds, builder.info),
        "masks": tfds_objects.mask_keys(tfds, builder.info),
    }
    keys_of = {kind: keys for kind, keys in keys_of.items() if keys}
    if not keys_of:
        raise UserError(
            f"{options.name} must have images with one class label, boxes or a mask each, text, or "
            "translations, and has none of these"
        )
    kind = next((kind for kind in keys_of if wanted.fits(READ_AS[kind], options.task)), None)
    if not kind:
        given = " or ".join(wanted.describe(READ_AS[kind]) for kind in keys_of)
        raise UserError(f"{options.name} has {given}, but {sources.needs_of(options.task)}")
    if "train" not in builder.info.splits:
        raise UserError(f"{options.name} has no train part")
    names = {"train": "train", "validation": "validation", "test": "test"}
    notes = []
    if "test" not in builder.info.splits and "validation" in builder.info.splits:
        names = {"train": "train", "test": "validation"}
        notes.append("test part: the validation part, since there is no other")
    names = {part: split for part, split in names.items() if split in builder.info.splits}
    make = {"images": _images, "pairs": _pairs, "text": _text}.get(kind, _objects)
    return make(builder, keys_of[kind], names, options, notes)


def _image_keys(tfds, info):
    """The names of the image and of the label, or None."""
    features = info.features
    keys = [
        [name for name, feature in features.items() if isinstance(feature, kind)]
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    ]
    if any(len(names) != 1 for names in keys):
        keys = [[name] for name in info.supervised_keys or () if name in features]
    kinds = [type(features[name]).__name__ for (name,) in keys]
    return [name for (name,) in keys] if kinds == ["Image", "ClassLabel"] else None


def _pair_keys(tfds, info):
    """The paths of source and target, or None."""
    features, path = info.features, ()
    if not isinstance(features, tfds.features.Translation):
        path = next((n for n, f in features.items() if isinstance(f, tfds.features.Translation)), 0)
        if not path:
            return None
        features, path = features[path], (path,)
    languages = list(features)
    order = [name for name in info.supervised_keys or () if name in languages]
    order = order if len(order) == 2 else languages
    return [(*path, name) for name in order] if len(order) == 2 else None


def _text_key(tfds, info):
    """The path of the text, or None; of several, the one that is called `text` or is the input."""
    features = info.features
    names = [name for name, f in features.items() if isinstance(f, tfds.features.Text)]
    first = [name for name in ("text", *(info.supervised_keys or ())) if name in names]
    names = first[:1] or names
    return [(names[0],)] if len(names) == 1 else None


def _images(builder, keys, names, options, notes):
    features = builder.info.features
    shape = _shape(features[keys[0]].shape, builder, options)
    parts = {
        part: _arrays(builder, split, keys, shape, options.fit) for part, split in names.items()
    }
    return from_arrays(parts, options, class_names=features[keys[1]].names, notes=notes)


def _objects(builder, keys, names, options, notes):
    shape = _shape(builder.info.features[keys[0]].shape, builder, options)
    read = tfds_objects.read_masks if len(keys) == 2 else tfds_objects.read_boxes
    return read(builder, keys, names, shape, options, notes)


def _text(builder, keys, names, options, notes):
    texts = {part: list(_strings(builder, split, keys, options)) for part, split in names.items()}
    texts = {part: [text for (text,) in rows] for part, rows in texts.items()}
    if len(texts) < 3:
        texts["train"] = [BETWEEN.join(texts["train"])]
        split_missing(options, texts, notes)
    return language_source(options, texts, notes)


def _pairs(builder, keys, names, options, notes):
    parts = {part: list(_strings(builder, split, keys, options)) for part, split in names.items()}
    missing = [part for part in ("test", "validation") if part not in parts]
    if missing:
        parts |= divide(parts["train"], options, missing)
        notes += [f"{p} part: {options.val_split:.0%} of the training pairs" for p in missing]
    return translation_source(options, parts, notes)


def _strings(builder, split, keys, options):
    """The texts at some paths of each example, in file order."""
    if builder.info.dataset_size > MEMORY_BYTES:
        raise UserError(
            f"{options.name}: {int(builder.info.dataset_size) >> 30} GiB do not fit into memory "
            f"({MEMORY_BYTES >> 30} GiB)"
        )
    for number, row in enumerate(builder.as_dataset(split=split, shuffle_files=False)):
        texts = []
        for path in keys:
            value = row
            for name in path:
                value = value[name]
            texts.append(value.numpy())
        try:
            yield tuple(text.decode() for text in texts)
        except UnicodeDecodeError as error:
            raise UserError(
                f"{options.name}: example {number} of {split} is not UTF-8 at byte {error.start}"
            ) from error


def _prepared(tfds, name, options):
    """The builder of a data set that is on disk; it is downloaded if it is not."""
    from tensorflow_datasets.core.download import downloader

    tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=options.data_dir)
    except Exception as error:  # a registry of hundreds of modules: anything may be raised
        names = tfds.list_builders(with_community_datasets=False)
        base = name.split("/")[0].split(":")[0]
        if base in names:
            raise UserError(f"{options.name}: {_line(error)}") from error
        raise UserError(
            f"unknown data set {options.name!r}{nearest(base, [*names, 'digits', 'synthetic'])}: "
            f"TFDS has no such data set; {OFFLINE}"
        ) from error
    if builder.info.splits:
        return builder
    retries, downloader.MAX_RETRIES = downloader.MAX_RETRIES, 0
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise UserError(
            f"{options.name} is not in {builder.data_dir} and cannot be downloaded "
            f"({type(error).__name__}); {OFFLINE}"
        ) from error
    finally:
        downloader.MAX_RETRIES = retries
    return builder


def _line(error):
    """The first line of an error's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _shape(shape, builder, options):
    """`(H, W, C)` of the images once read, which must fit into memory."""
    if options.image_size:
        shape = (*options.image_size, shape[2])
    if None in shape[:2]:
        raise SizesDiffer(f"{options.name}: images differ in size; give --image-size")
    shape = (*shape[:2], shape[2] or 3)
    count = sum(split.num_examples for split in builder.info.splits.values())
    if count * np.prod(shape) > MEMORY_BYTES:
        raise UserError(
            f"{options.name}: {count} images of {shape} do not fit into memory "
            f"({MEMORY_BYTES >> 30} GiB); give a smaller --image-size"
        )
    return shape


def _arrays(builder, split, keys, shape, fit):
    """uint8 images and labels of one part, in file order."""

    def example(row):
        image = tf.ensure_shape(row[keys[0]], (None, None, shape[2]))
        image = resize(to_float(image), shape[:2], fit)
        return tf.cast(tf.round(image * 255.0), tf.uint8), row[keys[1]]

    data = builder.as_dataset(split=split, shuffle_files=False)
    data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(256)
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)
