"""Every row of the catalogue, one battery.

The battery runs at `TINY`, once per class and variant: rows of one module that share their `TINY`
share what the first of them proves. All rows are counted, and made from their config, at full size.
"""

import functools
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasdl import catalog, tasks
from kerasdl.columns import DataInfo
from kerasdl.models import __name__ as MODELS
from kerasdl.ops.text import SPECIAL
from kerasdl.recipe import Recipe

ROOT = Path(__file__).parents[1]
STEPS, CUT = 50, 0.8  # so many steps leave at most this part of the loss
RATE = 0.003


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
every_variant = pytest.mark.parametrize("name", BATTERY)
every_row = pytest.mark.parametrize("row", catalog.ROWS, ids=lambda row: row.name)


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


@functools.cache
def settled(name):
    """`build`, once, with every weight away from its start, where a lost one would not show."""
    model, task = build(name)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(weight.value + 0.1 * rng.random(weight.shape))
    return model, task


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


def methods_of(model):
    """Names of the public methods of a model's class, and its bases here, that take `x` alone."""
    names = []
    for cls in type(model).__mro__:
        if not cls.__module__.startswith(MODELS):
            continue
        for name, function in vars(cls).items():
            if inspect.isfunction(function) and not name.startswith("_") and name != "call":
                if list(inspect.signature(function).parameters) == ["self", "x"]:
                    names.append(name)
    return sorted(set(names))


def answers(model, task, batch):
    """What a model says through its task, its `call` and its public methods."""
    x = task.model_inputs(model, batch)
    result = {"call": model(x), "predict": task.predict(model, batch)}
    result |= {name: getattr(model, name)(x) for name in methods_of(model)}
    return flat(result)


def weights_of(model):
    """`{number and name: array}`; a loaded model's paths lack the model's own name at times."""
    return {f"weight {i} {w.name}": np.asarray(w.value) for i, w in enumerate(model.weights)}


def plain(config):
    """A config as JSON, in which tuples and lists are alike."""
    return json.dumps(keras.saving.serialize_keras_object(config), sort_keys=True)


@every_variant
def test_answers_meet_the_specs(name):
    model, task = settled(name)
    for size in (1, 3):
        batch = example_batch(task, size)
        first, second = answers(model, task, batch), answers(model, task, batch)
        for key, value in first.items():
            assert value.shape[0] == size, key
            assert np.isfinite(value).all(), key
            assert value.dtype in ("float32", "int32", "int64"), key
            np.testing.assert_array_equal(value, second[key], err_msg=key)
        loss, metrics = task.losses(model, batch, task.players[0], training=False)
        assert {"loss", *metrics} == set(task.metrics)
        for key, value in {"loss": loss, **metrics}.items():
            assert value.shape == (size,), key


@every_variant
def test_config_makes_the_same_model(name):
    model, task = settled(name)
    config = model.get_config()
    unbuilt = type(model).from_config(config)
    assert plain(unbuilt.get_config()) == plain(config)
    unbuilt(task.model_inputs(unbuilt, example_batch(task, 1)))
    assert plain(unbuilt.get_config()) == plain(config)
    assert [w.path for w in unbuilt.weights] == [w.path for w in model.weights]
    assert [w.shape for w in unbuilt.weights] == [w.shape for w in model.weights]
    for key, value in tiny(name).items():
        assert config[key] == value, f"the config does not hold {key}"


