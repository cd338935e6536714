"""The loop in one process: what it writes, when it stops, and what it refuses."""

import csv
import errno
import json
import os
import signal

import keras
import numpy as np
import pytest

from kerasdl import app
from kerasdl.errors import CheckpointError, TrainingError
from kerasdl.store import checkpoint, runs
from kerasdl.store.settings import resolve
from kerasdl.tasks.classify import Classify
from kerasdl.training import loop
from kerasdl.training.session import Session

MLP = {
    "model": "mlp",
    "model_kwargs": {"dims": (16,)},
    "batch_size": 128,
    "epochs": 3,
    "log": (),
    "export": (),
    "augment": (),
}


def session(tmp_path, callbacks=(), **settings):
    given = {**MLP, "output": str(tmp_path), "experiment": "run", **settings}
    recipe = resolve(given)
    made = Session(recipe, tmp_path / "run", say=lambda line: None, callbacks=callbacks)
    made.run.create()
    return made


class At(keras.callbacks.Callback):
    """Calls a function after a step."""

    def __init__(self, step, function):
        super().__init__()
        self.step, self.function = step, function

    def on_train_batch_end(self, batch, logs=None):
        if self.loop.step == self.step:
            self.function()


def test_two_steps_a_stop_and_the_rest_equal_one_run(tmp_path):
    whole = session(tmp_path / "a", drop_rate=0.3, augment=("shift",))
    whole.fit()
    first = session(
        tmp_path / "b",
        [At(5, lambda: os.kill(os.getpid(), signal.SIGTERM))],
        drop_rate=0.3,
        augment=("shift",),
    )
    with pytest.raises(loop.Stopped, match="SIGTERM"):
        first.fit()
    assert 5 <= first.loop.step < whole.loop.total_steps
    second = session(tmp_path / "b", drop_rate=0.3, augment=("shift",))
    second.fit()
    a, b = whole.loop.weights(), second.loop.weights()
    assert a.keys() == b.keys()
    assert all((a[k] == b[k]).all() for k in a)
    assert whole.loop.history == second.loop.history


def test_a_run_writes_its_folder_and_says_when_it_is_finished(tmp_path):
    lines = []
    given = {**MLP, "output": str(tmp_path), "experiment": "run", "log": ("csv", "tensorboard")}
    assert app.train(given, lines.append) == 0
    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    wanted = {"model", "dataset", "test", "trainable_parameters", "steps", "epochs", "seed"}
    assert wanted | {"examples_per_second", "train_seconds"} <= metrics.keys()
    assert metrics["test"].keys() == {"loss", "top1", "top5", "balanced_accuracy"}
    assert np.sum(metrics["confusion"]) == 360
    assert sum(row["support"] for row in metrics["classes"].values()) == 360
    assert list(metrics["classes"]) == list("0123456789")
    rows = list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert "val_top1" in rows[0]
    assert list((folder / "tensorboard").glob("events*"))
    assert app.train(given, lines.append) == 0
    assert "is finished" in lines[-1]
    with pytest.raises(ValueError, match="--lr was 0.*is 0.5"):
        app.train({**given, "lr": 0.5}, lines.append)
    assert app.train({**given, "lr": 0.5, "resume": False}, lines.append) == 0


def test_a_loss_that_is_not_a_number_names_the_step(tmp_path):
    made = session(tmp_path, lr=1e30, opt="sgd", sched="constant", clip_grad=None)
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf) at step \d+ \(epoch 1\)"):
        made.fit()


def test_early_stopping_counts_epochs_without_a_better_one(tmp_path):
    made = session(tmp_path, epochs=9, lr=1e-12, sched="constant", early_stopping=2)
    made.fit()
    assert len(made.loop.history) == 3


def test_plateau_lowers_the_rate(tmp_path):
    schedule = {"sched": "plateau", "decay_epochs": 2, "decay_rate": 0.5, "lr": 1e-9}
    made = session(tmp_path, epochs=6, **schedule)
    made.fit()
    rates = [row["lr"] for row in made.loop.history]
    np.testing.assert_allclose(rates, [1e-9, 1e-9, 1e-9, 5e-10, 5e-10, 2.5e-10], rtol=1e-5)


