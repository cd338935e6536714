"""What is shown and written while training: Keras callbacks of the loop."""

import csv
import io
import json
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from kerasdl.ops.text import Pieces
from kerasdl.store import pictures
from kerasdl.system.files import write_text

SECONDS_BETWEEN_LINES = 2.0  # where the output is no terminal
SECONDS_BETWEEN_SUMMARIES = 5.0
SECONDS_TIMED = 0.5  # of steps, before they are disturbed


class Progress(keras.callbacks.Callback):
    """A bar with examples per second and the time left; some plain lines where no one looks.

    Args:
        examples: Per step.
    """

    def __init__(self, examples: int):
        super().__init__()
        self.examples = examples
        self.bar = None
        self.spoke = 0.0

    def on_train_begin(self, logs=None):
        if sys.stderr.isatty():
            self.bar = tqdm(
                total=self.loop.total_steps * self.examples,
                initial=self.loop.step * self.examples,
                unit="ex",
                unit_scale=True,
                dynamic_ncols=True,
            )

    def on_steps(self):
        """After each call of the loop."""
        if self.bar is not None:
            self.bar.update(self.loop.step * self.examples - self.bar.n)
        elif not self.spoke:
            self._say(f"first step done after {self.loop.seconds:.1f} s")

    def on_epoch_end(self, epoch, logs=None):
        shown = " ".join(
            f"{k}={v:.4g}" for k, v in logs.items() if k not in ("epoch", "step", "lr")
        )
        last = self.loop.done
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {epoch + 1} {shown}")
        elif last or time.perf_counter() - self.spoke > SECONDS_BETWEEN_LINES:
            rate = self.loop.examples_per_second()
            self._say(f"epoch {epoch + 1} step {self.loop.step} {shown} ({rate:.0f} examples/s)")
        for warning in self.loop.warnings:
            tqdm.write(f"epoch {epoch + 1}: {warning}")

    def on_train_end(self, logs=None):
        self.close()

    def close(self):
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _say(self, text):
        self.spoke = time.perf_counter()
        print(text, flush=True)


class NearEnd(keras.callbacks.Callback):
    """Lets the chief call a function once the training ends soon, if it takes all its steps.

    What it calls may take cores from the training: the steps after it are not timed.

    Args:
        call: Of no arguments.
        seconds: How long before.
    """

    def __init__(self, call, seconds: float):
        super().__init__()
        self.call, self.seconds = call, seconds
        self.timed = None  # of the loop, until the call

    def on_steps(self):
        """After each call of the loop."""
        if self.timed:
            self.loop.timed = self.timed
            return
        steps, seconds, _ = self.loop.timed
        left = self.loop.total_steps - self.loop.step
        if self.loop.chief and seconds > SECONDS_TIMED and left * seconds / steps < self.seconds:
            self.timed = self.loop.timed
            self.call()


