"""Copy trained weights into a model by their paths, and a head's by the names of its classes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from kerasdl.errors import UserError
from kerasdl.system.names import few
from kerasdl.weights.rename import by_path

ANEW = "but for the head, which starts anew"
NOT_COMPARED = "class names were not compared"
POSITIONS = "positions/table"  # of language models
AS_IT_IS = object()  # a weight that is taken without a change


@dataclass(frozen=True)
class Initial:
    """Weights by their paths below a model.

    Attributes:
        name: Where they are from.
        model_name: Of the model that they were trained in.
        arrays: `{path without the model's own name: array}`, or what is like it.
        input_stats: `(mean, std)` per channel; empty ones where inputs are not normalized.
        class_names: Of the classes that the last axis of the head stands for; () where they are not
            known.
        published: What `source` gives, of weights that were published.
        tokenizer: Of the texts that they were trained on, as JSON, or None.
    """

    name: str
    model_name: str
    arrays: Mapping
    input_stats: tuple | None
    class_names: tuple = ()
    published: dict | None = None
    tokenizer: str | None = None

    def source(self, model) -> dict | None:
        """Where a model's weights are from, as `kerasdl.store.published.Published.source`."""
        return self.published

    def arguments_of(self, row: str) -> dict:
        """Arguments of a builder that follow from the weights: none that its run does not say."""
        return {}

    def copy_to(self, model, class_names=()) -> str:
        """Give `model` the weights of the same paths; returns a line for the user.

        What a head, or an auxiliary one, holds for a class is taken by the class's name; new
        classes keep their fresh weights. So does a head whose shape differs where names are not
        known. Another weight is made to fit where the model can (`adapt_weight`). Nothing is
        assigned if it raises.

        Args:
            model: The model.
            class_names: Of the classes that the last axis of its head stands for, or ().

        Raises:
            ValueError: The backbones are not of one architecture, or a shape differs.
        """
        variables = by_path(model)
        self._check_backbones(model, variables)
        below = {}
        if not any(map(is_backbone, variables)):  # a U-Net's encoder is the backbone of others
            below = {p.partition("/")[2]: self.arrays[p] for p in self.arrays if is_backbone(p)}
        return replace(self, arrays={**below, **self.arrays} if below else self.arrays)._copied(
            model, variables, class_names
        )

    def _copied(self, model, variables, class_names):
        places = {name: i for i, name in enumerate(self.class_names)}
        source = np.array([places.get(name, -1) for name in class_names], int)
        there = getattr(self.arrays, "shapes", None)  # without reading an array
        there = there or {path: value.shape for path, value in self.arrays.items()}
        # What is not taken as it is; those of another shape; and weights by class
        values, adapted, fresh_head, compared, heads = {}, [], False, False, 0
        for path, variable in variables.items():
            given, shape, value = there.get(path), tuple(variable.shape), None
            if given is not None and self._is_by_class(path, given, shape, class_names):
                compared = True
                value = taken_by_class(self.arrays[path], np.asarray(variable), source)
            elif given == shape:
                value = AS_IT_IS
            elif given is not None and not in_head(path):
                value = self._adapt(model, path, self.arrays[path], shape)
                adapted.append(path)
            if value is not None:
                values[path] = value
                heads += of_classes(path)
            elif in_head(path):
                fresh_head = True
        if not values:
            raise UserError(
                f"--initial-checkpoint {self.name}: no weight of {self.model_name} "
                f"has its like in {model.name}" + " and no class has the same name" * compared
            )
        for path, value in values.items():  # one by one: all of them need not fit into memory
            variables[path].assign(self.arrays[path] if value is AS_IT_IS else value)
        line = f"{self.name}: took {len(values)} of {len(variables)} weights"
        line += f" ({few(adapted)} of another shape, adapted)" if adapted else ""
        if compared and heads:
            line += _by_name(source, class_names)
            return line + ("; another head starts anew" if fresh_head else "")
        if fresh_head:
            line += "; the head starts anew"
            return line + (": no class has the same name" if compared else "")
        return line + (f"; {NOT_COMPARED}" if heads and class_names else "")

    def _is_by_class(self, path, given, shape, class_names):
        """Whether the last axis of a weight stands for classes, all of whose names are known."""
        known = bool(self.class_names and class_names) and of_classes(path)
        shapes = ((*shape[:-1], len(names)) for names in (self.class_names, class_names))
        return known and (given, shape) == tuple(shapes)

    def _check_backbones(self, model, variables):
        """Refuse half a backbone: it would train, and be worse for no visible reason."""
        here, there = ({p for p in d if is_backbone(p)} for d in (variables, self.arrays))
        if not here or not there or here == there:
            return
        lacking = f"{model.name} has no" if there - here else f"{self.model_name} has no"
        raise UserError(
            f"--initial-checkpoint {self.name}: {self.model_name} and {model.name} are not of one "
            f"architecture: {lacking} {min(there - here or here - there)}"
        )

    def _adapt(self, model, path, value, shape):
        adapted = adapted_weight(model, path, value, shape)
        if adapted is None or tuple(adapted.shape) != shape:
            raise UserError(
                f"--initial-checkpoint {self.name}: {path} has shape {value.shape} there and "
                f"{shape} in {model.name}"
            )
        return adapted


