"""An ensemble of classifiers: the mean of their probabilities.

Paper:   Neural Network Ensembles, Hansen and Salamon 1990, https://doi.org/10.1109/34.58871
Differs: probabilities are averaged where the paper lets networks vote (section II); `kerasdl
         ensemble` joins networks that were trained alone, as the paper's, while `train` gives all
         of them one loss, that of their mean.
"""

import keras

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.layers.core import Model, construct, register
from kerasdl.ops.likelihood import log_mean_softmax


@register
class Ensemble(Model):
    """Classifiers of the catalogue whose probabilities are averaged.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        members: Of each member `{"model": its name, ...}`, with further arguments of its builder.
        input_mean, input_std: Of those members that have none of their own.

    Attributes:
        members: The members, `member1` and so on.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) `(B, K)`: the logarithms of the mean probabilities.

    Raises:
        ValueError: No members, or one that is no classifier.
    """

    def __init__(self, image_shape, num_classes, members, input_mean=0.0, input_std=1.0, **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        common = {"num_classes": num_classes, "input_mean": input_mean, "input_std": input_std}
        self.members = []
        with keras.name_scope(self.name, caller=self):  # weights' paths begin with our name
            for i, member in enumerate(_checked(members), 1):
                given = {k: tuple(v) if isinstance(v, list) else v for k, v in member.items()}
                given = {**common, **given, "image_shape": self.image_shape, "name": f"member{i}"}
                self.members.append(catalog.build(given.pop("model"), **given))

    def build(self, input_shape):
        """Nothing is left to build: members come built."""

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.num_classes)

    def call(self, x, training=False):
        outputs = [member(x, training=training) for member in self.members]
        return log_mean_softmax([o["logits"] if isinstance(o, dict) else o for o in outputs])


def _checked(members):
    """The members, each of which names a classifier."""
    if not isinstance(members, tuple | list) or not members:
        raise UserError(f"members {members!r}: must be a list, of one {{model: NAME}} each")
    for member in members:
        if not isinstance(member, dict) or not isinstance(member.get("model"), str):
            raise UserError(f"members: {member!r} names no model; write {{model: NAME}}")
        if catalog.row(member["model"]).task != "classify":
            raise UserError(f"members: {member['model']} is no classifier")
    return members


def ensemble(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    """Five of `resnet20`."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    members = {"members": ({"model": "resnet20"},) * 5}
    return construct(Ensemble, "ensemble", given, members, kwargs)


TINY = {
    "ensemble": {
        "image_shape": (8, 6, 1),
        "num_classes": 5,
        "members": (
            {"model": "mlp", "dims": (9,)},
            {"model": "linear", "input_mean": 0.3},
        ),
        "input_mean": 0.4,
        "input_std": 0.6,
    },
}
RECIPE = {
    "ensemble": {
        "epochs": 20,
        "lr": 0.01,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
