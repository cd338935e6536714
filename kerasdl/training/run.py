"""One training run from its settings to its report and its exported model."""

import importlib
import json
import math
import time
from dataclasses import replace
from pathlib import Path

from kerasdl import catalog
from kerasdl.catalog import nearest
from kerasdl.recipe import Recipe, flag, from_dict, to_dict
from kerasdl.tasks.task import Task


def resolve(given: dict) -> Recipe:
    """The settings of a run: the defaults, the task's, the model's, then those that were given.

    Args:
        given: `{setting: value}` from flags and `--config`.

    Raises:
        ValueError: An unknown model or setting, or a value out of range.
    """
    row = catalog.row(given.get("model", Recipe.model))
    task = importlib.import_module(f"kerasdl.tasks.{row.task}").TASK
    own = catalog.settings_of(row.name)
    settings = {**task.recipe, **own, **given}
    if given.get("tiny"):
        own = {k: v for k, v in own.items() if k != "model_kwargs"}
    for name in ("model_kwargs", "task_kwargs"):  # one of them given keeps the others
        settings[name] = {**own.get(name, {}), **given.get(name, {})}
    recipe = from_dict({"model": row.name, **settings})
    if recipe.dataset in (None, row.dataset) and not recipe.image_size and row.image_size:
        recipe = replace(recipe, image_size=(row.image_size,))
    dataset = recipe.dataset or row.dataset
    kind, _, where = dataset.partition(":")
    short = "-".join(filter(None, (kind, Path(where).name)))
    short = "".join(c if c.isalnum() or c in "-_." else "-" for c in short)
    return replace(
        recipe,
        dataset=dataset,
        monitor=recipe.monitor or task.monitor,
        experiment=recipe.experiment or f"{row.name}-{short}-s{recipe.seed}",
    )


def train(given: dict, say=print) -> int:
    """Train, judge, report and export; go on where a run of the same settings stopped.

    Args:
        given: `{setting: value}` from flags and `--config`.
        say: Where lines for the user go.

    Returns:
        Exit status: 0, or 130 after Ctrl-C.

    Raises:
        ValueError: Bad settings or bad data.
        loop.TrainingError: The loss is not finite, or the disk is full.
    """
    recipe = resolve(given)
    from kerasdl.export import serving
    from kerasdl.training import loop as loops
    from kerasdl.training import runs

    folder = Path(recipe.output) / recipe.experiment
    old = runs.open_run(folder) if (folder / runs.ARGS).exists() and recipe.resume else None
    if old is None:
        runs.check(folder)
    if old:
        runs.refuse_changes(old.recipe, recipe)
        if (old.metrics() or {}).get("finished"):
            say(f"{folder} is finished: {summary(old.metrics())}; --no-resume starts it anew")
            return 0
    if recipe.export:
        serving.check_writable(recipe.export_dir, recipe.export_name or recipe.model)
    session = Session(recipe, folder, say, old=old)
    if session.chief:  # the others have read what stood there, or they would not have come this far
        if not old:
            runs.remove(folder)
        session.run.create()
    try:
        session.fit()
    except loops.Stopped as stop:
        say(
            f"stopped by {stop} at step {session.loop.step} of {session.loop.total_steps}; "
            "the same command goes on from there"
        )
        return 130
    if session.chief:
        _finish(session)
    if session.cluster:
        session.cluster.part()
    return 0


