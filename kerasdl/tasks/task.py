"""What a model is trained for, evaluated by and served as: the protocol of all tasks."""

import math
from dataclasses import dataclass, field, replace

from keras import ops

from kerasdl.columns import DataInfo, Spec
from kerasdl.errors import UserError
from kerasdl.system.names import nearest


@dataclass(frozen=True)
class Number:
    """The numbers that a setting may be: from `minimum` to `maximum`, whole ones or any."""

    minimum: float
    maximum: float = math.inf
    whole: bool = False

    def __str__(self):
        kind = "a whole number" if self.whole else "a number"
        upper = "on" if self.maximum == math.inf else f"to {self.maximum:,}"
        return f"{kind} from {self.minimum:,} {upper}"

    def read(self, value):
        """`value` as an int or a float; None where it is none of these numbers."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not self.minimum <= value <= self.maximum or math.isinf(value):
            return None
        if not self.whole:
            return float(value)
        return int(value) if value == int(value) else None


class Task:
    """What a model is trained for, evaluated by and served as.

    A task never reduces over the batch and never touches an optimizer: `training/step.py` does.

    Args:
        info: What the data are.
        recipe: The training settings.

    Attributes:
        inputs: `{name: Spec}` of what the model is given. A model with one input takes a tensor.
        targets: `{name: Spec}` of what the losses and metrics need besides.
        optional: Names of those targets that data need not have.
        views: `{view: settings}` of the augmented views of each example: a batch has
            `<column>_<view>` besides each column of pixels, augmented with the run's settings and
            these instead of some (`{"augment": ("flip",), "crop_scale": (0.05, 0.4)}`, say), and
            the column itself is left as it is. An `image_size` among them is that of the view.
        recipe: Settings that suit the task better than the defaults of `Recipe`.
        settings: The task's own settings (`--task-kwargs`) and their defaults.
        allowed: `{setting: Number or tuple of values}`; besides these the default, if it is None.
        changeable: Names of those settings that an export may change.
        players: Who is trained in turn; one optimizer each.
        updates_per_step: `{player: n}` of those that make several updates in their turn: each on
            one of the `n` parts that the batch is divided into.
        weighs_classes: Whether it takes `--class-weight`.
        masks_tokens: Whether its tokenizer must have a mask token.
        texts: Texts whose token ids it needs, where its data have a tokenizer.
        text_ids: The ids of each of them, int `(N,)`, as the tokenizer gives them; None until they
            are given, and where they are not.
        coupled: Whether the loss of one example depends on the others; then it is gathered over
            all replicas by `kerasdl.ops.gather`, and there is no accumulation.
        carried: Names of what `losses` returns besides the metrics, for `after_update`.
        metrics: Names of what `losses` returns, the loss first.
        monitor: The metric that says which epoch is best; `-loss` where lower is better.
        served_examples: How many test examples exported files are evaluated on.
        steps_per_epoch, total_steps: Of the training, once it is prepared; None before.
    """

    inputs: dict = {}
    targets: dict = {}
    optional: tuple = ()
    views: dict = {}
    recipe: dict = {}
    settings: dict = {}
    allowed: dict = {}
    changeable: tuple = ()
    players = ("model",)
    updates_per_step: dict = {}
    weighs_classes = False
    masks_tokens = False
    texts: tuple = ()
    text_ids: list | None = None
    coupled = False
    carried: tuple = ()
    metrics = ("loss",)
    monitor = "-loss"
    served_examples = 2000
    steps_per_epoch: int | None = None
    total_steps: int | None = None

    def __init__(self, info: DataInfo, recipe):
        self.info = info
        self.run_recipe = recipe
        self.settings = self.checked(recipe)

    @classmethod
    def checked(cls, recipe) -> dict:
        """The task's own settings, as a run has them; UserError where they are not allowed."""
        unknown = set(recipe.task_kwargs) - set(cls.settings)
        if unknown:
            name = sorted(unknown)[0]
            raise UserError(
                f"--task-kwargs {name}: no such setting{nearest(name, cls.settings)}; "
                f"this task takes {', '.join(cls.settings) or 'none'}"
            )
        given = {**cls.settings, **recipe.task_kwargs}
        return {name: cls._allowed(name, value) for name, value in given.items()}

    @classmethod
    def _allowed(cls, name, value):
        """A setting as it is used; a ValueError that says what is allowed."""
        allowed = cls.allowed.get(name)
        if allowed is None or (value is None and cls.settings[name] is None):
            return value
        if isinstance(allowed, Number):
            number = allowed.read(value)
            if number is None:
                raise UserError(f"--task-kwargs {name}={value}: must be {allowed}")
            return number
        if value not in allowed or isinstance(value, bool) != isinstance(allowed[0], bool):
            words = ", ".join(str(a).lower() for a in allowed)
            raise UserError(
                f"--task-kwargs {name}={value}: not one of {words}{nearest(value, allowed)}"
            )
        return value

    @classmethod
    def views_of(cls, recipe) -> dict:
        """The `views` of a run with these settings."""
        return cls.views

    @staticmethod
    def head_classes(info: DataInfo) -> tuple:
        """Names of the classes that the last axis of the model's head stands for; () where it
        stands for none."""
        return ()

    def measure(self, train) -> list[str]:
        """Take from the training part what the losses need besides the batch.

        Args:
            train: A `kerasdl.data.splits.Split`.

        Returns:
            Lines for the user.
        """
        return []

    def begin(self, model) -> None:
        """What follows once a new training's model has its first weights: a teacher takes them."""

    def arguments(self) -> dict:
        """Constructor arguments of the model that the data decide."""
        return {}

    def sizes(self) -> dict:
        """`{letter: size}` that free axes of inputs have where a file takes no other: the most
        tokens."""
        return {}

    def model_inputs(self, model, batch: dict):
        """The tensor, or dict of tensors, that the model is called with."""
        if len(self.inputs) == 1:
            return batch[next(iter(self.inputs))]
        return {name: batch[name] for name in self.inputs}

    def prepare(self, batch: dict) -> dict:
        """Add what is random of each example (noise, time, masks, views) from `batch["key"]`."""
        return batch

    def losses(self, model, batch: dict, player: str, training: bool):
        """Per-example loss and `{metric: ...}` of one player.

        Each is `(B,)`, or a pair of sums and weights `(B,), (B,)` where examples count unequally
        (pixels, tokens): its mean is the sum of the sums over the sum of the weights, of all
        replicas and workers.
        """
        raise NotImplementedError

    def extra_weights(self, model) -> list:
        """Weights that training needs besides the model's: kept in checkpoints, in no export.

        They are made once, after the model, and must be among `variables` to be trained.
        """
        return []

    def variables(self, model, player: str) -> list:
        """The weights that `player` trains."""
        return model.trainable_variables

    def after_update(self, model, carry: dict) -> None:
        """What follows an update of all players: an averaged teacher, a queue.

        It runs on every replica, with the same `carry` on each: what it assigns stays the same.

        Args:
            model: The model, with its new weights.
            carry: `{name of carried: (B, ...)}` of the examples of all replicas and workers, in
                the order of the batch.
        """

    def predict(self, model, batch: dict) -> dict:
        """`{name: per-example output}` of a batch."""
        return {}

    def summarize(self, means: dict, part: str) -> dict:
        """What is reported of the metrics' means over a part of the data, "train", "validation" or
        "test": these, and metrics made from them."""
        return means

    def evaluators(self) -> list:
        """New `kerasdl.metrics.evaluator.Evaluator`s: what evaluates a whole set."""
        return []

    def pictures(self, model, batch: dict) -> dict:
        """What to show of a model after an epoch.

        Returns:
            `{name: (N, H, W, C)}` of images in [0, 1], or of a grid `(rows, columns, H, W, C)`,
            which is a moving picture of its columns too where the name ends in `trajectory`; or
            `{name: int (N, M)}` of token ids.
        """
        return {}

    def sampling_modes(self, model) -> dict:
        """How it samples images, `{name: settings of sample}`; {} where it makes none."""
        return {}

    def sample(self, model, key, label=None, **settings):
        """Images that the model samples.

        Args:
            model: The model.
            key: uint32 `(B, 2)`; each decides its image.
            label: int32 `(B,)`, the classes wanted, or None.
            **settings: Those of one of `sampling_modes`.

        Returns:
            float `(B, H, W, C)` in [0, 1].
        """
        raise NotImplementedError

    def signatures(self, model) -> list:
        """What export writes; a list of `Signature`, the main one first."""
        return []

    def served(self, columns: dict) -> dict:
        """What the signatures are given and should answer, of examples as the data hold them.

        Args:
            columns: `{name: numpy (n, ...)}`.

        Returns:
            `{input or target: numpy (n, ...)}`.
        """
        return columns

    def evaluated_by(self, target: str) -> dict | None:
        """How an exported file is evaluated, or None.

        Args:
            target: "savedmodel" or "tflite".

        Returns:
            `signature`; `inputs`, columns of `served`; `output`, which of its outputs; `target`,
            the column of `served` that it is compared with; and `loss`: of logits
            "cross_entropy" or "hinge", of images "mse", the mean squared error, of masks "iou", of
            boxes "ap".
        """
        return None


