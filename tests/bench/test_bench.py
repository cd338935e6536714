"""What `bench` promises: measurements in turn, right ratios, a table. Nothing is timed."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from kerasdl import catalog
from kerasdl.bench import (
    attention,
    data,
    detection,
    export,
    infer,
    loop,
    networks,
    paired,
    recurrent,
    remat,
    sampling,
)
from kerasdl.cli import bench
from kerasdl.data.splits import FileSplit
from kerasdl.errors import UsageError
from kerasdl.ops import noise
from tests.test_every_model import built_without_memory
from tests.variants import tiny


class Clock:
    """A clock that functions move on by hand."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def work(self, *seconds):
        """A function that takes these seconds in turn, and the last for ever."""
        left = list(seconds)

        def call():
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_functions_are_measured_in_turn():
    order, clock = [], Clock()

    def call(name, seconds):
        def work():
            order.append(name)
            clock.now += seconds

        return work

    result = paired.alternate(
        {"a": call("a", 1.0), "b": call("b", 2.0)}, rounds=3, clock=clock, minimum=0.5
    )
    assert result == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab"


def test_a_fast_function_is_called_often_and_its_first_call_not_counted():
    clock = Clock()
    result = paired.alternate({"a": clock.work(9.0, 0.1)}, rounds=2, clock=clock, minimum=1.0)
    np.testing.assert_allclose(result["a"], [0.1, 0.1])
    assert clock.now == pytest.approx(9.0 + 0.1 + 2 * 10 * 0.1)


def test_a_ratio_is_the_median_of_the_pairs():
    result = paired.ratio([1.0, 2.0, 4.0], [2.0, 2.0, 16.0])
    assert result == paired.Ratio(ours=2.0, peer=2.0, median=2.0, low=1.0, high=4.0)


def test_each_side_is_compared_at_its_better():
    clock = Clock()
    steps = {
        ("ours", False): clock.work(2.0),
        ("peer", False): clock.work(3.0),
        ("ours", True): clock.work(1.0),
        ("peer", True): clock.work(5.0),
    }
    result = paired.compare("case", steps, rounds=7, clock=clock)
    assert result["case"] == "case"
    assert set(result["memory"]) == {"ours", "peer"}
    result["memory"] = {"ours": 1.25, "peer": 30.0}
    assert (result["off"].median, result["on"].median, result["better"].median) == (1.5, 5.0, 3.0)
    assert (result["better"].ours, result["better"].peer) == (1.0, 3.0)
    lines = bench.table(result).splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["XLA", "ours", "peer", "ratio", "range"],
        ["off", "2000.0", "ms", "3000.0", "ms", "1.50", "1.50", "to", "1.50"],
        ["on", "1000.0", "ms", "5000.0", "ms", "5.00", "5.00", "to", "5.00"],
        ["better", "of", "both", "1000.0", "ms", "3000.0", "ms", "3.00", "3.00", "to", "3.00"],
        ["memory", "1.2", "MiB", "30.0", "MiB"],
    ]


def test_a_side_that_xla_compiles_is_compared_with_one_that_it_does_not():
    clock = Clock()
    steps = {
        ("ours", False): clock.work(4.0),
        ("ours", True): clock.work(1.0),
        ("peer", False): clock.work(3.0),
    }
    result = paired.compare("case", steps, rounds=3, clock=clock)
    assert (result["off"].median, result["better"].median) == (0.75, 3.0)
    assert "on" not in result


def test_the_memory_of_a_call_is_what_it_holds_at_most():
    def hold(mib):
        return lambda: np.ones((mib, 2**20), np.uint8).sum()

    result = [paired.extra_memory(hold(mib)) for mib in (64, 16, 64)]
    for mib, value in zip((64, 16, 64), result, strict=True):
        assert mib - 2 <= value <= mib + 16


CASES = {
    "recurrent": lambda: recurrent.cases({"batch": 2, "time": 3, "dim": 4, "units": 5}),
    "attention": lambda: attention.cases({"batch": 2, "tokens": 3, "dim": 4, "num_heads": 2}),
}


