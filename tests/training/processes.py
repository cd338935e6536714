"""Start `worker.py`, and compare what two of them wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

WORKER = Path(__file__).with_name("worker.py")
MEMORY = WORKER.with_name("memory.py")


def start(folder, name, **settings):
    """Run a training in a fresh process.

    Returns:
        Its exit status, and what it wrote, or what it printed where it wrote nothing.
    """
    path = Path(folder) / f"{name}.json"
    path.write_text(json.dumps({"output": str(folder), "experiment": name, **settings}))
    return run_script(WORKER, path, out=Path(folder) / f"{name}.npz")


def run_script(script, *words, out, seconds=300):
    """Run a script of this folder, which writes `out`, its last argument; see `start`."""
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, script, *words, out],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | {"PYTHONPATH": str(script.parents[2])},
    )
    if not out.exists():
        return done.returncode, done.stdout + done.stderr
    with np.load(out) as found:
        return done.returncode, dict(found)


def finish(folder, name, **settings):
    """What a training wrote that must end well."""
    status, found = start(folder, name, **settings)
    assert status == 0, found
    return found


def weights(found) -> dict:
    """The weights without the states of random generators."""
    return {k: v for k, v in found.items() if k.startswith("weight/") and "seed_generator" not in k}


def difference(a, b) -> float:
    """The largest difference of two trainings' weights."""
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys() and a
    return max(float(np.abs(a[k] - b[k]).max()) for k in a)
