"""Localization of one object: a classifier with a second head for the box.

Paper:   OverFeat: Integrated Recognition, Localization and Detection using Convolutional Networks,
         Sermanet et al. 2013, https://arxiv.org/abs/1312.6229 (section 4: a regressor of the box
         with a squared loss on the classifier's convolutions).
Differs: one view of the image at one scale, no merging of boxes, one box for all classes; both
         heads are trained together on VGG's convolutions with batch norm; the class is that of the
         largest features of all places, so that it does not depend on where the object is.
"""

import keras
from keras import ops

from kerasdl.layers.classifier import dense_head
from kerasdl.layers.core import Model, build_chain, check_counts, construct, he_normal, register
from kerasdl.layers.dropout import Dropout
from kerasdl.models.cnn.vgg import VGGBackbone


@register
class Localizer(Model):
    """A `VGGBackbone`, and a dense layer and a head each for the class and the box.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        stages: Channels of each convolution of each stage.
        norm: Whether batch norm follows each convolution.
        fc_dim: Units of each dense layer.
        drop_rate: Dropout after each.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        `logits` `(B, K)` and `boxes` `(B, 4)`, `ymin xmin ymax xmax` in pictures, of float32 (or
        float64).
    """

    def __init__(
        self,
        image_shape=(48, 48, 1),
        num_classes=10,
        stages=((24,), (48, 48), (96, 96)),
        norm=True,
        fc_dim=128,
        drop_rate=0.0,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(num_classes=num_classes, fc_dim=fc_dim)
        self.backbone = VGGBackbone(image_shape, stages, norm, input_mean, input_std)
        self.flat = [side // 2 ** len(stages) for side in self.backbone.image_shape[:2]]
        self.dense = [
            keras.layers.Dense(
                fc_dim, activation="relu", kernel_initializer=he_normal(), name=f"{name}_fc"
            )
            for name in ("class", "box")
        ]
        self.drops = [Dropout(drop_rate, name=f"{name}_drop") for name in ("class", "box")]
        self.classes = dense_head(num_classes, "classes")
        self.box = dense_head(4, "box")

    def symbolic_inputs(self):
        return self.backbone.symbolic_inputs()

    def build(self, input_shape):
        self.backbone.build(input_shape)
        width = self.backbone.width
        units = width, self.flat[0] * self.flat[1] * width
        heads = self.classes, self.box
        for parts in zip(units, self.dense, self.drops, heads, strict=True):
            build_chain((None, parts[0]), *parts[1:])

    def call(self, x, training=False):
        maps = list(self.backbone(x, training=training).values())[-1]
        flat = ops.reshape(maps, (-1, self.flat[0] * self.flat[1] * self.backbone.width))
        parts = [
            drop(dense(x), training=training)
            for x, dense, drop in zip(
                (ops.max(maps, axis=(1, 2)), flat), self.dense, self.drops, strict=True
            )
        ]
        return {"logits": self.classes(parts[0]), "boxes": self.box(parts[1]) + 0.5}


def locate_small(image_shape=(48, 48, 1), num_classes=10, **kwargs):
    """Five convolutions, dense layers of 256 units: for scenes of one digit."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(Localizer, "locate_small", given, {"fc_dim": 256}, kwargs)


TINY = {
    "locate_small": {
        "image_shape": (9, 14, 3),
        "num_classes": 5,
        "stages": ((4,), (6,)),
        "norm": False,
        "fc_dim": 8,
        "drop_rate": 0.1,
    },
}
RECIPE = {
    # Of four settings, the one with the highest overlap of the validation part
    "locate_small": {
        "epochs": 20,
        "batch_size": 64,
        "lr": 0.005,
        "warmup_epochs": 0.5,
        "weight_decay": 0.01,
        "augment": ("shift",),
        "task_kwargs": {"box_weight": 100.0},
    },
}
