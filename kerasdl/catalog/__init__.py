"""The models: one file per chapter, one entry per paper, and how to build a model by its name."""

import importlib

from kerasdl.catalog import (
    cnn,
    detection,
    generative,
    multimodal,
    segmentation,
    selfsupervised,
    sequence,
    vision_transformer,
)
from kerasdl.catalog.entry import Paper, Row
from kerasdl.errors import UserError
from kerasdl.system.names import nearest

__all__ = ["MODELS", "PAPERS", "ROWS", "Paper", "Row", "build", "list_models", "row"]

CHAPTERS = {
    "Classifiers": cnn.PAPERS,
    "Vision Transformers": vision_transformer.PAPERS,
    "Sequences": sequence.PAPERS,
    "Generative models": generative.PAPERS,
    "Segmentation": segmentation.PAPERS,
    "Detection": detection.PAPERS,
    "Self-supervision": selfsupervised.PAPERS,
    "Images and texts": multimodal.PAPERS,
}
PAPERS = tuple(paper for papers in CHAPTERS.values() for paper in papers)
ROWS = tuple(model for paper in PAPERS for model in paper.models())
MODELS = {model.name: model for model in ROWS}


def row(name: str) -> Row:
    """The row of a model; a `UserError` with the nearest valid name where there is none."""
    if name not in MODELS:
        raise UserError(
            f"unknown model {name!r}{nearest(name, MODELS)}; `list` prints all {len(MODELS)}"
        )
    return MODELS[name]


def module_of(name: str):
    """The imported module that defines the model `name`."""
    return importlib.import_module(f"kerasdl.models.{row(name).module}")


def settings_of(name: str) -> dict:
    """The training settings that suit the model `name` better than its task's."""
    return getattr(module_of(name), "RECIPE", {}).get(name, {})


def build(name: str, /, **kwargs):
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
