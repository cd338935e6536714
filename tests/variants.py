"""The tiny variants of the catalogue's rows, and made-up examples for them.

A row's tiny variant serves all rows of its module that share its `TINY`.
"""

import json

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.columns import DataInfo
from kerasdl.ops.text import SPECIAL
from kerasdl.recipe import Recipe


def tiny(name):
    """The constructor arguments of a row's tiny variant."""
    return catalog.module_of(name).TINY[name]


def first_of_each():
    """The rows of the battery: the first of each module and `TINY`."""
    seen = {}
    for row in catalog.ROWS:
        seen.setdefault((row.module, repr(tiny(row.name))), row.name)
    return list(seen.values())


BATTERY = first_of_each()


def task_of(name):
    """The row's task on data of the tiny variant's shape."""
    arguments = tiny(name)
    classes = [f"class {i}" for i in range(arguments.get("num_classes", 0))]
    if "image_shape" in arguments:
        info = DataInfo.of_images(arguments["image_shape"], classes)
    else:
        longest = (arguments.get("max_length") or 12) - 1  # a translation ends in one more
        names = tasks.get(catalog.row(name).task).inputs
        info = DataInfo.of_texts(letters(arguments["vocab_size"]), longest, names)
    settings = catalog.settings_of(name).get("task_kwargs", {})
    return tasks.get(catalog.row(name).task)(info, Recipe(model=name, task_kwargs=settings))


def letters(count):
    """A tokenizer of so many ids, as JSON."""
    pieces = ["", "", "", "?", *(chr(ord("a") + i) for i in range(count - SPECIAL))]
    return json.dumps({"kind": "char", "pieces": pieces})


def build(name):
    """The row's tiny model and its task."""
    keras.utils.set_random_seed(0)
    return catalog.build(name, **tiny(name)), task_of(name)


def example_batch(task, size, seed=0):
    """Made-up examples that meet the task's specs, prepared as the loop prepares them."""
    rng = np.random.default_rng(seed)
    batch = {"key": rng.integers(0, 2**31, (size, 2)).astype("uint32")}
    for name, spec in {**task.inputs, **task.targets}.items():
        shape = (size, *(5 if isinstance(n, str) else n for n in spec.shape))
        if "int" in spec.dtype:
            low, high = 0, max(1, len(task.info.class_names))
            if name.endswith("_ids"):
                low, high = SPECIAL, task.info.vocab_size
            value = rng.integers(low, high, shape)
        else:
            value = rng.random(shape)
        batch[name] = tf.constant(value.astype(spec.dtype))
    return task.prepare(batch)


def flat(outputs):
    """`{path: array}` of a tensor, or of a nest of them."""
    leaves = keras.tree.flatten_with_path(outputs)
    return {"/".join(map(str, path)): np.asarray(leaf) for path, leaf in leaves}
