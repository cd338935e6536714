"""Semantic segmentation: a class for every pixel; evaluated by intersection over union."""

from keras import ops

from kerasdl.columns import VOID, Spec
from kerasdl.metrics.segmentation import MeanIoU
from kerasdl.ops import losses as loss_functions
from kerasdl.ops.colors import class_colors
from kerasdl.ops.decoding import greedy
from kerasdl.tasks import class_weights
from kerasdl.tasks.task import Number, Signature, Task

SHOWN = 8  # examples in the picture of an epoch


class Segment(Task):
    """One of `K` classes per pixel. Pixels of the class `VOID` are not labeled and do not count.

    `loss`: `cross_entropy` or `focal` (`gamma`), the mean over all labeled pixels of the global
    batch, or `dice`, the mean over its masks' classes: of each mask those that occur in it. With
    class weights the training loss is the weighted mean of pixels, or of masks' classes.

    Models return logits `(B, h, w, K)` of the center of the image: of all of it, or without padding
    of less. The pixels around it do not count, and their predicted class is `VOID`.
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {"mask": Spec(("H", "W"), "int32", "mask")}
    recipe = {"eval_epochs": 1}
    settings = {"loss": "cross_entropy", "gamma": 2.0}
    allowed = {"loss": ("cross_entropy", "focal", "dice"), "gamma": Number(0, 100)}
    weighs_classes = True
    metrics = ("loss", "pixel_accuracy")
    monitor = "mean_iou"

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.class_names = info.columns["mask"].class_names
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}
        self.targets = {"mask": Spec(tuple(info.image_shape[:2]), "int32", "mask")}
        self.class_weights = class_weights.given(recipe.class_weight, info)  # (K,) or None

    def measure(self, train):
        if not self.run_recipe.class_weight:
            return []
        if self.class_weights is None:
            count = len(self.class_names)
            self.class_weights = class_weights.balanced(train, count, "mask", VOID)
        return class_weights.lines(self.class_weights, self.class_names)

    @staticmethod
    def head_classes(info):
        return info.columns["mask"].class_names

    def arguments(self):
        return {
            "image_shape": tuple(self.info.image_shape),
            "num_classes": len(self.class_names),
            "input_mean": tuple(self.info.input_mean) or 0.0,
            "input_std": tuple(self.info.input_std) or 1.0,
        }

    def losses(self, model, batch, player="model", training=False):
        logits = model(self.model_inputs(model, batch), training=training)  # (B, h, w, K)
        mask = ops.cast(_center(batch["mask"], logits.shape[1:3]), "int32")
        labeled = ops.cast(mask != VOID, logits.dtype)
        true = ops.where(mask == VOID, 0, mask)
        right = ops.cast(greedy(logits) == true, logits.dtype)
        count = ops.sum(labeled, axis=(1, 2))
        accuracy = (ops.sum(right * labeled, axis=(1, 2)), count)
        weights = None
        if training and self.class_weights is not None:
            weights = ops.convert_to_tensor(self.class_weights, dtype=logits.dtype)
        loss = self._loss(logits, true, labeled, weights)
        return loss, {"pixel_accuracy": accuracy}

    def _loss(self, logits, true, labeled, weights):
        """Sums and weights `(B,), (B,)`.

        Args:
            logits: `(B, h, w, K)`.
            true: int `(B, h, w)`, below `K`.
            labeled: float `(B, h, w)`, 0 where a pixel does not count.
            weights: Of the classes `(K,)`, or None.
        """
        if self.settings["loss"] == "dice":
            classes = logits.shape[-1]
            pixels = (-1, logits.shape[1] * logits.shape[2], classes)
            label = ops.one_hot(true, classes, dtype=logits.dtype) * labeled[..., None]
            label = ops.reshape(label, pixels)
            p = ops.reshape(ops.softmax(logits, axis=-1) * labeled[..., None], pixels)
            counted = ops.cast(ops.any(label > 0, axis=1), logits.dtype)  # (B, K)
            counted = counted if weights is None else counted * weights
            each = loss_functions.dice(label, p)
            return ops.sum(each * counted, axis=1), ops.sum(counted, axis=1)
        scores = ops.log_softmax(logits, axis=-1)
        log_p = ops.take_along_axis(scores, true[..., None], axis=-1)[..., 0]  # (B, h, w)
        focal = self.settings["loss"] == "focal"
        each = loss_functions.focal(log_p, self.settings["gamma"]) if focal else -log_p
        counted = labeled if weights is None else labeled * ops.take(weights, true)
        return ops.sum(each * counted, axis=(1, 2)), ops.sum(counted, axis=(1, 2))

    def predict(self, model, batch):
        image = self.model_inputs(model, batch)
        logits = model(image, training=False)
        mask = _around(greedy(logits), image.shape[1:3])
        return {"mask": mask, "probabilities": ops.softmax(logits, axis=-1)}

    def evaluators(self):
        return [MeanIoU(self.class_names)]

    def pictures(self, model, batch):
        """`masks`: rows of an image, its true and its predicted mask."""
        batch = {name: value[:SHOWN] for name, value in batch.items()}
        image = ops.convert_to_tensor(batch["image"], "float32")
        image = image if image.shape[-1] == 3 else ops.repeat(image[..., :1], 3, axis=-1)
        masks = (batch["mask"], self.predict(model, batch)["mask"])
        shown = [image, *(self._overlay(image, mask) for mask in masks)]
        return {"masks": ops.stack(shown, axis=1)}

    def _overlay(self, image, mask):
        colors = class_colors(len(self.class_names))
        mask = ops.cast(mask, "int32")
        hidden = (mask == 0) | (mask == VOID)
        color = ops.take(ops.cast(colors, "float32"), ops.where(hidden, 0, mask), axis=0)
        return ops.where(hidden[..., None], image, 0.4 * image + 0.6 * color)

    def signatures(self, model):
        def serve(image):
            return self.predict(model, {"image": image})

        return [Signature("serving_default", self.inputs, serve, outputs=self.targets)]

    def evaluated_by(self, target):
        return {
            "signature": "serving_default",
            "inputs": ["image"],
            "output": "mask",
            "target": "mask",
            "loss": "iou",
        }


def _center(mask, size):
    """The center `(B, h, w)` of masks `(B, H, W)`: what a model has logits of."""
    tops = [(whole - side) // 2 for whole, side in zip(mask.shape[1:3], size, strict=True)]
    return mask[:, tops[0] : tops[0] + size[0], tops[1] : tops[1] + size[1]]


def _around(classes, size):
    """Masks `(B, H, W)` of the classes `(B, h, w)` of their center, `VOID` around it."""
    more = [whole - side for whole, side in zip(size, classes.shape[1:3], strict=True)]
    if not any(more):
        return classes
    pads = [(n // 2, n - n // 2) for n in more]
    return ops.pad(classes, ((0, 0), *pads), constant_values=VOID)


TASK = Segment
