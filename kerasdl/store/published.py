"""Weights that others published: which model they are for, what it was made for, and its copy.

A place is one of `kerasdl.weights.places`: a file, a folder with a `config.json`, `hf:`, `timm:`
or `hub:` and a name; or `keras:` and a name of `keras.applications`.
"""

import inspect
import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from kerasdl import catalog, tasks
from kerasdl.columns import Column, DataInfo
from kerasdl.data.text import reading
from kerasdl.errors import UserError
from kerasdl.ops.text import Specials
from kerasdl.recipe import Recipe
from kerasdl.store import weightless
from kerasdl.store.copying import ANEW, NOT_COMPARED, Initial, adapted_weight, in_head
from kerasdl.system.names import few, nearest
from kerasdl.weights import (
    families,
    generation,
    image_facts,
    keras_applications,
    keras_hub,
    places,
    rename,
    schedulers,
)
from kerasdl.weights.configs import Config
from kerasdl.weights.families import clip

SHAPES = 5  # that a message names
LARGER, SMALL = 2, 10**7  # a model may have so many times the file's numbers, and so many more
KEPT = 4096  # numbers of an array that no model here has, and that goes back with the others
KERAS = "keras:"
TEXT = "text"  # the name of a tokenizer
DOORS = (*places.DOORS, KERAS)
PREPROCESSOR, SCHEDULER = "preprocessor_config.json", "scheduler_config.json"
DESCRIBED = (places.CONFIG, PREPROCESSOR, SCHEDULER, generation.FILE)  # files beside weights
NORMALIZED = (
    "classify",
    "masked_patches",
    "contrast_texts",
)  # tasks whose models know the images' statistics


@dataclass(frozen=True)
class Report:
    """What became of weights.

    Attributes:
        family: Whose names they had.
        taken: Our paths that were given a value.
        anew: Those that were not: of a head for other classes.
        left_over: Their names that nothing was made of.
        line: All of it in one line.
    """

    family: str
    taken: tuple
    anew: tuple
    left_over: tuple
    line: str

    def __str__(self):
        return self.line


