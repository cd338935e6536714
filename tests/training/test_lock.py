"""A run's folder belongs to one process at a time."""

import os
import signal
import subprocess
import sys

import pytest

from kerasdl import cli
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
