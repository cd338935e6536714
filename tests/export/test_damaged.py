"""`.keras` files and runs as they must not be: each is refused in one line, or answers rightly."""

import contextlib
import io
import json
import resource
import shutil
import zipfile
from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest
import yaml

import kerasdl
from kerasdl import catalog, cli
from kerasdl.columns import DataInfo
from kerasdl.errors import REPORTED
from kerasdl.export.exporter import save_keras
from kerasdl.recipe import Recipe
from kerasdl.store import archive, checkpoint, load, runs
from tests.data.damage import damaged

INFO = DataInfo.of_images((8, 8, 1), "abcd", (0.25,), (0.5,))
RECIPE = Recipe(model="linear", dataset="digits")
ARGUMENTS = {"image_shape": (8, 8, 1), "num_classes": 4, "input_mean": (0.25,), "input_std": (0.5,)}
X = np.random.default_rng(0).random((3, 8, 8, 1), "float32")
WEIGHTS, CONFIG = archive.WEIGHTS, archive.CONFIG
MEMORY = 500 * 2**10  # KiB


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return catalog.build("linear", **ARGUMENTS)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The members of a good file, `{name: bytes}`."""
    path = tmp_path_factory.mktemp("whole") / "whole.keras"
    save_keras(model, load.Metadata("linear", INFO, RECIPE), path)
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    made = runs.Run(folder, RECIPE, "linear", ARGUMENTS, INFO, {"steps_per_epoch": 3})
    made.create()
    arrays = {f"model/{v.path}": np.asarray(v) for v in model.variables}
    checkpoint.write(checkpoint.path_of(made.checkpoints, 7), {"step": 7}, arrays)
    arrays = {v.path: np.asarray(v) for v in model.variables}
    checkpoint.write(made.checkpoints / "best.npz", {"step": 5}, arrays)
    (folder / runs.METRICS).write_text(json.dumps({"test": {"top1": 0.5}}))
    return folder


@pytest.fixture(autouse=True)
def goes_on(model, whole, tmp_path):
    """After each test the good file still loads, and no more memory was taken than is allowed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    assert outcome(written(tmp_path / "good.keras", whole), model) == ""


def written(path, members, compression=zipfile.ZIP_STORED):
    """A file of some members, `{name: bytes}` or pairs of these."""
    members = members.items() if isinstance(members, dict) else members
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members:
            file.writestr(zipfile.ZipInfo(name), content, compression)
    return path


def outcome(path, model, info=INFO):
    """The line that refuses a file or a run; an empty one where it answers as `model` does.

    Args:
        path: The file or the folder.
        model: The undamaged one.
        info: Of its data; None where that is not compared.
    """
    try:
        metadata = load.load_info(path)
        answer = kerasdl.load(path)(X)
    except REPORTED as error:
        line = str(error)
        assert line and "\n" not in line and len(line) < 1000, line
        return line
    np.testing.assert_array_equal(answer, model(X))
    assert info is None or (metadata.model, metadata.info) == ("linear", info)
    return ""


@pytest.mark.parametrize("seed", range(40))
def test_bytes(seed, whole, model, tmp_path):
    path = written(tmp_path / "x.keras", whole)
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    start = int(rng.integers(len(content)))
    if seed % 4 == 0:
        content = content[:start]
    elif seed % 4 == 1:
        content[start : start + 200] = bytes(len(content[start : start + 200]))
    elif seed % 4 == 2:
        content[start] ^= 1 << rng.integers(8)
    else:
        for place in rng.integers(len(content), size=20):
            content[place] = rng.integers(256)
    path.write_bytes(content)
    line = outcome(path, model)
    assert line or seed % 4  # half a file is refused


def test_a_flipped_weight_is_refused(whole, model, tmp_path):
    path = written(tmp_path / "x.keras", whole)
    content = bytearray(path.read_bytes())
    kernel = np.asarray(model.variables[0]).tobytes()
    content[bytes(content).index(kernel) + 40] ^= 1
    path.write_bytes(content)
    assert "CRC" in outcome(path, model)


