"""The model that CONTRIBUTING.md gives to copy: its file, its test and its entry are run here."""

import ast
import importlib
import importlib.util
import inspect
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import kerasdl
from kerasdl import catalog, tasks
from kerasdl.columns import DataInfo
from kerasdl.layers import remat
from kerasdl.recipe import Recipe
from kerasdl.store.copying import in_head, is_backbone
from kerasdl.training import optimizers

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
# {path: what stands in the block below the line that names it}
BLOCKS = dict(
    re.findall(r"^`(\S+\.py)`[^\n]*:\n\n```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
)
MODEL, TEST, ENTRY = (
    "kerasdl/models/cnn/all_cnn.py",
    "tests/models/test_all_cnn.py",
    "kerasdl/catalog/cnn.py",
)
NAME = "kerasdl.models.cnn.all_cnn"
PAPER = eval(BLOCKS[ENTRY], {"Paper": catalog.Paper})
ROWS = {row.name: row for row in PAPER.models()}


def imported(name, path, folder):
    """A block as the module of that name."""
    file = folder / Path(path).name
    file.write_text(BLOCKS[path])
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def module(tmp_path_factory):
    """The model's file, imported, and its rows in the catalogue."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, NAME, None)  # what is there afterwards is taken away again
        for row in ROWS.values():
            patch.setitem(catalog.MODELS, row.name, row)
        yield imported(NAME, MODEL, tmp_path_factory.mktemp("copied"))


@pytest.fixture
def tiny(module):
    """The tiny model."""
    return kerasdl.create_model("all_cnn_c", **module.TINY["all_cnn_c"])


def test_all_three_files_are_there():
    assert set(BLOCKS) == {MODEL, TEST, ENTRY}
    assert not (ROOT / MODEL).exists(), "the page's example is a row by now: give another one"
    assert PAPER.module == NAME.removeprefix("kerasdl.models.")


@pytest.mark.parametrize("path", [MODEL, TEST])
def test_its_style_is_the_projects(path):
    ours = 'lint.isort.known-first-party = ["kerasdl"]'  # though the file is not there
    settings = ["--config", ours, "--no-cache", "--stdin-filename", path]
    for words in (["format", "--check"], ["check"]):
        command = [sys.executable, "-m", "ruff", *words, *settings]
        done = subprocess.run(command, cwd=ROOT, input=BLOCKS[path], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert ast.get_docstring(ast.parse(BLOCKS[path]))


def test_the_file_has_what_every_model_has(module):
    head = module.__doc__.splitlines()
    assert any(line.startswith("Paper:") for line in head)
    assert any(line.startswith("Differs:") for line in head)
    assert set(module.TINY) == set(ROWS) and set(module.RECIPE) <= set(ROWS)
    for settings in module.RECIPE.values():
        assert Recipe(**settings) != Recipe()
    for name in ROWS:
        defaults = getattr(module, name)().get_config()
        assert all(defaults[key] != value for key, value in module.TINY[name].items())


def test_parameters_are_the_entrys(module):
    for name, row in ROWS.items():
        with keras.StatelessScope():
            model = kerasdl.create_model(name)
        assert sum(math.prod(v.shape) for v in model.trainable_variables) == row.parameters


def test_it_answers_and_is_saved_and_loaded(tiny, rng, tmp_path):
    for size in (1, 3):
        x = rng.random((size, 9, 6, 1), np.float32)
        logits = np.asarray(tiny(x))
        assert logits.shape == (size, 7) and logits.dtype == np.float32
        assert np.isfinite(logits).all()
    path = tmp_path / "model.keras"
    tiny.save(path)
    loaded = kerasdl.load(path)
    assert json.dumps(loaded.get_config()) == json.dumps(tiny.get_config())
    np.testing.assert_array_equal(loaded(x), logits)
    again = type(tiny).from_config(tiny.get_config())
    assert json.dumps(again.get_config()) == json.dumps(tiny.get_config())


def test_paths_are_what_the_page_says(tiny):
    assert len(remat.blocks(tiny)) == 2
    paths = [w.path.removeprefix(f"{tiny.name}/") for w in tiny.weights]
    assert all(is_backbone(p) != in_head(p) for p in paths)
    scales = optimizers.layer_scales(tiny.trainable_variables, 0.5)
    assert scales[0] == 0.5**4 and scales[-1] == 1.0  # two stages, two convolutions, the head


def test_its_task_trains_every_weight(tiny, rng):
    import tensorflow as tf

    task = tasks.get(PAPER.task)(DataInfo.of_images((9, 6, 1), "abcdefg"), Recipe())
    batch = {
        "image": tf.constant(rng.random((4, 9, 6, 1), np.float32)),
        "label": tf.one_hot([1, 2, 3, 4], 7),
    }
    with tf.GradientTape() as tape:
        loss, _ = task.losses(tiny, batch, "model", training=True)
        loss = tf.reduce_mean(loss)
    gradients = tape.gradient(loss, [v.value for v in tiny.trainable_variables])
    assert all(g is not None and np.abs(g).max() > 0 for g in gradients)


def test_its_own_test_passes(module, rng, tmp_path):
    tests = imported("copied_test_all_cnn", TEST, tmp_path)
    del sys.modules["copied_test_all_cnn"]
    functions = inspect.getmembers(tests, inspect.isfunction)
    functions = [function for name, function in functions if name.startswith("test_")]
    assert len(functions) >= 2
    for function in functions:
        function(rng)
