"""What is exported, and the examples that it is proven and evaluated on."""

from dataclasses import dataclass, field, replace

import numpy as np

from kerasdl.columns import DataInfo
from kerasdl.data.sources.made_up import patterns as patterns_of
from kerasdl.data.text.tokenizer import PUBLISHED
from kerasdl.errors import UserError
from kerasdl.export import CALIBRATION
from kerasdl.inference.artifact import task_of
from kerasdl.inference.dataset import examined, open_data, take
from kerasdl.inference.signatures import tokenizer_of
from kerasdl.ops.text import Specials
from kerasdl.recipe import Recipe
from kerasdl.system.names import nearest

MADE_UP = 64  # examples where there are no data
TOKENS = 32  # of each at most, since a large model takes long for its whole context
NOISE = 0.1  # on patterns, so that no two images are alike


@dataclass
class Parts:
    """What is exported, and what it is evaluated on.

    Attributes:
        model: The trained Keras model, in float32.
        model_name: Of the catalogue.
        task: Its task.
        info: The `DataInfo` of the data.
        recipe: The training settings.
        train: `{input: (N, ...)}`, training examples that calibrate int8.
        test: `{input or target: (N, ...)}`, examples that every file is evaluated on.
        model_arguments: What the model was built with.
        metrics: Of the training run, for the card.
        parts: `{part: {"examples", "digest"}}` of the data, see `kerasdl.data.fingerprint`.
        made_up: Whether the examples are no data: nothing is calibrated or evaluated on them.
        weights_of: The place of weights that were not trained here; None of a run's.
        source: Where published weights are from, see `Published.source`; None of others.
    """

    model: object
    model_name: str
    task: object
    info: DataInfo
    recipe: Recipe
    train: dict
    test: dict
    model_arguments: dict = field(default_factory=dict)
    metrics: dict = field(default_factory=dict)
    parts: dict = field(default_factory=dict)
    made_up: bool = False
    weights_of: str | None = None
    source: dict | None = None


def parts_of(run, weights: str | None = None, settings: dict | None = None, say=print):
    """The `Parts` of a run for `exporter.export`: a float32 rebuild, and examples of its data.

    Args:
        run: The run.
        weights: "best" or "last"; the run's own setting if None.
        settings: Of the task, in place of the run's.
        say: Called with a line where a checkpoint is damaged.

    Raises:
        UserError: A setting that cannot be changed after training.
    """
    model, task = run.restore(weights=weights, dtype="float32", say=say)
    task = changed(task, settings)
    before = run.data.get("fingerprint")
    source = open_data(task, before)
    maximum = examined(task, source.test)
    metrics = run.metrics() or {}
    return Parts(
        model=model,
        model_name=run.model_name,
        task=task,
        info=run.info,
        recipe=task.run_recipe,
        train=take(source, task, "train", min(maximum, CALIBRATION)),
        test=take(source, task, "test", maximum),
        model_arguments=run.model_arguments,
        # The confusion matrix, the mistakes and what is said of each class are the report's.
        metrics={k: v for k, v in metrics.items() if not isinstance(v, list) and k != "classes"},
        parts=(before or {}).get("parts", {}),
        source=run.data.get("source"),
    )


def parts_of_model(found, dataset: str | None = None, settings: dict | None = None):
    """The `Parts` of published weights, or of a `.keras` file, which have no run.

    Args:
        found: A `kerasdl.store.load.Found`.
        dataset: Examples that the files are calibrated with and evaluated on; made-up ones prove
            them if None.
        settings: Of the task, in place of those that stand there.

    Raises:
        UserError: Nothing is there, or the data are others than the model's.
    """
    model, metadata = found.model(), found.metadata()
    task = changed(task_of(metadata), settings)
    if dataset:
        source = open_data(task, None, dataset)
        maximum = examined(task, source.test)
        train = take(source, task, "train", min(maximum, CALIBRATION))
        test = take(source, task, "test", maximum)
    else:
        train = test = made_up(task)
    return Parts(
        model=model,
        model_name=metadata.model,
        task=task,
        info=metadata.info,
        recipe=replace(task.run_recipe, dataset=dataset),
        train=train,
        test=test,
        model_arguments=metadata.arguments,
        made_up=not dataset,
        weights_of=found.name,
        source=found.source(model),
    )


def changed(task, settings):
    """A task with other settings, of those that an export may change."""
    for name in settings or ():
        if name not in task.changeable:
            raise UserError(
                f"--task-kwargs {name}: cannot be changed after training"
                f"{nearest(name, task.changeable)}; "
                f"these can: {', '.join(task.changeable) or 'none'}"
            )
    if not settings:
        return task
    recipe = replace(task.run_recipe, task_kwargs={**task.run_recipe.task_kwargs, **settings})
    return type(task)(task.info, recipe)


def made_up(task, examples=MADE_UP, seed=0) -> dict:
    """Inputs of a task's signatures that are no data: smooth images, random tokens."""
    rng, columns = np.random.default_rng(seed), {}
    for name, column in task.info.columns.items():
        if column.kind == "image":
            patterns = patterns_of(*column.shape, rng)
            images = patterns[np.arange(examples) % len(patterns)]
            images = images + NOISE * rng.standard_normal(images.shape)
            columns[name] = np.clip(images, 0, 1).astype(np.float32)
        elif column.kind == "tokens":
            length = min(column.max_length, TOKENS) + 1  # with the token that follows, or the end
            columns[name] = _made_up_ids(task, column, examples, length, rng)
        elif column.kind == "label":
            columns[name] = np.arange(examples, dtype=np.int32) % max(1, len(column.class_names))
    return task.served(columns | {"number": np.arange(examples)})


def _made_up_ids(task, column, examples, length, rng):
    """Token ids `(examples, length)`, random but for those of a published tokenizer's own texts."""
    info, tokenizer, specials = task.info, tokenizer_of(task), Specials.of(task.info)
    if tokenizer and tokenizer.kind == PUBLISHED:
        # Of texts, which random ids seldom are: what these say may need more tokens than they are.
        ids = rng.integers(0, info.vocab_size, (examples, max(1, length // 3)))
        texts = [tokenizer.decode(row) for row in ids]
        result = np.full((examples, length), specials.pad, np.int32)
        for row, text_ids in zip(result, tokenizer.encode(texts), strict=True):
            text_ids = text_ids[: length - 1].tolist()
            if specials.end and text_ids[-1:] != [specials.end[0]]:
                text_ids.append(specials.end[0])
            row[: len(text_ids)] = text_ids
        return result
    ids = rng.integers(0, column.vocab_size or info.vocab_size, (examples, length), dtype=np.int32)
    ids[:, -1] = specials.end[0]
    if specials.begin is not None:
        ids[:, 0] = specials.begin
    return ids
