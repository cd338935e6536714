"""Several trained classifiers joined to one run, an ensemble."""

from pathlib import Path

import numpy as np

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.recipe import Recipe, flag
from kerasdl.store import checkpoint, runs
from kerasdl.store.copying import Initial
from kerasdl.system.names import few
from kerasdl.weights.rename import by_path

MODEL = "ensemble"  # of the catalogue
SAME = ("resize", "crop_fraction")  # settings that decide what a picture is to a model
BY_DATA = ("image_shape", "num_classes")  # arguments that all members share
# The other settings are how a member was trained.
KEPT = (
    "dataset",
    "data_dir",
    "image_size",
    *SAME,
    "columns",
    "val_split",
    "skip_bad_files",
    "seed",
)


def open_members(folders) -> list[runs.Run]:
    """The runs of an ensemble.

    Args:
        folders: Of the runs.

    Raises:
        UserError: Fewer than two; one twice; one that is no finished run of a classifier; or two
            that differ in their classes, in the size of their images, or in how these come to it.
    """
    if len(folders) < 2:
        raise UserError("an ensemble has at least two members: name two runs or more")
    members, seen = [], set()
    for folder in folders:
        run = runs.open_run(folder)
        if (where := run.folder.resolve()) in seen:
            raise UserError(f"{folder}: is named twice")
        seen.add(where)
        _check_alone(run)
        if members:
            _check_fit(members[0], run)
        members.append(run)
    return members


def _check_alone(run):
    """Refuse what is no finished run of a classifier by probabilities."""
    task = catalog.row(run.model_name).task
    if task != "classify":
        raise UserError(f"{run.folder}: is no classifier: the task of {run.model_name} is {task}")
    if run.recipe.loss != "cross_entropy":
        raise UserError(
            f"{run.folder}: was trained with --loss {run.recipe.loss}, so that it has "
            "no probabilities to average"
        )
    if not run.finished:
        raise UserError(f"{run.folder}: is not finished; the same command goes on with it")


def _check_fit(first, run):
    """Refuse a run that answers another question than the first one."""
    if other := sorted(set(first.info.class_names) ^ set(run.info.class_names)):
        raise UserError(
            f"{run.folder}: its classes are not those of {first.folder}: {few(other)} only one of "
            "them has"
        )
    sizes = [tuple(one.info.image_shape) for one in (run, first)]
    if sizes[0] != sizes[1]:
        raise UserError(
            f"{run.folder}: takes images of {sizes[0]}, {first.folder} those of {sizes[1]}"
        )
    for name in SAME:
        values = [getattr(one.recipe, name) for one in (run, first)]
        if values[0] != values[1]:
            raise UserError(
                f"{run.folder}: was trained with --{flag(name)} {values[0]}, {first.folder} with "
                f"{values[1]}"
            )


def join(members, folder):
    """The run of an ensemble; writes nothing.

    Args:
        members: Of `open_members`.
        folder: Of the run.

    Returns:
        The `Run`, with the settings and data of the first member, and its model in float32.
    """
    first = members[0]
    recipe = Recipe(
        model=MODEL,
        experiment=Path(folder).name,
        output=str(Path(folder).parent),
        weights="best",
        **{name: getattr(first.recipe, name) for name in KEPT},
    )
    arguments = {
        "image_shape": tuple(first.info.image_shape),
        "num_classes": len(first.info.class_names),
        "members": tuple(_arguments(run) for run in members),
        "input_mean": tuple(first.info.input_mean) or 0.0,
        "input_std": tuple(first.info.input_std) or 1.0,
    }
    data = {k: v for k, v in first.data.items() if k in ("fingerprint", "steps_per_epoch")}
    joined = runs.Run(Path(folder), recipe, MODEL, arguments, first.info, data)
    model = catalog.build(MODEL, **arguments)
    for member, run in zip(model.members, members, strict=True):
        _copy(run, member, first.info.class_names)
    return joined, model


def _arguments(run):
    own = {k: v for k, v in run.model_arguments.items() if k not in BY_DATA}
    return {**own, "model": run.model_name}


def _copy(run, member, class_names):
    """Give a member the weights that its run is evaluated with, its classes in another order."""
    trained, _ = run.restore()
    arrays = {path: np.asarray(value) for path, value in by_path(trained).items()}
    own = tuple(run.info.class_names)
    Initial(str(run.folder), run.model_name, arrays, None, own).copy_to(member, class_names)


def write(run, model) -> None:
    """Write the folder of a joined run, but for its metrics."""
    run.create()
    header = {**run.header(), "step": 0, "epoch": 0}
    checkpoint.write(
        run.checkpoints / "best.npz",
        header,
        checkpoint.values({v.path: v for v in model.variables}),
    )
