"""Confusion matrix, what follows from it for each class, and which examples were mistaken.

Source: Brodersen et al. 2010, The balanced accuracy and its posterior distribution (balanced
        accuracy: the mean of the classes' recalls).
"""

import numpy as np

from kerasdl.metrics.evaluator import Evaluator

MISTAKE = ("confidence", "index", "true", "predicted")


class Confusion(Evaluator):
    """Counts of true against predicted classes, and the worst mistakes.

    Balanced accuracy is the mean recall of the classes that have examples.

    Args:
        class_names: Names in the order of the labels.
        keep: How many mistakes to remember, the most confident first.
    """

    metrics = ("balanced_accuracy",)

    def __init__(self, class_names, keep: int = 24):
        self.class_names = tuple(class_names)
        k = len(self.class_names)
        self.matrix = np.zeros((k, k), np.int64)  # [true, predicted]
        self.keep = keep
        self.mistakes = np.zeros((0, len(MISTAKE)))  # a row each

    def update(self, outputs, batch):
        real = np.asarray(batch["weight"]) > 0
        true = np.asarray(batch["label"])[real]
        predicted = np.asarray(outputs["label"])[real]
        confidence = np.asarray(outputs["probabilities"])[real].max(-1)
        index = np.asarray(batch["index"])[real]
        np.add.at(self.matrix, (true, predicted), 1)
        rows = np.stack([confidence, index, true, predicted], 1).astype(np.float64)
        self._keep(rows[true != predicted])

    def _keep(self, rows):
        rows = np.concatenate([self.mistakes, rows])
        order = np.lexsort(rows.T[::-1])[::-1]  # the most confident first, then the last number
        self.mistakes = rows[order][: self.keep]

    def state(self):
        return {"matrix": self.matrix, "mistakes": self.mistakes}

    def merge(self, state):
        self.matrix += state["matrix"]
        self._keep(state["mistakes"])

    def result(self):
        """`test`: `balanced_accuracy`; `classes`: by name, see `by_class`; `confusion` as rows of
        counts; and `mistakes`."""
        classes = by_class(self.matrix, self.class_names)
        recalls = [row["recall"] for row in classes.values() if row["support"]]
        return {
            "test": {"balanced_accuracy": float(np.mean(recalls)) if recalls else float("nan")},
            "classes": classes,
            "confusion": self.matrix.tolist(),
            "mistakes": [
                {MISTAKE[0]: row[0]}
                | {k: int(v) for k, v in zip(MISTAKE[1:], row[1:], strict=True)}
                for row in self.mistakes.tolist()
            ],
        }


def by_class(matrix, names) -> dict:
    """How well each class is told from the others.

    Args:
        matrix: int `(K, K)`, examples of a true class (row) taken for another (column).
        names: Of the classes.

    Returns:
        `{name: {"precision", "recall", "f1", "support"}}`: of the examples taken for the class, and
        of the class's own, those that are both, as fractions; their harmonic mean; and how many
        examples the class has. A fraction of no examples is None.
    """
    matrix = np.asarray(matrix)
    right, true, taken = np.diag(matrix), matrix.sum(1), matrix.sum(0)
    rows = {
        "precision": _fractions(right, taken),
        "recall": _fractions(right, true),
        "f1": _fractions(2 * right, true + taken),
        "support": true.tolist(),
    }
    return {name: {k: row[i] for k, row in rows.items()} for i, name in enumerate(names)}


def _fractions(a, b):
    return [x / y if y else None for x, y in zip(a.tolist(), b.tolist(), strict=True)]
