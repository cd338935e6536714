"""Exporting a run in a process of its own: what comes back, and what of a killed one."""

import os
import signal

import numpy as np
import pytest

from kerasdl.errors import ExportError
from kerasdl.export import worker
from kerasdl.store import checkpoint, load, runs
from tests.export.examples import quiet


@pytest.fixture(scope="module")
def run(parts, tmp_path_factory):
    """The run folder of a finished training."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run = runs.Run(folder, parts.recipe, "resnet20", parts.model_arguments, parts.info)
    run.create()
    weights = {v.path: np.asarray(v) for v in parts.model.variables}
    checkpoint.write(folder / "checkpoints" / "best.npz", run.header(), weights)
    (folder / runs.METRICS).write_text('{"test": {"top1": 0.25}, "confusion": [[1]]}')
    return folder


def test_export_run(run, parts, tmp_path, exported):
    lines = []
    card = worker.export_run(run, ["savedmodel"], tmp_path, say=lines.append)
    assert card["folder"] == str(tmp_path / "resnet20" / "1")
    assert card["metrics"] == {"test": {"top1": 0.25}}
    assert lines[:2] == ["model.keras", "SavedModel"]
    assert list(card["artifacts"]) == ["savedmodel"]
    assert card["artifacts"]["savedmodel"]["test"] == pytest.approx(
        exported["artifacts"]["savedmodel"]["test"], abs=1e-5
    )
    x = parts.test["image"][:2]
    np.testing.assert_array_equal(load.load(card["folder"])(x), load.load(run)(x))


def test_a_killed_process_is_reported_and_leaves_nothing(run, tmp_path):
    def kill_at(line):
        if line == "SavedModel":
            (folder,) = (tmp_path / "resnet20").iterdir()
            assert not folder.name.isdecimal()
            os.kill(int(folder.name.rsplit("-", 1)[1]), signal.SIGKILL)

    with pytest.raises(ExportError, match="ended by SIGKILL at: SavedModel"):
        worker.export_run(run, ["savedmodel"], tmp_path, say=kill_at)
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^--export-dir .*cannot be written: .*$"):
        worker.export_run(run, ["savedmodel"], tmp_path / "file", say=quiet)
    with pytest.raises(ValueError, match=r"^--export-name a/b: "):
        worker.export_run(run, ["savedmodel"], tmp_path, "a/b", say=quiet)
    with pytest.raises(ValueError, match="is no run folder"):
        worker.export_run(tmp_path / "absent", ["savedmodel"], tmp_path, say=quiet)
