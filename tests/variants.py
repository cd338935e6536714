"""The tiny variants of the catalogue's rows, and made-up examples for them.

A row's tiny variant serves all rows of its module that share its `TINY`, and those of modules that
take theirs from it.
"""

import json

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.columns import VOID, Column, DataInfo
from kerasdl.ops.text import SPECIAL
from kerasdl.recipe import Recipe


def tiny(name):
    """The constructor arguments of a row's tiny variant."""
    return catalog.module_of(name).TINY[name]


def first_of_each():
    """The rows of the battery: the first of each module and `TINY`."""
    owners, seen = {}, {}
    for row in catalog.ROWS:
        arguments = tiny(row.name)
        owner = owners.setdefault(id(arguments), row.module)  # it may be another module's
        seen.setdefault((owner, repr(arguments)), row.name)
    return list(seen.values())


BATTERY = first_of_each()
SHORT = {"steps": 4, "sample_tokens": 8, "max_proposals": 5, "max_objects": 4}  # settings of tasks
SMALL = {"local_crops": 2, "local_size": 4}  # likewise, of tiny images
FREE = 5  # length of an axis that is free


def task_of(name):
    """The row's task on data of the tiny variant's shape."""
    kind = tasks.get(catalog.row(name).task)
    return kind(info_of(kind, tiny(name)), Recipe(model=name, task_kwargs=settings_of(name, SMALL)))


def short_settings(name):
    """The settings of the row's task with which samples are drawn in few steps."""
    return settings_of(name, SHORT | SMALL)


def settings_of(name, others):
    """The settings of the row's task, and those of others that it knows."""
    own = catalog.settings_of(name).get("task_kwargs", {})
    known = tasks.get(catalog.row(name).task).settings
    return {**own, **{k: v for k, v in others.items() if k in known}}


def info_of(task, arguments):
    """Facts of data with the columns that a task wants, of the shapes that a model takes."""
    classes = tuple(f"class {i}" for i in range(arguments.get("num_classes", 0)))
    longest = (arguments.get("max_length") or 12) - 1  # a translation ends in one more
    columns, tokenizers = {}, {}
    for name, spec in {**task.inputs, **task.targets}.items():
        if spec.kind == "image":
            columns[name] = Column("image", tuple(arguments["image_shape"]))
        elif spec.kind == "mask":
            columns[name] = Column("mask", tuple(arguments["image_shape"][:2]), classes)
        elif spec.kind == "label" and classes:
            columns[name] = Column("label", (), classes)
        elif spec.kind == "tokens":
            columns[name] = Column("tokens", ("N",), tokenizer="text", max_length=longest)
            tokenizers["text"] = letters(arguments["vocab_size"], task.masks_tokens)
        elif spec.kind == "regions":
            columns[name] = Column("regions", (FREE, 4))
        elif spec.kind not in ("label", "mask"):
            columns[name] = Column(spec.kind, spec.shape)
    return DataInfo(columns, tokenizers)


def letters(count, masks=False):
    """A tokenizer of so many ids, as JSON; the last is a mask token if `masks`."""
    pieces = ["", "", "", "?", *(chr(ord("a") + i) for i in range(count - SPECIAL))]
    mask = {"mask": count - 1} if masks else {}
    return json.dumps({"kind": "char", "pieces": pieces, **mask})


def build(name):
    """The row's tiny model and its task."""
    keras.utils.set_random_seed(0)
    return catalog.build(name, **tiny(name)), task_of(name)


def examples(task, size, rng):
    """`{column: array}` of made-up examples that meet the task's specs, by kind."""
    result = {}
    for name, spec in {**task.inputs, **task.targets}.items():
        column = task.info.columns.get(name)
        if not column and name in task.optional:
            continue
        shape = column.shape if spec.kind in ("image", "mask") else spec.shape
        shape = (size, *(FREE if isinstance(n, str) else n for n in shape))
        if spec.kind in ("label", "mask"):
            value = rng.integers(0, len(column.class_names) if column else 1, shape)
            if spec.kind == "mask":
                value = np.where(rng.random(shape) < 0.1, VOID, value)
        elif spec.kind == "tokens":
            value = rng.integers(SPECIAL, task.info.vocab_size, shape)
        else:
            value = rng.integers(0, 2, shape) if "int" in spec.dtype else rng.random(shape)
            if spec.kind in ("boxes", "regions"):  # each end behind its start
                value = np.sort(value.reshape(*shape[:-1], 2, 2), axis=-2).reshape(shape)
        result[name] = value.astype(spec.dtype)
        if spec.kind == "image":
            for view, settings in task.views.items():
                sides = settings.get("image_size", shape[1:3])
                seen = rng.random((size, *sides, shape[3]))
                result[f"{name}_{view}"] = seen.astype(spec.dtype)
    return result


def example_batch(task, size, seed=0):
    """Made-up examples that meet the task's specs, prepared as the loop prepares them."""
    rng = np.random.default_rng(seed)
    batch = {"key": rng.integers(0, 2**31, (size, 2)).astype("uint32")}
    batch |= examples(task, size, rng) | {"weight": np.ones(size, "float32")}
    return task.prepare({name: tf.constant(value) for name, value in batch.items()})


def flat(outputs):
    """`{path: array}` of a tensor, or of a nest of them."""
    leaves = keras.tree.flatten_with_path(outputs)
    return {"/".join(map(str, path)): np.asarray(leaf) for path, leaf in leaves}