@dataclass(frozen=True)
class Published:
    """What a place says of its weights; none of them is read yet.

    Attributes:
        name: The place, as it was given.
        place: A `places.Place`; None of `keras:`.
        row: The model of the catalogue, or None where the place does not say it.
        arguments: Of its builder.
        family: The `Family` of its names, or None where the names have to tell.
        facts: Of `image_facts`: what the images have to be like, and the names of the classes.
        task_kwargs: Settings of the task that the place states.
        specials: Of token ids, as `kerasdl.ops.text.Specials.to_dict` has them.
    """

    name: str
    place: object
    row: str | None = None
    arguments: dict = field(default_factory=dict)
    family: object = None
    facts: dict = field(default_factory=dict)
    task_kwargs: dict = field(default_factory=dict)
    specials: dict = field(default_factory=dict)

    @property
    def all_arguments(self) -> dict:
        """The arguments of the builder, with the defaults of those that the place does not say."""
        builder = getattr(catalog.module_of(self.row), self.row)
        defaults = {
            name: parameter.default
            for name, parameter in inspect.signature(builder).parameters.items()
            if parameter.default is not parameter.empty
        }
        return defaults | self.arguments

    def arguments_of(self, row: str) -> dict:
        """Arguments of the builder of a row that follow from the place, if it is for that row."""
        return (
            {k: v for k, v in self.arguments.items() if k != "features"} if row == self.row else {}
        )

    def check_known(self) -> None:
        """Refuse weights of which it is not said what model they are for.

        Raises:
            UserError: Says what to do.
        """
        if self.row is None:
            raise UserError(
                f"{self.name}: has no config.json, which says what model it is for: create one, "
                "and give it these weights by load_weights or --initial-checkpoint"
            )

    @cached_property
    def tokenizer(self) -> str | None:
        """The tokenizer that the place has, as JSON, or None.

        Raises:
            UserError: Something of it is not known, or it has more tokens than the model.
        """
        folder = getattr(self.place, "folder", None)
        arguments = self.all_arguments if self.row else {}
        size = arguments.get("vocab_size")
        if folder is None or arguments.get("source_vocab_size") not in (None, size) or not size:
            return None
        try:
            metadata = reading.read_tokenizer(folder, self.specials, size)
        except UserError as error:
            raise UserError(f"{error}; without such files the model takes token ids") from None
        return metadata and json.dumps(metadata)

    def check_size(self, build) -> None:
        """Refuse, before anything is allocated, a configuration of more than the file holds.

        Args:
            build: Makes the model.

        Raises:
            UserError: The model would be several times as large as the file, or have no end.
        """
        if self.place is None:
            return
        with self.place.weights() as weights:
            count, there = len(weights), sum(map(math.prod, weights.shapes.values()))
        try:
            here = sum(math.prod(shape) for _, shape in weightless.shapes(build, count))
        except UserError as error:
            raise UserError(f"{self.name}: {error}") from None
        if here > LARGER * there + SMALL:
            raise UserError(
                f"{self.name}: its config stands for a model of {here:,} weights, and its file has "
                f"{there:,}"
            )

    def model(self, **kwargs):
        """The model with its weights; see `from_pretrained`."""
        self.check_known()
        arguments = {**self.arguments, **kwargs}

        def build():
            return catalog.build(self.row, **arguments)

        self.check_size(build)
        model = build()
        self.fill(model)
        return model

    def recipe(self) -> Recipe:
        """The settings that a run with these weights and without training would have."""
        more = {}
        if "crop_fraction" in self.facts:
            more = {"crop_fraction": self.facts["crop_fraction"]}
            more["resize"] = self.facts.get("resize", "crop")
        return Recipe(model=self.row, task_kwargs=dict(self.task_kwargs), **more)

    def info(self) -> DataInfo:
        """What the data are that the weights were made for, as far as the place says it."""
        task_class = tasks.get(catalog.row(self.row).task)
        columns = {
            name: self._column(name, spec.kind)
            for name, spec in {**task_class.inputs, **task_class.targets}.items()
            if name not in task_class.optional
        }
        texts = any(column.tokenizer for column in columns.values())
        info = DataInfo(columns, {TEXT: self.tokenizer} if texts else {})
        wanted = self.all_arguments.get("max_length")
        if info.first("tokens") and wanted:
            # A task may add tokens of its own to those of the data.
            more = task_class(info, self.recipe()).arguments().get("max_length", wanted) - wanted
            columns = {
                name: replace(c, max_length=wanted - more) if c.kind == "tokens" else c
                for name, c in columns.items()
            }
        return replace(info, columns=columns)

    def _column(self, name, kind) -> Column:
        arguments = self.all_arguments
        if kind == "image":
            shape = tuple(arguments["image_shape"])
            mean, std = self.input_stats or ((), ())
            return Column(kind, shape, mean=mean, std=std)
        if kind == "label":
            names = self.facts.get("class_names") or range(arguments["num_classes"])
            return Column(kind, (), tuple(map(str, names)))
        if kind == "tokens":
            if self.tokenizer:
                named = {"tokenizer": TEXT, "max_length": arguments["max_length"]}
                return Column(kind, ("N",), **named)
            own = arguments.get(f"{name.removesuffix('_ids')}_vocab_size")
            sizes = {"vocab_size": own or arguments["vocab_size"]}
            sizes["max_length"] = arguments["max_length"]
            return Column(kind, ("N",), **sizes, specials=self.specials)
        raise UserError(f"{self.name}: it is not known which {kind} {self.row} was made for")

    @property
    def input_stats(self):
        """`(mean, std)` of the inputs, or None where they are not known."""
        if "input_mean" not in self.facts:
            return None
        return tuple(self.facts["input_mean"]), tuple(self.facts["input_std"])

    def copy_to(self, model, class_names=()) -> str:
        """Give `model` the weights; returns a line of what it did: see `Initial.copy_to`.

        Raises:
            UserError: They are of another architecture, or of other sizes; nothing is assigned.
        """
        return self.fill(model, class_names).line

    def fill(self, model, class_names=()) -> Report:
        """As `copy_to`; returns all that became of them."""
        if self.place is None:
            with_head = keras_applications.load(self.name.removeprefix(KERAS), model)
            head = f"its head too; {NOT_COMPARED}" if with_head else ANEW
            paths = tuple(rename.by_path(model))
            anew = () if with_head else tuple(p for p in paths if in_head(p))
            taken = tuple(p for p in paths if p not in anew)
            line = f"{self.name}: took all weights, {head}"
            return Report("keras.applications", taken, anew, (), line)
        target = target_of(model)
        with self.place.weights() as weights:
            family = self._family_of(target, weights)
            try:
                renamed = rename.to_ours(family, target, weights)
            except UserError as error:
                raise UserError(f"{self.name}: {error}") from None
            self._check(model, target, renamed, family)
            names = tuple(self.facts.get("class_names") or ())
            initial = Initial(self.name, family.name, renamed.arrays, self.input_stats, names)
            line = initial.copy_to(model, class_names)
        variables = rename.by_path(model)
        fresh = {p: v for p, v in variables.items() if not _fits(p, v, renamed.arrays.shapes)}
        left = renamed.left_over
        line += f"; left over: {few(left, SHAPES)}" if left else ""
        taken = tuple(p for p in variables if p not in fresh)
        return Report(family.name, taken, tuple(fresh), left, line)

    def source(self, model) -> dict | None:
        """Where a model's weights are from, for `pretrained.save_pretrained`; JSON values.

        Args:
            model: The model that was given them.
        """
        if self.place is None:
            return None
        target = target_of(model)
        with self.place.weights() as weights:
            family, names = self._family_of(target, weights), list(weights)
            unused = rename.unused(family, target, names)
            small = [n for n in unused if math.prod(weights.shapes[n]) <= KEPT]
            raw = {n: weights.raw(n) for n in small if weights.dtypes[n].kind in "fiub"}
        kept = {n: {"dtype": v.dtype.name, "values": v.tolist()} for n, v in raw.items()}
        described = {name: self.place.read_json(name) for name in DESCRIBED}
        files = {name: values for name, values in described.items() if values is not None}
        return {"family": family.name, "names": names, "kept": kept, "files": files}

    def _family_of(self, target, weights):
        if self.family in families.of_model(target):
            return self.family
        return families.choose(target, weights, self.name)

    def _check(self, model, target, renamed, family):
        """Refuse other sizes, and missing weights but for those of the head."""
        variables, shapes = rename.by_path(target), renamed.arrays.shapes
        other = [
            f"{path} is {shapes[path]} there and {tuple(v.shape)} here"
            for path, v in variables.items()
            if not in_head(path)
            and path in shapes
            and shapes[path] != tuple(v.shape)
            and adapted_weight(model, path, renamed.arrays[path], tuple(v.shape)) is None
        ]
        if other:
            more = f"; and {len(other) - SHAPES} more" if len(other) > SHAPES else ""
            raise UserError(
                f"{self.name}: {model.name} has other sizes: {'; '.join(other[:SHAPES])}{more}"
            )
        if missing := [p for p in renamed.missing if not in_head(p)]:
            raise UserError(
                f"{self.name}: has nothing for {few(missing, SHAPES)} of {model.name} "
                f"(read as {family.name})"
            )


