"""Kill one training many times: `kills.py FOLDER COUNT OUT.npz`.

TensorFlow is imported once; every attempt is a fork of this process. Half of the kills come in the
middle of a checkpoint's write, which is stretched for them; the others at any moment.
"""

import io
import os
import random
import select
import signal
import sys
from pathlib import Path

import numpy as np

from kerasdl.store import checkpoint
from kerasdl.store.settings import resolve
from kerasdl.training.session import Session

SETTINGS = {
    "model": "mlp",
    "model_kwargs": {"dims": (8,)},
    "drop_rate": 0.2,
    "dataset": "digits",
    "batch_size": 64,
    "epochs": 80,  # 1,520 steps
    "opt": "sgd",
    "checkpoint_steps": 4,
    "log": (),
    "export": (),
}


def train(folder, name, tell=None):
    """One attempt, to its end; `tell` is a pipe that gets a byte in the middle of every write."""
    whole = np.savez

    def slowly(file, **arrays):
        blob = io.BytesIO()
        whole(blob, **arrays)
        blob = blob.getvalue()
        file.write(blob[: len(blob) // 2])
        file.flush()
        os.write(tell, b"w")
        select.select((), (), (), 0.01)
        file.write(blob[len(blob) // 2 :])

    if tell is not None:
        checkpoint.np.savez = slowly
    recipe = resolve({**SETTINGS, "output": str(folder), "experiment": name})
    session = Session(recipe, Path(folder) / name, lambda line: None)
    session.run.create()
    session.fit()


def fork(work):
    """A child that does some work; returns its process number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    finally:
        os._exit(status)


def kill_once(folder, name, writes):
    """Train until a random moment after some progress; returns whether a file was half-written."""
    ours, theirs = os.pipe()
    child = fork(lambda: train(folder, name, theirs))
    os.close(theirs)
    for _ in range(random.randint(2, 5)):
        assert os.read(ours, 1), "it ended before it was killed"
    if not writes:
        select.select((), (), (), random.random() / 10)
    os.kill(child, signal.SIGKILL)
    os.close(ours)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    return bool(list((Path(folder) / name / "checkpoints").glob(".*.tmp")))


def step_of(result):
    return result[0]["step"] if result else 0


def main(folder, count, out):
    folders = [Path(folder) / name / "checkpoints" for name in ("killed", "whole")]
    half, steps, damaged = 0, [0], []
    for i in range(int(count)):
        half += kill_once(folder, "killed", writes=i % 2 == 0)
        steps.append(step_of(checkpoint.latest(folders[0], damaged.append)))
    for name in ("killed", "whole"):
        _, status = os.waitpid(fork(lambda name=name: train(folder, name)), 0)
        assert status == 0
    (_, a), (_, b) = (checkpoint.latest(path) for path in folders)
    same = a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)
    np.savez(out, half=half, steps=steps, damaged=len(damaged), same=same)


if __name__ == "__main__":
    main(*sys.argv[1:])