def test_every_case_of_a_layer_trains_both_sides():
    names = []
    for part in ("recurrent", "attention"):
        for name, steps in CASES[part]():
            names.append(name)
            assert set(steps) == {(s, xla) for s in ("ours", "peer") for xla in (False, True)}
            for key, step in steps.items():
                losses = [step() for _ in range(30)]
                assert losses[-1] < losses[0], (name, key)
    assert [name.split()[0] for name in names] == ["LSTM", "GRU", "SelfAttention"]


def test_both_ways_of_sampling_do_the_same_work(monkeypatch):
    """The loop over `predict` ends in the image that our sampler draws from the same noise."""
    monkeypatch.setattr(np.random, "default_rng", lambda seed: _Draws())
    tiny = {"dim": 8, "multipliers": (1, 2), "attention_levels": ()}
    (one, single), (many, batch) = sampling.cases({"steps": 3, "batch": 5}, tiny)
    assert "loop over predict" in one and "3 times the network" in many
    np.testing.assert_allclose(single["ours", False](), single["peer", False](), atol=1e-5)
    assert batch["ours", False]().shape == batch["peer", False]().shape == (5, 8, 8, 1)
    result = paired.compare(one, single, rounds=1, minimum=0.0)
    assert set(result) == {"case", "off", "memory"}
    assert len(bench.table(result).splitlines()) == 4


class _Draws:
    """The noise that our sampler starts from, in place of numpy's."""

    def standard_normal(self, shape):
        return np.asarray(noise.normal(noise.sample_keys((0, 0), shape[0]), shape[1:]))


def test_a_step_loses_the_same_with_and_without_remat():
    arguments = {"patch_size": 4, "dim": 8, "depth": 2, "num_heads": 2, "mlp_dim": 8}
    ((name, steps),) = remat.cases({"vit_digits": (2, 8, arguments)})
    assert name.startswith("A step of vit_digits, 2 images of 8 x 8")
    for _ in range(3):
        np.testing.assert_allclose(steps["ours", False](), steps["peer", False](), rtol=1e-5)


def test_the_command_prints_and_writes_a_table_and_json(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(paired, "MIN_SECONDS", 0.0)
    fake = {
        "layers": {
            "keras.layers": [lambda: [("one", dict.fromkeys(_keys(), lambda: None))]],
            "torch": [lambda: [("two", dict.fromkeys(_keys(), lambda: None))]],
        }
    }
    argv = ["layers", "--against", "keras.layers", "--rounds", "2", "--output", str(tmp_path / "b")]
    assert bench.main(argv, fake) == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == "one" and len(shown.splitlines()) == 6
    assert (tmp_path / "b" / "layers.txt").read_text() == shown
    assert bench.main([*argv, "--json"], fake) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert set(result) == {"case", "off", "on", "better", "memory"}
    assert set(result["better"]) == {"ours", "peer", "median", "low", "high"}
    (written,) = json.loads((tmp_path / "b" / "layers.json").read_text())
    assert set(written) == set(result)


def _keys():
    return [(side, xla) for side in ("ours", "peer") for xla in (False, True)]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["layer"], "invalid choice: 'layer'"),
        (["train", "--models", "mlp"], "--models mlp: applies to bench export only"),
        (
            ["export", "--models", "resnet21"],
            r"unknown model 'resnet21' \(did you mean resnet\d+\?",
        ),
        (["--against", "pytorch"], "invalid choice: 'pytorch'"),
        (
            ["data", "--against", "keras", "torch"],
            "bench data needs torchvision, which is not inst",
        ),
        (["train", "--against", "torch"], "bench train needs torchvision, which is not installed"),
        (["train", "--against", "keras.layers"], "is a peer of layers, not of train"),
        (["--output", "/proc/bench"], "--output /proc/bench: cannot be made"),
        (["--rounds", "0"], "0: must be at least 1"),
        (["--rounds", "x"], "x: must be at least 1"),
        (["--fast"], "unknown argument --fast"),
    ],
)
def test_what_cannot_be_understood_is_refused(argv, message):
    with pytest.raises(UsageError, match=message):
        bench.main(argv, {})


