"""Distillation: a classifier that learns, besides labels, what another one answers.

Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531 (softened logits);
        Romero et al. 2014, https://arxiv.org/abs/1412.6550 (features by a learned map);
        Beyer et al. 2021, https://arxiv.org/abs/2106.05237 (both see the same augmented image).
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Classifier, pooled_last
from kerasdl.ops import losses as loss_functions
from kerasdl.system.names import few
from kerasdl.tasks.classify import Classify, accuracies, as_heads

UNLABELED = 1e-6  # of a label's row, the sum below which there is none


class Teacher:
    """A trained classifier, asked in inference: nothing of it is trained.

    Args:
        name: Where it is from, for messages.
        model: Its Keras model.
        info: The `DataInfo` that it was trained with.
    """

    def __init__(self, name: str, model, info):
        self.name, self.model, self.info = name, model, info
        self.model.trainable = False
        self.order = None  # of the student's classes among its own, where it is another one

    def check(self, info, features: bool) -> None:
        """Refuse a teacher of other data than the student's.

        Args:
            info: The student's `DataInfo`.
            features: Whether its features are asked for.

        Raises:
            UserError: It has other classes or channels, or no feature maps.
        """
        ours, theirs = info.class_names, self.info.class_names
        if other := sorted(set(ours) ^ set(theirs)):
            lacks = "lacks" if other[0] in ours else "has besides"
            raise UserError(
                f"--distill-from {self.name}: its classes are not those of the data: it {lacks} "
                f"{few(other)}"
            )
        channels, own = info.image_shape[-1], self.info.image_shape[-1]
        if channels != own:
            raise UserError(
                f"--distill-from {self.name}: takes images of {own} channels, the data have "
                f"{channels}"
            )
        if features and not isinstance(self.model, Classifier):
            raise UserError(
                f"--distill features: {self.name} has no feature maps: take --distill logits"
            )
        if ours != theirs:
            self.order = [theirs.index(name) for name in ours]

    def logits(self, image):
        """Logits `(B, K)` in the student's order of classes, of images float `(B, H, W, C)`."""
        logits = as_heads(self.model(self._resized(image), training=False))["logits"]
        if self.order is not None:
            logits = ops.take(logits, self.order, axis=-1)
        return ops.stop_gradient(logits)

    def features(self, image):
        """Features `(B, C)` of images float `(B, H, W, C)`."""
        return ops.stop_gradient(pooled_last(self.model.maps(self._resized(image))))

    def _resized(self, image):
        """Images at the size that it was trained with."""
        size = tuple(self.info.image_shape[:2])
        if tuple(image.shape[1:3]) == size:
            return image
        return ops.image.resize(image, size, interpolation="bilinear", data_format="channels_last")


class Distill(Classify):
    """Classification with a teacher, whose loss weighs `w`, the setting `distill_weight`.

    An example costs `(1 - w)` times the loss of its label and `w` times the teacher's: of logits
    `kerasdl.ops.losses.distillation`, of features `cosine_distance`. One without a label, which is
    `ABSENT` or of which mixing left nothing, costs the teacher's part alone, and its accuracy does
    not count; a label that mixing left a part of counts as that part. Class weights are of labels:
    what has none weighs 1. In evaluation the loss is that of the labels, as of `Classify`.

    Args:
        info: What the data are.
        recipe: The training settings.
        teacher: A `Teacher`.

    Raises:
        UserError: A teacher that does not fit the data.
    """

    def __init__(self, info, recipe, teacher: Teacher):
        super().__init__(info, recipe)
        self.of_features = recipe.distill == "features"
        teacher.check(info, self.of_features)
        self.teacher = teacher
        self.temperature = recipe.distill_temperature
        self.teacher_weight = recipe.distill_weight
        self.map = None  # from the student's features to the teacher's

    def extra_weights(self, model):
        if not self.of_features:
            return []
        if not isinstance(model, Classifier):
            raise UserError(
                f"--distill features: {model.name} has no feature maps: take --distill logits"
            )
        image = keras.Input(model.backbone.image_shape)
        own = pooled_last(model.maps(image)).shape[-1]
        theirs = self.teacher.features(image).shape[-1]
        if own != theirs:
            self.map = keras.layers.Dense(theirs, use_bias=False, name="map")
            self.map.build((None, own))
        return self.map.weights if self.map else []

    def variables(self, model, player):
        return super().variables(model, player) + (self.map.weights if self.map else [])

    def losses(self, model, batch, player="model", training=False):
        if not training:
            return super().losses(model, batch, player, training)
        image = self.model_inputs(model, batch)
        if self.of_features:
            maps = model.maps(image, training=True)
            heads = as_heads(model.classify(maps, training=True))
            taught = self._of_features(pooled_last(maps), self.teacher.features(image))
        else:
            heads = as_heads(model(image, training=True))
            taught = self._of_logits(model, heads, self.teacher.logits(image))
        label, logits = self.label_of(batch, heads), heads["logits"]
        there = ops.sum(label, axis=-1)  # (B,), 0 without a label
        there = ops.where(there > UNLABELED, there, ops.zeros_like(there))
        known = label / ops.maximum(there, UNLABELED)[:, None]
        loss = self.of_heads(model, heads, True, lambda x: self._loss(known, x, True))
        weight = self.teacher_weight
        loss = (1.0 - weight) * there * loss + weight * ops.cast(taught, loss.dtype)
        if self.class_weights is not None:
            counted = self.weight_of(label) + (1.0 - there)
            loss = (loss * counted, counted)
        right = accuracies(label, logits)
        return loss, {name: (value * there, there) for name, value in right.items()}

    def _of_logits(self, model, heads, teacher):
        """The teacher's loss `(B,)` of the logits, and of the auxiliary heads' too."""

        def one(logits):
            given = ops.cast(teacher, logits.dtype)
            return loss_functions.distillation(given, logits, self.temperature)

        return self.of_heads(model, heads, True, one)

    def _of_features(self, own, teacher):
        """The teacher's loss `(B,)` of features."""
        own = own if self.map is None else self.map(own)
        precise = self.map.variable_dtype if self.map else keras.config.floatx()
        return loss_functions.cosine_distance(*(ops.cast(x, precise) for x in (own, teacher)))
