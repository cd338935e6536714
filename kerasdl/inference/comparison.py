"""An ensemble evaluated beside its members, on examples that none of them was trained on."""

import math

import numpy as np

from kerasdl.data import pipeline, summary
from kerasdl.errors import UserError
from kerasdl.inference import dataset, evaluation
from kerasdl.inference.artifact import task_of
from kerasdl.store import load, runs

PARTS = {"validation": "val", "test": "test"}  # and their names in `metrics.json`


def held_out(members, name=None):
    """The data of several runs, and which of their parts are the same of all.

    Args:
        members: Their `kerasdl.store.runs.Run`s.
        name: Of the data set, where it has been moved.

    Returns:
        The `Source` of the first one; and of "validation" and "test" those that hold the same
        examples in all.

    Raises:
        UserError: The test parts differ, or the data are not those that a run was trained with.
    """
    sources = {}  # several runs have the same settings of data
    for run in members:
        fingerprint = run.data.get("fingerprint")
        recipe = run.recipe
        key = str((recipe.dataset, recipe.seed, recipe.val_split, fingerprint))
        if key not in sources:
            metadata = load.Metadata(run.model_name, run.info, recipe)
            sources[key] = run, dataset.open_data(task_of(metadata), fingerprint, name, PARTS)
    (first, source), *others = sources.values()
    same = list(PARTS)
    for part in PARTS:
        digest = getattr(source, part).digest()
        for run, other in others:
            if getattr(other, part).digest() == digest:
                continue
            if part == "test":
                raise UserError(f"{run.folder}: has other test examples than {first.folder}")
            same = [p for p in same if p != part]
    return source, same


def compare(run, model, members, source, parts) -> dict:
    """What stands in the `metrics.json` of an ensemble.

    Args:
        run: Its `kerasdl.store.runs.Run`.
        model: Its model.
        members: Those of its members.
        source: The data.
        parts: Of "validation" and "test" those that it is evaluated on.

    Returns:
        `val` and `test`, `{metric: value}` of the ensemble; `members`, `{folder: the same}`; and
        `mean`, their mean; with what evaluators say of the ensemble's test part.
    """
    task = task_of(load.Metadata(run.model_name, run.info, run.recipe))

    def of(one):
        result, more = {}, {}
        for part in parts:
            batches = pipeline.evaluation_batches(
                getattr(source, part), source.info.columns, batch_size=run.recipe.batch_size
            )
            result[PARTS[part]], more = evaluation.evaluate(one, task, batches, part)
        return result, more

    each = [of(member)[0] for member in model.members]
    own, more = of(model)
    mean = {
        part: {key: float(np.mean([one[part][key] for one in each])) for key in metrics}
        for part, metrics in own.items()
    }
    return {
        "model": run.model_name,
        "dataset": run.recipe.dataset,
        **own,
        "members": {
            str(member.folder): {"model": member.model_name, **metrics}
            for member, metrics in zip(members, each, strict=True)
        },
        "mean": mean,
        "trainable_parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
        "data": summary.of_source(source),
        "finished": runs.now(),
    } | more


def lines(metrics, folder) -> list[str]:
    """What a user is told of `compare`: the test part of each member, of their mean, and of the
    ensemble."""
    members = metrics["members"]
    result = [f"{name}: {evaluation.test_line(one)}" for name, one in members.items()]
    result.append(f"mean of {len(members)} members: {evaluation.test_line(metrics['mean'])}")
    result.append(f"{folder}: {evaluation.test_line(metrics)}")
    return result if "val" in metrics else [*result, NO_VALIDATION]


NO_VALIDATION = (
    "the members hold out other validation examples: the ensemble is evaluated on the test part"
)
