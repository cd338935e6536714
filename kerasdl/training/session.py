"""Data, model and loop of a run, made from its settings."""

import math
from pathlib import Path

import keras

from kerasdl import catalog, tasks
from kerasdl.columns import PIXELS
from kerasdl.data import augment, fingerprint, labeled, pipeline, sources, summary, tta
from kerasdl.data.splits import Subset, evenly
from kerasdl.data.text.tokenizer import give_texts
from kerasdl.errors import UserError
from kerasdl.recipe import Recipe, flag, to_dict
from kerasdl.store import checkpoint, copying, initial, runs
from kerasdl.store import teacher as teachers
from kerasdl.tasks.distill import Distill
from kerasdl.tasks.task import Task
from kerasdl.training import callbacks as cb
from kerasdl.training import cluster, growth, loop, schedules, step, strategy
from kerasdl.training.selection import check_monitor


class Session:
    """Data, model and loop of a run, made from its settings.

    Args:
        recipe: Resolved settings.
        folder: Of the run.
        say: Where lines for the user go.
        callbacks: More Keras callbacks.
        old: The run that this one goes on with, or None.

    Raises:
        ValueError: Settings or data that do not fit, or data that `old` was not started with.
    """

    def __init__(self, recipe: Recipe, folder: Path, say=print, callbacks=(), old=None):

        self.recipe, self.folder = recipe, folder
        self.old_recipe = old.recipe if old else recipe
        row = catalog.row(recipe.model)
        newest = checkpoint.newest_first(old.checkpoints)[:1] if old else []
        metadata = {f"--{flag(k)}": v for k, v in to_dict(recipe).items()}
        metadata["the newest checkpoint in --output"] = newest[0].name if newest else None
        self.strategy, self.cluster = strategy.make(recipe, say, metadata)
        self.chief = cluster.is_chief(self.cluster)
        self.say = say = say if self.chief else lambda line: None
        replicas = self.strategy.num_replicas_in_sync
        strategy.check_batch(recipe.batch_size, replicas, recipe.grad_accum_steps)
        teacher = self._open_teacher()  # before the seed: the student starts as it would alone
        keras.utils.set_random_seed(recipe.seed)
        runs.set_precision(recipe.precision)
        task_class = tasks.get(row.task)
        strategy.check_jit(recipe, self.strategy, self.cluster, task_class.coupled)
        # A checkpoint holds all that the initial one gave.
        resuming = bool(newest)
        before = old.data.get("fingerprint") if resuming else None
        initial = None if resuming else self._open_initial()
        self.source = sources.from_recipe(
            recipe,
            task_class,
            old.info if resuming else None,
            fingerprint.division(before),
            initial and initial.tokenizer,
        )
        if initial and initial.tokenizer and self.source.info.tokenizer == initial.tokenizer:
            say(f"texts are read by the tokenizer of {initial.name}")
        for line in filter(
            None, (*self.source.notes, summary.line(summary.of_source(self.source)))
        ):
            say(line)
        data = {"fingerprint": fingerprint.of_source(self.source)}
        added = fingerprint.check(before, data["fingerprint"], recipe.dataset) if before else 0
        self.train = self.source.train
        few = labeled.positions(self.source, task_class, recipe)
        if few is not None:
            taught = teacher is not None
            self.train = labeled.used(self.source, few, taught)
            say(labeled.line(self.source, few, taught))
        columns = self.source.info.columns
        self.augment = augment.from_recipe(recipe, task_class, columns)
        self.views = augment.views(recipe, task_class)
        self.steps_per_epoch = pipeline.steps_per_epoch(self.train, recipe.batch_size)
        if recipe.limit_batches:
            self.steps_per_epoch = min(self.steps_per_epoch, recipe.limit_batches)
        if before:  # there may have been fewer examples
            self.steps_per_epoch = old.data["steps_per_epoch"]
        if resuming and "source" in old.data:
            data["source"] = old.data["source"]
        if added:
            say(
                f"{added:,} files are new: they join training; an epoch keeps its "
                f"{self.steps_per_epoch} steps"
            )
        data["steps_per_epoch"] = self.steps_per_epoch
        self.total_steps = self.steps_per_epoch * recipe.epochs
        if recipe.max_steps:
            self.total_steps = min(self.total_steps, recipe.max_steps)
        info = self._info(initial, old.info if resuming else None)
        task = Distill(info, recipe, teacher) if teacher else task_class(info, recipe)
        self.task = give_texts(task)
        if teacher:
            data["teacher"] = self._check_teacher(teacher, old)
        tta.check(recipe.tta, self.task)
        for line in self.task.measure(self.train):
            say(line)
        self.task.steps_per_epoch, self.task.total_steps = self.steps_per_epoch, self.total_steps
        updates = math.lcm(*self.task.updates_per_step.values())
        strategy.check_batch(recipe.batch_size, replicas, recipe.grad_accum_steps, updates)
        arguments = {
            **self._tiny(row),
            **self._initial_arguments(initial, old if resuming else None),
        }
        arguments |= {**self.task.arguments(), **self._regularizers()}
        accepted = (*self.task.arguments(), "features", "name", "dtype")
        for name in recipe.model_kwargs:
            if name in accepted:
                raise UserError(f"--model-kwargs {name}: is decided by the data and the trainer")
        arguments |= recipe.model_kwargs
        self.run = runs.Run(folder, recipe, row.name, arguments, info, data)
        if initial and initial.arguments_of(row.name):
            initial.check_size(lambda: self._build(arguments))
        with self.strategy.scope():
            self.model = self._build(arguments)
            if initial:
                say(initial.copy_to(self.model, self.task.head_classes(info)))
                if source := initial.source(self.model):
                    data["source"] = source
                self.task.begin(self.model)
            self._prepare_model()
            self.trainer = self._trainer()
        check_monitor(recipe, self.trainer.names, self.task.evaluators())
        self.loop = self._loop(callbacks)

    def _build(self, arguments):
        given = self.recipe.model_kwargs
        try:
            return catalog.build(self.recipe.model, **arguments)
        except (TypeError, AttributeError) as error:
            if not given:
                raise
            words = " ".join(f"{name}={value}" for name, value in given.items())
            line = str(error).strip().splitlines()[0]
            raise UserError(f"--model-kwargs {words}: {self.recipe.model} says: {line}") from error

    def _initial_arguments(self, initial, old) -> dict:
        """Arguments of the model that initial weights are for; a run keeps those it has."""
        if old:
            return old.model_arguments
        return initial.arguments_of(self.recipe.model) if initial else {}

    def _open_initial(self):
        if not self.recipe.initial_checkpoint:
            return None
        return initial.open_initial(self.recipe.initial_checkpoint)

    def _open_teacher(self):
        if not self.recipe.distill_from:
            return None
        with self.strategy.scope():
            return teachers.open_teacher(self.recipe.distill_from, self.recipe.precision)

    def _check_teacher(self, teacher, old):
        """The digest of its weights, which must be those of the run that this one goes on with."""
        digest = fingerprint.of_arrays(teachers.arrays(teacher))
        if old and old.data.get("teacher", digest) != digest:
            raise UserError(
                f"--distill-from {teacher.name}: has other weights than the teacher that this run "
                "was started with"
            )
        return digest

    def _info(self, initial, old):
        info, choice = self.source.info, self.recipe.input_stats
        if old:
            if old.with_input_stats() != info.with_input_stats():
                raise UserError(
                    f"--dataset {self.recipe.dataset}: has other examples or classes than when "
                    "this run was started"
                )
            return old
        if not info.first(*PIXELS):
            if choice != Recipe.input_stats:
                raise UserError(
                    f"--input-stats {choice} applies to image data only; "
                    f"{self.source.name} has no images"
                )
            return info
        if choice == "checkpoint" and initial and initial.input_stats:
            channels = info.first(*PIXELS).shape[-1]
            mean, std = (copying.for_channels(v, channels) for v in initial.input_stats)
        elif choice == "none":
            mean, std = (), ()
        else:
            mean, std = sources.input_statistics(self.source.train, info.columns)
        return info.with_input_stats(mean, std)

    def _tiny(self, row):
        if not self.recipe.tiny:
            return {}
        return dict(catalog.module_of(row.name).TINY[row.name])

    def _regularizers(self):
        rates = {"drop_rate": self.recipe.drop_rate, "drop_path": self.recipe.drop_path}
        return {k: v for k, v in rates.items() if v is not None}

    def _prepare_model(self):
        if self.recipe.freeze_backbone:
            if not hasattr(self.model, "backbone"):
                raise UserError(f"--freeze-backbone: {self.recipe.model} has no backbone")
            self.model.backbone.trainable = False
        for layer in self.model._flatten_layers():
            if hasattr(layer, "synchronized"):
                layer.synchronized = self.recipe.sync_batch_norm

    def _trainer(self):
        schedule = schedules.from_recipe(self.recipe, self.steps_per_epoch, self.total_steps)
        return step.Trainer(self.model, self.task, self.recipe, schedule)

    def _batches(self, start, stop, shard=(0, 1)):

        return pipeline.training_batches(
            self.train,
            self.source.info.columns,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            augment=self.augment,
            steps=self.steps_per_epoch,
            start_step=start,
            stop_step=stop,
            shard=shard,
        )

    def evaluation(self, split, shard=(0, 1)):
        """Batches of a split, as evaluation reads them, and how many make the whole."""

        size = self.recipe.batch_size
        batches = pipeline.evaluation_batches(
            split,
            self.source.info.columns,
            batch_size=size,
            views=self.views,
            limit_batches=self.recipe.limit_batches,
            shard=shard,
        )
        count = -(-len(split) // size)
        return batches, min(count, self.recipe.limit_batches or count)

    def reference(self, examples, shard=(0, 1)):
        """Batches of some training examples, evenly spread, as evaluation reads them."""
        train = self.source.train
        return self.evaluation(Subset(train, evenly(len(train), examples)), shard)

    def _loop(self, more):
        held_out = self.source.validation

        def endless(shard):
            batches, _ = self.evaluation(held_out, shard)
            if held_out.arrays is not None:
                batches = batches.cache()  # a few copies of it at most: it is in memory already
            return batches.repeat()

        validation = (endless, self.evaluation(held_out)[1]) if len(held_out) else None
        return loop.Loop(
            self.trainer,
            self.strategy,
            self.recipe,
            self._batches,
            validation,
            self.steps_per_epoch,
            self.total_steps,
            self.run.checkpoints,
            self.run.header(),
            [*(self._callbacks() if self.chief else ()), *more],
            self.cluster,
            self.reference,
        )

    def _callbacks(self):
        """What shows and writes down how the training goes."""

        callbacks = [cb.Progress(self.recipe.batch_size)]
        if "csv" in self.recipe.log:
            callbacks.append(cb.SummaryCsv(self.folder / "summary.csv"))
        if self.recipe.log and type(self.task).pictures is not Task.pictures:
            batch = next(iter(self.evaluation(self.source.test)[0]))
            callbacks.append(cb.Pictures(self.folder / "pictures", batch))
        if "tensorboard" in self.recipe.log:
            image = next(iter(self.source.info.named("image")), None)
            seen = next(iter(self._batches(0, 1)), {}).get(image)
            callbacks.append(cb.TensorBoard(self.folder / "tensorboard", seen))
        return callbacks

    def fit(self) -> None:
        """Train from the newest checkpoint, or from the start."""
        self.say(
            f"{self.recipe.model} on {self.source.name}: {len(self.source.train)} training, "
            f"{len(self.source.validation)} validation, {len(self.source.test)} test examples; "
            f"{self.total_steps} steps of {self.recipe.batch_size} on "
            f"{self.strategy.num_replicas_in_sync} device(s)"
        )
        if self.loop.resume(self.say):
            self.say(f"going on from step {self.loop.step}")
            if self.recipe.epochs != self.old_recipe.epochs:
                self.say(growth.line(self.old_recipe, self.loop))
        self.loop.fit()
