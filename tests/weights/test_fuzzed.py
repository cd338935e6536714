"""Damaged files of weights are read or refused in one line: no traceback, no hang, no memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

LARGEST = 32 * 2**20  # bytes; the files have a few hundred each


@pytest.mark.parametrize("seed", range(3))
def test_a_hundred_damaged_files(seed, tmp_path):
    script = Path(__file__).with_name("fuzz.py")
    command = [sys.executable, "-m", "tests.weights.fuzz", tmp_path, str(seed)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=script.parents[2]
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = json.loads(done.stdout)
    assert found["broken"] == []
    assert found["files"] >= 100 and found["refused"] >= 70
    assert found["seconds"] < 5 and found["bytes"] < LARGEST
