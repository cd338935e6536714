"""The same questions to every format give the same answers."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kerasdl.columns import DataInfo
from kerasdl.errors import UserError
from kerasdl.inference import artifact, predict
from kerasdl.store import load

FORMATS = {
    "saved_model": ("", 1e-5),
    "keras": ("assets.extra/model.keras", 0),
    "tflite": ("tflite/float32.tflite", 1e-4),
}


@pytest.fixture(params=FORMATS)
def place(request, exported):
    path, tolerance = FORMATS[request.param]
    return Path(exported["folder"]) / path, tolerance


def test_predict(place, parts):
    path, tolerance = place
    images = parts.test["image"][:70]  # more than one batch, the last one smaller
    result = artifact.open_artifact(path).predict(images)
    expected = parts.task.predict(parts.model, {"image": images})
    assert set(result) >= {"probabilities", "logits", "label"}
    for name in ("probabilities", "logits"):
        np.testing.assert_allclose(result[name], expected[name], atol=10 * tolerance + 1e-5)
    np.testing.assert_array_equal(result["label"], expected["label"])


def test_predict_files(place, exported, pictures, tmp_path):
    files = []
    for kind, content in pictures.items():
        files.append(tmp_path / f"{kind}.image")
        files[-1].write_bytes(content)
    result = predict.predict(place[0], files)
    reference = predict.predict(exported["folder"], files)
    for a, b, file in zip(result, reference, files, strict=True):
        assert a["file"] == str(file)
        assert a["class_name"] == b["class_name"]
        assert a["class_name"] in DataInfo.from_dict(exported["data"]).class_names
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-3)
        assert a["top5"][0]["probability"] == a["probability"]
        assert len(a["top5"]) == 5


def test_bad_files_are_named(place, pictures, tmp_path):
    (tmp_path / "good.png").write_bytes(pictures["rgba"])
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"bad.png is not an image"):
        predict.predict(place[0], [tmp_path / "good.png", tmp_path / "bad.png"])
    with pytest.raises(ValueError, match=r"gone.png cannot be read"):
        predict.predict(place[0], [tmp_path / "good.png", tmp_path / "gone.png"])


def test_evaluate(place, exported):
    result = artifact.evaluate_artifact(place[0])
    classes, balanced = result.pop("classes"), result.pop("balanced_accuracy")
    expected = exported["artifacts"]["savedmodel"]["test"]
    assert result == pytest.approx(expected, abs=1e-4)
    assert list(classes) == list("0123456789")
    assert balanced == pytest.approx(sum(one["recall"] for one in classes.values()) / 10)


def test_evaluate_all_gives_the_cards_metrics(exported):
    result = artifact.evaluate_all(Path(exported["folder"]).parent)
    assert list(result) == [name for name, one in exported["artifacts"].items() if one["test"]]
    for name, metrics in result.items():
        support = [one["support"] for one in metrics.pop("classes").values()]
        assert sum(support) == metrics["examples"] and 0 < metrics.pop("balanced_accuracy") <= 1
        assert metrics == pytest.approx(exported["artifacts"][name]["test"], abs=1e-5)


def test_unknown_split(exported):
    with pytest.raises(ValueError, match="did you mean test"):
        artifact.evaluate_artifact(exported["folder"], "tests")


def test_broken_files(tmp_path):
    (tmp_path / "net.tflite").write_bytes(b"no model")
    (tmp_path / "saved_model.pb").write_bytes(b"no model")
    with pytest.raises(ValueError, match="the TFLite file cannot be read"):
        artifact.open_artifact(tmp_path / "net.tflite")
    with pytest.raises(ValueError, match="the SavedModel cannot be read"):
        artifact.open_artifact(tmp_path)


@pytest.mark.parametrize("kind", ["saved_model.pb", "variables/", "tflite/int8", "model.keras"])
def test_a_file_that_is_no_longer_what_was_exported_is_named(exported, tmp_path, kind):
    source = Path(exported["folder"])
    there = {p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()}
    assert there - set(exported["sha256"]) == {f"assets.extra/card.{k}" for k in ("json", "md")}
    folder = tmp_path / "1"
    shutil.copytree(source, folder)
    load.check_files("saved_model", folder)
    (name,) = [n for n in sorted(exported["sha256"]) if kind in n][:1]
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: is not what was exported"):
        artifact.evaluate_all(folder)
    lite = folder / "tflite" / "int8.tflite"
    if kind in str(lite):
        with pytest.raises(UserError, match=f"{name}: is not what was exported"):
            artifact.evaluate_artifact(lite)
    else:  # another file is no reason to refuse this one
        load.check_files("tflite", lite)
    (folder / name).unlink()
    load.check_files("saved_model", folder)
