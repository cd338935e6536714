"""Two exports of one run have the same bytes."""

import json
import subprocess
from pathlib import Path

import pytest

from kerasdl import cli
from tests.fork_server import python

TIMES = ("latency_ms", "commit", "folder")


def without_times(value):
    """A card without what depends on when and where it was made."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return value


@pytest.mark.slow
def test_two_exports_have_the_same_bytes(tmp_path, capsys):
    words = ["--model", "transformer_small", "--tiny", "--dataset", "synthetic"]
    words += ["--epochs", "1", "--limit-batches", "2"]
    words += ["--output", str(tmp_path / "runs"), "--experiment", "run", "--export", "none"]
    assert cli.main([*words, "--log", "none"]) == 0, capsys.readouterr().err
    folders, cards = [], []
    for number in range(2):
        words = [
            "export",
            "--run",
            tmp_path / "runs" / "run",
            "--export-dir",
            tmp_path / str(number),
        ]
        done = subprocess.run([python(), "-m", "kerasdl", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        cards.append(json.loads(done.stdout))
        folders.append(Path(cards[-1]["folder"]))
    one, other = (
        {p.relative_to(f).as_posix(): p.read_bytes() for p in f.rglob("*") if p.is_file()}
        for f in folders
    )
    assert len(one) > 10 and one.keys() == other.keys()
    different = {path for path, content in one.items() if content != other[path]}
    assert different <= {"assets.extra/card.json", "assets.extra/card.md"}
    assert without_times(cards[0]) == without_times(cards[1])
