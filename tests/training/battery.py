"""One kind of model in the loop, at its tiny variant: `battery.py NAME STRATEGY FOLDER OUT.npz`.

In float64 and with dropout. Everything is done by one `Session`, so that its update is traced once:
four steps; with one device also a stop and a new start within them, and up to 50 steps on one
batch; with two replicas also the last two steps from what one device has saved after two.
"""

import dataclasses
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog
from kerasdl.inference import evaluation
from kerasdl.layers import dropout
from kerasdl.store import checkpoint, runs
from kerasdl.store.settings import resolve
from kerasdl.training import loop
from kerasdl.training.session import Session
from tests.variants import short_settings, tiny

REPLICAS = {"one_device": 1, "mirrored": 2}
STEPS, LEARNING_STEPS, CUT = 4, 50, 0.8  # so many steps leave at most this part of the loss
RATE = 0.01


class Watch(keras.callbacks.Callback):
    """Remembers each step's metrics and, of calls of one step, its gradients' norms.

    Args:
        stop_at: The step after which the loop is stopped, as a signal does it.
    """

    def __init__(self, stop_at=None):
        super().__init__()
        self.start(stop_at)

    def start(self, stop_at=None, good=-np.inf):
        """Forget what was; training ends below a loss of `good`."""
        self.values, self.losses, self.norms = [], [], []
        self.stop_at, self.good = stop_at, good

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(list(logs.values()))
        self.losses.append(sum(v for k, v in logs.items() if k.endswith("loss")))  # of all players
        if self.loop.step == self.stop_at:
            self.loop.stop_signal = "the test"
        if self.losses[-1] < self.good:
            self.model.stop_training = True

    def on_steps(self):
        self.norms.append(np.asarray(self.loop.gradient_norms))


def session(name, folder, callbacks=(), **settings):
    """A few steps of a tiny model on made-up data of its shape."""
    given = {
        "model": name,
        "tiny": True,
        "task_kwargs": short_settings(name),
        "dataset": "synthetic",
        "image_size": tiny(name).get("image_shape", ())[:2],
        "max_length": 8 if "max_length" in tiny(name) else None,
        "batch_size": 16,
        "limit_batches": STEPS,
        "epochs": 1,
        "log": (),
        "export": (),
        "output": str(folder),
        "experiment": name,
        **settings,
    }
    made = Session(resolve(given), Path(folder) / name, lambda line: None, callbacks)
    made.run.create()
    return made


def drop_by_global_batch(model, replicas):
    """Let every example have the mask that it has on one device, whatever replica it is on.

    Each layer draws the masks of the global batch and takes its replica's.
    """

    def call_of(layer):
        def call(x, training=False):
            if not training or layer.rate == 0:
                return x
            number, count = dropout._replica.get(), keras.ops.shape(x)[0]
            with dropout.replica(None):
                masks = keras.random.dropout(
                    keras.ops.ones((count * replicas, *x.shape[1:]), x.dtype),
                    layer.rate,
                    noise_shape=layer.noise_shape(x),
                    seed=layer.seed_generator,
                )
            return x * masks[number * count : (number + 1) * count]

        return call

    for layer in model._flatten_layers():
        if isinstance(layer, dropout.Dropout):
            layer.call = call_of(layer)


