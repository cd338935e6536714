"""Split-brain autoencoder: two halves of a network, each predicts what the other one is given.

Paper:   Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction, Zhang et al.
         2017, https://arxiv.org/abs/1611.09842 (figure 2; section 3; section 4.1 for Lab).
Differs: the halves of `split_brain` have half of AlexNet's channels each, and no groups; a single
         convolution of 1x1 predicts, where the paper has more of them. `split_brain_small` is the
         project's own row.
"""

import keras
import numpy as np
from keras import ops

from kerasdl import catalog
from kerasdl.layers.classifier import Backbone, dense_head
from kerasdl.layers.core import check_counts, construct_on_backbone, register
from kerasdl.models.selfsupervised.cross_channel import AB, LIGHTNESS, CrossChannel, check_colors
from kerasdl.ops.lab import rgb_to_lab

HALVES = {"lightness": 1, "ab": 2}  # channels of what each is given


@register
class SplitBackbone(Backbone):
    """Two backbones of one kind, for lightness and for color, whose maps stand side by side.

    Args:
        image_shape: `(H, W, 3)`.
        half: Name of a vision model of the catalogue.
        **backbone_args: Further arguments of its builder.
    """

    def __init__(self, image_shape, half, name="backbone", dtype=None, trainable=True, **args):
        # Lab is brought into [0, 1]
        low, width = (0.0, -AB, -AB), (LIGHTNESS, 2 * AB, 2 * AB)
        super().__init__(image_shape, low, width, name=name, dtype=dtype, trainable=trainable)
        for channels, count in HALVES.items():
            with keras.name_scope(self.name, caller=self), keras.name_scope(channels):
                shape = (*self.image_shape[:2], count)
                made = catalog.build(half, features=True, image_shape=shape, **args)
            setattr(self, channels, made)
        self.strides = made.strides
        self.channels = {stage: 2 * count for stage, count in made.channels.items()}

    def last_map(self):
        return self.lightness.last_map()

    def build(self, input_shape):
        self.normalize.build(input_shape)  # the halves come built

    def call(self, x, training=False):
        lab = self.normalize(rgb_to_lab(x))
        given = {"lightness": lab[..., :1], "ab": lab[..., 1:]}
        maps = [getattr(self, name)(given[name], training=training) for name in HALVES]
        return {stage: ops.concatenate([m[stage] for m in maps], axis=-1) for stage in maps[0]}


@register
class SplitBrain(CrossChannel):
    """A half that predicts color from lightness, and one that predicts lightness from color.

    Args:
        image_shape: `(H, W, 3)`.
        backbone: Name of a vision model of the catalogue, of which each half is one.
        objective: "classification", of colors and lightness as classes, or "regression", of their
            numbers.
        grid: Distance of two colors that are classes; see `ops.lab.ab_bins`.
        lightness_bins: Classes of lightness, of equal width.
        input_mean, input_std: Of the data; not used: the halves see Lab, brought into [0, 1].
        **backbone_args: Further arguments of the halves' builder.

    Call arguments:
        x: float `(B, H, W, 3)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        `{"ab": float32 (or float64) (B, h, w, Q), "lightness": (B, h, w, P)}` of the image at the
        size of the backbone's last map: logits of `bins`, or numbers over `scales`.

    Raises:
        UserError: Images without colors, or an unknown objective.
    """

    def __init__(
        self,
        image_shape=(227, 227, 3),
        backbone="alexnet",
        objective="classification",
        grid=10,
        lightness_bins=100,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(objective, grid, name=name, dtype=dtype, trainable=trainable)
        check_colors(image_shape)
        check_counts(lightness_bins=lightness_bins)
        centers = LIGHTNESS * (np.arange(lightness_bins, dtype=np.float32) + 0.5) / lightness_bins
        self.bins["lightness"] = centers[:, None]
        self.classifier = None  # no classifier of the catalogue is made of two
        with keras.name_scope(self.name, caller=self):
            self.backbone = SplitBackbone(image_shape, backbone, **backbone_args)
        self.head_ab = dense_head(self.outputs("ab"), name="head_ab")
        self.head_lightness = dense_head(self.outputs("lightness"), name="head_lightness")

    def build(self, input_shape):
        self.backbone.build(input_shape)
        shape = (None, *self.backbone.last_map(), self.backbone.width // 2)
        self.head_ab.build(shape)
        self.head_lightness.build(shape)

    def call(self, x, training=False):
        maps = list(self.backbone(x, training=training).values())[-1]
        of_lightness, of_ab = ops.split(maps, 2, axis=-1)
        return {"ab": self.head_ab(of_lightness), "lightness": self.head_lightness(of_ab)}


def split_brain(image_shape=(227, 227, 3), **kwargs):
    sizes = {"filters": (48, 128, 192, 192, 128), "groups": 1}
    return construct_on_backbone(SplitBrain, "split_brain", image_shape, sizes, kwargs)


def split_brain_small(image_shape=(32, 32, 3), **kwargs):
    """Halves with half the channels of a small residual network."""
    sizes = {"backbone": "resnet20", "depths": (1, 1, 1), "filters": 8}
    return construct_on_backbone(SplitBrain, "split_brain_small", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 3),
    "backbone": "resnet32",
    "depths": (1, 1),
    "filters": 4,
    "grid": 40,
    "lightness_bins": 6,
}
TINY = {"split_brain": _TINY, "split_brain_small": _TINY}
RECIPE = {
    "split_brain_small": {"epochs": 3, "batch_size": 64, "lr": 0.003, "weights": "last"},
}