class SummaryCsv(keras.callbacks.Callback):
    """`summary.csv`: a row per epoch, none twice, whatever stopped in between.

    Args:
        path: The file.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.wrote = 0.0

    def on_epoch_end(self, epoch, logs=None):
        # The whole file at once, so that it is never half-written; not each of many tiny epochs.
        if time.perf_counter() - self.wrote > 1.0 or self.loop.done:
            self.write()

    def on_train_end(self, logs=None):
        self.write()

    def write(self):
        rows = self.loop.history
        if not rows:
            return
        text = io.StringIO()
        names = dict.fromkeys(name for row in rows for name in row)  # evaluators' are not in all
        writer = csv.DictWriter(text, list(names))
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
        self.wrote = time.perf_counter()


class Pictures(keras.callbacks.Callback):
    """What the task shows of the model after an epoch: `pictures/NAME.png`, or texts `NAME.txt`.

    A grid whose name ends in `trajectory` is also a moving picture `NAME.gif`, of its columns.
    Texts of all epochs stand in one file, the newest last. Epochs that end soon after the last
    pictures have none, but for the last epoch: at most a tenth of the time goes into them.

    Args:
        folder: Where to.
        batch: `{name: (N, ...)}` that the task makes them from, on every epoch the same.
    """

    def __init__(self, folder: Path, batch):
        super().__init__()
        self.folder = folder
        self.batch = batch
        self.next = None  # not before this time
        self.render = None

    def on_train_begin(self, logs=None):
        trainer = self.loop.trainer
        self.task = trainer.task

        @tf.function(autograph=False)
        def render(batch):
            return self.task.pictures(trainer.net, self.task.prepare(batch))

        self.render = render

    def on_epoch_end(self, epoch, logs=None):
        began = time.perf_counter()
        if self.next and began < self.next and not self.loop.done:
            return
        with self.loop.averaged():
            result = {name: np.asarray(value) for name, value in self.render(self.batch).items()}
        for name, value in result.items():
            self.folder.mkdir(exist_ok=True)
            if value.dtype.kind == "i":
                self._append(self.folder / f"{name}.txt", epoch + 1, value)
            else:
                pictures.write_picture(self.folder / f"{name}.png", value)
                if value.ndim == 5 and name.endswith("trajectory"):
                    pictures.write_moving_picture(self.folder / f"{name}.gif", value)
        now = time.perf_counter()
        took = now - began if self.next else 0.0  # the first time is mostly tracing
        self.next = now + max(SECONDS_BETWEEN_SUMMARIES, 9 * took)

    def _append(self, path, epoch, ids):
        head = f"== epoch {epoch}"
        pieces = Pieces(self.task.info.tokenizer)
        new = [f"{head}, sample {i + 1}\n{pieces.decode(row)}\n" for i, row in enumerate(ids)]
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        # An epoch that is done again after a stop takes its place anew.
        write_text(path, old.split(head + ",")[0] + "\n".join(new) + "\n")


class TensorBoard(keras.callbacks.Callback):
    """Scalars of every epoch, and now and then weight and gradient norms per layer.

    Args:
        folder: Of the event files; `norms.json` beside it has the last norms.
        batch: Images `(N, H, W, C)` in [0, 1] of a training batch, shown once, or None.
    """

    def __init__(self, folder: Path, batch=None):
        super().__init__()
        self.folder = folder
        self.batch = batch
        self.norms_at = 0.0
        self.waiting = []

    def on_train_begin(self, logs=None):
        self.writer = tf.summary.create_file_writer(str(self.folder))
        if self.batch is not None and self.loop.step == 0:
            with self.writer.as_default():
                tf.summary.image("training batch", pictures.grid(self.batch)[None], step=0)

    def on_epoch_end(self, epoch, logs=None):
        self.waiting.append(logs)
        now = time.perf_counter()
        if now - self.norms_at > SECONDS_BETWEEN_SUMMARIES or self.loop.done:
            self.norms_at = now
            self.flush(self.loop.step)

    def flush(self, step):
        """Write what has gathered, and the norms."""
        with self.writer.as_default():
            for row in self.waiting:
                for name, value in row.items():
                    if name not in ("epoch", "step"):
                        tf.summary.scalar(f"epoch/{name}", value, step=int(row["step"]))
            norms = self.norms()
            for name, value in norms.items():
                tf.summary.scalar(name, value, step=step)
        self.writer.flush()
        write_text(self.folder.parent / "norms.json", json.dumps(norms, indent=1))
        self.waiting = []

    def norms(self) -> dict:
        """`{weights/PATH or gradients/PATH: norm}` of every trained weight."""
        trainer = self.loop.trainer
        variables = [v for p in trainer.task.players for v in trainer.player_variables[p]]
        gradients = np.asarray(self.loop.gradient_norms)
        result = {}
        for v, g in zip(variables, gradients, strict=True):
            result[f"weights/{v.path}"] = float(np.linalg.norm(np.asarray(v)))
            result[f"gradients/{v.path}"] = float(g)
        return result

    def on_train_end(self, logs=None):
        self.flush(self.loop.step)
        self.writer.close()
