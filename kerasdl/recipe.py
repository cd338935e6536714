"""The settings of a training run: each stands once, here, and is a flag of `train.py`."""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Literal, get_args, get_origin

from kerasdl.errors import UserError

BALANCED = "balanced"
AUGMENTATIONS = tuple(
    "shift flip color cutout noise randaugment resized_crop rotate crop vertical_flip blur "
    "mosaic".split()
)
TTA = (1, 2, 5, 10)


@dataclass(frozen=True)
class Recipe:
    """Settings of one training run.

    Attributes:
        model: Name of the model; `list` prints all.
        model_kwargs: Arguments of the model's builder, `name=value ...`.
        task_kwargs: Settings of the model's task, `name=value ...`.
        dataset: Data set: digits, digit_rows, photos, photos:size=64, scenes, scenes:colors=6,
            scenes:digits=1, scenes:digits=2, python_docs, dates, synthetic, folder:PATH, csv:FILE,
            npz:PATH, idx:FOLDER, masks:FOLDER, coco:FOLDER, voc:FOLDER, text:PATH, pairs:FILE or a
            TFDS name; the model's own default if not given.
        data_dir: Folder where TFDS keeps its data.
        image_size: Side, or height and width, to which images are resized.
        resize: Way to that size: squash changes the proportions, crop takes the largest centered
            box that has the right ones, pad adds black beside the picture.
        crop_fraction: Centered part of each side that is kept, as in evaluation on ImageNet;
            augmentation by crop does without.
        tokenizer: Kind of the tokenizer; auto is char or bpe, as the data set suggests.
        vocab_size: Maximum size of the vocabulary, in tokens.
        max_length: Tokens of a window of text; of pairs, of the longest source and target.
        columns: Columns of a table that are read, by name or number: of csv path and label, of
            pairs source and target.
        val_split: Fraction of the training examples held out where the data have no validation
            part.
        labels: Number of training examples whose labels are used, as equally many of each class as
            there are, chosen by the seed; an epoch repeats them and keeps its number of steps. All
            if not given.
        labels_per_class: The same number, of each class.
        skip_bad_files: Whether to go on without unreadable images, texts and rows of tables instead
            of refusing.
        epochs: Passes over the training examples.
        max_steps: Maximum number of steps.
        limit_batches: Maximum number of batches per epoch, and in each evaluation.
        batch_size: Examples per step over all replicas.
        lr: Learning rate after warm-up.
        lr_base_batch: Batch size that the rate is given for; it is scaled by batch_size /
            lr_base_batch.
        opt: Optimizer.
        momentum: Momentum of sgd, nesterov, lars and rmsprop.
        beta1: Decay of the first moment in adam, adamw and lion.
        weight_decay: Weight decay, not of biases and norms; decoupled in adamw and lion, else added
            to the gradient.
        sched: Schedule of the learning rate.
        warmup_epochs: Epochs of a linear rise from 0 to the rate.
        min_lr: Rate where cosine and linear end, and where step and plateau stop.
        decay_epochs: Epochs between the drops of step; patience of plateau.
        decay_rate: Factor of a drop.
        clip_grad: Maximum global norm of the gradient.
        loss: Loss of classifiers.
        label_smoothing: Fraction of the label spread over all classes.
        class_weight: Weights of the classes in the training loss of classifiers and segmenters:
            balanced, `name=weight ...` (1 where a class is not named), or none.
        mixup: Alpha of MixUp's Beta distribution; 0 is off.
        cutmix: Alpha of CutMix's Beta distribution; 0 is off.
        augment: Augmentations, any of shift flip color cutout noise randaugment resized_crop
            rotate crop vertical_flip blur mosaic, or none; crop is a resized_crop that takes its
            box from the file where images are read from files while training; mosaic puts four
            examples together, for tasks of boxes and masks.
        crop_scale: Minimum and maximum area of crop and resized_crop, as fractions of the image.
        crop_ratio: Minimum and maximum width to height of their box.
        tta: Test-time augmentation: views of an image whose probabilities are averaged in the final
            evaluation of a classifier; 1 is off, 2 adds its mirror image, 5 is four corners and the
            center, 10 adds their mirror images.
        reprob: Probability of erasing a random rectangle.
        drop_rate: Dropout rate before the head, and where the model has it.
        drop_path: Maximum rate of stochastic depth.
        layer_decay: Factor of the rate from each block of the backbone to the one before it.
        precision: Precision of computation; weights stay float32 under the mixed ones.
        jit: Whether to compile losses and gradients with XLA; one replica per process.
        grad_accum_steps: Micro-batches per step.
        remat: Rematerialization: activations within blocks are computed again for the gradient,
            which takes less memory and more time.
        ema_decay: Decay of the averaged weights; 0 is off.
        strategy: Strategy of tf.distribute; auto looks at what there is.
        devices: Number of GPUs, or of parts of the CPU, instead of all.
        logical_devices: Number of devices that the CPU is split into, for trying out.
        tpu: Name or address of the TPU, or local; TPU_NAME if not given.
        sync_batch_norm: Batch norm over the global batch instead of each replica's.
        seed: Seed of weights, order, augmentation and dropout.
        output: Folder of the runs.
        experiment: Name of the run's folder; `<model>-<dataset>-s<seed>` if not given.
        resume: Whether to go on where this run stopped.
        checkpoint_steps: Steps between additional checkpoints.
        keep_checkpoints: Number of the newest checkpoints that stay; the older ones serve where one
            is damaged.
        initial_checkpoint: Weights to start from: a run, a .keras file, a file or folder of
            published weights, hf:ORG/REPO[@REVISION], timm:NAME, hub:PRESET_OR_FOLDER (of
            KerasHub), or keras:NAME.
        freeze_backbone: Whether to train the head only.
        distill_from: Teacher of a classifier: a run, a .keras file or an exported model, of the
            same classes. It answers on every training example, also where --labels leaves the label
            out.
        distill: Output of the teacher that is learned: its logits, or the direction of its
            features, the mean of the backbone's last map, by a linear map where the sizes differ.
        distill_temperature: Divisor of the logits of both, which softens the probabilities.
        distill_weight: Weight of the teacher's loss; that of the labels has the rest.
        input_stats: Source of the mean and standard deviation of the inputs.
        monitor: Metric that says which epoch is best; with a minus, lower is better.
        weights: Epoch that is evaluated and exported.
        eval_epochs: Epochs between runs of the task's evaluators (BLEU, mean IoU, ...) on the
            validation part; 0 is only at the end, on the test part.
        early_stopping: Epochs without a better monitor after which it stops; 0 is off.
        log: Kinds of records written while training, or none.
        export: Formats exported at the end, or none.
        export_dir: Folder of the exported models.
        export_name: Name of the exported model; the model's if not given.
        tiny: Whether to use the model's tiny variant, for trying out.
    """

    model: str = "resnet20"
    model_kwargs: dict = field(default_factory=dict)
    task_kwargs: dict = field(default_factory=dict)
    dataset: str | None = None
    data_dir: str | None = None
    image_size: tuple[int, ...] = ()
    resize: Literal["squash", "crop", "pad"] = "squash"
    crop_fraction: float = 1.0
    tokenizer: Literal["auto", "char", "byte", "bpe", "wordpiece", "sentencepiece"] = "auto"
    vocab_size: int | None = None
    max_length: int | None = None
    columns: tuple[str, ...] = ()
    val_split: float = 0.1
    labels: int | None = None
    labels_per_class: int | None = None
    skip_bad_files: bool = False
    epochs: int = 20
    max_steps: int | None = None
    limit_batches: int | None = None
    batch_size: int = 64
    lr: float = 0.001
    lr_base_batch: int | None = None
    opt: Literal[
        "sgd", "nesterov", "lars", "adagrad", "adadelta", "rmsprop", "adam", "adamw", "lion"
    ] = "adamw"
    momentum: float = 0.9
    beta1: float = 0.9
    weight_decay: float = 0.0
    sched: Literal["constant", "step", "cosine", "linear", "invsqrt", "plateau"] = "cosine"
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    decay_epochs: float = 10.0
    decay_rate: float = 0.1
    clip_grad: float | None = None
    loss: Literal["cross_entropy", "hinge"] = "cross_entropy"
    label_smoothing: float = 0.0
    class_weight: tuple[str, ...] = ()
    mixup: float = 0.0
    cutmix: float = 0.0
    augment: tuple[str, ...] = ()
    crop_scale: tuple[float, ...] = (0.4, 1.0)
    crop_ratio: tuple[float, ...] = (3 / 4, 4 / 3)
    tta: int = 1
    reprob: float = 0.0
    drop_rate: float | None = None
    drop_path: float | None = None
    layer_decay: float | None = None
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16", "float64"] = "float32"
    jit: bool = False
    grad_accum_steps: int = 1
    remat: bool = False
    ema_decay: float = 0.0
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker_mirrored", "tpu"] = "auto"
    devices: int | None = None
    logical_devices: int | None = None
    tpu: str | None = None
    sync_batch_norm: bool = False
    seed: int = 0
    output: str = "runs"
    experiment: str | None = None
    resume: bool = True
    checkpoint_steps: int | None = None
    keep_checkpoints: int = 2
    initial_checkpoint: str | None = None
    freeze_backbone: bool = False
    distill_from: str | None = None
    distill: Literal["logits", "features"] = "logits"
    distill_temperature: float = 4.0
    distill_weight: float = 0.9
    input_stats: Literal["checkpoint", "dataset", "none"] = "checkpoint"
    monitor: str | None = None
    weights: Literal["best", "last"] = "best"
    eval_epochs: int = 0
    early_stopping: int = 0
    log: tuple[str, ...] = ("csv", "tensorboard", "report")
    export: tuple[str, ...] = ("savedmodel", "tflite")
    export_dir: str = "saved_models"
    export_name: str | None = None
    tiny: bool = False

    def __post_init__(self):
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                minimum = "above 0" if low == _LEAST else f"at least {low}"
                maximum = {_INF: "", _MOST: " and below 1"}.get(high, f" and at most {high}")
                raise UserError(f"--{flag(name)} {value}: must be {minimum}{maximum}")
        scale = self.crop_scale
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(
                f"--crop-scale {' '.join(map(str, scale))}: must be two numbers above 0 and at "
                "most 1, the smaller one first"
            )
        ratio = self.crop_ratio
        if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1] < _INF:
            raise UserError(
                f"--crop-ratio {' '.join(map(str, ratio))}: must be two numbers above 0, the "
                "smaller one first"
            )
        if self.tta not in TTA:
            raise UserError(f"--tta {self.tta}: not one of {', '.join(map(str, TTA))}")
        for name, allowed in CHOICES.items():
            for value in getattr(self, name):
                if value not in allowed:
                    from kerasdl.system.names import nearest

                    raise UserError(
                        f"--{flag(name)} {value}: not one of {', '.join(allowed)}"
                        f"{nearest(value, allowed)}"
                    )
        class_weights(self.class_weight)
        if self.labels and self.labels_per_class:
            raise UserError("--labels and --labels-per-class are two ways to say it: give one")


