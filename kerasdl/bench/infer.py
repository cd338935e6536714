"""Answers of exported files: a SavedModel against a function of its model, TFLite against Keras'.

Keras' side is the same network made of `keras.layers`, converted by Keras' own `export`.
"""

import contextlib
import io
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasdl import catalog, tasks
from kerasdl.columns import DataInfo
from kerasdl.export import saved_model, tflite
from kerasdl.inference import runtimes
from kerasdl.inference.signatures import functions
from kerasdl.recipe import Recipe

SHAPE, CLASSES = (32, 32, 3), 10
VIT = {"patch_size": 4, "dim": 64, "depth": 4, "num_heads": 4, "mlp_dim": 128}
BATCHES = (1, 32)
THREADS = 2


def cases(batches=BATCHES):
    """Yield `(name, steps)` for `paired.compare`; there is no XLA in them.

    Args:
        batches: Sizes of the SavedModel's requests.
    """
    peers = {"resnet20": keras_resnet20, "vit_digits": keras_vit}
    for name, arguments in (("resnet20", {}), ("vit_digits", VIT)):
        task, model = _made(name, arguments)
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            saved_model.write(
                saved_model.traced(functions(task, model, "savedmodel")), folder / "s"
            )
            loaded = tf.saved_model.load(str(folder / "s"))
            for batch in batches:
                yield (
                    f"SavedModel of {name}, batch {batch} / a tf.function of the model",
                    _saved(loaded.signatures["serving_default"], task, model, batch),
                )
            tflite.write(task, model, {}, folder / "lite", lambda line: None, quantized=())
            with contextlib.redirect_stdout(io.StringIO()):  # Keras prints its outputs
                peers[name]().export(str(folder / "peer.tflite"), format="litert", verbose=False)
            files = (folder / "lite" / "float32.tflite", folder / "peer.tflite")
            yield (
                f"TFLite of {name}, {THREADS} threads / the same of keras.layers by Keras",
                {(side, False): _lite(f) for side, f in zip(("ours", "peer"), files, strict=True)},
            )


def _made(name, arguments):
    info = DataInfo.of_images(SHAPE, range(CLASSES), (0.5,) * 3, (0.25,) * 3)
    task = tasks.get(catalog.row(name).task)(info, Recipe(model=name))
    return task, catalog.build(name, **task.arguments(), **arguments)


def _image(batch):
    return np.random.default_rng(0).random((batch, *SHAPE), "float32")


def _saved(signature, task, model, batch):
    image = tf.constant(_image(batch))
    answer = tf.function(lambda image: task.predict(model, {"image": image}), autograph=False)
    return {
        ("ours", False): lambda: signature(image=image)["logits"].numpy(),
        ("peer", False): lambda: answer(image)["logits"].numpy(),
    }


def _lite(path):
    lite = runtimes.TFLite(path, THREADS)
    (name, names), *_ = lite.signatures.items()
    inputs = {names["inputs"][0]: _image(1)}
    return lambda: lite.answer(name, inputs)


def _normalized(inputs):
    return layers.Normalization(mean=(0.5,) * 3, variance=(0.0625,) * 3)(inputs)


def keras_resnet20():
    """ResNet-20 of `keras.layers`."""

    def conv(x, filters, stride=1):
        padding = "same" if stride == 1 else "valid"
        x = x if stride == 1 else layers.ZeroPadding2D(1)(x)  # on both sides, as ours
        x = layers.Conv2D(filters, 3, stride, padding, use_bias=False)(x)
        return layers.BatchNormalization(epsilon=1e-5)(x)

    inputs = keras.Input(SHAPE)
    x = layers.ReLU()(conv(_normalized(inputs), 16))
    for filters in (16, 32, 64):
        for block in range(3):
            stride = 2 if block == 0 and filters > 16 else 1
            y = layers.ReLU()(conv(x, filters, stride))
            y = conv(y, filters)
            if stride > 1:
                x = ops.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (0, filters // 2)))
            x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x))


class ClassToken(layers.Layer):
    """A class token before the others, and positions: what `keras.layers` lacks."""

    def build(self, input_shape):
        _, count, dim = input_shape
        self.cls = self.add_weight(shape=(1, 1, dim), name="cls")
        self.positions = self.add_weight(shape=(1, count + 1, dim), name="positions")

    def call(self, x):
        cls = ops.zeros_like(x[:, :1]) + self.cls
        return ops.concatenate([cls, x], axis=1) + self.positions


def keras_vit():
    """The ViT of `VIT` of `keras.layers`."""
    patch, dim, depth, heads, hidden = VIT.values()
    inputs = keras.Input(SHAPE)
    x = layers.Conv2D(dim, patch, patch)(_normalized(inputs))
    x = ClassToken()(layers.Reshape((-1, dim))(x))
    for _ in range(depth):
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        x = layers.Add()([x, layers.MultiHeadAttention(heads, dim // heads)(y, y)])
        y = layers.LayerNormalization(epsilon=1e-6)(x)
        y = layers.Dense(dim)(layers.Dense(hidden, activation="gelu")(y))
        x = layers.Add()([x, y])
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(x[:, 0]))
