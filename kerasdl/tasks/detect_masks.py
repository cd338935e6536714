"""Detection with masks: a box, a class and the pixels of every object."""

from keras import ops

from kerasdl.columns import ABSENT, Spec
from kerasdl.ops.colors import outlined, tinted
from kerasdl.tasks.detect import SHOWN, SHOWN_SCORE, Detect

INSIDE = 0.5  # from this probability on a pixel is the object's


class DetectMasks(Detect):
    """`Detect`, and a mask of each object at the size of the model's images.

    The model makes masks of the boxes that are left after suppression; see
    `kerasdl.layers.detector.Detector.object_masks`. What is served are whole pixels, uint8 `(N, M,
    H, W)`, which is a quarter of what floats take.
    """

    targets = {**Detect.targets, "instances": Spec(("M", "H", "W"), "uint8", "instances")}
    metrics = (*Detect.metrics, "mask_loss")

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        objects, size = info.columns["boxes"].shape[0], tuple(info.image_shape[:2])
        self.targets["instances"] = Spec((objects, *size), "uint8", "instances")

    def answer(self, model, predictions):
        found = super().answer(model, predictions)
        masks = model.object_masks(predictions, found["boxes"], found["label"])
        there = (masks >= INSIDE) & (found["label"] >= 0)[..., None, None]
        return found | {"masks": ops.cast(there, "uint8")}

    def evaluators(self):
        return [self.evaluator(masks=True)]

    def pictures(self, model, batch):
        """`boxes`: rows of an image with its true masks and boxes, and with those found."""
        batch, found = (
            {k: v[:SHOWN] for k, v in one.items()} for one in (batch, self.predict(model, batch))
        )
        certain = ops.where(found["scores"] >= SHOWN_SCORE, found["label"], ABSENT)
        true = batch["boxes"], ops.cast(batch["labels"], "int32"), batch["instances"]
        classes, pictures = len(self.class_names), []
        for boxes, label, masks in (true, (found["boxes"], certain, found["masks"])):
            image = tinted(batch["image"], masks, label, classes)
            pictures.append(outlined(image, boxes, label, classes))
        return {"boxes": ops.stack(pictures, axis=1)}

    def signatures(self, model):
        (one,) = super().signatures(model)
        shape = (self.objects(), *self.info.image_shape[:2])
        one.outputs["masks"] = Spec(shape, "uint8", "instances")
        return [one]


TASK = DetectMasks
