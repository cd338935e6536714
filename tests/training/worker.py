"""Run one training in a process of its own: `worker.py SETTINGS.json OUT.npz`.

Writes the loss of every step and the final weights, for tests that compare processes.
"""

import json
import sys
from pathlib import Path

import keras
import numpy as np

from kerasdl.training import run, runs


class Losses(keras.callbacks.Callback):
    """Remembers the loss of every step."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs["loss"])


def main(settings, out):
    given = json.loads(Path(settings).read_text())
    given = {"log": [], "export": [], "resume": False, **given}
    recipe = run.resolve(given)
    folder = Path(recipe.output) / recipe.experiment
    if not recipe.resume:
        runs.remove(folder)
    losses = Losses()
    session = run.Session(recipe, folder, callbacks=[losses])
    session.run.create()
    session.fit()
    norms = np.asarray(session.loop.gradient_norms)
    np.savez(out, losses=losses.values, norms=norms, **session.loop.weights())


if __name__ == "__main__":
    main(*sys.argv[1:])
