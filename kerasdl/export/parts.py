"""What is exported, and the examples that it is proven and evaluated on."""

from dataclasses import dataclass, field, replace

from kerasdl.columns import DataInfo
from kerasdl.errors import UserError
from kerasdl.export import CALIBRATION
from kerasdl.inference.dataset import examined, open_data, take
from kerasdl.recipe import Recipe
from kerasdl.system.names import nearest


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
    for name in settings or ():
        if name not in task.changeable:
            raise UserError(
                f"--task-kwargs {name}: cannot be changed after training"
                f"{nearest(name, task.changeable)}; "
                f"these can: {', '.join(task.changeable) or 'none'}"
            )
    if settings:
        recipe = replace(run.recipe, task_kwargs={**run.recipe.task_kwargs, **settings})
        task = type(task)(task.info, recipe)
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
    )
