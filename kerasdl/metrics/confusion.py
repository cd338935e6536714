"""Confusion matrix, and which examples were mistaken."""

import numpy as np


class Confusion:
    """Counts of true against predicted classes, and the worst mistakes.

    Args:
        class_names: Names in the order of the labels.
        keep: How many mistakes to remember, the most confident first.
    """

    def __init__(self, class_names, keep: int = 24):
        k = len(class_names)
        self.matrix = np.zeros((k, k), np.int64)  # [true, predicted]
        self.keep = keep
        self.mistakes = []  # (confidence, index, true, predicted)

    def update(self, outputs: dict, batch: dict) -> None:
        """Add a batch of numpy arrays; examples of weight 0 do not count."""
        real = np.asarray(batch["weight"]) > 0
        true = np.asarray(batch["label"])[real]
        predicted = np.asarray(outputs["label"])[real]
        confidence = np.asarray(outputs["probabilities"])[real].max(-1)
        index = np.asarray(batch["index"])[real]
        np.add.at(self.matrix, (true, predicted), 1)
        wrong = true != predicted
        self.mistakes += [
            (float(c), int(i), int(t), int(p))
            for c, i, t, p in zip(
                confidence[wrong], index[wrong], true[wrong], predicted[wrong], strict=True
            )
        ]
        self.mistakes = sorted(self.mistakes, reverse=True)[: self.keep]

    def result(self) -> dict:
        """`confusion` as rows of counts, and `mistakes`."""
        keys = ("confidence", "index", "true", "predicted")
        return {
            "confusion": self.matrix.tolist(),
            "mistakes": [dict(zip(keys, m, strict=True)) for m in self.mistakes],
        }