def _finish(session):
    """Judge, export and report what was trained."""
    from kerasdl.export import worker
    from kerasdl.training import runs

    recipe, folder, say = session.recipe, session.folder, session.say
    metrics = session.judge()
    runs.write_text(folder / runs.METRICS, json.dumps(metrics, indent=1))
    say(f"{folder}: {summary(metrics)}")
    card = None
    if recipe.export:
        card = worker.export_run(
            folder, recipe.export, recipe.export_dir, recipe.export_name, recipe.weights, say=say
        )
    metrics["finished"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    runs.write_text(folder / runs.METRICS, json.dumps(metrics, indent=1))
    if "report" in recipe.log:
        from kerasdl.training import report

        say(f"report: {report.write(folder, card)}")


def summary(metrics: dict) -> str:
    """The test figures in one line."""
    return "test " + " ".join(f"{k} {v:.4f}" for k, v in metrics["test"].items())


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
        import keras

        from kerasdl import tasks
        from kerasdl.data import pipeline, sources
        from kerasdl.training import checkpoint, cluster, runs, strategy

        self.recipe, self.folder = recipe, folder
        row = catalog.row(recipe.model)
        newest = checkpoint.newest_first(old.checkpoints)[:1] if old else []
        facts = {f"--{flag(k)}": v for k, v in to_dict(recipe).items()}
        facts["the newest checkpoint in --output"] = newest[0].name if newest else None
        self.strategy, self.cluster = strategy.make(recipe, say, facts)
        self.chief = cluster.is_chief(self.cluster)
        self.say = say = say if self.chief else lambda line: None
        replicas = self.strategy.num_replicas_in_sync
        strategy.check_jit(recipe, self.strategy, self.cluster)
        strategy.check_batch(recipe.batch_size, replicas, recipe.grad_accum_steps)
        keras.utils.set_random_seed(recipe.seed)
        runs.set_precision(recipe.precision)
        task_class = tasks.get(row.task)
        # A checkpoint holds all that the initial one gave.
        begun = bool(newest)
        self.source = sources.from_recipe(recipe, task_class, old.info if begun else None)
        for note in self.source.notes:
            say(note)
        self.augment = self._augment()
        self.steps_per_epoch = pipeline.steps_per_epoch(self.source.train, recipe.batch_size)
        if recipe.limit_batches:
            self.steps_per_epoch = min(self.steps_per_epoch, recipe.limit_batches)
        self.total_steps = self.steps_per_epoch * recipe.epochs
        if recipe.max_steps:
            self.total_steps = min(self.total_steps, recipe.max_steps)
        initial = None if begun else self._initial()
        info = self._info(initial, old.info if begun else None)
        self.task = task_class(info, recipe)
        updates = math.lcm(*self.task.repeats.values())
        strategy.check_batch(recipe.batch_size, replicas, recipe.grad_accum_steps, updates)
        arguments = {**self._tiny(row), **self.task.arguments(), **self._regularizers()}
        taken = (*self.task.arguments(), "features", "name", "dtype")
        for name in recipe.model_kwargs:
            if name in taken:
                raise ValueError(f"--model-kwargs {name}: is decided by the data and the trainer")
        arguments |= recipe.model_kwargs
        self.run = runs.Run(folder, recipe, row.name, arguments, info)
        with self.strategy.scope():
            self.model = self._build(arguments)
            if initial:
                say(initial.copy_to(self.model))
            self._prepare_model()
            self.trainer = self._trainer()
        self._check_monitor()
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
            raise ValueError(f"--model-kwargs {words}: {self.recipe.model} says: {line}") from error

    def _initial(self):
        if not self.recipe.initial_checkpoint:
            return None
        from kerasdl.training import initial

        return initial.open_initial(self.recipe.initial_checkpoint)

    def _info(self, initial, old):
        from kerasdl.data import sources

        info, choice = self.source.info, self.recipe.input_stats
        if old:
            if replace(old, input_mean=(), input_std=()) != replace(
                info, input_mean=(), input_std=()
            ):
                raise ValueError(
                    f"--dataset {self.recipe.dataset}: has other examples or classes than when "
                    "this run was started"
                )
            return old
        if not info.image_shape:
            if choice != Recipe.input_stats:
                raise ValueError(f"--input-stats {choice}: is of images alone")
            return info
        if choice == "checkpoint" and initial and initial.input_stats:
            mean, std = initial.input_stats
        elif choice == "none":
            mean, std = (), ()
        else:
            mean, std = sources.input_statistics(self.source.train)
        return replace(info, input_mean=tuple(mean), input_std=tuple(std))

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
                raise ValueError(f"--freeze-backbone: {self.recipe.model} has no backbone")
            self.model.backbone.trainable = False
        for layer in self.model._flatten_layers():
            if hasattr(layer, "synchronized"):
                layer.synchronized = self.recipe.sync_batch_norm

    def _trainer(self):
        from kerasdl.training import schedules, step

        schedule = schedules.from_recipe(self.recipe, self.steps_per_epoch, self.total_steps)
        return step.Trainer(self.model, self.task, self.recipe, schedule)

    def _check_monitor(self):
        name = self.recipe.monitor.removeprefix("-").removeprefix("val_")
        names = self.trainer.names
        if name in names and name.endswith("loss") and not self.recipe.monitor.startswith("-"):
            raise ValueError(f"--monitor {self.recipe.monitor}: lower is better: write =-{name}")
        if name not in names:
            raise ValueError(
                f"--monitor {self.recipe.monitor}: not one of {', '.join(names)}, or one with a "
                f"minus where lower is better{nearest(name, names)}"
            )

    def _augment(self):
        from kerasdl.data import augment

        made = augment.Augment.from_recipe(self.recipe)
        if self.source.info.image_shape:
            return made
        if made != augment.Augment():
            raise ValueError("--augment, --mixup, --cutmix and --reprob are of images alone")
        return None

    def _batches(self, start, stop, share=(0, 1)):
        from kerasdl.data import pipeline

        return pipeline.training_batches(
            self.source.train,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            augment=self.augment,
            num_classes=len(self.source.info.class_names),
            steps=self.steps_per_epoch,
            start_step=start,
            stop_step=stop,
            share=share,
        )

    def _evaluation(self, split, share=(0, 1)):
        """Batches of a split, and how many make the whole."""
        from kerasdl.data import pipeline

        size = self.recipe.batch_size
        batches = pipeline.evaluation_batches(
            split, batch_size=size, limit_batches=self.recipe.limit_batches, share=share
        )
        count = -(-len(split) // size)
        return batches, min(count, self.recipe.limit_batches or count)

    def _loop(self, more):
        from kerasdl.training import loop

        held_out = self.source.validation

        def endless(share):
            batches, _ = self._evaluation(held_out, share)
            if held_out.arrays is not None:
                batches = batches.cache()  # a few copies of it at most: it is in memory already
            return batches.repeat()

        validation = (endless, self._evaluation(held_out)[1]) if len(held_out) else None
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
        )

    def _callbacks(self):
        """What shows and writes down how the training goes."""
        from kerasdl.training import callbacks as cb

        callbacks = [cb.Progress(self.recipe.batch_size)]
        if "csv" in self.recipe.log:
            callbacks.append(cb.SummaryCsv(self.folder / "summary.csv"))
        if self.recipe.log and type(self.task).pictures is not Task.pictures:
            batch = next(iter(self._evaluation(self.source.test)[0]))
            callbacks.append(cb.Pictures(self.folder / "pictures", batch))
        if "tensorboard" in self.recipe.log:
            seen = next(iter(self._batches(0, 1)), {}).get("image")
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
        self.loop.fit()

    def judge(self) -> dict:
        """Final figures, on the test set, of the weights that the recipe asks for."""
        from kerasdl.training import judge, speed

        model, task = self.run.restore(dtype=self.recipe.precision, say=self.say)
        batches, _ = self._evaluation(self.source.test)
        test, judged = judge.judge(model, task, batches)
        self._picture_mistakes(judged.get("mistakes", ()))
        figures = speed.judge(self.loop, next(iter(batches)))
        self.say(speed.line(figures))
        count = sum(math.prod(v.shape) for v in self.model.trainable_variables)
        metrics = {
            "model": self.recipe.model,
            "dataset": self.recipe.dataset,
            "test": test,
            "trainable_parameters": count,
            "steps": self.loop.step,
            "epochs": len(self.loop.history),
            "train_seconds": self.loop.seconds,
            **figures,
            "seed": self.recipe.seed,
            "best_epoch": self.loop.best and self.loop.best["epoch"],
        }
        if self.source.notes:
            metrics["notes"] = list(self.source.notes)
        if self.source.baseline:
            metrics["baseline"] = self.source.baseline()
        if self.task.draws(model):
            metrics["samples"] = self._judge_samples(model, task)
        return metrics | judged

    def _judge_samples(self, model, task):
        from kerasdl.training import referee

        return referee.judge_samples(model, task, self.source, self.recipe, say=self.say)

    def _picture_mistakes(self, mistakes):
        from kerasdl.training import judge

        if mistakes:
            wrong = self.source.test.read([m["index"] for m in mistakes])
            judge.write_picture(self.folder / "pictures" / "mistakes.png", wrong["image"])
