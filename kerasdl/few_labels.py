"""What a run's features are worth with few labels, beside the same network at a random start."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import keras

from kerasdl import app
from kerasdl.data import sources
from kerasdl.errors import UserError
from kerasdl.inference import probing
from kerasdl.inference.dataset import open_data
from kerasdl.recipe import label_settings
from kerasdl.report import page
from kerasdl.store import checkpoint, runs
from kerasdl.store.settings import resolve
from kerasdl.system.files import write_text
from kerasdl.tasks.classify import Classify

NAMES = ("method", "labels", "seed", "start", "dataset")  # by which a result is known


@dataclass(frozen=True)
class How:
    """How features are evaluated.

    Attributes:
        methods: Of "linear", "knn", "logistic", "finetune".
        labels: Texts: numbers in all, `N/class`, or `all`.
        seeds: Choices of labels and random starts, from the run's own seed on.
        dataset: Other data than the run's, or None.
        neighbors, temperature: Of knn.
        steps: Of fine-tuning, at least.
    """

    methods: tuple = ("linear", "knn")
    labels: tuple = ("50",)
    seeds: int = 3
    dataset: str | None = None
    neighbors: int = 20
    temperature: float = 0.07
    steps: int = 400


def probe_run(folder, how: How, say=print) -> list[dict]:
    """Evaluate a run's features, and write the results into its `metrics.json` and its report.

    "random" is the same network at a random start; of "finetune" it is trained with the labels
    alone, in the same way.

    Args:
        folder: Of a finished run.
        how: A `How`.
        say: Where lines for the user go.

    Returns:
        Results, `{"model", "method", "labels", "seed", "start": "run" or "random", "dataset",
        "top1", ...}` each, `top1` of the test part.

    Raises:
        UserError: The run is not finished, or its model or data cannot be probed.
    """
    run = runs.open_run(Path(folder))
    if not run.finished:
        raise UserError(f"--run {folder}: is not finished; the command that began it goes on")
    model, task = run.restore(say=say)
    source = _data(run, task, how.dataset)
    first = run.recipe.seed
    results = []

    def add(method, labels, seed, start, values):
        key = dict(zip(NAMES, (method, labels, seed, start, source.name), strict=True))
        results.append({"model": run.model_name, **key, **values})
        say(f"{folder}: {_line(results[-1])}")

    frozen = [m for m in how.methods if m in probing.FROZEN]
    if frozen:
        trained = probing.of_model(model, source)
        for seed in range(first, first + how.seeds):
            fresh = probing.of_model(probing.at_random_start(run, seed), source)
            for labels in how.labels:
                chosen = probing.chosen_labels(trained.labels["train"], labels, seed)
                for method in frozen:
                    for start, features in (("run", trained), ("random", fresh)):
                        args = method, chosen, how.neighbors, how.temperature
                        add(method, labels, seed, start, probing.probe(features, *args))
    if "finetune" in how.methods:
        row = _classifier(model)
        keras.backend.clear_session()
        for labels in how.labels:
            for seed in range(first, first + how.seeds):
                for start in ("run", "random"):
                    values = _fine_tuned(run, source, row, how, labels, seed, start)
                    add("finetune", labels, seed, start, values)
    metrics = run.metrics()
    old = {tuple(map(one.get, NAMES)): one for one in metrics.get("probe", ())}
    old |= {tuple(map(one.get, NAMES)): one for one in results}
    metrics["probe"] = list(old.values())
    write_text(run.folder / runs.METRICS, json.dumps(metrics, indent=1))
    if (run.folder / page.FILE).exists():
        page.write(run.folder)
    return results


def _data(run, task, name):
    """The data of a run, or others, whose images come to its size."""
    if name is None:
        source = open_data(task, run.data.get("fingerprint"))
    else:
        size = tuple(run.info.image_shape[:2])
        recipe = replace(run.recipe, dataset=name, image_size=size)
        source = sources.from_recipe(recipe, Classify)
        channels = source.info.image_shape[-1], run.info.image_shape[-1]
        if channels[0] != channels[1]:
            raise UserError(
                f"--dataset {name}: has images of {channels[0]} channels, the model takes "
                f"{channels[1]}"
            )
    return source


def _classifier(model):
    """`(row, arguments)` of the classifier on the same backbone."""
    row = getattr(model, "classifier", None)
    if not isinstance(row, tuple):
        raise UserError(f"--method finetune: {model.name} names no classifier with its backbone")
    return row[0], dict(row[1])


def _fine_tuned(run, source, row, how, labels, seed, start):
    """Train a classifier from a run's weights, or from a random start, as `train` does.

    A run that is there already, or was stopped, goes on. The weights are those of the epoch that is
    best on the validation part.
    """
    name, arguments = row
    short = labels.replace("/", "-per-")
    given = {
        "model": name,
        "model_kwargs": arguments,
        "dataset": source.name,
        "image_size": tuple(run.info.image_shape[:2]),
        "data_dir": run.recipe.data_dir,
        "seed": seed,
        "output": str(run.folder / runs.PROBE),
        "experiment": f"{source.name.replace(':', '-').replace('/', '-')}-{short}-{start}-s{seed}",
        "log": (),
        "export": (),
        **label_settings(labels),
    }
    if start == "run":
        given["initial_checkpoint"] = str(run.folder)
    per_epoch = max(1, len(source.train) // resolve(given).batch_size)
    given["epochs"] = -(-how.steps // per_epoch)
    folder = Path(given["output"]) / given["experiment"]
    if not _is_finished(folder, given):
        given["resume"] = _goes_on(folder, given)
        if app.train(given, say=lambda line: None):
            raise KeyboardInterrupt
    keras.backend.clear_session()
    tuned = runs.open_run(folder)
    metrics = tuned.metrics()
    history = checkpoint.latest(tuned.checkpoints)[0]["loop"]["history"]
    last = tuned.recipe.weights == "last"
    row = history[-1 if last else metrics["best_epoch"] - 1]
    return {"top1": metrics["test"]["top1"], "validation_top1": row["val_top1"]}


def _is_finished(folder, given):
    if not (folder / runs.ARGS).exists():
        return False
    run = runs.open_run(folder)
    return run.finished and run.recipe.epochs >= given["epochs"]


def _goes_on(folder, given):
    """Whether what was begun had the same settings: the run may have been moved since."""
    if not (folder / runs.ARGS).exists():
        return False
    try:
        runs.refuse_changes(runs.open_run(folder).recipe, resolve(given), but=("epochs",))
    except UserError:
        return False
    return True


def _line(one):
    labels = f"{one['labels']} labels"
    start = {"run": "pre-trained", "random": "random start"}[one["start"]]
    return f"{one['method']}, {labels}, seed {one['seed']}, {start}: test top1 {one['top1']:.4f}"
