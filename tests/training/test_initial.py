"""Weights to start from: of runs, `.keras` files and `keras.applications`."""

import re
import zipfile

import keras
import numpy as np
import pytest

from kerasdl import catalog, tasks
from kerasdl.columns import Column, DataInfo
from kerasdl.models.cnn import googlenet as googlenet_module
from kerasdl.models.cnn.linear import linear
from kerasdl.models.cnn.resnet import resnet20
from kerasdl.models.vision_transformer.vit import vit_digits
from kerasdl.recipe import Recipe
from kerasdl.store import checkpoint, initial, load, runs
from kerasdl.store.copying import is_backbone
from kerasdl.weights import keras_applications
from kerasdl.weights.rename import by_path

SIZES = {"image_shape": (8, 8, 1), "depths": (1, 1), "filters": 4}
MEAN, STD = (0.3,), (0.4,)


def shaken(model):
    """The model with every weight moved off its start."""
    rng = np.random.default_rng(1)
    for v in model.weights:
        v.assign(rng.uniform(0.5, 1.5, v.shape))
    return model


def arrays_of(model):
    return {v.path.partition("/")[2]: np.asarray(v) for v in model.weights}


@pytest.fixture
def trained():
    return shaken(resnet20(num_classes=5, input_mean=MEAN, input_std=STD, **SIZES))


@pytest.fixture
def run_folder(trained, tmp_path):
    folder = tmp_path / "run"
    info = DataInfo.of_images((8, 8, 1), "abcde", MEAN, STD)
    arguments = {**SIZES, "num_classes": 5, "input_mean": MEAN, "input_std": STD}
    run = runs.Run(folder, Recipe(dataset="digits"), "resnet20", arguments, info)
    run.create()
    checkpoint.write(
        run.checkpoints / "best.npz", run.header(), {v.path: np.asarray(v) for v in trained.weights}
    )
    return folder


def same(model, expected, but=None):
    for path, value in arrays_of(model).items():
        assert path.split("/")[0] == but or np.array_equal(value, expected[path]), path


def test_a_run_gives_all_its_weights(run_folder, trained):
    result = initial.open_initial(str(run_folder))
    assert result.input_stats == (MEAN, STD)
    model = resnet20(num_classes=5, name="other", **SIZES)
    line = result.copy_to(model)
    n = len(model.weights)
    assert f"took {n} of {n} weights" in line and "head" not in line
    same(model, arrays_of(trained))


def test_the_head_is_replaced_where_the_classes_differ(run_folder, trained):
    model = resnet20(num_classes=7, **SIZES)
    line = initial.open_initial(str(run_folder)).copy_to(model)
    assert "the head starts anew" in line
    assert np.asarray(model.head.kernel).std() < 1
    same(model, arrays_of(trained), but="head")


@pytest.mark.parametrize(
    "names, line",
    [
        ("abcde", "took all 5 classes of the head by name"),
        ("edcba", "took all 5 classes of the head by name, in another order"),
        ("bd", "took all 2 classes of the head by name"),
        ("abxcdey", r"took 5 of 7 classes of the head by name \(new: x, y\)"),
        ("vwxye", r"took 1 of 5 classes of the head by name \(new: v, w, x, y\)"),
        ("vwxyz", "the head starts anew: no class has the same name"),
    ],
)
def test_the_head_is_taken_by_the_classes_names(run_folder, trained, names, line):
    model = resnet20(num_classes=len(names), **SIZES)
    fresh = {name: column(model, i) for i, name in enumerate(names)}
    there = {name: column(trained, i) for i, name in enumerate("abcde")}
    text = initial.open_initial(str(run_folder)).copy_to(model, tuple(names))
    assert re.search(f"weights; {line}$", text)
    for i, name in enumerate(names):
        np.testing.assert_array_equal(column(model, i), {**fresh, **there}[name], name)
    same(model, arrays_of(trained), but="head")


def column(model, i):
    """What a model's head holds for a class."""
    return np.append(np.asarray(model.head.kernel)[:, i], np.asarray(model.head.bias)[i])


def test_names_that_are_not_known_are_said(trained, tmp_path):
    trained.save(tmp_path / "m.keras")
    source = initial.open_initial(str(tmp_path / "m.keras"))
    model = resnet20(num_classes=5, **SIZES)
    assert source.copy_to(model, tuple("edcba")).endswith("class names were not compared")
    same(model, arrays_of(trained))
    model = resnet20(num_classes=4, **SIZES)
    assert source.copy_to(model, tuple("abcd")).endswith("; the head starts anew")