def without(name):
    return lambda m: {k: v for k, v in m.items() if k != name}


def renamed(old, new):
    return lambda m: {new if k == old else k: v for k, v in m.items()}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (without(CONFIG), "has no config.json"),
        (without(WEIGHTS), "holds no model.weights.h5"),
        (without(load.MEMBER), "kerasdl did not write it"),
        (without("metadata.json"), ""),
        (renamed(WEIGHTS, "model.weights.npz"), "model.weights.npz', which does not belong"),
        (renamed(CONFIG, f"../{CONFIG}"), "does not belong there"),
        (renamed(CONFIG, f"/{CONFIG}"), "does not belong there"),
        (lambda m: m | {"assets/x": b"x"}, "assets/x', which does not belong there"),
        (lambda m: [*m.items(), (CONFIG, m[CONFIG])], "'config.json' twice"),
        (lambda m: [*m.items(), (WEIGHTS, b"")], "'model.weights.h5' twice"),
        (lambda m: m | {CONFIG: b" " * 2**20 + m[CONFIG]}, "its config.json has"),
        (lambda m: m | {load.MEMBER: b" " * 2**24}, "its kerasdl.json has"),
        (lambda m: m | {CONFIG: b'{"a":' * 100_000}, "recursion"),
        (lambda m: m | {CONFIG: b"\xff"}, "cannot be read"),
        (lambda m: m | {load.MEMBER: b"\xff"}, "damaged"),
        (lambda m: m | {load.MEMBER: b"[" * 100_000}, "cannot be used"),
        (lambda m: m | {WEIGHTS: b""}, "model.weights.h5 cannot be read"),
        (lambda m: m | {WEIGHTS: m[WEIGHTS][:3000]}, "model.weights.h5 cannot be read"),
    ],
)
def test_members(change, line, whole, model, tmp_path):
    said = outcome(written(tmp_path / "x.keras", change(whole)), model)
    assert line in said and bool(line) == bool(said), said


