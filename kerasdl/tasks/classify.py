"""Classification: one label per example, cross entropy or multiclass hinge loss."""

from keras import ops

from kerasdl.columns import ABSENT, Spec
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
            self.class_weights = class_weights.balanced(train, len(names), void=ABSENT)
        return class_weights.lines(self.class_weights, names)

    def arguments(self):
        return {
            "image_shape": tuple(self.info.image_shape),
            "num_classes": self.num_classes,
            "input_mean": tuple(self.info.input_mean) or 0.0,
            "input_std": tuple(self.info.input_std) or 1.0,
        }

    def losses(self, model, batch, player="model", training=False):
        heads = as_heads(model(self.model_inputs(model, batch), training=training))
        label, logits = self.label_of(batch, heads), heads["logits"]
        loss = self.of_heads(model, heads, training, lambda x: self._loss(label, x, training))
        if training and self.class_weights is not None:
            weight = self.weight_of(label)
            loss = (loss * weight, weight)
        return loss, accuracies(label, logits)

    def label_of(self, batch, heads):
        """The labels of a batch as rows `(B, K)` that sum to 1, in the dtype of the logits."""
        label, logits = batch["label"], heads["logits"]
        if len(label.shape) == 1:
            label = ops.one_hot(label, self.num_classes, dtype=logits.dtype)
        return ops.cast(label, logits.dtype)

    def of_heads(self, model, heads, training, loss):
        """`loss` `(B,)` of the logits, and while training of those of the auxiliary heads too."""
        total = loss(heads["logits"])
        if training:
            for name, head in heads.items():
                if name != "logits":
                    total = total + model.aux_weight * loss(head)
        return total

    def weight_of(self, label):
        """What each example counts in the training loss by its class, `(B,)` of labels `(B, K)`."""
        weights = ops.convert_to_tensor(self.class_weights, dtype=label.dtype)
        return ops.sum(label * weights, axis=-1)

    def _loss(self, label, logits, training):
        if self.loss == "hinge":
            return loss_functions.multiclass_hinge(label, logits)
        return loss_functions.cross_entropy(label, logits, self.label_smoothing * training)

    def predict(self, model, batch):
        logits = as_heads(model(self.model_inputs(model, batch), training=False))["logits"]
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


def as_heads(outputs) -> dict:
    """`logits`, and those of auxiliary heads, of what a classifier returns."""
    return outputs if isinstance(outputs, dict) else {"logits": outputs}


def accuracies(label, logits) -> dict:
    """Whether the class is the first, and one of the first five, `(B,)` each.

    Args:
        label: float `(B, K)`; the class is that of its largest number.
        logits: float `(B, K)`.
    """
    rank = rank_of(ops.argmax(label, axis=-1), logits)
    return {
        "top1": ops.cast(rank < 1, logits.dtype),
        "top5": ops.cast(rank < 5, logits.dtype),
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
