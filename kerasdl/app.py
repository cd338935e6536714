"""One training run from its settings to its report and its exported model."""

import contextlib
import json
import math
from pathlib import Path

import numpy as np

from kerasdl.data import summary, tta
from kerasdl.data.images import to_float
from kerasdl.data.reading import named_errors
from kerasdl.data.splits import evenly
from kerasdl.errors import UserError
from kerasdl.export import serving, worker
from kerasdl.inference import comparison, evaluation, explaining, sample_quality
from kerasdl.report import page, speed
from kerasdl.store import ensemble as ensembles
from kerasdl.store import lock, pictures, published, runs
from kerasdl.store.settings import resolve
from kerasdl.system import terminal
from kerasdl.system.files import write_text
from kerasdl.training import growth
from kerasdl.training.callbacks import NearEnd
from kerasdl.training.loop import Stopped
from kerasdl.training.session import Session

EXPLAINED = 16  # test images
SECONDS_OF_IMPORTS = 15.0  # of the processes of an export: so long before it they are started


@named_errors()
def train(given: dict, say=print) -> int:
    """Train, evaluate, export and report; go on where a run of the same settings stopped.

    A run whose settings differ in `epochs` alone goes on too, also one that is finished.

    Args:
        given: `{setting: value}` from flags and `--config`.
        say: Where lines for the user go.

    Returns:
        Exit status: 0, or 130 after Ctrl-C.

    Raises:
        UserError: Bad settings or bad data.
        TrainingError: The loss is not finite, or the disk is full.
    """
    say = terminal.lines(say)
    recipe = resolve(published.settings_of(given))
    folder = Path(recipe.output) / recipe.experiment
    old = runs.open_run(folder) if (folder / runs.ARGS).exists() and recipe.resume else None
    if old is None:
        runs.check(folder)
    if old:
        moved = ["dataset"] if old.data else []  # the data are compared, not their name
        moved += ["distill_from"] if "teacher" in old.data and recipe.distill_from else []
        runs.refuse_changes(old.recipe, recipe, but=("epochs", *moved))
        growth.check(old, recipe)
        if old.finished and recipe.epochs == old.recipe.epochs:
            say(
                f"{folder} is finished: {evaluation.test_line(old.metrics())}; more --epochs go on "
                "with it, --no-resume starts it anew"
            )
            return 0
    if recipe.export:
        serving.check_writable(recipe.export_dir, recipe.export_name or recipe.model)
    with worker.Export(recipe.export, recipe.export_dir) as export:
        early = [NearEnd(export.start, SECONDS_OF_IMPORTS)] if recipe.export else []
        session = Session(recipe, folder, say, early, old)
        if "explain" in recipe.log:
            explaining.check(session.task, "--log explain")
        with lock.held(folder) if session.chief else contextlib.nullcontext():
            return _run(session, old, export)


def _run(session, old, export):
    """Train, and finish what was trained; returns the exit status."""
    say = session.say
    if session.chief:  # the others have read what stood there, or they would not have come this far
        if not old:
            runs.remove(session.folder)
        elif old.recipe.epochs != session.recipe.epochs:
            runs.reopen(session.folder)
        session.run.create()
    try:
        session.fit()
    except Stopped as stop:
        say(
            f"stopped by {stop} at step {session.loop.step} of {session.loop.total_steps}; "
            "the same command goes on from there"
        )
        return 130
    if session.chief:
        say(session.loop.ending())
        _finish(session, export)
    if session.cluster:
        session.cluster.barrier()
    return 0


def _finish(session, export):
    """Evaluate, export and report what was trained."""
    recipe, folder, say = session.recipe, session.folder, session.say
    metrics = evaluate(session)
    write_text(folder / runs.METRICS, json.dumps(metrics, indent=1))
    say(f"{folder}: {evaluation.test_line(metrics)}")
    for warning in metrics.get("warnings", ()):
        say(warning)
    card = None
    if recipe.export:
        card = export.run(folder, recipe.export_name, recipe.weights, say=say)
        metrics["exported"] = card["folder"]
    metrics["finished"] = runs.now()
    write_text(folder / runs.METRICS, json.dumps(metrics, indent=1))
    if "report" in recipe.log:
        say(f"report: {page.write(folder, card)}")