@dataclass(frozen=True)
class Limit:
    """What the numbers of a request must be: the sum of some inputs, from `min` to `max`.

    Attributes:
        inputs: Their names; of token ids that are served as texts, `<name>_length` is how many.
        message: What a user is told where it is not so.
        min: The smallest sum, or None.
        max: The largest sum, or None.
        together: Whether it is of all examples of a request, each as large as the largest.
    """

    inputs: tuple
    message: str
    min: float | None = None
    max: float | None = None
    together: bool = False

    def met(self, values: dict):
        """Bool arrays, which all must be true, of `{input: array}`; [] where one is not there.

        Whole numbers should have 64 bits, so that no sum overflows.
        """
        if not set(self.inputs) <= set(values):
            return []
        total = sum(values[name] for name in self.inputs[1:]) + values[self.inputs[0]]
        if self.together:
            total = ops.max(total) * ops.cast(ops.size(total), total.dtype)
        above = [] if self.min is None else [total >= self.min]
        return above if self.max is None else [*above, total <= self.max]


@dataclass(frozen=True)
class Noise:
    """That an input is random numbers of mean 0 and variance 1: `kerasdl.ops.noise.standardized`.

    Attributes:
        distribution: "normal" or "uniform".
        stream: Of the key of what is made from them.
    """

    distribution: str = "normal"
    stream: int = 0