def adapted_weight(model, path, value, shape):
    """A weight made to fit another shape, or None where it cannot be.

    The model's own way is tried, `adapt_weight`; then of a table of positions the first ones are
    taken; then the first kernel is made one of images of another number of channels, so that it
    answers to gray images as to the same with three channels alike.
    """
    adapt = getattr(model, "adapt_weight", None)
    adapted = adapt(path, value, shape) if adapt else None
    if adapted is None and path == POSITIONS and value.shape[1:] == tuple(shape[1:]):
        adapted = value[: shape[0]] if len(value) > shape[0] else None
    if adapted is None and value.ndim == len(shape) == 4:
        height, width, channels, filters = value.shape
        if (height, width, filters) == (*shape[:2], shape[3]):
            if shape[2] == 1:
                adapted = value.sum(axis=2, keepdims=True)
            elif channels == 1:
                adapted = np.repeat(value / shape[2], shape[2], axis=2)
    return adapted


def for_channels(values, channels: int) -> tuple:
    """Statistics per channel for images of another number of channels: their mean, for each."""
    values = tuple(values)
    if len(values) in (0, 1, channels):
        return values
    return (float(np.mean(values)),) * channels


def is_backbone(path: str) -> bool:
    """Whether a weight belongs to the backbone."""
    return path.startswith("backbone/")


def in_head(path: str) -> bool:
    """Whether a weight belongs to the head or an auxiliary head."""
    return path.startswith(("head", "aux"))


def of_classes(path: str) -> bool:
    """Whether the last axis of a weight is a head's or an auxiliary head's: of its last layer."""
    return in_head(path) and path.split("/")[-2:-1] == ["head"]


def taken_by_class(value, fresh, source):
    """A head's weight with what another one holds for the same classes.

    Args:
        value: The other one, `(..., J)`.
        fresh: `(..., K)`, for classes that the other one does not have.
        source: int `(K,)`, where each class stands in the other one; -1 where it does not.

    Returns:
        `(..., K)`, or None where no class is in both.
    """
    there = source >= 0
    if not there.any():
        return None
    result = np.array(fresh, value.dtype)
    result[..., there] = value[..., source[there]]
    return result


def _by_name(source, class_names):
    """What is said of a head whose classes were compared; `source` as in `taken_by_class`."""
    k, new = len(source), [n for n, i in zip(class_names, source, strict=True) if i < 0]
    if new:
        return f"; took {k - len(new)} of {k} classes of the head by name (new: {few(new)})"
    order = "" if (np.diff(source) > 0).all() else ", in another order"
    return f"; took all {k} classes of the head by name{order}"
