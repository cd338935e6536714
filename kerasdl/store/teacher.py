"""The teacher of a distillation: a trained classifier, as `--distill-from` names it."""

import numpy as np

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.store import load, runs
from kerasdl.tasks.distill import Teacher
from kerasdl.weights.rename import by_path


def open_teacher(name: str, precision: str) -> Teacher:
    """A classifier to learn from; within the scope of the strategy that asks it.

    Args:
        name: A run's folder, a `.keras` file, an exported model, or published weights; what
            `kerasdl.store.load.find` takes but a `.tflite` file.
        precision: Dtype policy that it computes in.

    Raises:
        UserError: There is none, or it is no classifier.
    """
    try:
        if (found := load.Found.at(name)).kind == "tflite":
            raise UserError(f"{name}: is a .tflite file: name the folder of the exported model")
        metadata = found.metadata()
        if catalog.row(metadata.model).task != "classify":
            raise UserError(f"{name}: {metadata.model} is no classifier")
        return Teacher(str(name), _computing(found.model(), precision), metadata.info)
    except UserError as error:
        raise UserError(f"--distill-from {error}") from error


def _computing(model, precision):
    """The same model in another precision."""
    import keras

    config = model.get_config()
    config.pop("dtype", None)
    with runs.dtype_policy(precision):
        made = type(model).from_config(config)
        made.build(keras.tree.map_structure(lambda x: x.shape, made.symbolic_inputs()))
    for variable, value in zip(made.variables, model.variables, strict=True):
        variable.assign(np.asarray(value))
    return made


def arrays(teacher: Teacher) -> dict:
    """`{path: array}` of its weights, which tell it from another one."""
    return {path: np.asarray(value) for path, value in by_path(teacher.model).items()}
