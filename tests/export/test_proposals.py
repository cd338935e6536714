"""Models of proposals as they are served: given with the image, or windows in the graph."""

import keras
import numpy as np
import pytest
from PIL import Image

from kerasdl import cli
from kerasdl.columns import Column, DataInfo
from kerasdl.data import images
from kerasdl.data.selective_search import proposals
from kerasdl.errors import UserError
from kerasdl.inference import artifact, predict
from kerasdl.inference.artifact import open_artifact
from kerasdl.models.detection import fast_rcnn
from kerasdl.ops import boxes as bx
from kerasdl.recipe import Recipe
from kerasdl.tasks.detect_proposals import DetectProposals
from tests.export import made_up

SHAPE, COUNT = (16, 24, 3), 16
NAMES = tuple("abcde")


def task_of(**settings):
    columns = {
        "image": Column("image", SHAPE),
        "boxes": Column("boxes", (3, 4)),
        "labels": Column("label", (3,), NAMES),
        "valid": Column("valid", (3,)),
        "proposals": Column("regions", (COUNT, 4)),
    }
    settings = {"min_score": 0.0, "max_objects": 4, "max_proposals": COUNT, **settings}
    return DetectProposals(DataInfo(columns), Recipe(model="fast_rcnn", task_kwargs=settings))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    made = fast_rcnn.fast_rcnn(**fast_rcnn.TINY["fast_rcnn"])
    for weight in made.weights:
        weight.assign(weight.value + 0.2 * np.random.default_rng(1).standard_normal(weight.shape))
    return made


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """Folders of the model with proposals as an input, and with windows."""
    return {
        way: made_up.write(task_of(proposals=way), model, tmp_path_factory.mktemp(way) / "1")
        for way in ("search", "windows")
    }


@pytest.fixture
def picture(tmp_path):
    """A file of twice the size that the model takes: two squares."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[4:16, 6:20], pixels[18:30, 24:44] = (200, 0, 0), (0, 200, 255)
    Image.fromarray(pixels).save(tmp_path / "squares.png")
    return tmp_path / "squares.png"


def inputs(artifact, name):
    return {k: v["kind"] for k, v in artifact.interface.signatures[name]["inputs"].items()}


def test_proposals_are_an_input(served):
    artifact = open_artifact(served["search"])
    assert inputs(artifact, "serving_default") == {"image": "image", "proposals": "regions"}
    assert inputs(artifact, "serve_bytes") == {"image_bytes": "image", "proposals": "regions"}
    assert artifact.interface.takes() == "an image file"
    assert task_of().evaluated_by("tflite")["inputs"] == ["image", "proposals"]


def test_windows_are_in_the_graph(served, model, rng):
    artifact, task = open_artifact(served["windows"]), task_of(proposals="windows")
    assert inputs(artifact, "serving_default") == {"image": "image"}
    assert task.evaluated_by("savedmodel")["inputs"] == ["image"]
    image = rng.random((2, *SHAPE), "float32")
    windows = np.repeat(bx.windows(SHAPE[:2], COUNT)[None], 2, 0)
    expected = task_of().predict(model, {"image": image, "proposals": windows})
    result = artifact.answer("serving_default", {"image": image})
    np.testing.assert_allclose(result["boxes"], expected["boxes"], atol=1e-5)
    np.testing.assert_allclose(result["scores"], expected["scores"], atol=1e-5)


@pytest.mark.parametrize("way", ["search", "windows"])
def test_predict_searches_where_it_must(way, served, model, picture, tmp_path, capsys):
    pixels = images.to_float(images.read(picture.read_bytes(), SHAPE)).numpy()
    given = proposals(pixels, COUNT) if way == "search" else bx.windows(SHAPE[:2], COUNT)
    expected = task_of().predict(model, {"image": pixels[None], "proposals": given[None]})
    (result,) = predict.predict(served[way], [picture], output=tmp_path / "out.png")
    found = [one["box"] for one in result["objects"]]
    assert len(found) == int(expected["num"][0]) > 0
    np.testing.assert_allclose(found, expected["boxes"][0][: len(found)], atol=1e-5)
    labels = [NAMES.index(one["class_name"]) for one in result["objects"]]
    assert labels == np.asarray(expected["label"])[0][: len(found)].tolist()
    assert (tmp_path / "out.png").is_file()
    assert cli.main(["predict", "--saved-model", str(served[way]), str(picture)]) == 0
    assert capsys.readouterr().out.startswith(f"{picture}: ")


@pytest.mark.parametrize("way", ["search", "windows"])
def test_an_exported_file_is_evaluated(way, served, model, rng):
    """Whatever it finds is true here, so its average precision is 1 where it finds anything."""
    task = task_of(proposals=way)
    low = 0.5 * rng.random((6, COUNT, 2))
    batch = {
        "image": rng.random((6, *SHAPE), "float32"),
        "proposals": np.concatenate([low, low + 0.4], -1).astype("float32"),
    }
    found = {k: np.asarray(v) for k, v in task.predict(model, batch).items()}
    batch |= {"boxes": found["boxes"], "labels": found["label"], "valid": found["label"] >= 0}
    result = artifact._evaluate(open_artifact(served[way]), task, [batch])
    assert result["ap50"] > 0.9 and result["examples"] == 6


def test_settings_of_proposals():
    with pytest.raises(UserError, match="proposals=searhc: not one of search, windows.*search"):
        task_of(proposals="searhc")
    with pytest.raises(UserError, match="max_proposals=2.5: must be a whole number from 1"):
        task_of(max_proposals=2.5)


def test_windows_cover_a_picture():
    for size, count in (((48, 48), 100), ((30, 50), 400), ((600, 1000), 2000)):
        found = bx.windows(size, count)
        there = found[found.any(-1)]
        assert found.shape == (count, 4) and count * 0.7 < len(there) <= count
        assert (there[:, 2:] > there[:, :2]).all() and there.min() >= 0 and there.max() <= 1 + 1e-6
        assert len(np.unique(there, axis=0)) == len(there)
        y, x = np.mgrid[0:1:20j, 0:1:20j]
        at = np.stack([y, x], -1).reshape(-1, 1, 2)
        assert ((there[:, :2] <= at + 1e-6) & (at <= there[:, 2:] + 1e-6)).all(-1).any(-1).all()
    with pytest.raises(UserError, match="^3 windows: must be at least 14, one of each shape$"):
        task_of(proposals="windows", max_proposals=3)
