"""What self-supervised tasks of images share: how features are evaluated and served."""

from keras import ops

from kerasdl.columns import Spec
from kerasdl.metrics.probe import KNN, LinearProbe
from kerasdl.metrics.spread import OF_EMBEDDINGS, OF_FEATURES, Spread
from kerasdl.ops.decoding import greedy
from kerasdl.ops.losses import token_cross_entropy
from kerasdl.tasks.task import Number, Signature, Task


class Representation(Task):
    """Images whose features are learned without labels; models have `features(x)`.

    It is said where they collapse (`metrics/spread.py`). Where the data have labels, features are
    evaluated by their nearest neighbors in the training part, and by a linear classifier that
    learns from `probe_labels` training examples.
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {"label": Spec((), "int32", "label")}
    optional = ("label",)
    settings = {"neighbors": 20, "probe_labels": 50}
    allowed = {
        "neighbors": Number(1, whole=True),
        "probe_labels": Number(1, whole=True),
    }
    monitor = "-loss"
    recipe = {"eval_epochs": 10}
    collapsed = OF_FEATURES  # a spread of embeddings below which it is said

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}

    def arguments(self):
        return {
            "image_shape": tuple(self.info.image_shape),
            "input_mean": tuple(self.info.input_mean) or 0.0,
            "input_std": tuple(self.info.input_std) or 1.0,
        }

    def predict(self, model, batch):
        return {"features": ops.cast(model.features(batch["image"]), model.variable_dtype)}

    def evaluators(self):
        num_classes = len(self.info.class_names)
        if not num_classes:
            return [Spread(self.collapsed)]
        return [
            Spread(self.collapsed),
            KNN(num_classes, self.settings["neighbors"]),
            LinearProbe(num_classes, self.settings["probe_labels"]),
        ]

    def signatures(self, model):
        def serve(image):
            return self.predict(model, {"image": image})

        return [Signature("serving_default", self.inputs, serve)]


class Projected(Representation):
    """A loss compares what a head makes of features; models have `project(features)` too."""

    collapsed = OF_EMBEDDINGS

    def predict(self, model, batch):
        features = model.features(batch["image"])
        projection = model.project(features)  # in at least float32
        return {"features": ops.cast(features, projection.dtype), "projection": projection}


class Pretext(Representation):
    """A class that follows from how an image is changed is to be predicted.

    A task names the column of that class, which it makes in `prepare`, `pretext`; models return
    logits `(B, K)`.
    """

    pretext = ""
    metrics = ("loss", "pretext_top1")

    def losses(self, model, batch, player="model", training=False):
        logits = model(self.model_inputs(model, batch), training=training)
        label = batch[self.pretext]
        loss = token_cross_entropy(label[:, None], logits[:, None])[:, 0]
        return loss, {"pretext_top1": ops.cast(greedy(logits) == label, logits.dtype)}
