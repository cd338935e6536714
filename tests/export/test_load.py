"""Loading in a fresh process, and what is refused before anything is imported."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import kerasdl
from kerasdl.store import load


def archive(path, config):
    """A `.keras` file with that config and nothing else."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", json.dumps(config))
    return path


def entry(**metadata):
    """A serialized layer inside a serialized model."""
    layer = {"module": "keras.layers", "class_name": "Dense", "config": {}, **metadata}
    model = {"module": "keras", "class_name": "Sequential", "registered_name": None}
    return {**model, "config": {"layers": [layer]}}


def test_fresh_process_answers_bit_equal(exported, parts, tmp_path):
    np.save(tmp_path / "x.npy", parts.test["image"][:3])
    code = (
        "import sys, numpy, kerasdl\n"
        "assert 'keras' not in sys.modules\n"
        "model = kerasdl.load(sys.argv[1])\n"
        "numpy.save(sys.argv[3], model(numpy.load(sys.argv[2]), training=False))\n"
    )
    sources = str(Path(kerasdl.__file__).parents[1])
    paths = [exported["folder"], tmp_path / "x.npy", tmp_path / "y.npy"]
    subprocess.run(
        [sys.executable, "-c", code, *paths],
        check=True,
        env=os.environ | {"PYTHONPATH": sources},
    )
    y = parts.model(parts.test["image"][:3], training=False)
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), y)


def test_every_place_gives_the_same_model(exported, parts):
    folder = Path(exported["folder"])
    places = [folder, folder.parent, folder / "assets.extra" / "model.keras"]
    for place in [*places, folder / "tflite" / "int8.tflite"]:
        metadata = load.load_info(place)
        assert metadata.info == parts.info
        assert metadata.recipe == parts.recipe
        assert metadata.model == "resnet20"
    expected = parts.model(parts.test["image"][:2])
    for place in places[1:]:
        np.testing.assert_array_equal(load.load(place)(parts.test["image"][:2]), expected)


def test_it_is_an_ordinary_keras_model(exported, parts):
    import keras

    model = kerasdl.load(exported["folder"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    result = model.evaluate(parts.test["image"], parts.test["label"], verbose=0)
    test = exported["artifacts"]["savedmodel"]["test"]
    assert result == pytest.approx([test["loss"], test["top1"]], abs=1e-5)


@pytest.mark.parametrize(
    ("metadata", "named"),
    [
        ({"module": "evil_module", "registered_name": "Evil"}, "evil_module"),
        ({"module": None, "registered_name": "evil_module>Evil"}, "evil_module"),
        ({"module": None, "registered_name": "kerasdl_evil.x>Evil"}, "kerasdl_evil.x"),
        ({"module": None, "registered_name": "kerasdl>Evil"}, "kerasdl"),
        ({"module": "kerasdl.layers.core", "registered_name": "os>system"}, "os"),
        ({"class_name": "function", "module": "builtins", "config": "evil_module>f"}, "evil_m"),
        ({"config": {"deep": [{"module": "os", "class_name": "function"}]}}, "os"),
        ({"module": "keras_hub.models"}, "keras_hub.models"),
        ({"module": ["os"]}, "os"),
    ],
)
def test_foreign_modules_are_refused_before_import(tmp_path, monkeypatch, metadata, named):
    (tmp_path / "evil_module.py").write_text(f"open({str(tmp_path / 'imported')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    path = archive(tmp_path / "model.keras", entry(**metadata))
    with pytest.raises(ValueError, match=f"names modules outside the project: .*{named}"):
        kerasdl.load(path)
    assert not (tmp_path / "imported").exists()
    assert "evil_module" not in sys.modules


@pytest.mark.parametrize("name", ["Lambda", "__lambda__"])
def test_lambda_is_refused(tmp_path, name):
    path = archive(tmp_path / "model.keras", entry(class_name=name))
    with pytest.raises(ValueError, match="Lambda"):
        kerasdl.load(path)


def test_a_real_lambda_layer_is_refused(tmp_path):
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)])
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="Lambda"):
        kerasdl.load(tmp_path / "model.keras")


def test_a_model_of_keras_own_layers_loads_but_has_no_facts(tmp_path):
    import keras

    keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]).save(tmp_path / "model.keras")
    assert kerasdl.load(tmp_path / "model.keras").count_params() == 9
    with pytest.raises(ValueError, match="kerasdl did not write it"):
        load.load_info(tmp_path / "model.keras")


def test_a_module_that_is_not_there(tmp_path):
    path = archive(tmp_path / "model.keras", entry(registered_name="kerasdl.models.gone>Net"))
    with pytest.raises(ValueError, match=r"kerasdl.models.gone, which this kerasdl does not have"):
        kerasdl.load(path)


def test_truncated(exported, tmp_path):
    whole = (Path(exported["folder"]) / "assets.extra" / "model.keras").read_bytes()
    (tmp_path / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        kerasdl.load(tmp_path / "model.keras")


def test_nothing_there(tmp_path):
    with pytest.raises(ValueError, match="is not there"):
        kerasdl.load(tmp_path / "absent")
    with pytest.raises(ValueError, match="is no .keras"):
        kerasdl.load(tmp_path)
