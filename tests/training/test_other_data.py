"""A run goes on, and is evaluated, on the data that it was started with, wherever they lie."""

import json
import os
import shutil
import signal

import pytest

from kerasdl import app, cli
from kerasdl.errors import UserError
from kerasdl.recipe import Recipe
from kerasdl.store import runs
from kerasdl.training import loop
from kerasdl.training.session import Session
from tests.data.test_sources import save_images
from tests.training.test_loop import At, session

EPOCHS = {"epochs": 4, "batch_size": 8}


class Stop(At):
    """Stops a training, as a signal does it, after a step."""

    def __init__(self, step):
        super().__init__(step, lambda: os.kill(os.getpid(), signal.SIGTERM))


@pytest.fixture
def pets(tmp_path):
    """A folder of data; its name; what a run on it is given, stopped within its second epoch."""
    folder = tmp_path / "pets"
    name = save_images(folder, n=20)
    made = session(tmp_path, [Stop(6)], dataset=name, **EPOCHS)
    with pytest.raises(loop.Stopped):
        made.fit()
    assert made.steps_per_epoch == 4
    return folder, name, dict(made.recipe.__dict__)


def go_on(given, **changes):
    """The lines of a run that is started again."""
    lines = []
    assert app.train({**given, **changes}, lines.append) == 0
    return lines


def test_added_files_join_training_and_nothing_is_repeated(pets, tmp_path):
    folder, name, given = pets
    old = runs.open_run(tmp_path / "run")
    for number in range(30):
        shutil.copy(folder / "cat" / "003.png", folder / "cat" / f"new{number}.png")
    said = []
    made = Session(Recipe(**given), tmp_path / "run", said.append, [Stop(10)], old)
    made.run.create()
    with pytest.raises(loop.Stopped):
        made.fit()
    assert made.steps_per_epoch == 4 and len(made.source.train) == 62
    assert "30 files are new: they join training; an epoch keeps its 4 steps" in said
    lines = go_on(given)
    assert any(line.startswith("going on from step") for line in lines)
    assert not any("files are new" in line for line in lines)
    result = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert result["steps"] == 16 and result["epochs"] == 4
    classes = result["data"]["classes"]
    assert sum(classes["cat"].values()) == 50 and sum(classes["dog"].values()) == 20
    after = runs.open_run(tmp_path / "run").data
    for part in ("validation", "test"):
        assert after["fingerprint"]["files"][part] == old.data["fingerprint"]["files"][part]


def test_other_data_are_refused_and_nothing_is_lost(pets, tmp_path):
    folder, name, given = pets
    kept = sorted((tmp_path / "run" / "checkpoints").iterdir())
    (folder / "cat").rename(folder / "fox")
    (folder / "dog").rename(folder / "cat")
    (folder / "fox").rename(folder / "dog")
    with pytest.raises(UserError, match="with other contents, the first"):
        go_on(given)
    shutil.rmtree(folder)
    save_images(folder, n=19)
    with pytest.raises(UserError, match="2 files missing, the first .*019.png"):
        go_on(given)
    assert sorted((tmp_path / "run" / "checkpoints").iterdir()) == kept


def test_moved_data_go_on_and_are_evaluated(pets, tmp_path, capsys):
    folder, name, given = pets
    shutil.move(folder, tmp_path / "elsewhere")
    with pytest.raises(UserError, match="there is no folder"):
        go_on(given)
    go_on(given, dataset=f"folder:{tmp_path / 'elsewhere'}")
    shutil.move(tmp_path / "elsewhere", folder)
    words = ["evaluate", "--run", str(tmp_path / "run")]
    assert cli.main(words) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert cli.main([*words, "--dataset", name]) == 0
    evaluated = json.loads(capsys.readouterr().out)["checkpoint"]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert evaluated["top1"] == metrics["test"]["top1"] and evaluated["examples"] == 4
    save_images(folder / "dog", ("more",), 1)
    shutil.move(folder / "dog" / "more" / "000.png", folder / "dog" / "003.png")
    assert cli.main([*words, "--dataset", name]) == 2
    assert "1 file with other contents, the first dog/003.png" in capsys.readouterr().err


def test_another_data_set_is_refused(pets, tmp_path):
    _, _, given = pets
    name = save_images(tmp_path / "others", ("cat", "dog"), 21)
    with pytest.raises(UserError, match=f"--dataset {name}: not the data .*other contents"):
        go_on(given, dataset=name)
