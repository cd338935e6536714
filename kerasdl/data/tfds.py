"""`tfds:NAME[:config]`, or a bare name: image classification sets of TensorFlow Datasets."""

import numpy as np
import tensorflow as tf

from kerasdl.catalog import nearest
from kerasdl.data.images import fit, to_float
from kerasdl.data.splits import from_arrays

OFFLINE = "offline there are digits, synthetic, folder:PATH, npz:PATH, idx:FOLDER"
MEMORY_BYTES = 4 * 2**30


def load(where, options):
    """A data set of TFDS with an image and a class label; all of it is held in memory.

    Its validation part is cut off the training part where it has none; its test part is `test`,
    or else its validation part.
    """
    import tensorflow_datasets as tfds

    builder = _prepared(tfds, where.replace(":", "/"), options)
    features = builder.info.features
    keys = [
        [name for name, feature in features.items() if isinstance(feature, kind)]
        for kind in (tfds.features.Image, tfds.features.ClassLabel)
    ]
    if any(len(names) != 1 for names in keys):
        keys = [[name] for name in builder.info.supervised_keys or ()]
    kinds = [type(features[name]).__name__ for (name,) in keys]
    if kinds != ["Image", "ClassLabel"]:
        raise ValueError(f"{options.name}: is no data set of images with one class label each")
    keys = [name for (name,) in keys]
    if "train" not in builder.info.splits:
        raise ValueError(f"{options.name}: has no train part")
    shape = _shape(features[keys[0]].shape, builder, options)
    names = {"train": "train", "validation": "validation", "test": "test"}
    notes = []
    if "test" not in builder.info.splits and "validation" in builder.info.splits:
        names = {"train": "train", "test": "validation"}
        notes.append("test part: the validation part, since there is no other")
    parts = {
        part: _arrays(builder, split, keys, shape)
        for part, split in names.items()
        if split in builder.info.splits
    }
    return from_arrays(parts, options, class_names=features[keys[1]].names, notes=notes)


def _prepared(tfds, name, options):
    """The builder of a data set that is on disk; it is downloaded if it is not."""
    from tensorflow_datasets.core.download import downloader

    tfds.disable_progress_bar()
    try:
        builder = tfds.builder(name, data_dir=options.data_dir)
    except Exception as error:  # a registry of hundreds of modules: anything may be raised
        known = tfds.list_builders(with_community_datasets=False)
        base = name.split("/")[0].split(":")[0]
        if base in known:
            raise ValueError(f"{options.name}: {_line(error)}") from error
        raise ValueError(
            f"unknown source {options.name!r}{nearest(base, [*known, 'digits', 'synthetic'])}: "
            f"TFDS has no such data set; {OFFLINE}"
        ) from error
    if builder.info.splits:
        return builder
    retries, downloader.MAX_RETRIES = downloader.MAX_RETRIES, 0
    try:
        builder.download_and_prepare()
    except Exception as error:
        raise ValueError(
            f"{options.name}: is not in {builder.data_dir} and cannot be downloaded "
            f"({type(error).__name__}); {OFFLINE}"
        ) from error
    finally:
        downloader.MAX_RETRIES = retries
    return builder


def _line(error):
    """The first line that an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _shape(shape, builder, options):
    """`(H, W, C)` of the images once read, which must fit into memory."""
    if options.image_size:
        shape = (*options.image_size, shape[2])
    if None in shape[:2]:
        raise ValueError(f"{options.name}: images differ in size: give --image-size")
    shape = (*shape[:2], shape[2] or 3)
    count = sum(split.num_examples for split in builder.info.splits.values())
    if count * np.prod(shape) > MEMORY_BYTES:
        raise ValueError(
            f"{options.name}: {count} images of {shape} do not fit into memory "
            f"({MEMORY_BYTES >> 30} GiB): give a smaller --image-size"
        )
    return shape


def _arrays(builder, split, keys, shape):
    """uint8 images and labels of one part, in file order."""

    def example(row):
        image = tf.ensure_shape(row[keys[0]], (None, None, shape[2]))
        image = fit(to_float(image), shape[:2])
        return tf.cast(tf.round(image * 255.0), tf.uint8), row[keys[1]]

    data = builder.as_dataset(split=split, shuffle_files=False)
    data = data.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(256)
    images, labels = zip(*data.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)