_INF = float("inf")
_LEAST, _MOST = 1e-300, 1 - 1e-12  # 0 and 1 themselves are not allowed
_COUNTS = (
    "epochs max_steps limit_batches batch_size lr_base_batch grad_accum_steps "
    "devices logical_devices checkpoint_steps keep_checkpoints labels labels_per_class"
).split()
_AT_LEAST_0 = "weight_decay warmup_epochs min_lr mixup cutmix eval_epochs early_stopping".split()
_BELOW_1 = "label_smoothing drop_rate drop_path ema_decay momentum beta1".split()
RANGES = {
    **{name: (1, _INF) for name in _COUNTS},
    **{name: (0, _INF) for name in _AT_LEAST_0},
    **{name: (_LEAST, _INF) for name in ("lr", "clip_grad", "decay_epochs", "distill_temperature")},
    **{name: (0, _MOST) for name in _BELOW_1},
    **{name: (_LEAST, 1) for name in ("layer_decay", "decay_rate", "crop_fraction")},
    **{name: (0, 1) for name in ("reprob", "distill_weight")},
    "val_split": (0, 0.9),
    "seed": (0, 2**32 - 1),
    "vocab_size": (5, _INF),
    "max_length": (2, _INF),
}
CHOICES = {
    "augment": AUGMENTATIONS,
    "log": ("csv", "tensorboard", "report", "explain"),
    "export": ("savedmodel", "tflite", "safetensors"),
}
# What may differ when a run goes on: it changes where and how, never what is computed.
MAY_CHANGE_ON_RESUME = frozenset(
    "strategy devices logical_devices tpu output experiment resume checkpoint_steps "
    "keep_checkpoints log export export_dir export_name data_dir weights tta".split()
)
REFUSED = {  # of choices that a user may know, the reason
    ("strategy", "parameter_server"): "is not offered: its updates are asynchronous, so that no "
    "two runs agree; multi_worker_mirrored trains on many machines, `launch` starts it",
}