def target_of(model):
    """The model, or its backbone where only that is of a family."""
    both = (model, rename.backbone_of(model))
    return next((one for one in both if families.of_model(one)), model)


def _fits(path, variable, shapes) -> bool:
    """Whether a weight is taken from arrays of `shapes`, as it is or adapted."""
    return path in shapes and (not in_head(path) or shapes[path] == tuple(variable.shape))


def is_place(where) -> bool:
    """Whether `where` names published weights, not a run or a file of this project."""
    return str(where).startswith(KERAS) or places.is_place(where)


def open_published(where) -> Published:
    """Read what a place says of its weights.

    Args:
        where: See the module; or a dict `{name: array}`.

    Raises:
        UserError: Nothing is there, it cannot be had, or its configuration is none that we know.
    """
    name = "weights" if isinstance(where, dict) else str(where)
    if name.startswith(KERAS):
        return _of_keras(name)
    place = places.locate(where)
    if place.config is None:
        return Published(name, place)
    config = Config(name, place.config)
    family, read = families.of_config(config)
    row, arguments = read(config)
    facts = _image_facts(place, config)
    known = {"input_mean": facts.get("input_mean"), "input_std": facts.get("input_std")}
    if facts.get("image_size"):
        known["image_shape"] = (*facts["image_size"], config.get("num_channels", 3))
    if catalog.row(row).task in NORMALIZED:
        arguments = {k: v for k, v in known.items() if v is not None} | arguments
    task_kwargs = {}
    if catalog.row(row).task == "denoise":  # without a scheduler it is that of the paper
        found = place.read_json(SCHEDULER) or {"_class_name": "DDPMScheduler"}
        task_kwargs = schedulers.from_scheduler_config(found)
    written = generation.of_place(place, config)
    if catalog.row(row).task == "contrast_texts":
        written = clip.text_config(config)
    if catalog.row(row).task == "translate":
        task_kwargs = generation.translation_settings(written, arguments["vocab_size"])
    return Published(name, place, row, arguments, family, facts, task_kwargs, _specials(written))


