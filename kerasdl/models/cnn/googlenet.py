"""GoogLeNet, the first Inception network, for image classification.

Paper:   Going Deeper with Convolutions, Szegedy et al. 2014,
         https://arxiv.org/abs/1409.4842 (table 1; figure 3; section 5 for the auxiliary heads).
Differs: weights start He normal, the paper does not say how; the average pooling before the last
         layer takes any map, not 7x7 alone. `googlenet_small` is the project's own row.
"""

import keras
from keras import ops

from kerasdl.layers.classifier import Backbone, Classifier, check_size, dense_head, make
from kerasdl.layers.core import Conv, ConvNorm, build_chain, register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.norm import LocalResponseNorm
from kerasdl.layers.remat import Block

# Table 1: (1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj) per module, stages 3, 4 and 5
TABLE_1 = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)
# Section 5, of the auxiliary heads
AUX_POOL, AUX_STRIDE, AUX_FILTERS, AUX_DIM, AUX_DROP = 5, 3, 128, 1024, 0.7


def out_channels(widths):
    """Channels of a module of these widths: 1x1, 3x3, 5x5 and pool projection side by side."""
    return sum(widths[i] for i in (0, 2, 4, 5))


def pooled(size):
    """Side of a map of side `size` after 3x3 max pooling at stride 2, rounded up as in Caffe."""
    return size // 2


def max_pool(x):
    """3x3 max pooling at stride 2 of `x >= 0`; the last window may reach beyond the map.

    TensorFlow's "same" pooling equals it on even sides only.
    """
    over = [(0, 2 * pooled(n) + 1 - n) for n in x.shape[1:3]]
    x = ops.pad(x, ((0, 0), *over, (0, 0)))  # zeros are right: x >= 0
    return ops.max_pool(x, 3, 2)


def conv(filters, kernel_size, stride=1, norm=False, **kwargs):
    """Convolution with a bias, or batch norm, and ReLU."""
    if norm:
        return ConvNorm(filters, kernel_size, stride, activation="relu", **kwargs)
    return Conv(filters, kernel_size, stride, activation="relu", **kwargs)


@register
class Inception(Block):
    """Four branches side by side: 1x1, 1x1-3x3, 1x1-5x5 and pool-1x1 (figure 2b).

    Args:
        widths: Channels of 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5 and pool projection.
        norm: Batch norm instead of biases.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, H, W, D)`, `D` the sum of the four branches' widths.
    """

    def __init__(self, widths, norm=False, **kwargs):
        super().__init__(**kwargs)
        self.widths = tuple(widths)
        self.norm = norm
        one, reduce3, three, reduce5, five, project = self.widths
        self.conv1 = conv(one, 1, norm=norm, name="conv1")
        self.reduce3 = conv(reduce3, 1, norm=norm, name="reduce3")
        self.conv3 = conv(three, 3, norm=norm, name="conv3")
        self.reduce5 = conv(reduce5, 1, norm=norm, name="reduce5")
        self.conv5 = conv(five, 5, norm=norm, name="conv5")
        self.project = conv(project, 1, norm=norm, name="project")

    def build(self, input_shape):
        build_chain(input_shape, self.conv1)
        build_chain(input_shape, self.reduce3, self.conv3)
        build_chain(input_shape, self.reduce5, self.conv5)
        build_chain(input_shape, self.project)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], out_channels(self.widths))

    def call(self, x, training=False):
        def run(layer, x):
            return layer(x, training=training) if self.norm else layer(x)

        branches = [
            run(self.conv1, x),
            run(self.conv3, run(self.reduce3, x)),
            run(self.conv5, run(self.reduce5, x)),
            run(self.project, ops.max_pool(x, 3, 1, padding="same")),
        ]
        return ops.concatenate(branches, axis=-1)


