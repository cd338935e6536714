"""Colors of an image from its lightness, without labels; and lightness from color, where a model
predicts that too.

Source: Zhang et al. 2016, https://arxiv.org/abs/1603.08511, section 2;
        Zhang et al. 2017, https://arxiv.org/abs/1611.09842, section 3.1.
"""

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.errors import UserError
from kerasdl.ops import lab
from kerasdl.ops.losses import cross_entropy
from kerasdl.tasks.representation import Representation
from kerasdl.tasks.task import Number, Signature

MEASURED = 1000  # images at most, evenly spread, whose colors are counted
CHUNK = 20  # of them at a time
REACH = 128  # of `a` and `b`
NEIGHBORS = {"ab": 5, "lightness": 1}  # classes that a place stands for
SHOWN = 8  # images of the pictures


class Colorize(Representation):
    """Images are given to a model that predicts channels of Lab from others, at a smaller size.

    The model says which: it answers with `{"ab": ...}`, and `lightness` if it predicts that too,
    and has `bins`, `scales`, `objective` and `colored`. A place costs the cross entropy of its
    color, which stands for the nearest five classes, and of its lightness, which stands for the
    nearest one; or half the squared distance of the numbers. The loss is the mean over all places,
    summed over what is predicted. `color_error` is the mean distance of colors in Lab, of annealed
    means at the model's size.

    Settings:
        objective: "classification", where rare colors count more in training, or "regression".
        uniform: How much they do not: weights are one over the mixture of so much of the uniform
            distribution with that of the training part's colors. Of 1 all count alike.
        temperature: Of the annealed mean, which makes a color of classes.
    """

    settings = {
        "objective": "classification",
        "uniform": 0.5,
        "temperature": 0.38,
        **Representation.settings,
    }
    allowed = {
        "objective": ("classification", "regression"),
        "uniform": Number(0.01, 1),
        "temperature": Number(0.01, 1),
        **Representation.allowed,
    }
    metrics = ("loss", "color_error")

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        if info.image_shape[-1] != 3:
            raise UserError(
                f"images of {info.image_shape[-1]} channels: colors are learned from images that "
                "have some, such as photos"
            )
        self.counts = None  # of the training part: pixels of each whole `a` and `b`

    def arguments(self):
        return {**super().arguments(), "objective": self.settings["objective"]}

    def measure(self, train):
        """Count the colors of the training part."""
        if self.settings["objective"] == "regression" or self.settings["uniform"] == 1:
            return []
        images, number = train.only(["image"]), min(len(train), MEASURED)
        self.counts = np.zeros((2 * REACH + 1, 2 * REACH + 1), np.int64)
        for rows in np.array_split(np.arange(number) * len(train) // number, -(-number // CHUNK)):
            image = images.read(rows)["image"]
            whole = np.issubdtype(image.dtype, np.integer)
            colors = lab.rgb_to_lab(image.astype(np.float32) / (255 if whole else 1))
            a, b = np.rint(np.asarray(colors)[..., 1:]).astype(int).reshape(-1, 2).T
            np.add.at(self.counts, (a + REACH, b + REACH), 1)
        return []

    def class_weights(self, bins):
        """How much a place of each class of color counts in training.

        Args:
            bins: The classes, numpy `(Q, 2)`.

        Returns:
            numpy `(Q,)`, ones where nothing was measured.
        """
        if self.counts is None:
            return np.ones(len(bins))
        colors = np.argwhere(self.counts)
        nearest = np.square(colors[:, None] - REACH - bins).sum(-1).argmin(1)
        counts = np.bincount(nearest, self.counts[tuple(colors.T)], len(bins))
        return lab.rebalanced(counts, bins, self.settings["uniform"])

    def losses(self, model, batch, player="model", training=False):
        image = batch["image"]
        predicted = model(image, training=training)
        image = ops.cast(image, predicted["ab"].dtype)
        colors = lab.averaged(lab.rgb_to_lab(image), predicted["ab"].shape[1:3])
        true = {"lightness": colors[..., :1], "ab": colors[..., 1:]}
        loss = sum(
            ops.mean(self._errors(model, name, value, true[name], training), axis=(1, 2))
            for name, value in predicted.items()
        )
        shown = model.colors(predicted["ab"], self.settings["temperature"])
        far = ops.sqrt(ops.sum(ops.square(shown - true["ab"]), axis=-1))
        return loss, {"color_error": ops.mean(far, axis=(1, 2))}

    def _errors(self, model, name, predicted, true, training):
        """What each place costs `(B, h, w)`."""
        if model.objective == "regression":
            return ops.sum(ops.square(predicted - true / model.scales[name]), axis=-1) / 2.0
        bins = model.bins[name]
        label = lab.soft_encoded(true, bins, NEIGHBORS[name])
        loss = cross_entropy(label, predicted)
        if name == "ab" and training and self.counts is not None:
            weights = ops.convert_to_tensor(self.class_weights(bins), dtype=loss.dtype)
            loss = loss * ops.take(weights, ops.argmax(label, axis=-1))
        return loss

    def pictures(self, model, batch):
        """From above: images, their lightness, and it with the colors predicted."""
        image = batch["image"][:SHOWN]
        gray = lab.lab_to_rgb(lab.rgb_to_lab(image) * ops.convert_to_tensor([1.0, 0.0, 0.0]))
        colored = ops.cast(model.colored(image, self.settings["temperature"]), image.dtype)
        return {"colored": ops.stack([image, ops.cast(gray, image.dtype), colored])}

    def signatures(self, model):
        def colorize(image):
            return {"colored": model.colored(image, self.settings["temperature"])}

        spec = Spec(self.inputs["image"].shape, "float32", "image")
        return [
            *super().signatures(model),
            Signature("colorize", self.inputs, colorize, outputs={"colored": spec}),
        ]


TASK = Colorize
