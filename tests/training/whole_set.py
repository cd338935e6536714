"""Train tasks whose loss or metrics are of the whole set: `whole_set.py STRATEGY OUT.npz`.

A weighted loss with mean IoU, and a loss over all replicas with probes of features, in float64;
the evaluators run after each epoch. STRATEGY is one_device, mirrored (two logical devices) or
multi_worker_mirrored.
"""

import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

from kerasdl.layers.dropout import Dropout
from kerasdl.store.settings import resolve
from kerasdl.training.session import Session

NAMES = ("unet_small", "simclr_small")


def main(strategy, out):
    result = {}
    for name in NAMES:
        with tempfile.TemporaryDirectory() as folder:
            given = {
                "model": name,
                "tiny": True,
                "dataset": "synthetic",
                "image_size": (8, 12),
                "epochs": 2,
                "limit_batches": 3,
                "batch_size": 16,
                "eval_epochs": 1,
                "precision": "float64",
                "sync_batch_norm": True,
                "strategy": strategy,
                "log": (),
                "export": (),
                "output": folder,
            }
            if strategy == "mirrored":
                given["logical_devices"] = 2
            session = Session(resolve(given), Path(folder) / name, lambda line: None)
            session.run.create()
            for layer in session.model._flatten_layers():
                if isinstance(layer, Dropout):
                    layer.rate = 0.0  # replicas drop other units on purpose
            session.fit()
        for row in session.loop.history:
            result |= {f"{name}/{row['epoch']}/{k}": v for k, v in row.items()}
        result |= {f"{name}/weight/{k}": v for k, v in session.loop.weights().items()}
        keras.backend.clear_session()
    np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
