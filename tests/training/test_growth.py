"""Runs that are given more epochs, finished or not; what is said of the rate, what is refused."""

import json

import numpy as np
import pytest

from kerasdl import app
from kerasdl.columns import DataInfo
from kerasdl.recipe import Recipe
from kerasdl.store import checkpoint, runs
from kerasdl.training import growth, loop

LINEAR = {"model": "linear", "batch_size": 128, "limit_batches": 3, "log": (), "export": ()}


def train(tmp_path, name="run", **settings):
    """The lines of a training."""
    lines = []
    given = {**LINEAR, "output": str(tmp_path), "experiment": name, **settings}
    assert app.train(given, lines.append) == 0
    return lines


def state_of(folder):
    """The last checkpoint's arrays, and its loop without what depends on the clock."""
    header, arrays = checkpoint.latest(folder / "checkpoints")
    clock = ("seconds", "timed")
    return {k: v for k, v in header["loop"].items() if k not in clock}, arrays


def assert_equal(a, b):
    (loop_a, arrays_a), (loop_b, arrays_b) = state_of(a), state_of(b)
    assert loop_a == loop_b and arrays_a.keys() == arrays_b.keys()
    for name, value in arrays_a.items():
        np.testing.assert_array_equal(value, arrays_b[name], name)


@pytest.mark.parametrize("sched", ["constant", "step"])
def test_a_finished_run_that_goes_on_equals_one_of_all_epochs(tmp_path, sched):
    settings = {"sched": sched, "decay_epochs": 2, "warmup_epochs": 1, "augment": ("shift",)}
    train(tmp_path, "grown", epochs=2, **settings)
    first = json.loads((tmp_path / "grown" / runs.METRICS).read_text())
    lines = train(tmp_path, "grown", epochs=4, **settings)
    train(tmp_path, "whole", epochs=4, **settings)
    assert_equal(tmp_path / "grown", tmp_path / "whole")
    metrics = json.loads((tmp_path / "grown" / runs.METRICS).read_text())
    assert (first["epochs"], metrics["epochs"]) == (2, 4) and metrics["finished"]
    assert metrics["steps"] == 12 and "all 4 epochs" in metrics["ended"]
    assert runs.open_run(tmp_path / "grown").recipe.epochs == 4
    said = next(line for line in lines if line.startswith("--epochs was 2, is 4"))
    assert f"the {sched} schedule is as before; at step 6 the learning rate stays 0.01" in said
    assert "is finished" in train(tmp_path, "grown", epochs=4, **settings)[-1]


def test_the_jump_of_a_schedule_over_all_epochs_is_said(tmp_path):
    train(tmp_path, epochs=2, sched="cosine", lr=0.02)
    lines = train(tmp_path, epochs=4, sched="cosine", lr=0.02)
    said = next(line for line in lines if line.startswith("--epochs was 2"))
    assert "cosine schedule is computed over 4 epochs" in said
    assert "at step 6 the learning rate goes from 0 to 0.01" in said
    rates = [row["lr"] for row in state_of(tmp_path / "run")[0]["history"]]
    half = 0.01 * (1 + np.cos(np.pi * np.array([9, 12]) / 12))
    np.testing.assert_allclose(rates[2:], half, atol=1e-8)
    assert rates[1] == pytest.approx(0, abs=1e-8)


def test_an_unfinished_run_goes_on_to_more_epochs(tmp_path, monkeypatch):
    account = loop.Loop._account

    def stop_inside_the_second_epoch(self, rows):
        account(self, rows)
        self.stop_signal = "the test" if self.step > 3 else None

    given = {**LINEAR, "output": str(tmp_path), "experiment": "grown", "sched": "constant"}
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_account", stop_inside_the_second_epoch)
        assert app.train({**given, "epochs": 3}, lambda line: None) == 130
    assert state_of(tmp_path / "grown")[0]["step"] in (4, 5, 6)
    train(tmp_path, "grown", epochs=5, sched="constant")
    train(tmp_path, "whole", epochs=5, sched="constant")
    assert_equal(tmp_path / "grown", tmp_path / "whole")


def test_a_run_that_is_killed_while_it_goes_on_is_not_finished(tmp_path, monkeypatch):
    train(tmp_path, epochs=1, sched="constant")

    def killed(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, epochs=2, sched="constant")
    assert runs.open_run(tmp_path / "run").metrics() is None
    lines = train(tmp_path, epochs=2, sched="constant")
    assert "going on from step 3" in lines
    assert runs.open_run(tmp_path / "run").metrics()["epochs"] == 2


def made_run(folder, step, best, **settings):
    """A run of ten steps an epoch that has come to a step, as its files say it."""
    recipe = Recipe(model="linear", dataset="digits", monitor="top1", **settings)
    run = runs.Run(folder, recipe, "linear", {}, DataInfo.of_images((8, 8, 1), "ab"))
    run.create()
    history = [{"epoch": e, "step": 10 * e, "val_top1": 0.5} for e in range(1, step // 10 + 1)]
    row = {"epoch": best, "step": 10 * best, "value": 0.5, "row": {}}
    state = {"step": step, "history": history, "best": row}
    path = checkpoint.path_of(run.checkpoints, step)
    checkpoint.write(path, {"loop": state}, {"x": np.zeros(1)})
    return run


@pytest.mark.parametrize(
    "step, settings, epochs, line",
    [
        (200, {"epochs": 20}, 19, "--epochs 19: .* has come to epoch 20; give 20 or more"),
        (200, {"epochs": 40}, 20, None),
        (201, {"epochs": 40}, 20, "has come to epoch 21; give 21 or more"),
        (5, {"epochs": 40}, 1, None),
        (200, {"epochs": 20}, 40, None),
        (70, {"epochs": 20, "early_stopping": 5}, 40, "--early-stopping 5 after epoch 7 .*epoch 2"),
        (60, {"epochs": 20, "early_stopping": 5}, 40, None),
        (150, {"epochs": 20, "max_steps": 150}, 40, "ended by --max-steps 150"),
        (140, {"epochs": 20, "max_steps": 150}, 40, None),
    ],
)
def test_what_more_epochs_cannot_change_is_named(tmp_path, step, settings, epochs, line):
    run = made_run(tmp_path / "run", step, 2, **settings)
    new = Recipe(model="linear", dataset="digits", monitor="top1", **{**settings, "epochs": epochs})
    before = sorted(p.name for p in tmp_path.rglob("*"))
    if line is None:
        growth.check(run, new)
    else:
        with pytest.raises(ValueError, match=line):
            growth.check(run, new)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_other_settings_stay_refused(tmp_path):
    train(tmp_path, epochs=1)
    with pytest.raises(ValueError, match="--lr was 0.01, is 0.5"):
        train(tmp_path, epochs=2, lr=0.5)
    assert runs.open_run(tmp_path / "run").metrics()["finished"]
