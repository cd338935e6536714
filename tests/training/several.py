"""Train several models 30 steps with everything on: `several.py STRATEGY OUT.npz`.

In float64, with clipping, micro-batches, averaged weights, weight decay and a cosine schedule; from
`unet_small` on, evaluators run after each epoch: mean IoU, probes of features, whose loss also
couples the examples of all replicas, and the average precision of boxes and masks. One process for
all: TensorFlow starts once. A worker of a cluster finds its place in TF_CONFIG.
"""

import functools
import os
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog
from kerasdl.columns import DataInfo
from kerasdl.export.exporter import save_keras
from kerasdl.recipe import Recipe
from kerasdl.store import load
from kerasdl.store.settings import resolve
from kerasdl.tasks.classify import Classify
from kerasdl.training import strategy
from kerasdl.training.session import Session
from tests.training.battery import Watch

STEPS = 30
MADE = {"dataset": "synthetic", "image_size": (8, 12)}
DETECTION = {
    "tiny": True,
    "drop_rate": 0.0,
    "dataset": "synthetic",
    "image_size": (16, 24),
    "sync_batch_norm": True,
    "eval_epochs": 1,
}
VIEWS = {
    "tiny": True,
    **MADE,
    "augment": ("resized_crop", "noise"),
    "grad_accum_steps": 1,  # SimCLR's loss takes the whole batch at once
    "sync_batch_norm": True,
    "eval_epochs": 1,
}
DINO = {"local_crops": 2, "local_size": 4, "warmup_epochs": 2}
MODELS = {
    "mlp": {"drop_rate": 0.0, "dataset": "npz:ODD", "val_split": 0.1, "grad_accum_steps": 3},
    "resnet20": {"tiny": True, "sync_batch_norm": True, "grad_accum_steps": 3},
    "lenet5": {
        "tiny": True,
        "drop_rate": 0.0,
        "dataset": "synthetic",
        "image_size": (16, 20),
        "distill_from": "TEACHER",
        "distill": "features",
        "labels": 100,
        "mixup": 0.2,
    },
    "transformer_small": {"tiny": True, "drop_rate": 0.0},
    "dcgan": {
        "tiny": True,
        "image_size": (8,),
        "model_kwargs": {"norm": "batch", "minibatch_std": False},
        "sync_batch_norm": True,
    },
    "ddpm_unet_small": {"tiny": True, "drop_rate": 0.0},
    "unet_small": {"tiny": True, "drop_rate": 0.0, **MADE, "eval_epochs": 1},
    "simclr_small": VIEWS,
    "moco_small": VIEWS,
    "dino_small": {**VIEWS, "drop_rate": 0.0, "drop_path": 0.0, "task_kwargs": DINO},
    "cpc_small": {
        "tiny": True,
        **MADE,
        "augment": ("resized_crop", "noise"),
        "task_kwargs": {"crop": 0.8},
        "grad_accum_steps": 1,
        "opt": "lars",
        "lr": 20.0,  # a fiftieth of a weight's norm in a step
        "eval_epochs": 1,
    },
    "clip_small": {
        "tiny": True,
        **MADE,
        "max_length": 8,
        "model_kwargs": {"text_drop_rate": 0.0},
        "augment": ("noise",),
        "grad_accum_steps": 1,
        "sync_batch_norm": True,
        "eval_epochs": 1,
    },
    "locate_small": {**DETECTION, "image_size": (9, 14)},
    "yolo_v1_small": DETECTION,
    "fast_rcnn_small": DETECTION,
    "mask_rcnn_small": DETECTION,
}
SETTINGS = {
    "epochs": 4,
    "max_steps": STEPS,
    "batch_size": 24,
    "clip_grad": 0.5,
    "grad_accum_steps": 2,  # each is a part of the graph of its own
    "ema_decay": 0.9,
    "weight_decay": 0.01,
    "sched": "cosine",
    "warmup_epochs": 0.1,
    "limit_batches": 12,
    "precision": "float64",
    "log": (),
    "export": (),
}


def write_odd(path):
    """Images of which 333 are for training and 37, held out of them, for validation."""
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.random((370, 8, 8, 1)), "y_train": rng.integers(0, 4, 370)}
    arrays |= {"x_test": rng.random((9, 8, 8, 1)), "y_test": np.arange(9) % 4}
    arrays = {k: v.astype("float32" if k[0] == "x" else "int64") for k, v in arrays.items()}
    mine = path.with_name(f"odd-{os.getpid()}.npz")  # several processes come here at once
    np.savez(mine, **arrays)
    mine.replace(path)


def write_teacher(path):
    """A classifier of the made-up images, of another size."""
    info = DataInfo.of_images((8, 12, 3), "0123456789", (0.5,) * 3, (0.2,) * 3)
    recipe = Recipe(model="mlp", dataset="synthetic")
    keras.utils.set_random_seed(5)
    model = catalog.build("mlp", **Classify(info, recipe).arguments(), dims=(7,))
    mine = path.with_name(f"teacher-{os.getpid()}.keras")
    save_keras(model, load.Metadata("mlp", info, recipe), mine)
    mine.replace(path)


def main(kind, out):
    made, result = None, {}
    # Its time grows faster than the graph, and it may round the float32 of examples otherwise.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    odd, teacher = (Path(out).with_name(name) for name in ("odd.npz", "teacher.keras"))
    write_odd(odd)
    for name, own in MODELS.items():
        keras.backend.clear_session()
        given = {"model": name, "strategy": kind, **SETTINGS, **own}
        if given.get("dataset") == "npz:ODD":
            given["dataset"] = f"npz:{odd}"
        if given.get("distill_from") == "TEACHER":
            write_teacher(teacher)
            given["distill_from"] = str(teacher)
        if kind == "mirrored":
            given["logical_devices"] = 2
        if name != "transformer_small" and "image_size" not in given:
            given["augment"] = ("shift",)
        losses = Watch()
        folder = Path(out).parent / kind / name  # workers share it
        session = Session(resolve(given), folder, print, [losses])
        if made is None:  # the devices of a process are divided once
            made = session.strategy, session.cluster
            strategy.make = functools.partial(lambda it, *_: it, made)
        session.fit()
        result[f"{name}/losses"] = losses.values
        history = session.loop.history
        result[f"{name}/history"] = [list(row.values()) for row in history]
        result[f"{name}/names"] = list(history[-1])
        result |= {f"{name}/{k}": v for k, v in session.loop.weights().items()}
    np.savez(out, **result)


if __name__ == "__main__":
    main(*sys.argv[1:])
