"""Whether embeddings have collapsed: all images at one place, which any coupled loss may come to.

Source: Chen and He 2020, https://arxiv.org/abs/2011.10566, section 4.1 (deviation of normalized
        embeddings).
"""

import numpy as np

from kerasdl.metrics.evaluator import Evaluator

OF_EMBEDDINGS, OF_FEATURES = 0.2, 0.03  # a spread below it is a collapse


class Spread(Evaluator):
    """How far embeddings of length 1 lie apart: the deviation of them all, from 0 to 1.

    It is `sqrt(mean |u - mean u|^2)` of `u = z / |z|`: 0 where all are one, 1 where their mean is
    0, as of embeddings that are evenly spread over the sphere. Features behind a ReLU point into
    one part of space and have less, about 0.1 at a random start. Looked at is `projection`,
    or else `features`, of what is predicted.

    Args:
        collapsed: The spread below which there is a warning.
    """

    metrics = ("spread",)

    def __init__(self, collapsed: float = OF_FEATURES):
        self.collapsed = collapsed
        self.moments = None  # count, mean and sum of squared deviations

    def update(self, outputs: dict, batch: dict) -> None:
        """Add a batch; see `Evaluator.update`.

        Args:
            outputs: `projection` or `features`, numpy `(B, D)`.
            batch: `weight` `(B,)`.
        """
        real = np.asarray(batch["weight"]) > 0
        z = np.asarray(outputs.get("projection", outputs["features"]), np.float64)[real]
        u = z / np.maximum(np.linalg.norm(z, axis=1, keepdims=True), 1e-12)
        if len(u):
            mean = u.mean(0)
            squares = np.sum(np.square(u - mean))
            self.merge({"count": np.float64(len(u)), "mean": mean, "squares": squares})

    def state(self) -> dict:
        """Of the embeddings of length 1 `count`, `mean` `(D,)`, and `squares`, the sum of their
        squared deviations; {} where there were none."""
        return self.moments or {}

    def merge(self, state: dict) -> None:
        """Add the `state` of another one.

        Source: Chan et al. 1983, Algorithms for computing the sample variance, equation 2.1.
        """
        if not state or self.moments is None:
            self.moments = self.moments or dict(state)
            return
        (a, mean, squares), (b, other, more) = (
            [np.asarray(one[name]) for name in ("count", "mean", "squares")]
            for one in (self.moments, state)
        )
        apart = other - mean
        self.moments = {
            "count": a + b,
            "mean": mean + apart * (b / (a + b)),
            "squares": squares + more + apart @ apart * (a * b / (a + b)),
        }

    def result(self) -> dict:
        """`test`: `spread`; and `warnings` where it is below `collapsed`."""
        moments = self.moments or {"count": 1.0, "squares": 0.0}
        spread = float(np.sqrt(moments["squares"] / moments["count"]))
        warning = (
            f"representations have collapsed: embeddings of length 1 deviate by {spread:.2g} from "
            f"their mean, less than {self.collapsed:g}; all images look alike to this model"
        )
        return {
            "test": {"spread": spread},
            **({"warnings": [warning]} if spread < self.collapsed else {}),
        }
