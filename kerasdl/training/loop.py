"""The only training loop: many steps per call, on every strategy, from any checkpoint."""

import contextlib
import signal
import time

import keras
import numpy as np
import tensorflow as tf

from kerasdl.data.reading import named_errors
from kerasdl.errors import CheckpointError, TrainingError
from kerasdl.store import checkpoint
from kerasdl.training.cluster import is_chief
from kerasdl.training.evaluators import Evaluators
from kerasdl.training.selection import Selection

SECONDS_PER_CALL = 0.5  # of one `tf.function` call: how soon Ctrl-C and the display react
SECONDS_PER_CHECKPOINT = 15.0  # at the ends of epochs
SECONDS_WITHOUT_CHECKPOINT = 300.0  # inside long ones


class Stopped(Exception):
    """A signal ended the training; what was done is saved."""


class Loop:
    """Trains a `Trainer` epoch by epoch.

    Args:
        trainer: Made within `strategy.scope()`.
        strategy: A `tf.distribute` strategy.
        recipe: The settings.
        batches: `(start_step, stop_step, shard) -> tf.data.Dataset` of training batches; `shard`
            `(i, n)` is the i-th of n equal parts of each.
        validation: `shard -> ` endless dataset of evaluation batches, and how many make the whole,
            or None.
        steps_per_epoch: Steps of one epoch.
        total_steps: Steps of the whole training.
        folder: Of the checkpoints.
        header: What every checkpoint says besides.
        callbacks: Keras callbacks; `on_epoch_end` gets the row of the epoch. Each gets the loop as
            its `loop`, and one that has `on_steps` is told of every call.
        cluster: The `cluster.Cluster` of the strategy, or None where one process trains.
        reference: `examples, shard -> ` batches of so many training examples, as evaluation reads
            them, and their number, for evaluators that want them; or None.
    """

    def __init__(
        self,
        trainer,
        strategy,
        recipe,
        batches,
        validation,
        steps_per_epoch,
        total_steps,
        folder,
        header,
        callbacks=(),
        cluster=None,
        reference=None,
    ):
        self.trainer = trainer
        self.strategy = strategy
        self.recipe = recipe
        self.batches = batches
        self.validation = validation
        self.steps_per_epoch = steps_per_epoch
        self.total_steps = total_steps
        self.folder = folder
        self.header = header
        self.reference = reference
        self.cluster = cluster
        self.chief = is_chief(cluster)  # it alone writes
        self.callbacks = keras.callbacks.CallbackList(list(callbacks), model=trainer)
        for callback in callbacks:
            callback.loop = self
        self.listeners = [c for c in callbacks if hasattr(c, "on_steps")]
        plain = keras.callbacks.Callback
        self.per_batch = any(
            getattr(type(c), hook) is not getattr(plain, hook)
            for c in callbacks
            for hook in ("on_train_batch_begin", "on_train_batch_end")
        )
        self.variables = trainer.state()
        self.step = 0
        self.history = []  # a row per epoch
        self.warnings = []  # of the last epoch's evaluators
        self.sums = np.zeros((2, len(trainer.names)))  # of the epoch so far: sums, weights
        self.selection = Selection(recipe)
        self.seconds = 0.0  # of training, over all starts
        # Steps, their seconds without compilation and evaluation, and those spent waiting for data
        self.timed = [0, 0.0, 0.0]
        self.stop_signal = None
        self._best_arrays = None
        self.gradient_norms = None  # of the last step taken
        self._run = self._compile_run()
        self._metric_sums = self._compile_metric_sums()
        self.evaluators = Evaluators(trainer, strategy, cluster)
        self._validation_iterator = None

    # -- compiled parts -------------------------------------------------------------------------

    def _compile_run(self):
        trainer, strategy = self.trainer, self.strategy
        width = len(trainer.names)
        weights = sum(len(v) for v in trainer.player_variables.values())

        @tf.function
        def run(iterator, n, control):
            """`n` steps.

            Returns:
                The metrics' sums and weights of each, `(n, 2, metrics)`; the last one's gradient
                norms; seconds spent waiting for data; and the sum of the workers' control vectors.
            """
            rows = tf.TensorArray(keras.config.floatx(), n, element_shape=(2, width))
            norms = tf.zeros(weights)
            waited = tf.constant(0.0, tf.float64)
            control = total(control)
            for i in tf.range(n):
                last = tf.equal(i, n - 1)
                with tf.control_dependencies([norms]):  # no earlier than it is needed
                    began = tf.timestamp()
                with tf.control_dependencies([began]):
                    batch = next(iterator)
                with tf.control_dependencies(parts(batch)):
                    waited += tf.timestamp() - began
                sums, norms = update(batch, last)
                rows = rows.write(i, sums)
            return rows.stack(), norms, waited, control

        # A function that stays one: within a loop, TensorFlow 2.21 with oneDNN now picks this
        # kernel and now that for a gradient of pooling, and another program rounds differently.
        @tf.function(autograph=False, experimental_attributes={"_noinline": True})
        def update(batch, last):
            sums, norms = strategy.run(trainer.update, args=(batch, last))
            norms = strategy.experimental_local_results(norms)[0]  # the same everywhere
            return strategy.reduce("SUM", sums, axis=None), tf.ensure_shape(norms, (weights,))

        def parts(batch):
            return [p for v in batch.values() for p in strategy.experimental_local_results(v)]

        def total(control):
            if not self.cluster:
                return control
            local = strategy.num_replicas_in_sync // self.cluster.size  # each of them says it
            control = strategy.run(tf.identity, args=(control,))
            return strategy.reduce("SUM", control, axis=None) // local

        return run

    def _compile_metric_sums(self):
        trainer, strategy = self.trainer, self.strategy
        width = len(trainer.names)

        @tf.function
        def metric_sums(iterator, n):
            totals = tf.zeros((2, width), keras.config.floatx())
            for _ in tf.range(n):
                # One after the other: where passes of a loop overlap, TensorFlow 2.21 with oneDNN
                # at times computes wrong sums, or dies.
                tf.autograph.experimental.set_loop_options(parallel_iterations=1)
                sums = strategy.run(trainer.metric_sums, args=(next(iterator),))
                totals += strategy.reduce("SUM", sums, axis=None)
            return totals

        return metric_sums

    # -- state ----------------------------------------------------------------------------------

    def resume(self, say=print) -> bool:
        """Take up the newest checkpoint, if there is one."""
        result = checkpoint.latest(self.folder, say)
        if not result:
            return False
        header, arrays = result
        state = checkpoint.loop_state(header)
        checkpoint.restore(self.variables, arrays)
        self.step = state["step"]
        self.history = state["history"]
        self.sums = np.asarray(state["sums"])
        self.selection.best = state["best"]
        self.selection.waited = state["waited"]
        self.seconds = state["seconds"]
        self.timed = [*state["timed"], 0.0][:3]  # older runs have no third
        return True

    def save(self) -> None:
        """Write a checkpoint of this step, the best weights first; the chief's work.

        Raises:
            TrainingError: The disk did not take it.
        """
        self._saved_step, self._saved_at = self.step, time.perf_counter()
        if not self.chief:
            return
        state = {
            "step": self.step,
            "history": self.history,
            "sums": self.sums.tolist(),
            "best": self.best,
            "waited": self.selection.waited,
            "seconds": self.seconds,
            "timed": self.timed,
        }
        try:
            if self._best_arrays is not None:
                header = {**self.header, "step": self.best["step"], "epoch": self.best["epoch"]}
                checkpoint.write(self.folder / "best.npz", header, self._best_arrays)
                self._best_arrays = None
            path = checkpoint.path_of(self.folder, self.step)
            header = {**self.header, "step": self.step, "loop": state}
            checkpoint.write(path, header, checkpoint.values(self.variables))
            checkpoint.prune(self.folder, self.recipe.keep_checkpoints)
        except CheckpointError as error:
            kept = checkpoint.newest_first(self.folder)
            last = f"the last good one is {kept[0].name}" if kept else "there is none before it"
            raise TrainingError(f"{error}; {last}") from error

    def weights(self) -> dict:
        """`{path: array}` of the model's weights, averaged ones where there are any."""
        arrays = {v.path: np.asarray(v) for v in self.trainer.net.variables}
        for v, mean in zip(self.trainer.averaged, self.trainer.ema, strict=True):
            arrays[v.path] = np.asarray(mean)
        return arrays

    @contextlib.contextmanager
    def averaged(self):
        """Within it, the model holds the averaged weights."""
        if not self.trainer.ema:
            yield
            return
        variables = self.trainer.averaged
        own = [np.asarray(v) for v in variables]
        for v, mean in zip(variables, self.trainer.ema, strict=True):
            v.assign(np.asarray(mean))
        try:
            yield
        finally:
            for v, value in zip(variables, own, strict=True):
                v.assign(value)

    # -- running --------------------------------------------------------------------------------

    def fit(self) -> None:
        """Train to the end, from wherever the state stands.

        Raises:
            Stopped: A signal came; a checkpoint is written.
            TrainingError: The loss is not finite, or the disk is full.
        """
        self._saved_step, self._saved_at = self.step, time.perf_counter()
        if self.done:
            return
        self.started = time.perf_counter() - self.seconds
        start = self.step
        iterator = self._distribute(lambda shard: self.batches(start, self.total_steps, shard))
        self.callbacks.on_train_begin()
        n, requested_steps, compiling = 1, 1, True  # the first call compiles
        with self._signals():
            while not self.done:
                epoch = self.step // self.steps_per_epoch
                if self.step % self.steps_per_epoch == 0:
                    self.callbacks.on_epoch_begin(epoch)
                n = min(n, self._boundary() - self.step)
                began = time.perf_counter()
                control = tf.constant(
                    [requested_steps if self.chief else 0, bool(self.stop_signal)], tf.int32
                )
                rows, norms, waited, control = self._take_steps(iterator, tf.constant(n), control)
                self._account(rows.numpy())
                self.gradient_norms = norms
                took = time.perf_counter() - began
                # Twice as many at most: the first call's time is mostly compilation.
                if not compiling:
                    new = (n, took, float(waited))
                    self.timed = [a + b for a, b in zip(self.timed, new, strict=True)]
                compiling = False
                requested_steps = max(1, min(2 * n if took < SECONDS_PER_CALL else n, 4096))
                if took > 2 * SECONDS_PER_CALL:
                    requested_steps = max(1, requested_steps // 2)
                n, stops = requested_steps, self.stop_signal
                if (
                    self.cluster
                ):  # what the chief requested, and any of them heard, before this call
                    n, stops = map(int, control)
                at_end = self.step % self.steps_per_epoch == 0
                self.seconds = time.perf_counter() - self.started
                for listener in self.listeners:
                    listener.on_steps()
                if at_end or self.step == self.total_steps:
                    self._end_epoch(epoch)
                self._maybe_save(at_end)
                if stops:
                    self.save()
                    self.callbacks.on_train_end()
                    raise Stopped(self.stop_signal or "another worker")
        if self._saved_step != self.step:
            self.save()
        self.callbacks.on_train_end()

    def _take_steps(self, *args):
        try:
            with named_errors():
                return self._run(*args)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not self.recipe.jit:
                raise
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            why = next((line for line in lines if "not" in line.lower()), lines[0])
            raise TrainingError(f"--jit: XLA cannot compile {self.recipe.model}: {why}") from error

    @property
    def done(self) -> bool:
        return self.step >= self.total_steps or self.trainer.stop_training or self._exhausted()

    @property
    def best(self) -> dict | None:
        """`{"epoch", "step", "value", "row"}` of the best epoch so far."""
        return self.selection.best

    def _exhausted(self):
        return self.selection.exhausted(self.history)

    def ending(self) -> str:
        """Why the training ended, in one line."""
        at = f"ended at step {self.step} (epoch {len(self.history)})"
        if self.step < self.total_steps and self._exhausted():
            patience = self.recipe.early_stopping
            return (
                f"{at}: no better {self.selection.name} for {patience} "
                f"epoch{'s' * (patience > 1)} after epoch {self.best['epoch']} (--early-stopping)"
            )
        if self.step < self.total_steps:
            return f"{at}: a callback stopped it"
        if self.recipe.max_steps == self.total_steps:
            return f"{at}: all {self.total_steps} steps are done (--max-steps)"
        return f"{at}: all {self.recipe.epochs} epochs are done"

    def _boundary(self):
        """The step at which the next call must end at the latest."""
        ends = [(self.step // self.steps_per_epoch + 1) * self.steps_per_epoch, self.total_steps]
        if self.recipe.checkpoint_steps:
            every = self.recipe.checkpoint_steps
            ends.append((self.step // every + 1) * every)
        return min(ends)

    def _distribute(self, make):
        """An iterator of each replica's batches, of `shard -> dataset`."""
        replicas = self.strategy.num_replicas_in_sync
        if self.cluster:
            each = self.recipe.batch_size // replicas
            return iter(
                self.strategy.distribute_datasets_from_function(
                    lambda place: make(
                        (place.input_pipeline_id, place.num_input_pipelines)
                    ).rebatch(each)
                )
            )
        dataset = make((0, 1))
        if replicas > 1:
            dataset = self.strategy.experimental_distribute_dataset(dataset)
        return iter(dataset)

    def _account(self, rows):
        """Take up what a call of `n` steps returned."""
        loss = _ratios(rows[:, 0, 0], rows[:, 1, 0])
        if not np.isfinite(loss).all():
            bad = self.step + int(np.argmin(np.isfinite(loss))) + 1
            raise TrainingError(
                f"the loss is {loss[bad - self.step - 1]} at step {bad} "
                f"(epoch {(bad - 1) // self.steps_per_epoch + 1}); a lower --lr, --warmup-epochs "
                f"or --clip-grad may help; the checkpoint of step {self._saved_step} is kept"
            )
        for row in rows if self.per_batch else ():
            self.step += 1
            batch = (self.step - 1) % self.steps_per_epoch
            self.callbacks.on_train_batch_begin(batch)
            self.callbacks.on_train_batch_end(batch, self._means(row))
        if not self.per_batch:
            self.step += len(rows)
        # One by one in float64: the same sum however the steps fell into calls.
        self.sums = np.cumsum(np.concatenate([self.sums[None], rows]), 0)[-1]

    def _means(self, sums, part="train"):
        means = dict(zip(self.trainer.names, _ratios(*sums).tolist(), strict=True))
        return self.trainer.task.summarize(means, part)

    def evaluate(self, iterator, batches: int) -> dict:
        """Means over the validation part, of batches from an iterator."""
        return self._means(self._metric_sums(iterator, tf.constant(batches)).numpy(), "validation")

    def _end_epoch(self, epoch):
        row = {"epoch": epoch + 1, "step": self.step, "lr": self.learning_rate()}
        row |= self._means(self.sums)
        self.sums = np.zeros_like(self.sums)
        if self.validation:
            if self._validation_iterator is None:
                self._validation_iterator = self._distribute(self.validation[0])
            with self.averaged():
                means = self.evaluate(self._validation_iterator, self.validation[1])
                means |= self._evaluated(epoch + 1)
            row |= {f"val_{name}": value for name, value in means.items()}
        self.history.append(row)
        self._select(row)
        self.callbacks.on_epoch_end(epoch, row)

    def learning_rate(self) -> float:
        """Of the next step."""
        optimizer = next(iter(self.trainer.optimizers.values()))
        return float(optimizer.learning_rate) * self.lr_factor()

    def lr_factor(self) -> float:
        """What the schedule's rate is multiplied by."""
        return float(np.asarray(self.trainer.lr_factor))

    def _evaluated(self, epoch):
        """Metrics of the task's evaluators on the validation part, where they are due."""
        every = self.recipe.eval_epochs
        last = self.step >= self.total_steps
        self.warnings = []
        if not every or (epoch % every and not last):
            return {}

        def reference(examples):
            _, count = self.reference(examples)
            return self._distribute(lambda shard: self.reference(examples, shard)[0]), count

        result = self.evaluators.run(self._validation_iterator, self.validation[1], reference)
        self.warnings = result.get("warnings", [])
        return result["test"]

    def _select(self, row):
        better, drops = self.selection.update(row)
        if better:
            self._best_arrays = self.weights() if self.chief else None
        if drops:
            low = min(self.recipe.min_lr / self.recipe.lr, self.lr_factor())
            factor = self.lr_factor() * self.recipe.decay_rate
            self.trainer.lr_factor.assign(max(factor, low))

    def _maybe_save(self, at_end):
        every = self.recipe.checkpoint_steps
        age = time.perf_counter() - self._saved_at
        old = age > (SECONDS_PER_CHECKPOINT if at_end else SECONDS_WITHOUT_CHECKPOINT)
        if (every and self.step % every == 0) or old:
            self.save()

    def examples_per_second(self) -> float:
        """Of the steps alone, once compiled."""
        steps, seconds = self.timed[:2] if self.timed[0] else (self.step, self.seconds)
        return steps * self.recipe.batch_size / max(seconds, 1e-9)

    @contextlib.contextmanager
    def _signals(self):
        """Ctrl-C and SIGTERM end the training after the running call; a second Ctrl-C at once."""

        def note(number, frame):
            if self.stop_signal and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stop_signal = signal.Signals(number).name

        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError):  # not in the main thread
                before[number] = signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _ratios(sums, weights):
    """Means; 0 where nothing had a weight."""
    return np.divide(sums, weights, out=np.zeros_like(sums), where=weights != 0)