@dataclass(frozen=True)
class Signature:
    """One entry point of an exported model.

    What is served follows from the kinds: of the first signature with images of 1 or 3 channels
    export writes `serve_bytes` too, which takes encoded ones as `<name>_bytes`; and a SavedModel
    names the classes of labels, the first as `class_name`, others as `<name>_class_name`.

    Attributes:
        name: `serving_default` and the like.
        inputs: `{name: Spec}` without the batch axis. Where the shape of an input without one names
            another input, that is its size.
        function: Takes the named tensors, returns `{name: tensor}`; written in `keras.ops`.
        formats: Which artifacts hold it.
        outputs: `{name: Spec}` of the outputs that are shown by their kind: `label`, `mask`,
            `boxes`, `image`, `tokens`.
        text_inputs: `{name of token ids (N,): name}` of the inputs that a SavedModel takes as
            strings; the ids end in `PAD`, and the function is given `<name of ids>_length` too.
            Ids `("K", "N")` without a batch axis are any number of texts.
        text_outputs: `{name of token ids (M,): name}` of the outputs that it gives as strings.
        noise: `{input: Noise}` of what an image is made from, where files sample no numbers.
        limits: The `Limit`s of its inputs; a SavedModel refuses what is not so.
        examples: `{input: array (n, ...)}` to try it with, where `Task.served` has no such column.
        cases: Whole requests to try it with, `({input: array}, ...)`, where an input has no batch
            axis.
    """

    name: str
    inputs: dict
    function: object
    formats: tuple = ("savedmodel", "tflite")
    outputs: dict = field(default_factory=dict)
    text_inputs: dict = field(default_factory=dict)
    text_outputs: dict = field(default_factory=dict)
    noise: dict = field(default_factory=dict)
    limits: tuple = ()
    examples: dict = field(default_factory=dict)
    cases: tuple = ()

    def of_ids(self) -> "Signature":
        """The same without texts, where there is no tokenizer: token ids and their lengths."""
        lengths = {f"{name}_length": Spec((), "int32") for name in self.text_inputs}
        ids = {name: Spec(("M",), "int32", "tokens") for name in self.text_outputs}
        return replace(
            self,
            inputs={**self.inputs, **lengths},
            outputs={**ids, **self.outputs},
            text_inputs={},
            text_outputs={},
        )
