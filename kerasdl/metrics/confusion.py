"""Confusion matrix, and which examples were mistaken."""

import numpy as np

from kerasdl.metrics.evaluator import Evaluator

MISTAKE = ("confidence", "index", "true", "predicted")


class Confusion(Evaluator):
    """Counts of true against predicted classes, and the worst mistakes.

    Args:
        class_names: Names in the order of the labels.
        keep: How many mistakes to remember, the most confident first.
    """

    def __init__(self, class_names, keep: int = 24):
        k = len(class_names)
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
        """`confusion` as rows of counts, and `mistakes`."""
        return {
            "confusion": self.matrix.tolist(),
            "mistakes": [
                {MISTAKE[0]: row[0]}
                | {k: int(v) for k, v in zip(MISTAKE[1:], row[1:], strict=True)}
                for row in self.mistakes.tolist()
            ],
        }
