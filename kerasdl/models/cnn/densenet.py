"""Densely connected convolutional networks for image classification.

Paper:   Densely Connected Convolutional Networks, Huang et al. 2016,
         https://arxiv.org/abs/1608.06993 (table 1; section 3 for CIFAR).
Differs: only the variant BC (bottlenecks of 4k channels, compression 0.5) is here.
"""

import itertools

import keras
from keras import ops

from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    ConvNorm,
    build_chain,
    pad2d,
    register,
    strided,
)
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.remat import Block

COMPRESSION = 0.5  # theta, channels kept by a transition


@register
class DenseLayer(Block):
    """`[x, H(x)]`, with `H` BN-ReLU-Conv(1x1)-BN-ReLU-Conv(3x3).

    Args:
        growth_rate: `k`, channels that it adds.
        drop_rate: Dropout after each convolution.
        bottleneck: Channels of the 1x1 convolution, over `k`.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether dropout and batch statistics are on.

    Returns:
        float `(B, H, W, C + k)`.
    """

    def __init__(self, growth_rate, drop_rate=0.0, bottleneck=4, **kwargs):
        super().__init__(**kwargs)
        self.norm1 = BatchNorm(name="norm1")
        self.conv1 = Conv(bottleneck * growth_rate, 1, use_bias=False, name="conv1")
        self.drop1 = Dropout(drop_rate, name="drop1")
        self.norm2 = BatchNorm(name="norm2")
        self.conv2 = Conv(growth_rate, 3, use_bias=False, name="conv2")
        self.drop2 = Dropout(drop_rate, name="drop2")

    def build(self, input_shape):
        build_chain(
            input_shape, self.norm1, self.conv1, self.drop1, self.norm2, self.conv2, self.drop2
        )

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + self.conv2.filters)

    def call(self, x, training=False):
        y = self.conv1(ops.relu(self.norm1(x, training=training)))  # (B, H, W, b k)
        y = self.drop1(y, training=training)
        y = self.conv2(ops.relu(self.norm2(y, training=training)))  # (B, H, W, k)
        y = self.drop2(y, training=training)
        return ops.concatenate([x, y], axis=-1)


