"""How much an example, or a pixel, of each class counts in the training loss."""

import numpy as np

from kerasdl import recipe
from kerasdl.errors import UserError
from kerasdl.system.names import few, nearest

CHUNK = 256  # examples whose labels are read at a time


def given(words, info):
    """Weights `(K,)` of the words of `--class-weight`; None where they name no class.

    Args:
        words: Of the recipe.
        info: The `DataInfo`, whose classes they may name.

    Raises:
        UserError: There is no such class, or no class is left.
    """
    weights = recipe.class_weights(words)
    if not weights:
        return None
    names = info.class_names
    for name in weights:
        if name not in names:
            raise UserError(
                f"--class-weight {name}: no such class{nearest(name, names)}; there are "
                f"{few(names)}"
            )
    result = np.array([weights.get(name, 1.0) for name in names])
    if not result.any():
        raise UserError("--class-weight: at least one class must have a weight above 0")
    return result


def balanced(train, num_classes: int, name="label", void=None):
    """Weights `(K,)` that let all classes count alike: `n / (K n_k)`.

    Args:
        train: The training part, a `kerasdl.data.splits.Split`.
        num_classes: Of its `n` labels `K` classes have some; the others' weight is 0.
        name: The column of labels, one or more of each example.
        void: The label that does not count, or None.
    """
    counts = np.zeros(num_classes, np.int64)
    for labels in _labels(train, name):
        labels = labels if void is None else labels[labels != void]
        counts += np.bincount(labels.ravel(), minlength=num_classes)
    there = counts > 0
    return np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 0.0)


def lines(weights, names) -> list[str]:
    """What a user is told of the weights `(K,)` of the classes of these names."""
    shown = few([f"{name} {weight:.4g}" for name, weight in zip(names, weights, strict=True)])
    result = [
        f"class weights: {shown}; of the training loss only, those of validation and test are not "
        "weighted"
    ]
    if none := [name for name, weight in zip(names, weights, strict=True) if not weight]:
        result.append(f"class weights: of weight 0, so not trained: {few(none)}")
    return result


def _labels(train, name):
    """Yield the labels of a few examples each time."""
    train, columns, n = train.only([name]), train.columns(), len(train)
    for start in range(0, n, CHUNK):
        rows = range(start, min(start + CHUNK, n))
        known = name in columns
        yield columns[name][rows.start : rows.stop] if known else train.read(rows)[name]