def test_what_would_unpack_to_much_more_is_not_unpacked(whole, model, tmp_path):
    """Also what is compressed in an honest way loads."""
    bomb = whole | {WEIGHTS: bytes(100 * 2**20)}
    path = written(tmp_path / "x.keras", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**18
    assert "would unpack" in outcome(path, model)
    path = written(tmp_path / "y.keras", whole, zipfile.ZIP_DEFLATED)
    assert outcome(path, model) == ""


VALUES = (None, -1, 10**9, 10**30, 1e308, "x", "\x1b[31m\n" * 50, [], {}, [[10**6]] * 3, True)


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
@pytest.mark.parametrize("key", [*ARGUMENTS, "dtype", "name"])
def test_values_of_the_configuration(key, value, whole, model, tmp_path):
    config = json.loads(whole[CONFIG])
    config["config"][key] = value
    path = written(tmp_path / "x.keras", whole | {CONFIG: json.dumps(config)})
    line = outcome(path, model)
    assert line or key in ("dtype", "name")


@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_values_of_the_metadata(value, whole, model, tmp_path):
    metadata = json.loads(whole[load.MEMBER])
    image, label = metadata["info"]["columns"].values()
    groups = (metadata, metadata["info"], metadata["info"]["columns"], image, label)
    for group in groups:
        for key, before in list(group.items()):
            group[key] = value
            changed = whole | {load.MEMBER: json.dumps(metadata)}
            outcome(written(tmp_path / "x.keras", changed), model, info=None)
            group[key] = before


@pytest.mark.parametrize(
    ("info", "line"),
    [
        (DataInfo.of_images((8, 8, 1), "abc", (0.25,), (0.5,)), "num_classes 3, the model has 4"),
        (DataInfo.of_images((8, 8, 3), "abcd", (0.25,), (0.5,)), "image_shape [8, 8, 3]"),
        (DataInfo.of_images((8, 8, 1), "abcd", (0.5,), (0.5,)), "input_mean [0.5], the model"),
        (DataInfo(), "its kerasdl.json cannot be used"),
    ],
)
def test_data_that_are_not_the_models(info, line, whole, model, run, tmp_path):
    metadata = load.Metadata("linear", info, RECIPE).to_json()
    path = written(tmp_path / "x.keras", whole | {load.MEMBER: metadata})
    assert line in outcome(path, model)
    other = replace(runs.open_run(run), folder=tmp_path / "run", info=info)
    other.create()
    assert line.replace("kerasdl.json", "model.json") in outcome(tmp_path / "run", model)


def test_another_vocabulary_or_context(tmp_path):
    from kerasdl.data.text import tokenizer

    info = DataInfo.of_texts(tokenizer.train("char", ["abcabd"]).to_json(), 8)
    arguments = {"vocab_size": info.vocab_size, "max_length": 8, "dim": 4, "units": 4}
    text_model = catalog.build("char_gru", **arguments, num_layers=1)
    recipe = Recipe(model="char_gru")
    path = tmp_path / "m.keras"
    save_keras(text_model, load.Metadata("char_gru", info, recipe), path)
    assert load.load_info(path).info == info
    other = DataInfo.of_texts(tokenizer.train("char", ["abcabde"]).to_json(), 8)
    longer = DataInfo.of_texts(info.tokenizer, 9)
    for wrong, line in ((other, "vocab_size 9"), (longer, "max_length 9, the model has 8")):
        save_keras(text_model, load.Metadata("char_gru", wrong, recipe), path)
        with pytest.raises(ValueError, match=line):
            load.load_info(path)


def test_sizes_that_are_not_stored_are_not_made(whole, tmp_path):
    """Widths, and layers without end."""
    small = catalog.build("resnet20", image_shape=(8, 8, 1), num_classes=4, depths=(1, 1))
    small.save(tmp_path / "small.keras")
    with zipfile.ZipFile(tmp_path / "small.keras") as file:
        members = {name: file.read(name) for name in file.namelist()}
    config = json.loads(members[CONFIG])
    for key, value, line in (
        ("filters", 10**6, "weights, and"),
        ("num_classes", 10**6, "weights, and"),
        ("depths", [1, 2], "weights, and"),
        ("depths", [10**6, 1], "layers"),
        ("depths", [1] * 100_000, "100,000 values"),
        ("filters", 10**9, "at most 1,048,576"),
        ("image_shape", [10**6, 10**6, 1], "an image has at most"),
    ):
        changed = {**config, "config": {**config["config"], key: value}}
        path = written(tmp_path / "x.keras", members | {CONFIG: json.dumps(changed)})
        with pytest.raises(ValueError, match=line):
            kerasdl.load(path)


def linked(file, h5, tmp_path):
    del file["x"]
    file["x"] = h5py.SoftLink("/head")


def linked_elsewhere(file, h5, tmp_path):
    file["x"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")


def around(file, h5, tmp_path):
    file["x/y"] = file["x"]


def twice(file, h5, tmp_path):
    file["z"] = file["x"]


def virtual(file, h5, tmp_path):
    layout = h5py.VirtualLayout((3,), "float32")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "x", (3,))
    file.create_virtual_dataset("x/vars", layout)


def outside(file, h5, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(12))
    file.create_dataset("x/vars", (3,), "float32", external=[(str(tmp_path / "secret"), 0, 12)])


def compressed(file, h5, tmp_path):
    file.create_dataset("x/vars", (10**9,), "float32", chunks=(10**6,), compression="gzip")


def never_written(file, h5, tmp_path):
    file.create_dataset("x/vars", (10**10,), "float32")


def of_texts(file, h5, tmp_path):
    file["x/vars"] = ["a", "b"]


def more(file, h5, tmp_path):
    file["x/vars"] = np.ones(3, "float32")


def deep(file, h5, tmp_path):
    file.create_group("/".join("x" * 50))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (linked, "x: is a link"),
        (linked_elsewhere, "x: is a link"),
        (around, "x/y: is a link"),
        (twice, "z: is a link"),
        (virtual, "x/vars: stands in another file"),
        (outside, "x/vars: stands in another file"),
        (compressed, "x/vars: does not stand there as it is"),
        (never_written, "x/vars: does not stand there as it is"),
        (of_texts, "x/vars: holds no numbers"),
        (more, "its model has 260 weights, and 263 are stored"),
        (deep, "groups are in one another"),
    ],
)
def test_weights_that_are_no_plain_arrays(change, line, whole, model, tmp_path):
    content = io.BytesIO(whole[WEIGHTS])
    with h5py.File(content, "r+") as file:
        if change not in (linked_elsewhere, deep):
            file.create_group("x")
        change(file, h5py, tmp_path)
    path = written(tmp_path / "x.keras", whole | {WEIGHTS: content.getvalue()})
    assert line in outcome(path, model)


