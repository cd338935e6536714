"""Our input pipeline against Keras': an epoch of batches, made and thrown away."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.data import augment, pipeline
from kerasdl.data.splits import ArraySplit, FileSplit
from kerasdl.recipe import Recipe

SIZE = {"files": 256, "batch": 32, "side": 96}
STORED = 160  # pixels of a file's side


def cases(size=None):
    """Yield `(name, steps)` for `paired.compare`; there is no XLA in them.

    Args:
        size: `{"files", "batch", "side"}`; `SIZE` if None.
    """
    files, batch, side = (size or SIZE).values()
    with tempfile.TemporaryDirectory() as folder:
        paths = _write(Path(folder) / "one", files)
        # Not by `open_source`, which would keep so few images in memory.
        split = FileSplit(paths, np.zeros(files, np.int32), (side, side, 3))
        ours = _endless(split, batch)
        theirs = keras.utils.image_dataset_from_directory(
            folder, image_size=(side, side), batch_size=batch, seed=0, verbose=False
        )
        yield (
            f"{files} JPEG files of {STORED} x {STORED} as {side} x {side} (ours antialiased) / "
            "keras.utils.image_dataset_from_directory",
            _sides(ours, iter(theirs.repeat()), files // batch),
        )
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (files, 32, 32, 3), np.uint8), np.zeros(files, np.int32)
    split = ArraySplit({"image": image, "label": label})
    flips = augment.Augment.from_recipe(Recipe(model="resnet20", augment=("shift", "flip")))
    yield (
        f"{files} images of 32 x 32 in memory, shifted and mirrored / layers of Keras",
        _sides(
            _endless(split, batch, flips), iter(_by_layers(image, label, batch)), files // batch
        ),
    )


def _write(folder, files):
    """JPEG files of noise that is smooth, as photographs are; returns their paths."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(files)]
    for path in paths:
        image = tf.image.resize(255 * rng.random((20, 20, 3)), (STORED, STORED), "bicubic")
        encoded = tf.io.encode_jpeg(tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8))
        path.write_bytes(encoded.numpy())
    return paths


def _endless(split, batch, augmentation=None):
    columns = DataInfo.of_images(split.read([0])["image"].shape[1:], "0").columns
    return iter(
        pipeline.training_batches(
            split, columns, batch_size=batch, seed=0, augment=augmentation, stop_step=1 << 30
        )
    )


def _by_layers(image, label, batch):
    """As in tutorials: shuffled, batched, and changed by layers."""
    shift = keras.layers.RandomTranslation(4 / 32, 4 / 32, fill_mode="constant")
    flip = keras.layers.RandomFlip("horizontal")
    made = tf.data.Dataset.from_tensor_slices((image, label)).shuffle(len(image)).batch(batch)
    return (
        made.map(
            lambda image, label: (flip(shift(tf.cast(image, tf.float32) / 255)), label),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        .prefetch(tf.data.AUTOTUNE)
        .repeat()
    )


def _sides(ours, theirs, count):
    def epoch(batches):
        for _ in range(count):
            next(batches)

    return {("ours", False): lambda: epoch(ours), ("peer", False): lambda: epoch(theirs)}