def flag(name: str) -> str:
    """The flag of a setting, without its dashes."""
    return name.replace("_", "-")


def is_multiple(f) -> bool:
    """Whether a field takes several values."""
    return get_origin(f.type) is tuple


def choices(f) -> tuple:
    """The allowed values of a field, or () where any of its type is."""
    return get_args(f.type) if get_origin(f.type) is Literal else CHOICES.get(f.name, ())


def class_weights(words) -> dict:
    """`{class name: weight}` of the words of `--class-weight`; {} where that is `balanced`.

    Raises:
        UserError: A word is no pair of a name and a weight of 0 or more, or a name stands twice.
    """
    weights = {}
    for word in () if tuple(words) == (BALANCED,) else words:
        name, _, text = str(word).rpartition("=")
        try:
            weight = float(text)
        except ValueError:
            weight = -1.0
        if not name or not 0 <= weight < _INF:
            raise UserError(
                f"--class-weight {word}: must be {BALANCED} or none alone, or NAME=WEIGHT with a "
                "weight of 0 or more for each of some classes"
            )
        if name in weights:
            raise UserError(f"--class-weight {word}: the class {name} has a weight already")
        weights[name] = weight
    return weights


def label_settings(text: str) -> dict:
    """The settings that `--labels` of `probe` stands for.

    Returns:
        `{"labels": n}`, `{"labels_per_class": n}`, or {} of all labels.

    Raises:
        UserError: It is no number, no number and `/class`, and not `all`.
    """
    if text == "all":
        return {}
    number, slash, rest = text.partition("/")
    if not (number.isdecimal() and int(number) and slash + rest in ("", "/class")):
        raise UserError(f"--labels {text}: must be a number, a number and /class, or all")
    return {"labels_per_class" if slash else "labels": int(number)}


