"""The settings of a run: what was given, above what suits the model and the task."""

import importlib
from dataclasses import replace
from pathlib import Path

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.recipe import Recipe, flag, from_dict
from kerasdl.system.names import check_name


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
    for name in ("experiment", "export_name"):
        if getattr(recipe, name) is not None:
            check_name(flag(name), getattr(recipe, name))
    if recipe.class_weight and not task.weighs_classes:
        raise UserError(
            f"--class-weight {' '.join(recipe.class_weight)}: applies to classification and "
            f"segmentation only; the task of {row.name} is {row.task}"
        )
    if recipe.distill_from and row.task != "classify":
        raise UserError(
            f"--distill-from {recipe.distill_from}: applies to classification only; the task of "
            f"{row.name} is {row.task}"
        )
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
