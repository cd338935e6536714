"""A run's folder belongs to one process at a time."""

import json
import os
import signal
import subprocess
import sys

import pytest

from kerasdl import app, cli
from kerasdl.errors import UserError
from kerasdl.store import lock, runs

HOLD = """
import sys, time
from kerasdl.store import lock
with lock.held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `run`."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_holds_it_is_named_and_what_is_killed_holds_it_no_longer(holder, tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(UserError, match=f"trained by process {holder.pid} on .* since 20"):
        with lock.held(folder):
            pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock.held(folder):
        assert f"process {os.getpid()} " in (folder / lock.FILE).read_text()
        with pytest.raises(UserError, match="give another --experiment"), lock.held(folder):
            pass
        runs.check(folder)
        (folder / "norms.json").write_text("{}")
        (folder / "pictures").mkdir()
        runs.remove(folder)
        assert [path.name for path in folder.iterdir()] == [lock.FILE]
        with pytest.raises(UserError), lock.held(folder):
            pass
    with lock.held(folder):
        pass


def test_a_second_training_is_refused_and_changes_nothing(holder, tmp_path, capsys):
    given = {"--model": "linear", "--epochs": "1", "--output": str(tmp_path)}
    words = [word for pair in given.items() for word in pair]
    common = ["--experiment", "run", "--export", "none", "--log", "none"]
    before = (tmp_path / "run" / lock.FILE).read_text()
    assert cli.main([*words, *common, "--no-resume"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and f"process {holder.pid} " in line
    assert [path.name for path in (tmp_path / "run").iterdir()] == [lock.FILE]
    assert (tmp_path / "run" / lock.FILE).read_text() == before


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "a b", "-x", "", "x\ny"])
def test_names_of_runs_are_as_strict_as_those_of_exports(name, tmp_path):
    for setting in ("experiment", "export_name"):
        given = {"model": "linear", "output": str(tmp_path / "runs"), setting: name, "epochs": 1}
        given |= {"export_dir": str(tmp_path / "saved")}
        with pytest.raises(UserError, match="must hold only letters, digits, _, - and"):
            app.train(given)
    assert not list(tmp_path.iterdir())


def test_results_stand_alone_on_the_standard_output(monkeypatch, capsys):
    from kerasdl.inference import artifact

    def evaluate(*args):
        print("a damaged checkpoint was passed over")
        return {"top1": 1.0}

    monkeypatch.setattr(artifact, "evaluate_artifact", evaluate)
    assert cli.main(["evaluate", "--run", "x"]) == 0
    result = capsys.readouterr()
    assert json.loads(result.out) == {"checkpoint": {"top1": 1.0}}
    assert result.err == "a damaged checkpoint was passed over\n"


@pytest.mark.parametrize("module", ["kerasdl", "kerasdl.cli"])
def test_modules_that_run(module):
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()[0].isdigit()