def test_limits(tmp_path):
    made = session(tmp_path, limit_batches=2, epochs=4, max_steps=5)
    made.fit()
    assert made.loop.step == 5
    assert [row["step"] for row in made.loop.history] == [2, 4, 5]


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    made = session(tmp_path, checkpoint_steps=4)
    whole, calls = np.savez, []

    def savez(file, **arrays):
        calls.append(1)
        if len(calls) < 2:
            return whole(file, **arrays)
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint.np, "savez", savez)
    with pytest.raises(TrainingError, match="No space left.*step-000000004.npz"):
        made.fit()
    names = sorted(p.name for p in made.run.checkpoints.iterdir())
    assert names == ["step-000000004.npz"]
    again = session(tmp_path, checkpoint_steps=4)
    assert again.loop.resume() and again.loop.step == 4


def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_says_so(tmp_path):
    made = session(tmp_path, checkpoint_steps=4)
    made.fit()
    newest, before = checkpoint.newest_first(made.run.checkpoints)
    newest.write_bytes(newest.read_bytes()[:-200])
    lines = []
    again = session(tmp_path, checkpoint_steps=4)
    assert again.loop.resume(lines.append)
    assert checkpoint.path_of(made.run.checkpoints, again.loop.step) == before
    assert newest.name in lines[0] and "damaged" in lines[0]


def test_altered_bytes_are_noticed(tmp_path):
    path = tmp_path / "step-000000001.npz"
    checkpoint.write(path, {"a": 1}, {"x": np.zeros(1000)})
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.read(path)


def test_best_and_averaged_weights_come_back(tmp_path):
    made = session(tmp_path, ema_decay=0.5, epochs=2)
    made.fit()
    last, _ = runs.open_run(tmp_path / "run").restore("last")
    for v in last.trainable_variables:
        np.testing.assert_array_equal(v, made.loop.weights()[v.path])
    best, _ = runs.open_run(tmp_path / "run").restore("best")
    assert best.count_params() == last.count_params()


def test_a_foreign_file_in_the_runs_folder_is_kept(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "args.yaml").write_text("lr: 1")
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="'thesis.txt', which is no part of a run"):
        app.train({**MLP, "output": str(tmp_path), "experiment": "run", "resume": False})
    assert (folder / "thesis.txt").read_text() == "mine"


def test_frozen_backbones_and_averages_come_back(tmp_path):
    made = session(tmp_path, freeze_backbone=True, ema_decay=0.5, epochs=1)
    start = {v.path: np.array(v) for v in made.model.backbone.variables}
    made.fit()
    model, _ = runs.open_run(tmp_path / "run").restore("last")
    for v in model.backbone.trainable_variables:
        np.testing.assert_array_equal(v, start[v.path])
    for v in model.trainable_variables:
        np.testing.assert_array_equal(v, made.loop.weights()[v.path])


@pytest.mark.parametrize(
    "settings, line",
    [
        ({"monitor": "top2"}, "--monitor top2: not one of loss, top1, top5"),
        ({"monitor": "loss"}, "lower is better"),
        ({"monitor": "balanced_acuracy"}, "did you mean balanced_accuracy"),
        ({"monitor": "balanced_accuracy"}, "only where --eval-epochs is at least 1"),
        ({"model_kwargs": {"num_classes": 3}}, "--model-kwargs num_classes"),
        ({"model_kwargs": {"dims": 3}}, "--model-kwargs dims=3"),
        ({"model_kwargs": {"dim": 3}}, "did you mean dims"),
        ({"drop_path": 0.1}, "mlp has no argument 'drop_path'"),
        ({"batch_size": 5000}, "must be at most the 1257 examples"),
        ({"model": "resnet50", "model_kwargs": {}, "image_size": (8,)}, "at least 32x32"),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, settings, line):
    with pytest.raises(ValueError, match=line):
        session(tmp_path, **settings)
    assert not list(tmp_path.iterdir())


def test_an_unknown_setting_of_the_task_names_the_allowed():
    with pytest.raises(ValueError, match="--task-kwargs beta: no such setting"):
        Classify(None, resolve({**MLP, "task_kwargs": {"beta": 1}}))
