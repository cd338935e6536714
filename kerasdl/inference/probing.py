"""What the frozen features of a model say about classes, with the labels of few examples."""

from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from kerasdl import catalog
from kerasdl.columns import PARTS
from kerasdl.data import pipeline
from kerasdl.errors import UserError
from kerasdl.metrics.probe import KNN, logistic_regression
from kerasdl.ops.labels import balanced
from kerasdl.recipe import label_settings

FROZEN = ("linear", "logistic", "knn")
L2S = tuple(10.0**power for power in range(-3, 4))  # that the linear probe chooses among
BATCH = 256


@dataclass(frozen=True)
class Features:
    """Features `{part: float64 (N, C)}` and labels `{part: int (N,)}` of a data set."""

    values: dict
    labels: dict
    num_classes: int

    def accuracy(self, predict, part):
        """The fraction of a part whose classes `predict` gives."""
        return float(np.mean(predict(self.values[part]) == self.labels[part]))


def of_model(model, source) -> Features:
    """The features of all examples of a data set.

    Args:
        model: With `features(x)`, or a classifier with a backbone, whose mean over all places is
            taken.
        source: A `kerasdl.data.splits.Source` of images with one label each.

    Raises:
        UserError: There are no labels, or images that are none for the model.
    """
    info = source.info
    label = next((n for n, c in info.named("label").items() if not c.shape), None)
    if label is None:
        raise UserError(f"{source.name}: has not one label per example, which a probe needs")
    image = next(iter(info.named("image")))

    @tf.function(reduce_retracing=True, autograph=False)
    def run(x):
        return features_of(model, x)

    values, labels = {}, {}
    for part in PARTS:
        batches = pipeline.evaluation_batches(getattr(source, part), info.columns, batch_size=BATCH)
        rows = [(run(b[image]).numpy(), b[label].numpy(), b["weight"].numpy() > 0) for b in batches]
        values[part] = np.concatenate([x[real] for x, _, real in rows]).astype(np.float64)
        labels[part] = np.concatenate([y[real] for _, y, real in rows])
    return Features(values, labels, len(info.columns[label].class_names))


def features_of(model, x):
    """What stands for images `(B, H, W, C)`: `(B, D)`.

    Raises:
        UserError: The model has none.
    """
    if hasattr(model, "features"):
        return model.features(x)
    if hasattr(model, "backbone") and hasattr(model, "pool"):
        return model.pool(model.backbone(x))
    raise UserError(f"{model.name} has no features to be probed")


def at_random_start(run, seed):
    """The model of a `kerasdl.store.runs.Run` as it starts with a seed."""
    keras.utils.set_random_seed(seed)
    return catalog.build(run.model_name, **run.model_arguments)


def chosen_labels(label, labels: str, seed) -> np.ndarray:
    """Positions of the training examples whose labels are used.

    Args:
        label: int `(M,)`, of the training part.
        labels: `all`, a number in all, as equally many of each class as there are, or `N/class`.
        seed: Of the choice.
    """
    given = label_settings(labels)
    return balanced(label, given.get("labels"), given.get("labels_per_class"), seed)


def probe(features: Features, method: str, chosen, neighbors: int, temperature: float) -> dict:
    """Evaluate features on the test part.

    Args:
        features: Of all parts.
        method: "linear", multinomial logistic regression whose regularization is the one of `L2S`
            that is best on the validation part, the largest of equally good ones; "logistic", with
            regularization 1, which looks at no more labels; or "knn", a vote of the nearest.
        chosen: int `(n,)`, the training examples whose labels are used.
        neighbors: `k` of knn, at most `n`.
        temperature: `tau` of knn: a neighbor counts `exp(cosine / tau)`.

    Returns:
        `top1` of the test part, and `validation_top1`; of "linear" also `l2`.
    """
    known, label = features.values["train"], features.labels["train"]

    def result(predict):
        return {
            "top1": features.accuracy(predict, "test"),
            "validation_top1": features.accuracy(predict, "validation"),
        }

    if method == "knn":
        vote = KNN(features.num_classes, neighbors, temperature)
        return result(lambda x: vote.predict(known[chosen], label[chosen], x))
    if method == "logistic":
        return result(logistic_regression(known, label, chosen, 1.0))
    best = {}
    for l2 in reversed(L2S):
        one = {**result(logistic_regression(known, label, chosen, l2)), "l2": l2}
        if not best or one["validation_top1"] > best["validation_top1"]:
            best = one
    return best
