"""`ensemble`: runs of classifiers joined to one, which is a run and an export like others."""

import json
from dataclasses import replace

import numpy as np
import pytest

from kerasdl import app, cli
from kerasdl.columns import DataInfo
from kerasdl.data.sources import open_source
from kerasdl.errors import UserError
from kerasdl.inference import comparison
from kerasdl.inference.artifact import evaluate_all, evaluate_artifact, open_artifact
from kerasdl.recipe import Recipe
from kerasdl.store import checkpoint, ensemble, runs
from kerasdl.store.teacher import open_teacher

QUIET = {"log": (), "export": (), "dataset": "digits"}


def quiet(line):
    """Says nothing."""


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Folders of three finished runs, of two architectures and two seeds."""
    folder = tmp_path_factory.mktemp("members")
    small = {"model": "mlp", "model_kwargs": {"dims": (16,)}, "epochs": 6, "lr": 0.01}
    plain = {"model": "plain", "epochs": 3, "model_kwargs": {"filters": 8}}
    for name, settings in {"a": small, "b": {**small, "seed": 1}, "c": plain}.items():
        given = {**QUIET, **settings, "output": str(folder), "experiment": name}
        assert app.train(given, quiet) == 0
    return [folder / name for name in "abc"]


def test_a_run_that_answers_as_the_mean_of_its_members(members, tmp_path, capsys):
    out = tmp_path / "ens"
    command = ["ensemble", *map(str, members), "--output", str(out), "--export", "none"]
    assert cli.main(command) == 0
    shown, err = capsys.readouterr()
    said = json.loads(shown)
    digits = open_source("digits").test.read(range(360))
    each = [runs.open_run(folder).restore()[0](digits["image"]) for folder in members]
    logits = np.stack([np.asarray(x, "float64") for x in each])
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p = (p / p.sum(-1, keepdims=True)).mean(0)
    joined, task = runs.open_run(out).restore()
    np.testing.assert_allclose(np.exp(joined(digits["image"])), p, rtol=1e-4, atol=1e-7)
    top1 = float((p.argmax(-1) == digits["label"]).mean())
    assert said["test"]["top1"] == pytest.approx(top1)
    each = [evaluate_artifact(folder)["top1"] for folder in members]
    listed = [said["members"][str(folder)]["test"]["top1"] for folder in members]
    assert listed == pytest.approx(each)
    assert said["mean"]["test"]["top1"] == pytest.approx(np.mean(each))
    assert evaluate_artifact(out)["top1"] == pytest.approx(top1)
    assert said["val"]["top1"] == pytest.approx(evaluate_artifact(out, "val")["top1"])
    assert "mean of 3 members: test loss" in err
    assert "<h2>Members</h2>" in (out / "report.html").read_text()
    # It is a teacher as any classifier is
    teacher = open_teacher(str(out), "float32")
    np.testing.assert_allclose(np.exp(teacher.logits(digits["image"])), p, rtol=1e-4, atol=1e-7)
    with pytest.raises(UserError, match="ens: holds a run already"):
        app.ensemble(members, out, say=quiet)


def test_classes_in_another_order_are_found_by_name(members, tmp_path):
    runs_of = ensemble.open_members(members[:2])
    order = [3, 1, 0, 2, *range(4, 10)]
    other = replace(runs_of[1], recipe=replace(runs_of[1].recipe, weights="best"))
    names = tuple("0123456789"[i] for i in order)
    info = DataInfo.of_images((8, 8, 1), names, other.info.input_mean, other.info.input_std)
    turned = replace(other, folder=tmp_path / "turned", info=info)
    turned.create()
    header, arrays = checkpoint.read(other.checkpoints / "best.npz")
    arrays = {k: v[..., order] if "/head/" in k else v for k, v in arrays.items()}
    checkpoint.write(turned.checkpoints / "best.npz", header, arrays)
    images = open_source("digits").test.read(range(20))["image"]
    both = [ensemble.join([runs_of[0], one], tmp_path / "e")[1](images) for one in (other, turned)]
    np.testing.assert_array_equal(*map(np.asarray, both))


def test_what_does_not_fit_together_is_refused(members, tmp_path):
    def refused(message, *folders, say=quiet):
        with pytest.raises(UserError, match=message):
            app.ensemble(folders, tmp_path / "ens", say=say)
        assert not (tmp_path / "ens").exists()

    def changed(name, metrics=True, **fields):
        run = replace(runs.open_run(members[0]), folder=tmp_path / name, **fields)
        run.create()
        if metrics:
            (run.folder / runs.METRICS).write_text((members[0] / runs.METRICS).read_text())
        return run.folder

    first, recipe = members[0], runs.open_run(members[0]).recipe
    refused("at least two members", first)
    refused("a/../a: is named twice", first, first / ".." / "a")
    refused("is no run folder", first, tmp_path)
    refused("begun: is not finished", first, changed("begun", metrics=False))
    refused(
        "svm: was trained with --loss hinge",
        first,
        changed("svm", recipe=replace(recipe, loss="hinge")),
    )
    cropped = replace(recipe, resize="crop")
    refused("--resize crop, .*a with squash", first, changed("crop", recipe=cropped))
    nine = DataInfo.of_images((8, 8, 1), "012345678")
    refused(
        "nine: its classes are not those of .*: 9 only one of", first, changed("nine", info=nine)
    )
    large = DataInfo.of_images((16, 8, 1), "0123456789")
    refused(r"large: takes images of \(16, 8, 1\)", first, changed("large", info=large))
    boxes = changed("ae", model_name="autoencoder")
    refused("ae: is no classifier: the task of autoencoder is reconstruct", first, boxes)


def test_runs_that_hold_other_examples_out(tmp_path):
    """Made-up data of two seeds are other examples."""
    rng, info = np.random.default_rng(0), DataInfo.of_images((8, 8, 1), "01")
    arrays = {"x_test": rng.random((9, 8, 8, 1)), "y_test": np.arange(9) % 2}
    arrays |= {"x_train": rng.random((40, 8, 8, 1)), "y_train": np.arange(40) % 2}
    arrays = {k: v.astype("float32" if k[0] == "x" else "int64") for k, v in arrays.items()}
    np.savez(tmp_path / "d.npz", **arrays)
    name = f"npz:{tmp_path / 'd.npz'}"

    def run(name, dataset, seed, info=info):
        recipe = Recipe(model="mlp", dataset=dataset, seed=seed)
        return runs.Run(tmp_path / name, recipe, "mlp", {}, info)

    _, parts = comparison.held_out([run("a", name, 0), run("b", name, 0)])
    assert parts == ["validation", "test"]
    _, parts = comparison.held_out([run("a", name, 0), run("b", name, 1)])
    assert parts == ["test"]  # the validation part is held out by the seed
    made = DataInfo.of_images((8, 8, 3), "0123456789")
    with pytest.raises(UserError, match="b: has other test examples than .*a"):
        comparison.held_out([run(n, "synthetic", s, made) for s, n in enumerate("ab")])


@pytest.mark.slow
def test_an_ensemble_is_exported_and_proven(members, tmp_path):
    metrics = app.ensemble(
        members,
        tmp_path / "ens",
        ("savedmodel", "tflite"),
        str(tmp_path / "sm"),
        "three",
        say=quiet,
    )
    folder = tmp_path / "sm" / "three" / "1"
    card = json.loads((folder / "assets.extra" / "card.json").read_text())
    assert card["model"] == "ensemble" and not card["omitted"]
    evaluated = {name: file for name, file in card["artifacts"].items() if file["test"]}
    assert {"savedmodel", "tflite/float32", "tflite/int8"} <= set(evaluated)
    for name, file in evaluated.items():
        assert file["test"]["top1"] == pytest.approx(metrics["test"]["top1"], abs=0.02), name
    assert "## Members" in (folder / "assets.extra" / "card.md").read_text()
    images = open_source("digits").test.read(range(8))["image"]
    run, saved, keras_file = (
        open_artifact(path).predict(images)["probabilities"]
        for path in (tmp_path / "ens", folder, folder / "assets.extra" / "model.keras")
    )
    np.testing.assert_allclose(saved, run, atol=1e-5)
    np.testing.assert_allclose(keras_file, run, atol=1e-6)
    assert evaluate_all(folder)["savedmodel"]["top1"] == pytest.approx(metrics["test"]["top1"])
    teacher = open_teacher(str(tmp_path / "sm" / "three"), "float32")
    assert set(teacher.info.class_names) == set("0123456789")
    np.testing.assert_allclose(np.exp(teacher.logits(images)), run, atol=1e-6)
