"""Every row of the catalogue, one battery.

The battery runs at `TINY`, once per class and variant: rows of one module that share their `TINY`
share what the first of them proves. All rows are counted, and made from their config, at full size.
"""

import inspect
import json
import subprocess

import keras
import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.models import __name__ as MODELS
from kerasdl.recipe import Recipe
from tests.fork_server import WITHOUT_PROJECT, python
from tests.variants import BATTERY, build, example_batch, flat, tiny

every_row = pytest.mark.parametrize("row", catalog.ROWS, ids=lambda row: row.name)


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


@pytest.fixture(scope="module", params=BATTERY)
def name(request):
    """A row of the battery."""
    return request.param


@pytest.fixture(scope="module")
def settled(name):
    """`build`, with every weight away from its start, where a lost one would not show."""
    model, task = build(name)
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "float" in weight.dtype:
            weight.assign(weight.value + 0.1 * rng.random(weight.shape))
    return model, task


@pytest.fixture(scope="module")
def answered(settled):
    """What the model says of one example, and of three."""
    model, task = settled
    return {size: answers(model, task, example_batch(task, size)) for size in (1, 3)}


def test_answers_meet_the_specs(settled, answered):
    model, task = settled
    for size, first in answered.items():
        batch = example_batch(task, size)
        second = answers(model, task, batch)
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert value.shape[0] == size, key
            assert np.isfinite(value).all(), key
            assert value.dtype in ("float32", "int32", "int64", "uint8"), key
            np.testing.assert_array_equal(value, second[key], err_msg=key)
        loss, metrics = task.losses(model, batch, task.players[0], training=False)
        assert {"loss", *metrics} == {*task.metrics, *task.carried}
        for key in task.metrics:
            value = loss if key == "loss" else metrics[key]
            for part in value if isinstance(value, tuple) else (value,):  # sums and their weights
                assert part.shape == (size,), key


def test_config_makes_the_same_model(name, settled):
    model, task = settled
    config = model.get_config()
    unbuilt = type(model).from_config(config)
    assert plain(unbuilt.get_config()) == plain(config)
    unbuilt(task.model_inputs(unbuilt, example_batch(task, 1)))
    assert plain(unbuilt.get_config()) == plain(config)
    assert [w.path for w in unbuilt.weights] == [w.path for w in model.weights]
    assert [w.shape for w in unbuilt.weights] == [w.shape for w in model.weights]
    for key, value in tiny(name).items():
        assert config[key] == value, f"the config does not hold {key}"


# Run in a process that has imported nothing of the project: loads a file, answers, says so.
LOADER = """
import sys
import numpy as np
import kerasdl
assert not [name for name in sys.modules if name.startswith("kerasdl.models.")]
name, file, out = sys.argv[1:]
model = kerasdl.load(file)
from tests.test_every_model import answers, weights_of
from tests.variants import example_batch, task_of
task = task_of(name)
np.savez(out, **answers(model, task, example_batch(task, 3)), **weights_of(model))
"""


def test_a_fresh_process_loads_the_same_model(name, settled, answered, tmp_path):
    model, _ = settled
    model.save(tmp_path / "model.keras")
    (tmp_path / "load.py").write_text(LOADER)
    command = [python(WITHOUT_PROJECT), tmp_path / "load.py", name]
    command += [tmp_path / "model.keras", tmp_path / "out.npz"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    here = {**answered[3], **weights_of(model)}
    with np.load(tmp_path / "out.npz") as there:
        assert sorted(here) == sorted(there)
        for key, value in here.items():
            np.testing.assert_array_equal(value, there[key], err_msg=key)


def test_mixed_precision_answers_in_float32(name):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model, task = build(name)
    batch = example_batch(task, 3)
    outputs = {
        "call": model(task.model_inputs(model, batch)),
        "predict": task.predict(model, batch),
    }
    for key, value in flat(outputs).items():
        assert value.dtype in ("float32", "int32", "int64", "uint8"), key
        assert np.isfinite(value).all(), key
    loss, _ = task.losses(model, batch, task.players[0], training=True)
    for part in loss if isinstance(loss, tuple) else (loss,):
        assert keras.backend.standardize_dtype(part.dtype) == "float32"


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
    assert row.image_size is None or 8 <= row.image_size <= 512
