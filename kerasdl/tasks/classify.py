"""Classification: one label per example, cross entropy or multiclass hinge loss."""

from keras import ops

from kerasdl.columns import Spec
from kerasdl.metrics.confusion import Confusion
from kerasdl.ops import losses as loss_functions
from kerasdl.ops.decoding import greedy
from kerasdl.tasks import class_weights
from kerasdl.tasks.task import Signature, Task


class Classify(Task):
    """One of `K` classes per example. Labels are `(B,)` integers, or `(B, K)` where mixed.

    `loss`: `cross_entropy` (with label smoothing) or `hinge`, the multiclass SVM's. With class
    weights the training loss is the weighted mean over the global batch; an example weighs what
    its class does, and one of mixed labels the sum of weights times label. The losses of the
    validation and the test part, and all accuracies, are not weighted.

    The model returns logits `(B, K)`, or a dict of `logits` and those of auxiliary heads, each of
    which adds `model.aux_weight` times its own loss while training.
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {"label": Spec((), "int32", "label")}
    metrics = ("loss", "top1", "top5")
    monitor = "top1"
    weighs_classes = True

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.num_classes = len(info.class_names)
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}
        self.loss = recipe.loss
        self.label_smoothing = recipe.label_smoothing
        self.class_weights = class_weights.given(recipe.class_weight, info)  # (K,) or None

    @staticmethod
    def head_classes(info):
        return info.class_names

    def measure(self, train):
        words, names = self.run_recipe.class_weight, self.info.class_names
        if not words:
            return []
        if self.class_weights is None:
            self.class_weights = class_weights.balanced(train, len(names))
        return class_weights.lines(self.class_weights, names)

    def arguments(self):
        return {
            "image_shape": tuple(self.info.image_shape),
            "num_classes": self.num_classes,
            "input_mean": tuple(self.info.input_mean) or 0.0,
            "input_std": tuple(self.info.input_std) or 1.0,
        }

    def losses(self, model, batch, player="model", training=False):
        outputs = model(self.model_inputs(model, batch), training=training)
        heads = outputs if isinstance(outputs, dict) else {"logits": outputs}
        logits = heads["logits"]
        label = batch["label"]
        if len(label.shape) == 1:
            label = ops.one_hot(label, self.num_classes, dtype=logits.dtype)
        label = ops.cast(label, logits.dtype)  # (B, K)
        loss = self._loss(label, logits, training)
        if training:
            for name, head in heads.items():
                if name != "logits":
                    loss = loss + model.aux_weight * self._loss(label, head, training)
            if self.class_weights is not None:
                weights = ops.convert_to_tensor(self.class_weights, dtype=logits.dtype)
                weight = ops.sum(label * weights, axis=-1)  # (B,)
                loss = (loss * weight, weight)
        true = ops.argmax(label, axis=-1)
        rank = rank_of(true, logits)
        return loss, {
            "top1": ops.cast(rank < 1, logits.dtype),
            "top5": ops.cast(rank < 5, logits.dtype),
        }

    def _loss(self, label, logits, training):
        if self.loss == "hinge":
            return loss_functions.multiclass_hinge(label, logits)
        return loss_functions.cross_entropy(label, logits, self.label_smoothing * training)

    def predict(self, model, batch):
        outputs = model(self.model_inputs(model, batch), training=False)
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs
        return {
            "probabilities": ops.softmax(logits, axis=-1),
            "logits": logits,
            "label": greedy(logits),
        }

    def evaluators(self):
        return [Confusion(self.info.class_names)]

    def signatures(self, model):
        def serve(image):
            return self.predict(model, {"image": image})

        outputs = {"label": Spec((), "int64", "label")}
        return [Signature("serving_default", self.inputs, serve, outputs=outputs)]

    def evaluated_by(self, target):
        return {
            "signature": "serving_default",
            "inputs": ["image"],
            "output": "logits",
            "target": "label",
            "loss": self.loss,
        }


def rank_of(true, logits):
    """How many classes stand before the true one: of equal scores, the lower label is first.

    Args:
        true: int `(B,)`.
        logits: float `(B, K)`; the rank among scores that are not numbers is `K - 1`.

    Returns:
        int32 `(B,)`.
    """
    classes = ops.arange(logits.shape[-1], dtype="int32")
    true = ops.cast(true, "int32")[:, None]
    score = ops.take_along_axis(logits, true, axis=-1)
    beaten = (score > logits) | ((score == logits) & (classes > true))
    return logits.shape[-1] - 1 - ops.sum(ops.cast(beaten, "int32"), axis=-1)


TASK = Classify
