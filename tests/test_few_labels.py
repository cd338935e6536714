"""What a run's features are worth with few labels: `kerasdl probe`."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from kerasdl import app, cli, few_labels
from kerasdl.errors import UserError
from kerasdl.few_labels import How, probe_run
from kerasdl.inference import probing
from kerasdl.report import probes
from kerasdl.store import runs

GIVEN = {
    "model": "simclr_small",
    "tiny": True,
    "epochs": 1,
    "limit_batches": 2,
    "batch_size": 64,
    "log": ("report",),
    "export": (),
    "experiment": "run",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    output = tmp_path_factory.mktemp("few")
    app.train({**GIVEN, "output": str(output)}, lambda line: None)
    return output / "run"


def features(rng, n=120, classes=3):
    """Features that tell classes apart in one of many directions."""
    labels = {part: rng.integers(0, classes, n) for part in ("train", "validation", "test")}
    values = {p: rng.normal(size=(n, 12)) + np.eye(classes, 12)[y] * 6 for p, y in labels.items()}
    return probing.Features(values, labels, classes)


@pytest.mark.parametrize("method", probing.FROZEN)
def test_good_features_are_told_from_noise(rng, method):
    good = features(rng)
    noise = probing.Features(
        {part: rng.normal(size=x.shape) for part, x in good.values.items()}, good.labels, 3
    )
    chosen = probing.chosen_labels(good.labels["train"], "5/class", 0)
    assert len(chosen) == 15
    best, worst = (probing.probe(f, method, chosen, 5, 0.07) for f in (good, noise))
    assert best["top1"] > 0.9 and best["validation_top1"] > 0.9
    assert worst["top1"] < 0.5


def test_the_regularization_is_the_best_on_the_validation_part(rng):
    some = features(rng)
    chosen = probing.chosen_labels(some.labels["train"], "9", 0)
    found = probing.probe(some, "linear", chosen, 5, 0.07)
    spoiled = probing.Features(
        {**some.values, "test": rng.normal(size=(120, 12))}, some.labels, some.num_classes
    )
    again = probing.probe(spoiled, "linear", chosen, 5, 0.07)
    assert again["l2"] == found["l2"] and again["validation_top1"] == found["validation_top1"]


def test_results_stand_in_the_metrics_the_report_and_the_table(folder, capsys):
    results = probe_run(folder, How(labels=("20", "all"), seeds=2), lambda line: None)
    assert len(results) == 2 * 2 * 2 * 2  # methods, labels, seeds, starts
    assert {r["seed"] for r in results} == {0, 1} and results[0]["dataset"] == "digits"
    once = {(r["method"], r["labels"], r["start"]): r["top1"] for r in results}
    again = probe_run(folder, How(labels=("20",), seeds=2), lambda line: None)
    assert again == [r for r in results if r["labels"] == "20"]  # nothing is random
    stored = json.loads((folder / runs.METRICS).read_text())["probe"]
    assert stored == results and len(once) == 8
    text = (folder / "report.html").read_text()
    assert "Few labels" in text and "pre-trained" in text
    assert cli.main(["show", "--run", str(folder)]) == 0
    assert "random start" in capsys.readouterr().out


def test_a_table_has_the_mean_over_runs_and_seeds():
    keys = {"model": "m", "dataset": "d", "labels": "50", "method": "knn"}
    rows = [{**keys, "start": "run", "top1": top1} for top1 in (0.5, 0.7)]
    rows += [{**keys, "start": "random", "top1": 0.4}]
    assert probes.cells(rows) == [
        ("m", "d", "50", "knn", "0.600 ± 0.141", "0.400", "+0.200", "2"),
    ]


def test_what_cannot_be_probed_is_one_line(folder, tmp_path):
    with pytest.raises(UserError, match="has images of 3 channels, the model takes 1"):
        probe_run(folder, How(dataset="photos"))
    with pytest.raises(UserError, match="gan has no features to be probed"):
        probing.features_of(SimpleNamespace(name="gan"), None)
    with pytest.raises(UserError, match="vae names no classifier with its backbone"):
        few_labels._classifier(SimpleNamespace(name="vae"))
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / runs.METRICS).unlink()
    with pytest.raises(UserError, match="is not finished"):
        probe_run(tmp_path / "run", How())


@pytest.mark.slow
def test_fine_tuning_begins_with_the_runs_weights_and_is_not_done_twice(folder, monkeypatch):
    how = How(methods=("finetune",), labels=("20",), seeds=1, steps=20)
    first = probe_run(folder, how, lambda line: None)
    tuned = runs.open_run(folder / runs.PROBE / "digits-20-run-s0").recipe
    scratch = runs.open_run(folder / runs.PROBE / "digits-20-random-s0").recipe
    assert tuned.initial_checkpoint == str(folder) and scratch.initial_checkpoint is None
    assert (tuned.model, tuned.labels, tuned.lr) == ("resnet32", 20, scratch.lr)
    monkeypatch.setattr(few_labels.app, "train", None)
    assert probe_run(folder, how, lambda line: None) == first
    monkeypatch.undo()
    app.train({**GIVEN, "output": str(folder.parent), "epochs": 2}, lambda line: None)
    assert not (folder / runs.PROBE).exists()  # it was of other weights
