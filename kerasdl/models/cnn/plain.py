"""A plain convolutional network for image classification, the control of studies of depth.

Paper:   Deep Residual Learning for Image Recognition, He et al. 2015,
         https://arxiv.org/abs/1512.03385 (section 4.2: plain networks of 6 n + 2 layers, and with
         shortcuts of option A).
Differs: the norm is a choice: none, batch (Ioffe and Szegedy 2015), layer (Ba et al. 2016),
         instance (Ulyanov et al. 2016) or group (Wu and He 2018); it stands after the convolution
         or after ReLU; with it after ReLU, there is no ReLU after the sum.
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    build_chain,
    check_counts,
    pad2d,
    padded_shortcut,
    register,
    strided,
)
from kerasdl.layers.norm import GroupNorm
from kerasdl.layers.remat import Block
from kerasdl.system.names import nearest

NORMS = ("none", "batch", "layer", "instance", "group")
ORDERS = ("conv", "activation")
STAGES = 3


def make_norm(norm, channels, groups):
    """The layer of a norm of `NORMS`, or None.

    Layer norm is group norm of one group, instance norm that of one channel per group (Wu and He
    2018, section 3.1).
    """
    if norm == "batch":
        return BatchNorm(name="norm")
    groups = {"layer": 1, "instance": channels, "group": groups}.get(norm)
    return groups and GroupNorm(groups, 1e-5, name="norm")


@register
class SeparableConv(keras.layers.Layer):
    """A convolution of each channel by itself, then a 1x1 convolution.

    It costs `1 / D + 1 / k^2` of a convolution of all channels.

    Args:
        filters: Channels of the output, `D`.
        kernel_size: Side `k` of the first kernel, odd.
        stride: Stride `s`.
        use_bias: Whether the second has a bias.

    Call arguments:
        x: float `(B, H, W, C)`.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.

    Source: Howard et al. 2017, https://arxiv.org/abs/1704.04861, section 3.1.
    """

    def __init__(self, filters, kernel_size=3, stride=1, use_bias=True, **kwargs):
        super().__init__(**kwargs)
        self.stride = stride
        self.pad = kernel_size // 2
        self.depthwise = keras.layers.DepthwiseConv2D(
            kernel_size,
            stride,
            use_bias=False,
            # All inputs of a unit are of one channel: variance 1 / k^2 leaves theirs as it is
            depthwise_initializer=keras.initializers.RandomNormal(stddev=1 / kernel_size),
            name="depthwise",
        )
        self.pointwise = Conv(filters, 1, use_bias=use_bias, name="pointwise")

    def build(self, input_shape):
        # Nothing but the channels matters, and a small map would be refused before it is padded
        self.depthwise.build((None, None, None, input_shape[-1]))
        self.pointwise.build(input_shape)

    def compute_output_shape(self, input_shape):
        return strided(input_shape, self.stride, self.pointwise.filters)

    def call(self, x):
        return self.pointwise(self.depthwise(pad2d(x, self.pad)))


@register
class ConvUnit(keras.layers.Layer):
    """Convolution, norm and ReLU, in that order or with the norm last.

    The convolution has a bias unless a norm follows it, which has its own.

    Args:
        filters: Channels of the output, `D`.
        kernel_size: Side of the square kernel, odd.
        stride: Stride `s`.
        norm: One of `NORMS`.
        norm_after: "conv" or "activation".
        groups: Of group norm.
        separable: Whether the convolution is a `SeparableConv`.
        last: Whether ReLU is left out where it would come last.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.
    """

    def __init__(
        self,
        filters,
        kernel_size=3,
        stride=1,
        norm="batch",
        norm_after="conv",
        groups=4,
        separable=False,
        last=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.before = norm_after == "conv"  # of ReLU
        self.activates = not (last and self.before)
        use_bias = norm == "none" or not self.before
        conv = SeparableConv if separable else Conv
        self.conv = conv(filters, kernel_size, stride, use_bias=use_bias, name="conv")
        self.norm = make_norm(norm, filters, groups)

    def build(self, input_shape):
        shape = build_chain(input_shape, self.conv)
        if self.norm is not None:
            self.norm.build(shape)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)

    def call(self, x, training=False):
        x = self.conv(x)
        if not self.before:
            x = ops.relu(x)
        if isinstance(self.norm, BatchNorm):
            x = self.norm(x, training=training)
        elif self.norm is not None:
            x = self.norm(x)
        return ops.relu(x) if self.before and self.activates else x


@register
class PlainBlock(Block):
    """Two 3x3 convolutions with norms and ReLUs; with `residual`, added to a shortcut (option A).

    Args:
        filters: Channels of the output, `D`.
        stride: Stride `s` of the first convolution and of the shortcut.
        residual: Whether there is a shortcut.
        norm, norm_after, groups, separable: As of `ConvUnit`.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.
    """

    def __init__(
        self,
        filters,
        stride=1,
        residual=False,
        norm="batch",
        norm_after="conv",
        groups=4,
        separable=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        self.residual = residual
        self.activates = norm_after == "conv"
        rest = {"norm": norm, "norm_after": norm_after, "groups": groups, "separable": separable}
        self.unit1 = ConvUnit(filters, 3, stride, **rest, name="unit1")
        self.unit2 = ConvUnit(filters, 3, **rest, last=residual, name="unit2")

    def build(self, input_shape):
        build_chain(input_shape, self.unit1, self.unit2)

    def compute_output_shape(self, input_shape):
        return strided(input_shape, self.stride, self.filters)

    def call(self, x, training=False):
        y = self.unit2(self.unit1(x, training=training), training=training)
        if not self.residual:
            return y
        y = y + padded_shortcut(x, self.stride, self.filters)
        return ops.relu(y) if self.activates else y


@register
class PlainBackbone(Backbone):
    """A stem, then three stages of blocks; the second and the third halve the map.

    Args:
        image_shape: `(H, W, C)`.
        depth: Layers with weights, the head among them: `6 n + 2`, `n` blocks per stage.
        filters: Channels of the stem and the first stage; they double with each stage.
        stem_size: Side of the stem's kernel, odd.
        norm: One of `NORMS`.
        norm_after: "conv", before ReLU, or "activation", after it.
        groups: Of group norm; they divide `filters`.
        residual: Whether each block is added to a shortcut without weights.
        separable: Whether the blocks' convolutions are depthwise, each followed by a 1x1 one.
        input_mean, input_std: Per channel, of images in [0, 1].

    Raises:
        ValueError: An unknown norm or place, a depth that is none, or an instance norm of which
            nothing would be left.
    """

    def __init__(
        self,
        image_shape,
        depth=8,
        filters=16,
        stem_size=3,
        norm="batch",
        norm_after="conv",
        groups=4,
        residual=False,
        separable=False,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        for name, value, allowed in (("norm", norm, NORMS), ("norm_after", norm_after, ORDERS)):
            if value not in allowed:
                near = nearest(str(value), allowed)
                raise UserError(f"{name} {value!r}: not one of {', '.join(allowed)}{near}")
        check_counts(depth=depth, filters=filters, stem_size=stem_size, groups=groups)
        if depth < 8 or depth % 6 != 2:
            raise UserError(f"depth {depth}: must be 6 n + 2, such as 8, 14, 20, 32 or 56")
        if not stem_size % 2:
            raise UserError(f"stem_size {stem_size}: must be odd")
        if norm == "instance" and norm_after == "activation":
            raise UserError(
                "norm_after activation: not with norm instance, after which the average over all "
                "places is the same for all images"
            )
        # Of a map of one pixel instance norm leaves 0
        check_size(self.image_shape, 2 ** (STAGES - 1) + (norm == "instance"), "plain")
        rest = {"norm": norm, "norm_after": norm_after, "groups": groups}
        self.stem = ConvUnit(filters, stem_size, **rest, name="stem")
        self.blocks = []
        for s in range(STAGES):
            for b in range((depth - 2) // 6):
                stride = 2 if s and not b else 1
                name = f"stage{s + 1}_block{b + 1}"
                self.blocks.append(
                    PlainBlock(
                        filters * 2**s, stride, residual, **rest, separable=separable, name=name
                    )
                )
        self.strides = {f"stage{s + 1}": 2**s for s in range(STAGES)}
        self.channels = {f"stage{s + 1}": filters * 2**s for s in range(STAGES)}

    def build(self, input_shape):
        build_chain(input_shape, self.normalize, self.stem, *self.blocks)

    def call(self, x, training=False):
        x = self.stem(self.normalize(x), training=training)
        features = {}
        for block in self.blocks:
            x = features[block.name.split("_")[0]] = block(x, training=training)
        return features


@register
class Plain(Classifier):
    """A `PlainBackbone`, average pooling, dropout and a dense layer; see `Classifier`."""

    backbone_class = PlainBackbone


def plain(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    """`depth`, `norm`, `norm_after` and `residual` choose its form."""
    return make(Plain, "plain", image_shape, num_classes, {}, kwargs)


TINY = {
    "plain": {
        "image_shape": (8, 12, 1),
        "num_classes": 7,
        "filters": 6,
        "stem_size": 5,
        "norm": "group",
        "norm_after": "activation",
        "groups": 3,
        "residual": True,
        "separable": True,
        "drop_rate": 0.1,
    },
}
# The first setting tried
RECIPE = {
    "plain": {
        "epochs": 20,
        "lr": 0.01,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
