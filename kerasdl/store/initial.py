"""Start from weights that are already trained: of a run, a `.keras` file, or published ones."""

from pathlib import Path

import numpy as np

from kerasdl import catalog, tasks
from kerasdl.errors import UserError
from kerasdl.layers.core import Normalize
from kerasdl.store import load, published, runs
from kerasdl.store.copying import Initial
from kerasdl.weights.rename import by_path


def open_initial(name: str):
    """Read what `--initial-checkpoint` names.

    Args:
        name: A run's folder (its best weights, or else its last), a `.keras` file, an exported
            model, or published weights: see `kerasdl.store.published`.

    Returns:
        An object with `input_stats`, `(mean, std)` of the inputs that the weights are for, or None
        where they are not known; `tokenizer`, of the texts that they are for, as JSON, or None;
        `copy_to(model, class_names)`, which returns a line of what it
        did; and `source(model)`, where published weights are from.

    Raises:
        ValueError: Nothing of these is there, or it cannot be read.
    """
    try:
        kind, path = load.find(name)
    except ValueError as error:
        doors = ", ".join(f"{door}NAME" for door in published.DOORS)
        raise UserError(f"--initial-checkpoint {error}, or {doors}") from None
    if kind == "published":
        try:
            return published.open_published(name)
        except UserError as error:
            raise UserError(f"--initial-checkpoint {error}") from None
    return _of_run(path) if kind == "run" else _of_keras(name, load.keras_file(kind, path))


def _of_run(folder: Path) -> Initial:
    run = runs.open_run(folder)
    arrays = {
        path.partition("/")[2]: value  # the first part is the model's name
        for path, value in run.weights("best", print).items()
        if "seed_generator" not in path
    }
    return Initial(
        str(folder),
        run.model_name,
        arrays,
        (run.info.input_mean, run.info.input_std),
        _head_classes(run.model_name, run.info),
        run.data.get("source"),
        run.info.tokenizer,
    )


def _head_classes(model_name, info) -> tuple:
    return tuple(tasks.get(catalog.row(model_name).task).head_classes(info))


def _of_keras(name: str, path: Path) -> Initial:
    model = load.load_keras(path)
    arrays = {path: np.asarray(v) for path, v in by_path(model).items()}
    class_names, tokenizer = (), None
    try:
        metadata = load.load_info(name)
        class_names = _head_classes(metadata.model, metadata.info)
        tokenizer = metadata.info.tokenizer
    except load.Unknown:
        pass  # it is not known what it was trained on
    stats = _input_stats(model)
    return Initial(name, model.name, arrays, stats, class_names, tokenizer=tokenizer)


def _input_stats(model):
    """`(mean, std)` that a model normalizes its inputs with, or None if it has no such layer."""
    for layer in model._flatten_layers():
        if isinstance(layer, Normalize):
            if layer.mean == 0.0 and layer.std == 1.0:
                return (), ()
            return _tuple(layer.mean), _tuple(layer.std)
    return None


def _tuple(value) -> tuple:
    return tuple(np.atleast_1d(value).tolist())