def test_names_of_a_keras_file_of_an_export_are_known(trained, tmp_path):
    info = DataInfo.of_images((8, 8, 1), "abcde", MEAN, STD)
    path = tmp_path / "m.keras"
    trained.save(path)
    metadata = load.Metadata("resnet20", info, Recipe(dataset="digits"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(load.MEMBER, metadata.to_json())
    model = resnet20(num_classes=5, **SIZES)
    line = initial.open_initial(str(path)).copy_to(model, tuple("edcba"))
    assert line.endswith("took all 5 classes of the head by name, in another order")
    np.testing.assert_array_equal(column(model, 0), column(trained, 4))


def test_of_an_auxiliary_head_only_the_last_layer_goes_by_class(monkeypatch):
    """Also where a hidden layer is as wide as there are classes."""
    monkeypatch.setattr(googlenet_module, "AUX_DIM", 7)
    tiny = googlenet_module.TINY["googlenet"]
    source, model = (googlenet_module.googlenet(**tiny) for _ in range(2))
    arrays = arrays_of(shaken(source))
    first = initial.Initial("there", "googlenet", arrays, None, tuple("abcdefg"))
    line = first.copy_to(model, tuple("gfedcba"))
    assert line.endswith("took all 7 classes of the head by name, in another order")
    for path, value in arrays_of(model).items():
        turned = arrays[path][..., ::-1] if path.split("/")[-2] == "head" else arrays[path]
        np.testing.assert_array_equal(value, turned, path)


def test_heads_of_other_tasks_have_no_classes():
    info = DataInfo.of_images((8, 8, 1), "abc")
    masks = DataInfo({**info.columns, "mask": Column("mask", (8, 8), ("none", "a"))})
    expected = {"classify": tuple("abc"), "segment": ("none", "a")}
    for row in catalog.ROWS:
        names = tasks.get(row.task).head_classes(masks)
        assert tuple(names) == expected.get(row.task, ()), row.name


def test_a_linear_model_of_other_classes_has_nothing_to_take():
    sizes = {"image_shape": (8, 8, 1), "num_classes": 2}
    arrays = arrays_of(linear(**sizes))
    source = initial.Initial("there", "linear", arrays, None, ("a", "b"))
    with pytest.raises(ValueError, match="no weight of linear .*no class has the same name"):
        source.copy_to(linear(**sizes), ("c", "d"))


def test_the_last_checkpoint_where_the_best_is_lost(run_folder, trained, capsys):
    best = run_folder / "checkpoints" / "best.npz"
    header, arrays = checkpoint.read(best)
    last = {f"model/{k}": v + 1 for k, v in arrays.items()}
    checkpoint.write(checkpoint.path_of(best.parent, 3), header, last)
    best.unlink()
    model = resnet20(num_classes=5, **SIZES)
    initial.open_initial(str(run_folder)).copy_to(model)
    assert "using the last checkpoint" in capsys.readouterr().out
    same(model, {k: v + 1 for k, v in arrays_of(trained).items()})


def test_a_keras_file(trained, tmp_path):
    trained.save(tmp_path / "m.keras")
    result = initial.open_initial(str(tmp_path / "m.keras"))
    np.testing.assert_allclose(result.input_stats, (MEAN, STD))
    model = resnet20(num_classes=5, **SIZES)
    result.copy_to(model)
    same(model, arrays_of(trained))


def test_a_backbone_alone_fits_a_classifier(trained, tmp_path):
    trained.backbone.save(tmp_path / "b.keras")
    model = resnet20(num_classes=5, **SIZES)
    line = initial.open_initial(str(tmp_path / "b.keras")).copy_to(model)
    assert "the head starts anew" in line
    same(model, arrays_of(trained), but="head")


def test_inputs_that_are_not_normalized(tmp_path):
    model = resnet20(num_classes=5, **SIZES)
    model.save(tmp_path / "m.keras")
    assert initial.open_initial(str(tmp_path / "m.keras")).input_stats == ((), ())


def test_position_embeddings_are_interpolated(tmp_path):
    sizes = {"num_classes": 5, "dim": 8, "depth": 1, "num_heads": 2, "mlp_dim": 8}
    shaken(vit_digits(image_shape=(8, 8, 1), **sizes)).save(tmp_path / "m.keras")
    model = vit_digits(image_shape=(12, 8, 1), **sizes)
    initial.open_initial(str(tmp_path / "m.keras")).copy_to(model)
    grid = np.asarray(model.backbone.tokens.positions.grid)
    assert grid.shape == (6, 4, 8) and grid.min() > 0.3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"depths": (1, 2)}, "not of one architecture: resnet20 has no backbone/stage2_block2"),
        ({"filters": 6}, r"stem/conv/kernel has shape \(3, 3, 1, 4\) there and \(3, 3, 1, 6\)"),
    ],
)
def test_another_architecture_is_refused_whole(run_folder, change, text):
    model = resnet20(num_classes=5, **{**SIZES, **change})
    before = arrays_of(model)
    with pytest.raises(ValueError, match=text):
        initial.open_initial(str(run_folder)).copy_to(model)
    same(model, before)


