"""Detection: boxes and classes of all objects; evaluated by average precision."""

from keras import ops

from kerasdl.columns import ABSENT, Spec
from kerasdl.metrics.detection import DetectionAP
from kerasdl.ops.colors import outlined
from kerasdl.ops.nms import detections
from kerasdl.tasks.task import Number, Signature, Task

SHOWN = 8  # examples in the picture of an epoch
SHOWN_SCORE = 0.3  # of the objects in it


class Detect(Task):
    """All objects of an image: a box and one of `K` classes each.

    The model says what its losses are and which boxes are candidates; see
    `kerasdl.layers.detector.Detector`. Of these, those that score less than `min_score` are left
    out, and those that overlap a better one of their class by more than `nms_iou`, which 1 turns
    off; `max_objects` of the rest are the answer.

    Objects of `crowd` are not valid: they are not learned, and detections of them do not count.
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {
        "boxes": Spec(("M", 4), "float32", "boxes"),
        "labels": Spec(("M",), "int32", "label"),
        "valid": Spec(("M",), "bool", "valid"),
        "crowd": Spec(("M",), "bool", "valid"),
    }
    optional = ("crowd",)
    recipe = {"eval_epochs": 1}
    settings = {"max_objects": 20, "nms_iou": 0.5, "min_score": 0.05}
    allowed = {
        "max_objects": Number(1, 1000, whole=True),
        "nms_iou": Number(0, 1),
        "min_score": Number(0, 1),
    }
    changeable = ("max_objects", "nms_iou", "min_score")
    metrics = ("loss", "class_loss", "box_loss")
    monitor = "ap"

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.class_names = info.columns["labels"].class_names
        objects = info.columns["boxes"].shape[0]
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}
        self.targets = {
            "boxes": Spec((objects, 4), "float32", "boxes"),
            "labels": Spec((objects,), "int32", "label"),
            "valid": Spec((objects,), "bool", "valid"),
        }
        if "crowd" in info.columns:
            self.targets["crowd"] = self.targets["valid"]

    def arguments(self):
        return {
            "image_shape": tuple(self.info.image_shape),
            "num_classes": len(self.class_names),
            "input_mean": tuple(self.info.input_mean) or 0.0,
            "input_std": tuple(self.info.input_std) or 1.0,
        }

    def losses(self, model, batch, player="model", training=False):
        predictions = model(self.model_inputs(model, batch), training=training)
        losses = model.detection_losses(predictions, batch, training)
        if isinstance(losses[0], tuple):  # sums and their weights
            loss = (sum(value for value, _ in losses), losses[0][1])
        else:
            loss = sum(losses)
        return loss, dict(zip(self.metrics[1:], losses, strict=True))

    def predict(self, model, batch):
        return self.answer(model, model(self.model_inputs(model, batch), training=False))

    def answer(self, model, predictions):
        """The objects of `predict`, from what the model's call returned."""
        boxes, scores = model.candidates(predictions)
        given = self.settings
        return detections(boxes, scores, given["max_objects"], given["nms_iou"], given["min_score"])

    def evaluators(self):
        return [self.evaluator()]

    def evaluator(self, **settings):
        """What computes average precision."""
        return DetectionAP(self.class_names, self.info.image_shape[:2], **settings)

    def pictures(self, model, batch):
        """`boxes`: rows of an image with its true boxes, and with those that were found."""
        return shown(batch, self.predict(model, batch), len(self.class_names))

    def objects(self):
        """How many objects an answer has room for."""
        return self.settings["max_objects"]

    def signatures(self, model):
        def serve(**inputs):
            return self.predict(model, inputs)

        count = self.objects()
        outputs = {
            "boxes": Spec((count, 4), "float32", "boxes"),
            "label": Spec((count,), "int32", "label"),
        }
        return [Signature("serving_default", self.inputs, serve, outputs=outputs)]

    def evaluated_by(self, target):
        return {
            "signature": "serving_default",
            "inputs": list(self.inputs),
            "output": "boxes",
            "target": "boxes",
            "loss": "ap",
        }


def shown(batch, found, num_classes) -> dict:
    """Pictures `boxes` `(N, 2, H, W, 3)` of some images: with true boxes, and with those found.

    Args:
        batch: `image`, `boxes` and `labels`, negative where there is no object.
        found: `boxes`, `scores` and `label` of a task's `predict`.
        num_classes: How many classes there are.
    """
    batch, found = ({k: v[:SHOWN] for k, v in one.items()} for one in (batch, found))
    certain = ops.where(found["scores"] >= SHOWN_SCORE, found["label"], ABSENT)
    pairs = (batch["boxes"], ops.cast(batch["labels"], "int32")), (found["boxes"], certain)
    pictures = [outlined(batch["image"], boxes, label, num_classes) for boxes, label in pairs]
    return {"boxes": ops.stack(pictures, axis=1)}


TASK = Detect