@pytest.mark.parametrize("name", sorted(archive.REFUSED))
def test_layers_that_run_code_or_read_files(name, tmp_path):
    layer = {"module": "keras.layers", "class_name": name, "config": {}}
    config = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}}
    path = written(tmp_path / "x.keras", {CONFIG: json.dumps(config), WEIGHTS: b""})
    with pytest.raises(
        ValueError, match=f"holds a .*{name.strip('_')}".replace("lambda", "Lambda")
    ):
        kerasdl.load(path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("keras.utils", "get_file"),
        ("keras.src.export.tfsm_layer", "Any"),
        ("keras.src.saving.saving_lib", "Any"),
        ("keras.ops", "fori_loop"),
        ("keras", "utils.get_file"),
        ("keras.layers", "utils.get_file"),
        ("kerasdl.cli.train", "main"),
        ("kerasdl.bench.torch_layers", "Any"),
    ],
)
def test_modules_of_no_layers(module, name, tmp_path):
    entry = {"module": module, "class_name": "function", "config": name}
    path = written(tmp_path / "x.keras", {CONFIG: json.dumps(entry), WEIGHTS: b""})
    with pytest.raises(ValueError, match=f"outside the project: {module}"):
        kerasdl.load(path)


@pytest.mark.parametrize("seed", range(40))
def test_runs(seed, run, model, tmp_path):
    damaged(run, tmp_path / "copy", seed)
    line = outcome(tmp_path / "copy", model)
    if not line:
        with contextlib.suppress(*REPORTED):
            runs.open_run(tmp_path / "copy").metrics()


@pytest.mark.parametrize("name", ["args.yaml", "model.json", "data.json", "metrics.json"])
@pytest.mark.parametrize(
    "content",
    ["", "[]", "5", "{", '{"a": 1}', "[" * 10**5, "\0", "a: &a [*a]", "x" * 2**24, "null"],
)
def test_texts_of_runs(name, content, run, model, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "copy" / name).write_text(content)
    if name == "metrics.json":
        with contextlib.suppress(*REPORTED):
            runs.open_run(tmp_path / "copy").metrics()
    assert outcome(tmp_path / "copy", model) or name in ("data.json", "metrics.json")


def test_a_header_that_does_not_say_where_the_loop_stood():
    state = {"step": 1, "history": [], "sums": [], "best": None, "waited": 0, "seconds": 0.5}
    state["timed"] = [0.5]
    assert checkpoint.loop_state({"loop": state}) is state
    for loop in (5, None, {}, state | {"step": "1"}, state | {"best": 5}):
        with pytest.raises(REPORTED, match="does not say where it stood"):
            checkpoint.loop_state({"loop": loop})