def evaluate(session) -> dict:
    """What stands in `metrics.json`: of the test set, of the weights that the recipe asks for."""
    recipe, source, loop, say = session.recipe, session.source, session.loop, session.say
    model, task = session.run.restore(dtype=recipe.precision, say=say)
    batches, _ = session.evaluation(source.test)
    seen = tta.Averaged(model, recipe.tta) if recipe.tta > 1 else model
    test, more = evaluation.evaluate(
        seen, task, batches, reference=lambda n: session.reference(n)[0]
    )
    if mistakes := more.get("mistakes"):
        wrong = source.test.read([m["index"] for m in mistakes])
        pictures.write_picture(session.folder / "pictures" / "mistakes.png", wrong["image"])
    if "explain" in recipe.log:
        shown = source.test.read(evenly(len(source.test), EXPLAINED))["image"]
        shown = np.asarray(to_float(shown))
        explaining.write_pictures(session.folder / "pictures", model, task, shown)
    for line in source.replacements():
        say(line)
    rates = speed.measure(loop, next(iter(batches)))
    say(speed.line(rates))
    metrics = {
        "model": recipe.model,
        "dataset": recipe.dataset,
        "test": test,
        "trainable_parameters": sum(math.prod(v.shape) for v in session.model.trainable_variables),
        "steps": loop.step,
        "epochs": len(loop.history),
        "ended": loop.ending(),
        "train_seconds": loop.seconds,
        **rates,
        "seed": recipe.seed,
        **({"tta": recipe.tta} if recipe.tta > 1 else {}),
        "best_epoch": loop.best and loop.best["epoch"],
    }
    metrics["data"] = summary.of_source(source)
    if notes := [*source.notes, *source.replacements()]:
        metrics["notes"] = notes
    if source.baseline:
        metrics["baseline"] = source.baseline()
    if session.task.sampling_modes(model):
        metrics["samples"] = sample_quality.evaluate_samples(model, task, source, recipe, say=say)
    return metrics | more


@named_errors()
def ensemble(folders, output, formats=(), export_dir="", export_name=None, name=None, say=print):
    """Join trained classifiers to a run whose probabilities are the mean of theirs; export it.

    Args:
        folders: Of the members' runs.
        output: Folder of the run.
        formats: Those of `kerasdl.export.exporter.export`; none if empty.
        export_dir: Folder of the exported models.
        export_name: Name of the exported model; the catalogue's if None.
        name: Of the data set, where it has been moved.
        say: Where lines for the user go.

    Returns:
        What `metrics.json` says: the metrics of the parts that no member was trained on, `val` and
        `test`, of the ensemble; the same of each of its `members`; and `mean`, their mean.

    Raises:
        UserError: Runs that are none, or do not fit together; or `output` holds a run.
    """
    say = terminal.lines(say)
    folder = Path(output)
    if (folder / runs.ARGS).exists():
        raise UserError(f"--output {folder}: holds a run already; give another folder")
    runs.check(folder)
    members = ensembles.open_members(folders)
    if formats:
        serving.check_writable(export_dir, export_name or ensembles.MODEL)
    source, parts = comparison.held_out(members, name)
    run, model = ensembles.join(members, folder)
    metrics = comparison.compare(run, model, members, source, parts)
    for line in comparison.lines(metrics, folder):
        say(line)
    with lock.held(folder):
        ensembles.write(run, model)
        write_text(folder / runs.METRICS, json.dumps(metrics, indent=1))
        card = None
        if formats:
            card = worker.export_run(folder, formats, export_dir, export_name, say=say)
        say(f"report: {page.write(folder, card)}")
    return metrics