# Run in a process that has imported nothing of the project: loads each file, answers, says so.
LOADER = """
import sys
import numpy as np
import kerasdl
sys.path.insert(0, sys.argv[1])
folder, names = sys.argv[2], sys.argv[3:]
models = {name: kerasdl.load(f"{folder}/{name}.keras") for name in names}
import test_every_model as battery
for name in names:
    task = battery.task_of(name)
    found = battery.answers(models[name], task, battery.example_batch(task, 3))
    np.savez(f"{folder}/{name}-loaded.npz", **found, **battery.weights_of(models[name]))
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """All tiny models saved, then loaded in one fresh process that writes what they answer."""
    folder = tmp_path_factory.mktemp("saved")
    for name in BATTERY:
        model, task = settled(name)
        model.save(folder / f"{name}.keras")
        result = answers(model, task, example_batch(task, 3))
        np.savez(folder / f"{name}.npz", **result, **weights_of(model))
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(Path(__file__).parent), str(folder), *BATTERY],
        cwd=ROOT,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@every_variant
def test_a_fresh_process_loads_the_same_model(name, saved):
    with np.load(saved / f"{name}.npz") as here, np.load(saved / f"{name}-loaded.npz") as there:
        assert sorted(here) == sorted(there)
        for key in here:
            np.testing.assert_array_equal(here[key], there[key], err_msg=key)


@functools.cache
def training(name):
    """Losses of up to `STEPS` steps on one fixed batch, and each weight's largest gradients.

    Returns:
        The losses, one per step; `{path: largest |gradient| of the first three steps}`, -1 where
        there was none.
    """
    model, task = build(name)
    for weight in model.trainable_variables:
        if weight.path.endswith("bias"):  # else a few units are dead by chance, not by mistake
            weight.assign(weight.value + 0.1)
    batch = example_batch(task, 8)
    players = {p: task.variables(model, p) for p in task.players}
    optimizers = {p: keras.optimizers.Adam(RATE) for p in players}
    for player, weights in players.items():
        optimizers[player].build(weights)

    @tf.function
    def step():
        losses, largest = [], []
        for player, weights in players.items():
            with tf.GradientTape() as tape:
                loss, _ = task.losses(model, batch, player, training=True)
                loss = keras.ops.mean(loss)
            gradients = tape.gradient(loss, [w.value for w in weights])
            gradients = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
            known = [(g, w) for g, w in zip(gradients, weights, strict=True) if g is not None]
            optimizers[player].apply(*map(list, zip(*known, strict=True)))
            losses.append(loss)
            largest += [-1.0 if g is None else keras.ops.max(keras.ops.abs(g)) for g in gradients]
        task.after_update(model, batch)
        return losses, largest

    losses, gradients = [], []
    for i in range(STEPS):
        loss, largest = step()
        losses.append([float(value) for value in loss])
        if i < 3:
            gradients.append([float(value) for value in largest])
        elif sum(losses[-1]) < CUT * sum(losses[0]) or len(players) > 1:
            break
    paths = [w.path for weights in players.values() for w in weights]
    return losses, dict(zip(paths, np.max(gradients, axis=0).tolist(), strict=True))


@every_variant
def test_every_weight_is_trained(name):
    _, gradients = training(name)
    reasons = catalog.row(name).expected_zero_grad
    starved = {path for path in gradients if any(re.search(r, path) for r, _ in reasons)}
    minimum = 1e-6 * np.median([g for path, g in gradients.items() if path not in starved])
    missing = [path for path, g in gradients.items() if g < minimum and path not in starved]
    assert not missing, f"no gradient reaches {', '.join(missing)}"
    for pattern, reason in reasons:
        assert reason, f"{pattern}: no reason given"


@every_variant
def test_one_batch_is_learned(name):
    losses, _ = training(name)
    assert np.isfinite(losses).all()
    if len(losses[0]) == 1:
        best = min(total for (total,) in losses)
        assert best < CUT * losses[0][0], f"{len(losses)} steps: {losses[0][0]} to {best}"


@every_variant
def test_mixed_precision_answers_in_float32(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, task = build(name)
    batch = example_batch(task, 3)
    outputs = {
        "call": model(task.model_inputs(model, batch)),
        "predict": task.predict(model, batch),
    }
    for key, value in flat(outputs).items():
        assert value.dtype in ("float32", "int32", "int64"), key
        assert np.isfinite(value).all(), key
    loss, _ = task.losses(model, batch, task.players[0], training=True)
    assert keras.backend.standardize_dtype(loss.dtype) == "float32"


def built_without_memory(name, **arguments):
    """A model whose weights have no values, and how many numbers are trained."""
    # The scope must not make them at its end either.
    with keras.StatelessScope(initialize_variables=False):
        model = catalog.build(name, **arguments)
    count = sum(int(np.prod(w.shape)) for w in model.trainable_variables)
    keras.backend.clear_session()  # forgets the variables that wait for their values
    return model, count


@every_row
def test_parameters_are_those_of_the_catalogue(row):
    model, count = built_without_memory(row.name)
    assert count == row.parameters
    assert model.name == row.name
    config = model.get_config()
    assert plain(type(model).from_config(config).get_config()) == plain(config)


@every_row
def test_a_row_is_complete(row):
    module = catalog.module_of(row.name)
    assert row.name in module.TINY
    defaults = inspect.signature(getattr(module, row.name)).parameters
    for key, value in module.TINY[row.name].items():
        if key in defaults:
            assert value != defaults[key].default, f"TINY leaves {key} at its default"
    for name, settings in getattr(module, "RECIPE", {}).items():
        assert name in module.TINY, f"RECIPE of {name}, which is no row here"
        Recipe(**{"model": row.name, **settings})
    assert row.paper
