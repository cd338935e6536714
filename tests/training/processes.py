"""Start `worker.py`, and compare what two of them wrote."""

import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kerasdl.launch import hosts
from tests.fork_server import python

WORKERS = "multi_worker_mirrored"
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


def run_script(script, *words, out, seconds=300, **variables):
    """Run a script of this folder, which writes `out`, its last argument; see `start`.

    Args:
        **variables: Of its environment, besides.
    """
    out.unlink(missing_ok=True)
    done = subprocess.run(
        [python(), script, *words, out],
        capture_output=True,
        text=True,
        timeout=seconds,
        env=os.environ | variables,
    )
    if not out.exists():
        return done.returncode, done.stdout + done.stderr
    with np.load(out) as result:
        return done.returncode, dict(result)


def start_two(folder, name, **settings):
    """Two workers in fresh processes, with one folder of the run.

    Returns:
        What `start` returns, of each.
    """
    path = Path(folder) / f"{name}.json"
    settings = {"output": str(folder), "experiment": name, "strategy": WORKERS, **settings}
    path.write_text(json.dumps(settings))
    return run_two(WORKER, path, out=Path(folder) / f"{name}.npz")


def run_two(script, *words, out, **kwargs):
    """`run_script` as two workers; the second one's file is called `out` with a `.1.npz`."""

    def run(index):
        mine = out.with_suffix(".1.npz") if index else out
        return run_script(script, *words, out=mine, **hosts.variables(addresses, index), **kwargs)

    addresses = [f"127.0.0.1:{port}" for port in hosts.free_ports(2)]
    with ThreadPoolExecutor() as pool:
        return list(pool.map(run, (0, 1)))


def finish(folder, name, **settings):
    """What a training wrote that must end well."""
    status, result = start(folder, name, **settings)
    assert status == 0, result
    return result


def weights(result) -> dict:
    """The weights without the states of random generators."""
    return {
        k: v for k, v in result.items() if k.startswith("weight/") and "seed_generator" not in k
    }


def difference(a, b) -> float:
    """The largest difference of two trainings' weights."""
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys() and a
    return max(float(np.abs(a[k] - b[k]).max()) for k in a)
