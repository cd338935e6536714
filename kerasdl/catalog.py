"""The models: one row each, and how to build one by name."""

import difflib
import importlib
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One model of the catalogue.

    Attributes:
        name: The builder function's name, the `--model` of the command line.
        module: Its module below `kerasdl.models`.
        task: The kind of supervision, a module below `kerasdl.tasks`.
        parameters: Trainable parameters with default arguments.
        paper: Authors and year.
        dataset: What it trains on where `--dataset` is not given.
        no_tflite: Why it has no TFLite file, or None.
        starved: Pairs (regex of weight paths, why they get no gradient in the first steps).
    """

    name: str
    module: str
    task: str
    parameters: int
    paper: str
    dataset: str = "digits"
    no_tflite: str | None = None
    starved: tuple = ()


ROWS = (Row("resnet20", "cnn.resnet", "classify", 269_722, "He et al. 2015"),)
MODELS = {row.name: row for row in ROWS}


def nearest(name: str, names) -> str:
    """` (did you mean X?)` for the nearest of `names`, or an empty string."""
    close = difflib.get_close_matches(str(name), [str(n) for n in names], 1, 0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def row(name: str) -> Row:
    """The row of a model; ValueError with the nearest valid name where there is none."""
    if name not in MODELS:
        raise ValueError(
            f"unknown model {name!r}{nearest(name, MODELS)}; `list` prints all {len(MODELS)}"
        )
    return MODELS[name]


def module_of(name: str):
    """The imported module that defines the model `name`."""
    return importlib.import_module(f"kerasdl.models.{row(name).module}")


def build(name: str, **kwargs):
    """The model `name` with its weights made: an ordinary Keras model.

    Args:
        name: A name of the catalogue.
        **kwargs: Arguments of its builder, such as `image_shape` and `num_classes`;
            `features=True` gives the backbone alone.

    Raises:
        ValueError: An unknown name or argument, or one the architecture does not allow.
    """
    return getattr(module_of(name), name)(**kwargs)


def list_models(task: str | None = None, text: str | None = None) -> list[str]:
    """Names of the catalogue, filtered by task and by a text in name or paper."""
    return [
        r.name
        for r in ROWS
        if (task is None or r.task == task)
        and (text is None or text.lower() in f"{r.name} {r.paper} {r.module}".lower())
    ]