def _specials(config) -> dict:
    """The special ids that a `config.json` of transformers names; {} where it names no end."""
    ends = generation.ids_of(config, generation.END)
    if not ends:
        return {}
    begin = config.get((generation.START, "bos_token_id"), None, int)
    pad = config.get("pad_token_id", ends[0], int)
    try:
        never = generation.never_written(config)
        specials = Specials(pad if pad >= 0 else ends[0], begin, ends, None, never)
        return Specials.from_dict(specials.to_dict()).to_dict()
    except TypeError as error:
        raise UserError(f"{config.name}: {error}") from None


def _image_facts(place, config) -> dict:
    """What a place says of its images and their classes; {} where it says nothing."""
    if "architecture" in config.values:
        return image_facts.of_timm(config)
    if keras_hub.CONVERTER in config.values:
        values = config.get(keras_hub.CONVERTER, None, dict)
        shape = image_facts.sizes(config, "image_shape")
        if not values or not shape:
            return {}
        converter = Config(f"{config.name}: {keras_hub.CONVERTER_CONFIG}", values)
        return image_facts.of_image_converter(converter, shape[-1])
    preprocessor = place.read_json(PREPROCESSOR)
    facts = image_facts.of_preprocessor(preprocessor, PREPROCESSOR) if preprocessor else {}
    if "id2label" in config.values:
        facts["class_names"] = image_facts.labels(config)[1]
    return facts


def _of_keras(name):
    key = name.removeprefix(KERAS)
    if key not in keras_applications.NAMES:
        known = [f"{KERAS}{n}" for n in keras_applications.NAMES]
        raise UserError(
            f"{name}: no such weights{nearest(name, known)}; there are {', '.join(known)}"
        )
    mean, std = keras_applications.INPUT[key]
    facts = {"input_mean": mean, "input_std": std}
    return Published(name, None, keras_applications.NAMES[key], dict(facts), None, facts)


def settings_of(given: dict) -> dict:
    """Settings with those that published weights imply where no model is named.

    Args:
        given: `{setting: value}`; `initial_checkpoint` may name published weights.

    Returns:
        The same, with the place's `model`, and its `image_size` and `task_kwargs` where it says
        them.

    Raises:
        UserError: The place cannot be opened, or does not say which model it is for.
    """
    where = given.get("initial_checkpoint")
    if not where or "model" in given or not is_place(where):
        return given
    try:
        published = open_published(where)
        published.check_known()
    except UserError as error:
        raise UserError(f"--initial-checkpoint {error}") from None
    implied = {"model": published.row}
    if shape := published.arguments.get("image_shape"):
        implied["image_size"] = tuple(shape[:2])
    kwargs = {**published.task_kwargs, **given.get("task_kwargs", {})}
    return implied | given | ({"task_kwargs": kwargs} if kwargs else {})


def from_pretrained(where, **kwargs):
    """The model that a place holds, with its weights.

    Args:
        where: A folder with a `config.json`, `hf:ORG/REPO[@REVISION]`, `timm:NAME`,
            `hub:PRESET_OR_FOLDER` (of KerasHub), or `keras:NAME`.
        **kwargs: Arguments of the model's builder in place of the configuration's, such as
            `num_classes` or `image_shape`: a head for other classes then starts anew.

    Returns:
        A built Keras model.

    Raises:
        UserError: See `open_published` and `Published.copy_to`.
    """
    return open_published(where).model(**kwargs)


def load_weights(model, where) -> Report:
    """Give a model the weights of a place.

    Args:
        model: A built model or backbone of this project.
        where: A file of weights, or what `from_pretrained` takes; or a dict `{name: array}`.

    Returns:
        What was taken, what starts anew (a head for other classes), and what was left over.

    Raises:
        UserError: They are of another architecture or of other sizes; nothing is assigned then.
    """
    return open_published(where).fill(model)