@pytest.mark.parametrize(
    ("name", "changed", "line"),
    [
        (runs.ARGS, {"batch_size": 3.5}, "--batch-size '3.5': is of a wrong type"),
        (runs.ARGS, {"dataset": 5}, "--dataset '5': is of a wrong type"),
        (runs.ARGS, {"task_kwargs": "x"}, "--task-kwargs 'x': is of a wrong type"),
        (runs.ARGS, {"other": 1}, "unknown setting 'other'"),
        (runs.MODEL, {"model": 5}, "unknown model 5"),
        (runs.MODEL, {"info": {"columns": {"image": {"kind": "sound"}}}}, "'sound' is no kind"),
        (runs.MODEL, {"arguments": 5}, "model.json or data.json cannot be read"),
        (runs.DATA, {"fingerprint": 5}, "model.json or data.json cannot be read"),
        (runs.DATA, {"fingerprint": {"parts": {"train": 5}}}, "data.json cannot be read"),
        (runs.DATA, {"steps_per_epoch": "x"}, "steps_per_epoch is no whole number"),
        (runs.METRICS, {"test": 5}, "holds no metrics of the test part"),
        (runs.METRICS, {"test": {"top1": "x"}}, "holds no metrics of the test part"),
    ],
)
def test_descriptions_of_runs(name, changed, line, run, model, tmp_path):
    path = shutil.copytree(run, tmp_path / "copy") / name
    path.write_text(json.dumps(yaml.safe_load(path.read_text()) | changed))
    if name == runs.METRICS:
        with pytest.raises(REPORTED, match=line):
            runs.open_run(tmp_path / "copy").metrics()
    else:
        assert line in outcome(tmp_path / "copy", model)


def test_a_checkpoint_that_would_unpack_to_much_more(tmp_path):
    folder = tmp_path
    header = np.frombuffer(b"{}", np.uint8)
    np.savez_compressed(folder / "bomb.npz", header=header, x=np.zeros(2**25, "float32"))
    with pytest.raises(REPORTED, match="would unpack"):
        checkpoint.read(folder / "bomb.npz")
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        huge, {"shape": (10**12,), "fortran_order": False, "descr": "<f4"}
    )
    written(folder / "huge.npz", {"x.npy": huge.getvalue()})
    with pytest.raises(REPORTED, match="does not fit the file's size"):
        checkpoint.read(folder / "huge.npz")


def test_a_run_whose_model_is_larger_than_its_weights(run, model, tmp_path):
    other = replace(runs.open_run(run), folder=tmp_path / "run")
    names = tuple(f"{k}" for k in range(10**5))
    other.info = DataInfo.of_images((8, 8, 1), names, (0.25,), (0.5,))
    other.model_arguments = {**ARGUMENTS, "num_classes": len(names)}
    other.create()
    shutil.copytree(run / "checkpoints", tmp_path / "run" / "checkpoints")
    assert "has shape (64, 4) in the checkpoint and (64, 100000) here" in outcome(
        tmp_path / "run", model
    )


@pytest.mark.parametrize("command", ["predict", "evaluate", "explain"])
def test_commands_say_one_line(command, whole, run, tmp_path, capsys):
    bad = written(tmp_path / "x.keras", whole | {WEIGHTS: b"x"})
    image = tmp_path / "x.png"
    image.write_bytes(b"")
    given = {"predict": [str(image)], "evaluate": [], "explain": ["--image", str(image)]}[command]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "args.yaml").write_text("model: linear")
    (tmp_path / "run" / "model.json").write_text("{")
    for where in (["--saved-model", str(bad)], ["--run", str(tmp_path / "run")]):
        assert cli.main([command, *where, *given]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error


def test_initial_checkpoint(whole, tmp_path):
    from kerasdl.store import initial

    good = written(tmp_path / "good.keras", whole)
    assert initial.open_initial(str(good)).class_names == tuple("abcd")
    other = load.Metadata("linear", DataInfo.of_images((8, 8, 1), "abc"), RECIPE).to_json()
    for changed in ({WEIGHTS: b"x"}, {load.MEMBER: other}, {load.MEMBER: b"{"}):
        bad = written(tmp_path / "bad.keras", whole | changed)
        with pytest.raises(REPORTED):
            initial.open_initial(str(bad))
