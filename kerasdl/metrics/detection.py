"""How well objects are detected: average precision and recall, of COCO and of PASCAL VOC.

Source: Lin et al. 2014, https://arxiv.org/abs/1405.0312, and its `pycocotools` (COCO's metrics);
        Everingham et al. 2010, The PASCAL Visual Object Classes (VOC) Challenge, section 4.2.
"""

import numpy as np

from kerasdl.metrics.average_precision import coco, confusion, masks, rows, voc
from kerasdl.metrics.evaluator import Evaluator

MASK_METRICS = ("ap", "ap50", "ap75")
AREAS = ("small", "medium", "large")  # below 32^2 pixels, below 96^2, from there on


class DetectionAP(Evaluator):
    """Average precision and average recall of all classes over a set of images.

    `ap` is the mean over classes and intersections over union 0.5, 0.55, ..., 0.95; `ap50` and
    `ap75` are those at one; `ar1`, `ar10` and `ar100` the mean recall of so many detections per
    image. `voc_ap50` is the area under the curve of precision and recall, `voc11_ap50` the mean of
    eleven points of it. Images without a detection and images without an object count as others.
    Detections of what is ignored, a crowd in COCO and a difficult object in VOC, are neither right
    nor wrong: in COCO's metrics where they lie in it by the threshold, any number of them, in VOC's
    where they overlap it best.

    Of masks `mask_ap`, `mask_ap50` and `mask_ap75` are the same, where overlaps are of pixels.

    Args:
        class_names: Names in the order of the labels.
        size: `(H, W)` of the images in pixels, which areas are measured in.
        masks: Whether objects have masks, of that size.
    """

    metrics = ("ap", "ap50", "ap75", "ar1", "ar10", "ar100", "voc_ap50", "voc11_ap50")

    def __init__(self, class_names, size, masks=False):
        self.class_names = tuple(class_names)
        self.with_masks = masks
        if masks:
            self.metrics = (*self.metrics, *(f"mask_{name}" for name in MASK_METRICS))
            self.true_masks = self.found_masks = np.zeros(0, "S1")
        self.size = np.array([*size, *size], np.float64)
        self.images = np.zeros(0, np.int64)
        self.true = np.zeros((0, 7))  # image, label, box in pixels, whether it is ignored
        self.found = np.zeros((0, 7))  # image, label, box in pixels, score

    def update(self, outputs: dict, batch: dict) -> None:
        """Add a batch of numpy arrays; examples of weight 0 do not count.

        Args:
            outputs: `boxes` `(B, N, 4)`, `scores` `(B, N)` and `label` `(B, N)`, negative where
                there is no detection.
            batch: `boxes` `(B, M, 4)`, `labels` `(B, M)`, `valid` `(B, M)`, `index` `(B,)`,
                `weight` `(B,)`, and where there are such `crowd` `(B, M)`. With masks, `masks` of
                the former and `instances` of the latter.

        Raises:
            ValueError: A class that has no name, or scores that are no numbers.
        """
        real = np.asarray(batch["weight"]) > 0
        index = np.asarray(batch["index"])[real].astype(np.int64)
        given = [{k: np.asarray(v)[real] for k, v in one.items()} for one in (outputs, batch)]
        true, found = rows(index, *given)
        last = len(self.class_names) - 1
        for label in (true[:, 1], found[:, 1]):
            if label.size and not 0 <= label.min() <= label.max() <= last:
                raise ValueError(f"classes {label.min():g}..{label.max():g}: must be 0..{last}")
        if not np.isfinite(found).all():
            raise ValueError("boxes and scores must be numbers")
        for boxes in (true, found):
            boxes[:, 2:6] *= self.size
        new = {"images": index, "true": true, "found": found}
        if self.with_masks:
            new["true_masks"], new["found_masks"] = masks(*given)
        self.merge(new)

    def state(self) -> dict[str, np.ndarray]:
        """What `merge` of another one needs."""
        names = ["images", "true", "found"] + self.with_masks * ["true_masks", "found_masks"]
        return {name: getattr(self, name) for name in names}

    def merge(self, state) -> None:
        """Add what another one was given.

        Args:
            state: Of one with the same classes.
        """
        for name, value in state.items():
            setattr(self, name, np.concatenate([getattr(self, name), np.asarray(value)]))

    def result(self) -> dict:
        """`test`: the metrics; `by_area`: `{small | medium | large: {"ap", "ar"}}` of those areas
        that there are objects of; `by_class`: `{name: ap50 of VOC, or None}`; `precision_recall`:
        precision at IoU 0.5 where recall is 0, 0.01, ..., 1, the mean over classes; `objects`:
        which class is taken for which, see `kerasdl.metrics.average_precision.confusion`."""
        # In the order of the images, whoever saw them: equal scores stand in that order.
        order = [np.argsort(rows[:, 0], kind="stable") for rows in (self.true, self.found)]
        true, found = self.true[order[0]], self.found[order[1]]
        given = (np.unique(self.images), true, found, len(self.class_names))
        stats, precision = coco(*given)
        if self.with_masks:
            codes = self.true_masks[order[0]], self.found_masks[order[1]]
            of_masks, _ = coco(*given, *codes, self.size[:2])
            stats |= {f"mask_{name}": of_masks[name] for name in MASK_METRICS}
        by_class = [
            voc(true[true[:, 1] == k], found[found[:, 1] == k])
            for k in range(len(self.class_names))
        ]
        present = [pair for pair in by_class if pair is not None]
        area, eleven = np.mean(present, axis=0) if present else (np.nan, np.nan)
        voc_metrics = {"voc_ap50": float(area), "voc11_ap50": float(eleven)}
        return {
            "test": {name: (stats | voc_metrics)[name] for name in self.metrics},
            "by_area": {
                name: {"ap": stats[f"ap_{name}"], "ar": stats[f"ar_{name}"]}
                for name in AREAS
                if np.isfinite(stats[f"ap_{name}"])
            },
            "by_class": {
                name: pair and pair[0]
                for name, pair in zip(self.class_names, by_class, strict=True)
            },
            "precision_recall": precision,
            "objects": confusion(true, found, len(self.class_names)).tolist(),
        }
