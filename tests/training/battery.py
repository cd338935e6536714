"""Train the tiny variant of every kind of model: `battery.py STRATEGY OUT.npz`.

One process for all, in float64: a strategy wants a process of its own, and TensorFlow starts once.
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from kerasdl.layers.dropout import Dropout, DropPath
from kerasdl.store.settings import resolve
from kerasdl.training.session import Session
from tests.test_every_model import BATTERY, tiny

DEVICES = 2


class Losses(keras.callbacks.Callback):
    """Remembers the loss of every step, and stops the loop after one of them."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.values = []
        self.stop_at = stop_at

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(list(logs.values()))
        if self.loop.step == self.stop_at:
            self.loop.stop_signal = "the test"


def session(name, folder, callbacks=(), **settings):
    """A few steps of a tiny model on made-up data of its shape."""
    given = {
        "model": name,
        "tiny": True,
        "dataset": "synthetic",
        "image_size": tiny(name).get("image_shape", ())[:2],
        "max_length": 8 if "max_length" in tiny(name) else None,
        "batch_size": 16,
        "limit_batches": 4,
        "epochs": 1,
        "log": (),
        "export": (),
        "output": str(folder),
        "experiment": name,
        **settings,
    }
    recipe = resolve(given)
    made = Session(recipe, Path(folder) / name, lambda line: None, callbacks)
    made.run.create()
    return made


def main(strategy, out):
    result = {}
    for name in BATTERY:
        keras.backend.clear_session()
        losses = Losses()
        settings = {"strategy": strategy, "precision": "float64", "sync_batch_norm": True}
        if strategy == "mirrored":
            settings["logical_devices"] = DEVICES
        with tempfile.TemporaryDirectory() as folder:
            made = session(name, folder, [losses], **settings)
            for layer in made.model._flatten_layers():
                if isinstance(layer, Dropout | DropPath):
                    layer.rate = 0.0  # replicas draw other masks on purpose
            made.fit()
        result[f"{name}/losses"] = losses.values
        result |= {f"{name}/{k}": v for k, v in made.loop.weights().items()}
    np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
