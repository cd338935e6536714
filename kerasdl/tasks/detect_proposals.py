"""Detection among proposals: which of the given regions are objects, and where exactly."""

from keras import ops

from kerasdl.columns import Spec
from kerasdl.ops.boxes import iou, pairwise, windows
from kerasdl.tasks.detect import Detect
from kerasdl.tasks.task import Number


class DetectProposals(Detect):
    """`Detect` by models that are given an image and proposals: regions that may be objects.

    `proposals=search`: they are a column of the data, of selective search on each image where the
    data have none (`kerasdl.data.proposals`), and an input of what is exported, since no file holds
    a search: in proportions of the image at the model's size. `proposals=windows`: they are the
    same windows of every image, made in the graph, so that the image is the only input.
    `max_proposals` says how many there are, `proposal_recall` how many of the objects one of them
    overlaps by half at least.
    """

    inputs = {**Detect.inputs, "proposals": Spec(("R", 4), "float32", "regions")}
    settings = {**Detect.settings, "proposals": "search", "max_proposals": 2000}
    allowed = {
        **Detect.allowed,
        "proposals": ("search", "windows"),
        "max_proposals": Number(1, 10_000, whole=True),
    }
    metrics = (*Detect.metrics, "proposal_recall")

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.windows = None
        if self.settings["proposals"] == "windows":
            self.windows = windows(info.image_shape[:2], self.settings["max_proposals"])
        else:
            shape = tuple(info.columns["proposals"].shape)
            self.inputs = {**self.inputs, "proposals": Spec(shape, "float32", "regions")}

    def model_inputs(self, model, batch):
        image, proposals = batch["image"], batch.get("proposals")
        if self.windows is not None:
            wide = (ops.shape(image)[0], *self.windows.shape)
            proposals = ops.broadcast_to(ops.cast(self.windows[None], "float32"), wide)
        return {"image": image, "proposals": proposals}

    def losses(self, model, batch, player="model", training=False):
        inputs = self.model_inputs(model, batch)
        of_class, of_box = model.detection_losses(model(inputs, training=training), batch, training)
        loss = of_class + of_box
        proposals = ops.cast(inputs["proposals"], loss.dtype)
        overlap = pairwise(iou, proposals, ops.cast(batch["boxes"], loss.dtype))  # (B, R, M)
        valid = ops.cast(batch["valid"], loss.dtype)
        found = ops.cast(ops.max(overlap, axis=1) >= 0.5, loss.dtype) * valid
        recall = ops.sum(found, axis=-1), ops.sum(valid, axis=-1)
        metrics = {"class_loss": of_class, "box_loss": of_box, "proposal_recall": recall}
        return loss, metrics


TASK = DetectProposals
