"""How well pixels are classified: intersection over union, and accuracy.

Source: Everingham et al. 2015, The PASCAL Visual Object Classes Challenge: A Retrospective,
        section 4.1.3 (intersection over union, from counts of the whole set).
"""

import numpy as np

from kerasdl.columns import VOID
from kerasdl.metrics.evaluator import Evaluator


class MeanIoU(Evaluator):
    """Intersection over union of each class over all pixels of a set, and their mean.

    Counts are of the whole set, not averaged over images. Pixels whose true class is 255 are not
    labeled and do not count, whatever was predicted there; nor do those whose predicted class is
    255, of which models of unpadded convolutions say nothing. A class that occurs neither in truth
    nor in prediction has no intersection over union and is left out of the mean; one that is only
    predicted has 0.

    Args:
        class_names: Names in the order of the labels, the background's included.
    """

    metrics = ("mean_iou", "pixel_accuracy")

    def __init__(self, class_names):
        self.class_names = tuple(class_names)
        k = len(self.class_names)
        self.confusion = np.zeros((k, k), np.int64)  # [true, predicted], in pixels

    def update(self, outputs: dict, batch: dict) -> None:
        """Count a batch of numpy arrays; examples of weight 0 do not count.

        Args:
            outputs: `mask` `(B, H, W)`, the predicted classes.
            batch: `mask` `(B, H, W)`, the true classes, 255 where there is none; `weight` `(B,)`.

        Raises:
            ValueError: A shape that does not fit, or a class that has no name.
        """
        real = np.asarray(batch["weight"]) > 0
        true, predicted = np.asarray(batch["mask"]), np.asarray(outputs["mask"])
        if true.shape != predicted.shape:
            raise ValueError(f"predicted masks {predicted.shape}: must be {true.shape} as the true")
        true, predicted = true[real], predicted[real]
        labeled = (true != VOID) & (predicted != VOID)
        true, predicted = true[labeled].astype(np.int64), predicted[labeled].astype(np.int64)
        k = len(self.class_names)
        for what, values in (("true", true), ("predicted", predicted)):
            if values.size and (values.min() < 0 or values.max() >= k):
                raise ValueError(
                    f"{what} classes {values.min()}..{values.max()}: must be 0..{k - 1}"
                )
        self.confusion += np.bincount(true * k + predicted, minlength=k * k).reshape(k, k)

    def state(self) -> dict[str, np.ndarray]:
        """What `merge` of another one needs: `confusion` int64 `(K, K)`."""
        return {"confusion": self.confusion.copy()}

    def merge(self, state) -> None:
        """Add what another one has counted.

        Args:
            state: Of one with the same classes.

        Raises:
            ValueError: A state of another number of classes.
        """
        other = np.asarray(state["confusion"])
        if other.shape != self.confusion.shape:
            raise ValueError(f"state of {len(other)} classes: must be {len(self.confusion)}")
        self.confusion += other

    def result(self) -> dict:
        """`test`: `mean_iou` and `pixel_accuracy`; `iou`: by name of the class, None where a class
        occurs neither in truth nor in prediction. Of no labeled pixel at all both are nan."""
        right = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - right
        total = int(self.confusion.sum())
        iou = [int(r) / int(u) if u else None for r, u in zip(right, union, strict=True)]
        present = [value for value in iou if value is not None]
        return {
            "test": {
                "mean_iou": float(np.mean(present)) if present else float("nan"),
                "pixel_accuracy": int(right.sum()) / total if total else float("nan"),
            },
            "iou": dict(zip(self.class_names, iou, strict=True)),
        }