@register
class AuxiliaryHead(keras.layers.Layer):
    """Average pooling, 1x1 convolution, two dense layers (section 5).

    Args:
        num_classes: `K`.

    Call arguments:
        x: float `(B, H, W, C)`, of a fixed size of at least 5x5.
        training: Whether dropout is on.

    Returns:
        Logits `(B, K)`.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.conv = Conv(AUX_FILTERS, 1, activation="relu", name="conv")
        self.flatten = keras.layers.Flatten(name="flatten")
        self.fc = keras.layers.Dense(
            AUX_DIM, activation="relu", kernel_initializer="he_normal", name="fc"
        )
        self.drop = Dropout(AUX_DROP, name="drop")
        self.head = dense_head(num_classes)

    def build(self, input_shape):
        batch, *sides, channels = input_shape
        sides = [(side - AUX_POOL) // AUX_STRIDE + 1 for side in sides]
        shape = (batch, *sides, channels)
        build_chain(shape, self.conv, self.flatten, self.fc, self.drop, self.head)

    def call(self, x, training=False):
        x = self.conv(ops.average_pool(x, AUX_POOL, AUX_STRIDE))  # (B, 4, 4, 128) of a 14x14 map
        x = self.drop(self.fc(self.flatten(x)), training=training)
        return self.head(x)


def least_size(small, minimum=2):
    """Smallest side of an image whose map in the second stage of modules is `minimum` or more.

    One more pooling follows, which needs 2.
    """
    size = minimum * 2 ** (1 if small else 3)
    return size if small else 2 * size - 1  # conv1 rounds up


@register
class GoogLeNetBackbone(Backbone):
    """Stem, then Inception modules in three stages with max pooling between them.

    Args:
        image_shape: `(H, W, C)`.
        filters: Channels of the stem's convolutions.
        stages: Widths of each module of each stage.
        small: A stem of one 3x3 convolution at stride 1 without pooling, and batch norm in place
            of biases and local response normalization.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether batch norm uses, and updates, batch statistics.
        taps: Also return the two maps that the auxiliary heads take, as `tap1` and `tap2`: those
            of the first and the last but one module of the second stage (4a and 4d).
    """

    def __init__(
        self,
        image_shape,
        filters=(64, 64, 192),
        stages=TABLE_1,
        small=False,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, least_size(small), "GoogLeNet")
        self.small = small
        first, stride = (1, 1) if small else (3, 8)
        self.strides = {} if small else {"stage1": 2, "stage2": 4}
        self.channels = {} if small else {"stage1": filters[0], "stage2": filters[2]}
        if small:
            self.conv1 = conv(filters[0], 3, norm=True, name="conv1")
        else:
            self.conv1 = conv(filters[0], 7, 2, name="conv1")
            self.norm1 = LocalResponseNorm(name="norm1")
            self.conv2 = conv(filters[1], 1, name="conv2")
            self.conv3 = conv(filters[2], 3, name="conv3")
            self.norm2 = LocalResponseNorm(name="norm2")
        self.inceptions, self.stage_of = [], []  # a flat list: Keras loses weights in nested ones
        for s, modules in enumerate(stages):
            stage = f"stage{first + s}"
            for i, widths in enumerate(modules):
                name = f"inception_{first + s}{chr(ord('a') + i)}"  # 3a, 3b, 4a, ...
                self.inceptions.append(Inception(widths, small, name=name))
                self.stage_of.append(stage)
            self.strides[stage] = stride * 2**s
            self.channels[stage] = out_channels(widths)
        start, modules = len(stages[0]), len(stages[1])
        self.tap1, self.tap2 = start, start + max(modules - 2, 0)

    def build(self, input_shape):
        def halved(shape):
            batch, height, width, channels = shape
            return (batch, pooled(height), pooled(width), channels)

        shape = build_chain(input_shape, self.normalize, self.conv1)
        if not self.small:
            shape = build_chain(halved(shape), self.norm1, self.conv2, self.conv3, self.norm2)
        shapes = []  # of what each module makes
        for i, inception in enumerate(self.inceptions):
            if self._starts_stage(i):
                shape = halved(shape)
            shape = build_chain(shape, inception)
            shapes.append(shape)
        self.tap_shapes = (shapes[self.tap1], shapes[self.tap2])

    def _starts_stage(self, i):
        """Whether max pooling stands before module `i`."""
        if i == 0:
            return not self.small
        return self.stage_of[i] != self.stage_of[i - 1]

    def call(self, x, training=False, taps=False):
        x = self.normalize(x)
        features = {}
        if self.small:
            x = self.conv1(x, training=training)
        else:
            x = features["stage1"] = self.conv1(x)  # (B, H/2, W/2, 64)
            x = self.conv2(self.norm1(max_pool(x)))
            x = features["stage2"] = self.norm2(self.conv3(x))  # (B, H/4, W/4, 192)
        for i, (stage, inception) in enumerate(zip(self.stage_of, self.inceptions, strict=True)):
            if self._starts_stage(i):
                x = max_pool(x)
            x = features[stage] = inception(x, training=training)
            if taps and i == self.tap1:
                features["tap1"] = x
            if taps and i == self.tap2:
                features["tap2"] = x
        return features


@register
class GoogLeNet(Classifier):
    """A `GoogLeNetBackbone`, average pooling, dropout and a dense layer, and auxiliary heads.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        drop_rate: Dropout before the last dense layer.
        aux_heads: Two more classifiers in the midst of the network, for training alone.
        **kwargs: Further arguments of the backbone.

    Attributes:
        aux_weight: Of each auxiliary head's loss in the whole, section 5.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        Logits `(B, K)`; with auxiliary heads, whether training or not, three of these:
        `{"logits": ..., "aux1": ..., "aux2": ...}`.

    Raises:
        ValueError: An image too small for the pooling, which is 5x5 in the auxiliary heads.
    """

    backbone_class = GoogLeNetBackbone
    aux_weight = 0.3

    def __init__(
        self,
        image_shape=(224, 224, 3),
        num_classes=1000,
        drop_rate=0.4,
        aux_heads=True,
        **kwargs,
    ):
        if aux_heads:
            minimum = least_size(kwargs.get("small", False), AUX_POOL)
            check_size(image_shape, minimum, "GoogLeNet with auxiliary heads")
        super().__init__(image_shape, num_classes, drop_rate, **kwargs)
        self.aux1 = AuxiliaryHead(num_classes, name="aux1") if aux_heads else None
        self.aux2 = AuxiliaryHead(num_classes, name="aux2") if aux_heads else None

    def build(self, input_shape):
        super().build(input_shape)
        if self.aux1 is not None:
            self.aux1.build(self.backbone.tap_shapes[0])
            self.aux2.build(self.backbone.tap_shapes[1])

    def maps(self, x, training=False):
        return self.backbone(x, training=training, taps=self.aux1 is not None)

    def classify(self, features, training=False):
        logits = super().classify(features, training)
        if self.aux1 is None:
            return logits
        return {
            "logits": logits,
            "aux1": self.aux1(features["tap1"], training=training),
            "aux2": self.aux2(features["tap2"], training=training),
        }


def googlenet(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    # the backbone alone has no heads to limit its images
    sizes = {"aux_heads": not kwargs.get("features", False)}
    return make(GoogLeNet, "googlenet", image_shape, num_classes, sizes, kwargs)


def googlenet_small(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    """Stem 3x3 at stride 1, five narrow modules, batch norm, no LRN and no auxiliary heads."""
    sizes = {"filters": (32,), "stages": SMALL, "small": True, "aux_heads": False}
    return make(GoogLeNet, "googlenet_small", image_shape, num_classes, sizes, kwargs)


SMALL = (
    ((16, 24, 32, 4, 8, 8), (32, 32, 48, 8, 24, 16)),
    ((48, 24, 52, 4, 12, 16), (64, 40, 80, 8, 32, 32)),
    ((96, 48, 96, 12, 32, 32),),
)
_WIDTHS = (12, 10, 11, 8, 9, 13)
_TINY = {"num_classes": 7, "drop_rate": 0.1, "stages": ((_WIDTHS,), (_WIDTHS,) * 3, (_WIDTHS,))}
TINY = {
    "googlenet": {**_TINY, "image_shape": (80, 88, 1), "filters": (10, 11, 12)},
    "googlenet_small": {
        **_TINY,
        "image_shape": (8, 12, 1),
        "filters": (10,),
        "stages": ((_WIDTHS,),) * 2,
    },
}
RECIPE = {
    "googlenet_small": {
        "epochs": 20,
        "lr": 0.01,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
