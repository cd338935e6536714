"""Semantic segmentation: a class for every pixel; evaluated by intersection over union."""

from keras import ops

from kerasdl.columns import VOID, Spec
from kerasdl.metrics.segmentation import MeanIoU
from kerasdl.ops.colors import class_colors
from kerasdl.tasks.task import Signature, Task

SHOWN = 8  # examples in the picture of an epoch


class Segment(Task):
    """One of `K` classes per pixel. Pixels of the class `VOID` are not labeled and do not count.

    The loss is the mean cross entropy of all labeled pixels of the global batch. Models return
    logits `(B, H, W, K)`.
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {"mask": Spec(("H", "W"), "int32", "mask")}
    recipe = {"eval_epochs": 1}
    metrics = ("loss", "pixel_accuracy")
    monitor = "mean_iou"

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.class_names = info.columns["mask"].class_names
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}
        self.targets = {"mask": Spec(tuple(info.image_shape[:2]), "int32", "mask")}

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
        logits = model(self.model_inputs(model, batch), training=training)  # (B, H, W, K)
        mask = ops.cast(batch["mask"], "int32")
        labeled = ops.cast(mask != VOID, logits.dtype)
        true = ops.where(mask == VOID, 0, mask)
        scores = ops.log_softmax(logits, axis=-1)
        each = -ops.take_along_axis(scores, true[..., None], axis=-1)[..., 0]  # (B, H, W)
        right = ops.cast(_classes(logits) == true, logits.dtype)
        count = ops.sum(labeled, axis=(1, 2))
        loss = ops.sum(each * labeled, axis=(1, 2))
        return (loss, count), {"pixel_accuracy": (ops.sum(right * labeled, axis=(1, 2)), count)}

    def predict(self, model, batch):
        logits = model(self.model_inputs(model, batch), training=False)
        return {"mask": _classes(logits), "probabilities": ops.softmax(logits, axis=-1)}

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


def _classes(logits):
    """The likeliest class of each pixel, int32; Keras' argmax of floats is not in TFLite."""
    return ops.cast(ops.top_k(logits, 1)[1][..., 0], "int32")


TASK = Segment
