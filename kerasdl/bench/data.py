"""Our input pipeline against those of other libraries: batches made and thrown away.

All sides make floats in [0, 1] of one size from the same files, on the threads of this machine, and
PyTorch's loader in two processes. A call reads whole epochs, so that nothing is read ahead in the
other side's time. Of files, the first epoch and several ones are timed apart: ours keeps pixels.
"""

import itertools
import tempfile
from importlib.util import find_spec
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasdl.columns import DataInfo
from kerasdl.data import augment, pipeline
from kerasdl.data.splits import ArraySplit, FileSplit
from kerasdl.recipe import Recipe

SIZE = {"files": 512, "batch": 32, "photos": ((160, 160, 96), (375, 500, 224), (427, 640, 128))}
WORKERS = 2
EPOCHS = (1, 5)


def cases(size=None):
    """Yield `(name, steps)` against Keras for `paired.compare`; there is no XLA in them.

    Args:
        size: `{"files", "batch", "photos"}`; `SIZE` if None. Of photos the height and the width as
            they are stored, and the side that they are read at.
    """
    files, batch, _ = (size or SIZE).values()
    yield from _photos(
        size, _by_keras, "(ours antialiased) / keras.utils.image_dataset_from_directory"
    )
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (files, 32, 32, 3), np.uint8), np.zeros(files, np.int32)
    split = ArraySplit({"image": image, "label": label})
    flips = augment.Augment.from_recipe(Recipe(model="resnet20", augment=("shift", "flip")))
    yield (
        f"{files} images of 32 x 32 in memory, shifted and mirrored / layers of Keras",
        _sides(_epochs(split, batch, 1, flips), _by_layers(image, label, batch)),
    )


def torch_cases(size=None):
    """Yield `(name, steps)` against PyTorch, as `cases` does; none without torchvision."""
    if find_spec("torchvision") is None:
        return
    peer = f"torchvision's ImageFolder in a DataLoader of {WORKERS} workers"
    yield from _photos(size, _by_torch, f"/ {peer}")


def _photos(size, peer, name):
    files, batch, photos = (size or SIZE).values()
    for height, width, side in photos:
        with tempfile.TemporaryDirectory() as folder:
            paths = _write(Path(folder) / "one", files, (height, width))
            split = FileSplit(paths, np.zeros(files, np.int32), (side, side, 3))
            theirs = peer(folder, side, batch)
            what = f"{files} JPEG files of {height} x {width} as {side} x {side}"
            for epochs in EPOCHS:
                ours = _epochs(split, batch, epochs)
                yield (
                    f"{what}, {epochs} epoch{'s' if epochs > 1 else ''} {name}",
                    _sides(ours, theirs, epochs, split.kept.clear),
                )


def _write(folder, files, size):
    """JPEG files of parts of photographs; returns their paths."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number}.jpg" for number in range(files)]
    for path, image in zip(paths, itertools.cycle(load_sample_images().images)):
        top, left = (
            int(rng.integers(0, whole - side + 1))
            for whole, side in zip(image.shape[:2], size, strict=True)
        )
        part = image[top : top + size[0], left : left + size[1]]
        path.write_bytes(tf.io.encode_jpeg(part, quality=90).numpy())
    return paths


def _by_keras(folder, side, batch):
    batches = keras.utils.image_dataset_from_directory(
        folder, image_size=(side, side), batch_size=batch, seed=0, verbose=False
    )
    scaled = batches.map(lambda image, label: (image / 255.0, label), tf.data.AUTOTUNE)
    return scaled.prefetch(tf.data.AUTOTUNE)


def _by_torch(folder, side, batch):
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import Compose, Resize, ToTensor

    data = ImageFolder(folder, Compose([Resize((side, side)), ToTensor()]))
    return DataLoader(
        data,
        batch_size=batch,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="spawn",  # TensorFlow's threads do not survive a fork
    )


def _epochs(split, batch, epochs, augmentation=None):
    columns = DataInfo.of_images(split.read([0])["image"].shape[1:], "0").columns
    return pipeline.training_batches(
        split,
        columns,
        batch_size=batch,
        seed=0,
        augment=augmentation,
        stop_step=epochs * (len(split) // batch),
    )


def _by_layers(image, label, batch):
    """As in tutorials: shuffled, batched, and changed by layers."""
    shift = keras.layers.RandomTranslation(4 / 32, 4 / 32, fill_mode="constant")
    flip = keras.layers.RandomFlip("horizontal")
    made = tf.data.Dataset.from_tensor_slices((image, label)).shuffle(len(image)).batch(batch)
    return made.map(
        lambda image, label: (flip(shift(tf.cast(image, tf.float32) / 255)), label),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)


def _sides(ours, theirs, epochs=1, before=None):
    """`ours` holds all epochs, `theirs` one of them; `before` is called before each of ours."""

    def read(batches, times):
        for _ in range(times):
            for _ in batches:
                pass

    def read_ours():
        if before is not None:
            before()
        read(ours, 1)

    return {("ours", False): read_ours, ("peer", False): lambda: read(theirs, epochs)}