def to_dict(recipe: Recipe) -> dict:
    """The settings as plain JSON and YAML values."""
    return json.loads(json.dumps(asdict(recipe)))


def stored(settings: dict) -> Recipe:
    """The inverse of `to_dict`, of settings that stand in a file.

    Raises:
        UserError: An unknown setting, or one that is none or of another type.
    """
    for f in fields(Recipe):
        value = settings.get(f.name, f.default)
        if f.name in settings and not _fits(f, value):
            raise UserError(f"--{flag(f.name)} {str(value)[:80]!r}: is of a wrong type")
    return from_dict(settings)


def _fits(f, value):
    """Whether a value of a JSON or YAML file can be that of a field."""
    if is_multiple(f):
        kind = get_args(f.type)[0]
        numbers = kind in (int, float)
        return (value is None or isinstance(value, list | tuple)) and all(
            isinstance(one, int | float if numbers else str) for one in value or ()
        )
    if get_origin(f.type) is Literal:
        return value in get_args(f.type)
    if isinstance(value, bool):
        return f.type is bool
    return isinstance(value, f.type | int if "float" in str(f.type) else f.type)


def from_dict(settings: dict) -> Recipe:
    """The inverse of `to_dict`; unknown settings are a ValueError."""
    names = {f.name: f for f in fields(Recipe)}
    for name in settings:
        if name not in names:
            from kerasdl.system.names import nearest

            raise UserError(f"unknown setting {name!r}{nearest(name, names)}")
    return Recipe(
        **{k: tuple(v or ()) if is_multiple(names[k]) else v for k, v in settings.items()}
    )
