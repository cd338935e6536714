"""Localization: the box and the class of one object; evaluated by overlap and accuracy."""

import numpy as np
from keras import ops

from kerasdl.ops import boxes as bx
from kerasdl.ops.losses import cross_entropy
from kerasdl.ops.nms import rows
from kerasdl.tasks.classify import rank_of
from kerasdl.tasks.detect import Detect, shown
from kerasdl.tasks.task import Number


class Locate(Detect):
    """The largest object of an image: its box and one of `K` classes.

    The loss is the cross entropy of the class and `box_weight` times the squared distance of the
    box, summed over its four ends. Images without an object do not count. Models return a dict of
    `logits` `(B, K)` and `boxes` `(B, 4)`.
    """

    recipe = {}
    settings = {"box_weight": 20.0}
    allowed = {"box_weight": Number(0)}
    changeable = ()
    metrics = ("loss", "top1", "iou")
    monitor = "iou"

    def losses(self, model, batch, player="model", training=False):
        outputs = model(self.model_inputs(model, batch), training=training)
        logits, boxes = outputs["logits"], outputs["boxes"]
        true, label, there = self._largest(batch, boxes.dtype)
        hot = ops.one_hot(ops.maximum(label, 0), logits.shape[-1], dtype=logits.dtype)
        distance = ops.sum(ops.square(boxes - true), axis=-1)
        loss = cross_entropy(hot, logits, 0.0) + self.settings["box_weight"] * distance
        right = ops.cast(rank_of(label, logits) < 1, logits.dtype)
        pairs = [(value * there, there) for value in (loss, right, bx.iou(boxes, true))]
        return pairs[0], dict(zip(self.metrics[1:], pairs[1:], strict=True))

    @staticmethod
    def _largest(batch, dtype):
        """Box `(B, 4)` and label `(B,)` of the largest object, and whether there is one."""
        boxes = ops.cast(batch["boxes"], dtype)
        areas = ops.where(batch["valid"], bx.area(boxes), -1)
        value, index = ops.top_k(areas, 1)
        index = ops.cast(index, "int32")
        label = rows(ops.cast(batch["labels"], "int32"), index)[:, 0]
        return rows(boxes, index)[:, 0], label, ops.cast(value[:, 0] >= 0, dtype)

    def predict(self, model, batch):
        outputs = model(self.model_inputs(model, batch), training=False)
        probability, label = ops.top_k(ops.softmax(outputs["logits"], axis=-1), 1)
        return {
            "boxes": bx.clip(outputs["boxes"])[:, None],
            "scores": probability,
            "label": ops.cast(label, "int32"),
            "num": ops.ones_like(label[:, 0], dtype="int32"),
        }

    def evaluators(self):
        return []

    def pictures(self, model, batch):
        """`boxes`: rows of an image with its largest object's box, and with the one predicted."""
        boxes, label, there = self._largest(batch, "float32")
        label = ops.where(there > 0, label, -1)
        batch = batch | {"boxes": boxes[:, None], "labels": label[:, None]}
        return shown(batch, self.predict(model, batch), len(self.class_names))

    def served(self, columns):
        """With the largest object alone, which is what the answer is compared with."""
        sides = np.maximum(columns["boxes"][..., 2:] - columns["boxes"][..., :2], 0)
        areas = np.where(columns["valid"], sides.prod(-1), -1.0)
        chosen = np.arange(len(areas))[:, None], areas.argmax(-1)[:, None]
        return columns | {name: columns[name][chosen] for name in self.targets}

    def objects(self):
        """How many a request's answer has room for."""
        return 1


TASK = Locate