def test_loop_and_fit_take_the_same_steps(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(loop, "STEPS", 3)
    session = loop._session

    def remember(*args):
        made.append(session(*args))
        return made[-1]

    monkeypatch.setattr(loop, "_session", remember)
    steps = loop.sides("mlp", tmp_path, drop_rate=0.0)
    steps["ours", False]()
    steps["peer", False]()
    ours, fitted = (s.trainer.net.trainable_variables for s in made)
    for a, b in zip(ours, fitted, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "arguments", "peer"),
    [("resnet20", {}, infer.keras_resnet20), ("vit_digits", infer.VIT, infer.keras_vit)],
)
def test_networks_of_keras_layers_are_as_large(name, arguments, peer):
    _, ours = infer._made(name, arguments)
    shapes = [
        sorted(tuple(w.shape) for w in m.trainable_weights if len(w.shape) == 4)
        for m in (ours, peer())
    ]
    assert shapes[0] == shapes[1]
    assert ours.count_params() == peer().count_params()


@pytest.mark.slow
def test_every_exported_file_is_asked():
    names = []
    for name, steps in infer.cases(batches=(1,)):
        names.append(name)
        answers = {side: step() for (side, _), step in steps.items()}
        if name.startswith("SavedModel"):
            np.testing.assert_allclose(answers["ours"], answers["peer"], atol=1e-4)
        else:
            assert len(answers) == 2 and all(answers.values())
    assert len(names) == 4


@pytest.mark.parametrize(
    "cases",
    [
        lambda: networks.cnn_training({"batch": 8, "side": 64, "classes": 3}, ["resnet50"]),
        lambda: networks.gpt2_training({"batch": 2, "tokens": 4}, GPT2),
    ],
    ids=["keras.applications", "keras_hub"],
)
@pytest.mark.slow
def test_other_libraries_train_as_well(cases):
    for name, steps in cases():
        for key, step in steps.items():
            losses = [step() for _ in range(12)]  # Adam's first ones leap
            assert np.isfinite(losses).all() and min(losses[1:]) < losses[0], (name, key)


GPT2 = {"vocab_size": 20, "max_length": 16, "dim": 8, "depth": 2, "num_heads": 2}


@pytest.mark.slow
def test_torch_is_a_peer_where_it_is_installed(tmp_path):
    pytest.importorskip("torch")
    argv = ["layers", "--against", "torch", "--rounds", "1", "--output", str(tmp_path)]
    words = [sys.executable, "-c", "from kerasdl.cli import run; run()", "bench", *argv]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600).stdout
    peers = [line.rpartition(" / ")[2] for line in shown.splitlines() if " / " in line]
    assert peers[:3] == ["torch.nn.LSTM", "torch.nn.GRU", "torch.nn.MultiheadAttention"]


@pytest.mark.slow
def test_other_libraries_answer_in_the_same_shapes():
    for name, steps in networks.cnn_inference({"batch": 2, "side": 32, "classes": 3}, ["resnet50"]):
        ours, peer = (step() for step in steps.values())
        assert ours.shape == peer.shape, name
    for name, steps in networks.gpt2_writing({"batch": 2, "tokens": 4}, GPT2):
        ours, peer = (step() for step in steps.values())
        assert ours.shape == peer["token_ids"].shape == (len(ours), 8), name
        assert (ours[:, :4] == np.asarray(peer["token_ids"])[:, :4]).all()


def test_both_pipelines_give_batches():
    cases = list(data.cases({"files": 6, "batch": 2, "photos": ((40, 50, 8), (60, 40, 16))}))
    assert [name.split(" (")[0] for name, _ in cases[:4]] == [
        "6 JPEG files of 40 x 50 as 8 x 8, 1 epoch",
        "6 JPEG files of 40 x 50 as 8 x 8, 5 epochs",
        "6 JPEG files of 60 x 40 as 16 x 16, 1 epoch",
        "6 JPEG files of 60 x 40 as 16 x 16, 5 epochs",
    ]


