"""Run one training in a process of its own: `worker.py SETTINGS.json OUT.npz`.

Writes the loss of every step, the last gradients' norms and the final weights, for tests that
compare processes. `"kill": {"step": N}` in the settings ends it with SIGKILL after step N, and
`"kill": {"save": N}` in the middle of writing its Nth file; `"stop_at": N` saves and ends it.
"""

import json
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from kerasdl.store import checkpoint, runs
from kerasdl.store.settings import resolve
from kerasdl.training.session import Session


class Watch(keras.callbacks.Callback):
    """Remembers the loss of every step, and kills the process, or stops, after one of them."""

    def __init__(self, kill_at, stop_at):
        super().__init__()
        self.losses = []
        self.kill_at = kill_at
        self.stop_at = stop_at

    def on_train_batch_end(self, batch, logs=None):
        self.losses.append(logs["loss"])
        if self.loop.step == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.loop.step == self.stop_at:
            self.model.stop_training = True


def kill_while_saving(nth):
    """Let the nth file be half-written when the process dies."""
    whole, count = np.savez, 0

    def savez(file, **arrays):
        nonlocal count
        count += 1
        if count == nth:
            file.write(b"PK\x03\x04 half of a file")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        whole(file, **arrays)

    checkpoint.np.savez = savez


def main(settings, out):
    given = {"log": [], "export": [], **json.loads(Path(settings).read_text())}
    kill = given.pop("kill", {})
    if "save" in kill:
        kill_while_saving(kill["save"])
    stop = given.pop("stop_at", None)
    recipe = resolve(given)
    folder = Path(recipe.output) / recipe.experiment
    if not recipe.resume:
        runs.remove(folder)
    watch = Watch(kill.get("step"), stop)
    session = Session(recipe, folder, callbacks=[watch])
    if session.chief:
        session.run.create()
    session.fit()
    norms = np.asarray(session.loop.gradient_norms)
    weights = {f"weight/{path}": value for path, value in session.loop.weights().items()}
    np.savez(out, losses=watch.losses, norms=norms, **weights)


if __name__ == "__main__":
    main(*sys.argv[1:])