def test_nothing_in_common_names_both_models(tmp_path):
    source = keras.Sequential([keras.layers.Dense(2, name="one")], name="source")
    source.build((None, 3))
    source.save(tmp_path / "m.keras")
    model = resnet20(num_classes=5, **SIZES)
    with pytest.raises(ValueError, match="no weight of source has its like in resnet20"):
        initial.open_initial(str(tmp_path / "m.keras")).copy_to(model)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("keras:ResNet51", "no such weights.*mean keras:ResNet50"),
        ("nowhere/at/all", "--initial-checkpoint nowhere/at/all.*keras:NAME"),
    ],
)
def test_names_of_nothing(name, text):
    with pytest.raises(ValueError, match=text):
        initial.open_initial(name)


@pytest.mark.parametrize("with_head", [True, False])
def test_keras_applications(monkeypatch, with_head):
    requested = []
    monkeypatch.setattr(
        keras_applications, "load", lambda name, model: requested.append((name, model)) or with_head
    )
    result = initial.open_initial("keras:ResNet50")
    assert result.input_stats == keras_applications.INPUT["ResNet50"]
    model = catalog.build("linear")
    line = result.copy_to(model)
    assert requested == [("ResNet50", model)]
    assert ("starts anew" in line) != with_head == ("names were not compared" in line)


def test_what_the_catalogue_builds_is_what_a_run_names(run_folder):
    assert initial.open_initial(str(run_folder)).model_name in catalog.MODELS


def test_auxiliary_heads_are_replaced_too(tmp_path):
    tiny = googlenet_module.TINY["googlenet"]
    source = shaken(googlenet_module.googlenet(**tiny))
    source.save(tmp_path / "m.keras")
    model = googlenet_module.googlenet(**{**tiny, "num_classes": 3})
    line = initial.open_initial(str(tmp_path / "m.keras")).copy_to(model)
    n = len(model.weights)
    assert f"took {n - 6} of {n} weights; the head starts anew" in line


SMALL = {"image_shape": (16, 24, 1)}
RESNET = {"depths": (1, 1, 1), "filters": 6}
VGG = {"stages": ((4,), (5, 5)), "norm": True}
NIN = {"filters": ((6, 5), (7, 6), (8, 6)), "norm": True}
UNET = {"depth": 2, "filters": 4}


@pytest.mark.parametrize(
    "row, backbone, arguments, more",
    [
        ("resnet20", "resnet20", RESNET, {}),
        ("fcn16s_small", "resnet20", RESNET, {}),
        ("mask_rcnn_small", "resnet20", RESNET, {"small": True}),
        ("faster_rcnn_small", "vgg11", VGG, {}),
        ("nin_small", "nin_small", NIN, {}),
        ("unet_small", "unet_small", UNET, {}),
    ],
)
def test_a_self_supervised_backbone_fits_all_models_on_it(row, backbone, arguments, more):
    pretrained = catalog.build("simclr_small", backbone=backbone, **SMALL, **arguments)
    rng = np.random.default_rng(0)
    for variable in pretrained.variables:
        variable.assign(rng.uniform(0.5, 1.5, variable.shape))
    arrays = {path: np.asarray(v) for path, v in by_path(pretrained).items()}
    model = catalog.build(row, **SMALL, num_classes=3, **arguments, **more)
    line = initial.Initial("there", "simclr_small", arrays, None).copy_to(model)
    taken = {path: np.asarray(v) for path, v in by_path(model).items()}
    for path in filter(is_backbone, arrays):
        mine = path.partition("/")[2] if row == "unet_small" else path
        np.testing.assert_array_equal(taken[mine], arrays[path])
    assert "took" in line
    if row == "unet_small":
        x = rng.random((2, *SMALL["image_shape"]), np.float32)
        maps, down = pretrained.backbone(x), model.normalize(x)
        for pair in (*model.downs, model.bottom):
            down = pair(down)
            np.testing.assert_array_equal(down, maps[pair.name])
            down = keras.ops.max_pool(down, 2, 2)