def test_both_read_the_same_range(tmp_path):
    folder = tmp_path / "all"
    folder.mkdir()
    paths = data._write(folder / "one", 4, (60, 50))
    ours = FileSplit(paths, np.zeros(4, np.int32), (20, 30, 3))
    ours = next(iter(data._epochs(ours, 4, 1)))["image"].numpy()
    theirs = next(iter(data._by_keras(folder, 20, 4)))[0].numpy()
    assert ours.shape == (4, 20, 30, 3) and theirs.shape == (4, 20, 20, 3)
    assert 0 <= ours.min() and 0 <= theirs.min() and 0.5 < ours.max() <= 1 >= theirs.max() > 0.5


def test_detectors_train_on_what_torchvisions_are_given():
    size = {"batch": 2, "side": 32, "objects": 3, "classes": 5}
    examples = detection._examples(*size.values())
    boxes, masks = examples["boxes"], examples["instances"]
    assert 0 <= boxes.min() and boxes.max() <= 1 and masks.shape == (2, 3, 32, 32)
    areas = np.prod(32 * (boxes[..., 2:] - boxes[..., :2]), -1)
    np.testing.assert_allclose(masks.sum((2, 3)), areas, atol=32)
    model = catalog.build(
        "mask_rcnn_small", **{**tiny("mask_rcnn_small"), "image_shape": (32, 32, 3)}
    )
    step = detection._training_step(model, examples)
    assert step() > step() > 0
    moved = detection._xyxy(32 * boxes[0])
    np.testing.assert_array_equal(moved[:, 0], 32 * boxes[0, :, 1])


def test_a_keras_gpt2_has_as_many_weights():
    ours, peer = networks._gpt2s(**GPT2)
    assert ours.count_params() == peer.count_params()


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "gpt2_small",
        "transformer_base",
        "ddpm_unet",
        "unet_small",
        "faster_rcnn",
        "rcnn_small",
    ],
)
def test_what_is_exported_at_full_size_is_that_of_the_catalogue(name):
    """Without its weights: the facts that they follow from, and inputs that are real."""
    result = export.metadata(name)
    _, count = built_without_memory(name, **result.arguments)
    assert count == catalog.row(name).parameters
    for column, values in result.columns.items():
        assert len(values) == export.EXAMPLES and values.any(), column


@pytest.mark.slow
def test_models_are_exported_in_processes_of_their_own(tmp_path, capsys):
    argv = ["export", "--output", str(tmp_path)]
    assert bench.main([*argv, "--models", "mlp"]) == 0
    shown = capsys.readouterr().out
    assert "855,050" in shown and "tflite/int8" in shown
    assert bench.main([*argv, "--models", "vit_digits", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    assert result["artifacts"]["savedmodel"]["max_difference"] <= 1e-5
    assert result["native"] is None if shutil.which("g++") is None else result["native"] <= 1e-5
    both = json.loads((tmp_path / "export.json").read_text())
    assert [one["name"] for one in both] == ["mlp", "vit_digits"]
    sizes = {name: metadata["bytes"] for name, metadata in both[0]["artifacts"].items()}
    assert sizes["tflite/float16"] < 0.55 * sizes["tflite/float32"]
    for kind in ("dynamic", "int8"):
        assert sizes[f"tflite/{kind}"] < 0.3 * sizes["tflite/float32"]


def test_a_model_that_cannot_be_exported_has_its_reason_in_the_table(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(
        export, "measure", lambda name, program: {"name": name, "error": "no memory"}
    )
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert bench.main(["export", "--models", "mlp", "--output", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "none: no memory" in shown.out
    assert shown.err == "note: not measured in C++: there is no g++\n"
    (tmp_path / "export.json").write_text("[1]")
    with pytest.raises(UsageError, match="export.json: holds something else"):
        bench.main(["export", "--models", "mlp", "--output", str(tmp_path)])