class Variant:
    """A session of one kind of model.

    Args:
        name: The row's.
        strategy: Of `REPLICAS`.
        folder: Of the runs.
    """

    def __init__(self, name, strategy, folder):
        settings = {
            "precision": "float64",
            "strategy": strategy,
            "sync_batch_norm": True,
            "checkpoint_steps": 1,
            "keep_checkpoints": STEPS + 1,
            "lr": RATE,
            "sched": "constant",
            "warmup_epochs": 0.0,
        }
        if REPLICAS[strategy] > 1:
            settings["logical_devices"] = REPLICAS[strategy]
        self.watch = Watch()
        self.session = session(name, folder, [self.watch], **settings)
        self.loop = self.session.loop
        for weight in self.session.model.trainable_variables:
            if weight.path.endswith("bias"):  # else a few units are dead by chance, not by mistake
                weight.assign(weight.value + 0.1)
        drop_by_global_batch(self.session.model, REPLICAS[strategy])

    def fit(self, **watch):
        """Train on to the end, or to where the callback stops it."""
        self.watch.start(**watch)
        self.loop.stop_signal, self.session.trainer.stop_training = None, False
        self.loop.fit()
        return self.watch.values

    def state(self) -> dict:
        """All that the next step depends on."""
        return checkpoint.values(self.loop.variables)

    def go_back(self, step):
        """Resume from the checkpoint of a step, as a new start does: nothing else counts."""
        for path in checkpoint.newest_first(self.session.run.checkpoints):
            if int(path.stem.partition("-")[2]) > step:
                path.unlink()
        for variable in self.loop.variables.values():
            variable.assign(variable + keras.ops.cast(1, variable.dtype))
        self.loop.history, self.loop.sums = [], None
        assert self.loop.resume() and self.loop.step == step

    def taken(self, losses) -> dict:
        """What the steps have left."""
        return {
            "losses": losses,
            "history": [list(row.values()) for row in self.loop.history],
            **{f"state/{k}": v for k, v in checkpoint.values(self.loop.variables).items()},
        }

    def four_steps(self) -> dict:
        """What four steps leave, and each one's norms of the gradients."""
        self.loop.save()
        return {**self.taken(self.fit()), "norms": self.watch.norms}

    def two_and_two_steps(self) -> dict:
        """What two steps, a stop, and two steps leave."""
        self.go_back(0)
        try:
            self.fit(stop_at=2)
        except loop.Stopped:
            assert self.loop.step == 2
        else:
            raise AssertionError("the loop was not stopped")
        first = self.watch.values
        self.go_back(2)
        return self.taken(first + self.fit())

    def learn(self):
        """Losses of up to 50 steps on one batch."""
        self.go_back(0)
        one = self.loop.batches(0, 1, (0, 1)).take(1)
        if catalog.row(self.session.recipe.model).task == "reconstruct":
            # Black and white: the likelihood of gray pixels has a bound that is soon reached.
            one = one.map(lambda batch: {**batch, "image": tf.round(batch["image"])})
        one = one.cache()
        self.loop.batches = lambda *_: one.repeat()
        self.loop.recipe = dataclasses.replace(self.loop.recipe, checkpoint_steps=None)
        self.loop.total_steps = self.loop.steps_per_epoch = LEARNING_STEPS
        self.fit(good=np.inf)
        losses = self.watch.losses
        if len(self.session.task.players) == 1:  # those of a game need not lose
            self.fit(good=CUT * losses[0])
            losses = losses + self.watch.losses
        return losses

    def evaluate(self) -> dict:
        """Metrics of the saved run on the test part, and the task's pictures of it, in float32."""
        keras.config.set_floatx("float32")
        with runs.dtype_policy("float32"):
            model, task = self.session.run.restore("last")
            batches, _ = self.session.evaluation(self.session.source.test)
            metrics, result = evaluation.evaluate(
                model, task, batches, reference=lambda n: self.session.reference(n)[0]
            )
            if "confusion" in result:
                assert np.sum(result["confusion"]) == 16 * STEPS  # limit_batches applies
            shown = task.pictures(model, task.prepare(next(iter(batches))))
        runs.set_precision("float64")
        return {f"metric/{k}": v for k, v in metrics.items()} | {
            f"picture/{k}": np.asarray(v) for k, v in shown.items()
        }


def main(name, strategy, folder, out):
    folder = Path(folder)
    if REPLICAS[strategy] > 1:  # its time grows faster than the graph, and it changes no result
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    variant = Variant(name, strategy, folder / strategy)
    trainer = variant.session.trainer
    means = trainer.task.summarize(dict.fromkeys(trainer.names, 1.0), "train")
    players = {p: [v.path for v in group] for p, group in trainer.player_variables.items()}
    result = {
        "weights": [path for paths in players.values() for path in paths],
        **_named("player", players),
        **_named("start", {v.path: np.asarray(v) for v in trainer.net.variables}),
        **_named("whole", variant.four_steps()),
    }
    assert set(means) < set(variant.loop.history[0])
    checkpoints = variant.session.run.checkpoints
    if strategy == "one_device":
        result |= variant.evaluate()
        result |= _named("parts", variant.two_and_two_steps())
        shutil.copytree(checkpoints, folder / "checkpoints")
        result["vocab_size"] = variant.session.source.info.vocab_size
        result["learned"] = variant.learn()
    else:  # a session that has seen nothing of what the other did
        shutil.rmtree(checkpoints)
        shutil.copytree(folder / "checkpoints", checkpoints)
        variant.go_back(2)
        result |= _named("resumed", variant.taken(variant.fit()))
    np.savez(out, **result)


def _named(prefix, arrays):
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
