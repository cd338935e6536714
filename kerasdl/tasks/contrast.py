"""Contrastive learning: two views of one example are told from all others, without labels."""

from keras import ops

from kerasdl.columns import Spec
from kerasdl.metrics.probe import KNN, LinearProbe
from kerasdl.ops.gather import gather, offset
from kerasdl.ops.losses import nt_xent
from kerasdl.tasks.task import Number, Signature, Task


class Contrast(Task):
    """Projections of two views of an image are pulled together, and apart from all others.

    The others are those of the whole batch, of all replicas. The loss is the normalized
    temperature-scaled cross entropy (SimCLR); `contrast_top1` is how often a view is nearest to its
    other one. In evaluation the views are augmented too, from each example's own key. Models have
    `features(x)`, the representation, and `project(features)`; called, they do both.

    Where the data have labels, features are evaluated by their nearest neighbors in the training
    part, and by a linear classifier that learns from `probe_labels` training examples.
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {"label": Spec((), "int32", "label")}
    optional = ("label",)
    settings = {"temperature": 0.5, "neighbors": 20, "probe_labels": 50}
    allowed = {
        "temperature": Number(0.01, 10),
        "neighbors": Number(1, whole=True),
        "probe_labels": Number(1, whole=True),
    }
    views = {"view1": {}, "view2": {}}  # each augmented apart, by the run's `--augment`
    coupled = True
    metrics = ("loss", "contrast_top1")
    monitor = "-loss"
    recipe = {"eval_epochs": 10}

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}

    def arguments(self):
        return {
            "image_shape": tuple(self.info.image_shape),
            "input_mean": tuple(self.info.input_mean) or 0.0,
            "input_std": tuple(self.info.input_std) or 1.0,
        }

    def losses(self, model, batch, player="model", training=False):
        views = [batch[f"image_{name}"] for name in self.views]
        # In one call, so that batch norm sees both views.
        z = model(ops.concatenate(views), training=training)  # (2 B, D)
        z = ops.stack(ops.split(z, len(views)), axis=1)  # (B, 2, D)
        weight = None if training else gather(batch["weight"])  # what fills the last batch up
        loss, top1 = nt_xent(z, gather(z), offset(z), self.settings["temperature"], weight)
        return loss, {"contrast_top1": top1}

    def predict(self, model, batch):
        features = model.features(batch["image"])
        projection = model.project(features)  # in at least float32
        return {"features": ops.cast(features, projection.dtype), "projection": projection}

    def evaluators(self):
        num_classes = len(self.info.class_names)
        if not num_classes:  # without labels nothing can be said of features
            return []
        return [
            KNN(num_classes, self.settings["neighbors"]),
            LinearProbe(num_classes, self.settings["probe_labels"]),
        ]

    def signatures(self, model):
        def serve(image):
            return self.predict(model, {"image": image})

        return [Signature("serving_default", self.inputs, serve)]


TASK = Contrast
