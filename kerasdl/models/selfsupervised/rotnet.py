"""Representations from the rotation of images.

Paper:   Unsupervised Representation Learning by Predicting Image Rotations, Gidaris et al. 2018,
         https://arxiv.org/abs/1803.07728 (section 3; section 4.1 for the network of four blocks).
Differs: weights start He normal. `rotnet_small` is the project's own row.
"""

from kerasdl.errors import UserError
from kerasdl.layers.classifier import dense_head, pooled, pooled_last
from kerasdl.layers.core import construct_on_backbone, register
from kerasdl.models.selfsupervised.on_backbone import OnBackbone
from kerasdl.system.names import nearest


@register
class RotNet(OnBackbone):
    """A backbone, average pooling, and a dense layer to the four rotations.

    Args:
        image_shape: `(H, W, C)`.
        backbone: Name of a vision model of the catalogue.
        stage: Of the backbone, whose mean is the representation; its last if None. Those of the
            last blocks are made for rotations (table 1 of the paper).
        input_mean, input_std: Per channel, of images in [0, 1].
        **backbone_args: Further arguments of the backbone's builder.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, 4)` of 0 to 3 quarter turns.
    """

    def __init__(
        self,
        image_shape=(32, 32, 3),
        backbone="nin",
        stage=None,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        statistics = {"input_mean": input_mean, "input_std": input_std}
        self.set_backbone(backbone, image_shape, **statistics, **backbone_args)
        stages = list(self.backbone.channels)
        self.stage = stages[-1] if stage is None else stage
        if self.stage not in stages:
            raise UserError(
                f"stage {stage!r}: not one of {', '.join(stages)}{nearest(str(stage), stages)}"
            )
        self.head = dense_head(4)

    def features(self, x, training=False):
        """The representation, float `(B, C)`: what is kept for other uses."""
        return pooled(self.backbone(x, training=training)[self.stage])

    def call(self, x, training=False):
        return self.head(pooled_last(self.backbone(x, training=training)))


def rotnet(image_shape=(32, 32, 3), **kwargs):
    filters = ((192, 160, 96), (192, 192, 192), (192, 192, 192), (192, 192, 192))
    sizes = {"backbone": "nin", "filters": filters, "norm": True, "drop_rate": 0.0}
    return construct_on_backbone(RotNet, "rotnet", image_shape, sizes, kwargs)


def rotnet_small(image_shape=(32, 32, 3), **kwargs):
    """From a twelfth to a quarter of the channels."""
    filters = ((16, 12, 8), (24, 24, 24), (48, 48, 48), (48, 48, 48))
    sizes = {"backbone": "nin_small", "filters": filters, "norm": True}
    return construct_on_backbone(RotNet, "rotnet_small", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (8, 8, 1),
    "backbone": "nin",
    "filters": ((6, 5), (7,), (8,), (9,)),
    "norm": True,
    "drop_rate": 0.1,
    "stage": "stage3",
}
TINY = {"rotnet": _TINY, "rotnet_small": _TINY}
# Of three settings, by the gain of the linear probe on validation
RECIPE = {
    "rotnet_small": {
        "epochs": 12,
        "batch_size": 64,
        "lr": 0.003,
        "augment": ("flip",),
        "weights": "last",
    }
}