@register
class Transition(keras.layers.Layer):
    """Halve the channels by a 1x1 convolution and the map by average pooling.

    Its batch norm and ReLU are the backbone's, which returns what they make.

    Args:
        drop_rate: Dropout after the convolution.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether dropout is on.

    Returns:
        float `(B, floor(H/2), floor(W/2), floor(C/2))`.
    """

    def __init__(self, drop_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.drop = Dropout(drop_rate, name="drop")

    def build(self, input_shape):
        self.conv = Conv(int(COMPRESSION * input_shape[-1]), 1, use_bias=False, name="conv")
        build_chain(input_shape, self.conv, self.drop)

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        return (batch, height and height // 2, width and width // 2, self.conv.filters)

    def call(self, x, training=False):
        return ops.average_pool(self.drop(self.conv(x), training=training), 2, 2)


@register
class DenseNetBackbone(Backbone):
    """Stem, then dense blocks with transitions between them.

    A stage's map is its dense block's output after batch norm and ReLU, which are the first half
    of the transition that follows.

    Args:
        image_shape: `(H, W, C)`.
        depths: Dense layers per block.
        growth_rate: `k`.
        small: A 3x3 stem at stride 1, instead of a 7x7 one at stride 2 with max pooling.
        drop_rate: Dropout after each convolution but the stem's.
        stem_filters: Channels of the stem; `2 k` if None.
        bottleneck: Channels of a dense layer's 1x1 convolution, over `k`.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(
        self,
        image_shape,
        depths,
        growth_rate=32,
        small=False,
        drop_rate=0.0,
        stem_filters=None,
        bottleneck=4,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 2 ** (len(depths) - 1) * (1 if small else 4), "DenseNet")
        self.small = small
        self.depths = tuple(depths)
        first, stride = (1, 1) if small else (2, 4)
        c = stem_filters or 2 * growth_rate
        if small:  # the first dense layer normalizes it
            self.stem = Conv(c, 3, use_bias=False, name="stem")
        else:
            self.stem = ConvNorm(c, 7, 2, activation="relu", name="stem")
        # flat lists: Keras loses weights in nested ones
        self.dense_layers, self.norms, self.transitions = [], [], []
        self.stages = tuple(f"stage{first + s}" for s in range(len(depths)))
        self.strides = {} if small else {"stage1": 2}
        self.channels = {} if small else {"stage1": c}
        for s, (stage, depth) in enumerate(zip(self.stages, depths, strict=True)):
            for i in range(depth):
                name = f"{stage}_layer{i + 1}"
                layer = DenseLayer(growth_rate, drop_rate, bottleneck, name=name)
                self.dense_layers.append(layer)
            self.norms.append(BatchNorm(name=f"{stage}_norm"))
            if s < len(depths) - 1:
                self.transitions.append(Transition(drop_rate, name=f"{stage}_transition"))
            c += depth * growth_rate
            self.strides[stage], self.channels[stage] = stride * 2**s, c
            c = int(COMPRESSION * c)

    def build(self, input_shape):
        shape = build_chain(input_shape, self.normalize, self.stem)
        shape = shape if self.small else strided(shape, 2)
        layers = iter(self.dense_layers)
        for s, depth in enumerate(self.depths):
            shape = build_chain(shape, *itertools.islice(layers, depth), self.norms[s])
            shape = build_chain(shape, *self.transitions[s : s + 1])  # none after the last block

    def call(self, x, training=False):
        x = self.normalize(x)
        features = {}
        if self.small:
            x = self.stem(x)  # (B, H, W, c)
        else:
            x = features["stage1"] = self.stem(x, training=training)  # (B, H/2, W/2, c)
            x = ops.max_pool(pad2d(x, 1), 3, 2)  # zeros are right: x >= 0
        layers = iter(self.dense_layers)
        for s, stage in enumerate(self.stages):
            for _ in range(self.depths[s]):
                x = next(layers)(x, training=training)
            x = features[stage] = ops.relu(self.norms[s](x, training=training))
            if s < len(self.transitions):
                x = self.transitions[s](x, training=training)
        return features


@register
class DenseNet(Classifier):
    """A `DenseNetBackbone`, which has the dropout, average pooling and a dense layer."""

    backbone_class = DenseNetBackbone
    drops = ("backbone",)


# Table 1: dense layers per block, k = 32
IMAGENET = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
    "densenet264": (6, 12, 64, 48),
}


def _imagenet(name, image_shape, num_classes, kwargs):
    return make(DenseNet, name, image_shape, num_classes, {"depths": IMAGENET[name]}, kwargs)


def _cifar(name, image_shape, num_classes, kwargs):
    depth, growth_rate = map(int, name.removeprefix("densenet_bc_").split("_"))
    n = (depth - 4) // 6  # section 3: three blocks, two convolutions per layer
    sizes = {"depths": (n, n, n), "growth_rate": growth_rate, "small": True}
    return make(DenseNet, name, image_shape, num_classes, sizes, kwargs)


def densenet121(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("densenet121", image_shape, num_classes, kwargs)


def densenet169(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("densenet169", image_shape, num_classes, kwargs)


def densenet201(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("densenet201", image_shape, num_classes, kwargs)


def densenet264(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("densenet264", image_shape, num_classes, kwargs)


def densenet_bc_100_12(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("densenet_bc_100_12", image_shape, num_classes, kwargs)


def densenet_bc_40_12(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("densenet_bc_40_12", image_shape, num_classes, kwargs)


_TINY = {"num_classes": 7, "depths": (1, 2), "growth_rate": 4, "drop_rate": 0.1}
TINY = {
    **{
        name: {**_TINY, "image_shape": (32, 40, 1), "stem_filters": 6, "bottleneck": 3}
        for name in IMAGENET
    },
    "densenet_bc_100_12": {**_TINY, "image_shape": (8, 12, 1)},
    "densenet_bc_40_12": {**_TINY, "image_shape": (8, 12, 1)},
}
RECIPE = {
    "densenet_bc_40_12": {
        "epochs": 20,
        "lr": 0.003,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
