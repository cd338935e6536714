"""Network in network for image classification.

Paper:   Network In Network, Lin et al. 2013, https://arxiv.org/abs/1312.4400 (sections 3 and 4;
         figure 2).
Differs: channels, kernels and pooling, which the paper leaves out, are those of the authors' code
         for CIFAR-10: max pooling, then average pooling, both 3x3 at stride 2; no ReLU after the
         last convolution, whose averages are logits; weights start He normal; batch norm in place
         of biases is offered, as later papers have it. `nin_small` is the project's own row.
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import Conv, ConvNorm, build_chain, register, strided
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.remat import Block

KERNELS = (5, 5, 3)  # of the first convolution of each block; further ones have the last


@register
class MLPConv(Block):
    """A convolution, then 1x1 convolutions, each with ReLU: a perceptron that slides (equation 2).

    Args:
        filters: Channels of each convolution; the last is `D`.
        kernel_size: Side of the first kernel, odd.
        norm: Batch norm instead of biases.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, H, W, D)`.
    """

    def __init__(self, filters, kernel_size, norm=False, **kwargs):
        super().__init__(**kwargs)
        self.filters = tuple(filters)
        self.norm = norm
        conv = ConvNorm if norm else Conv
        self.convs = [
            conv(f, 1 if i else kernel_size, activation="relu", name=f"conv{i + 1}")
            for i, f in enumerate(self.filters)
        ]

    def build(self, input_shape):
        build_chain(input_shape, *self.convs)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.filters[-1])

    def call(self, x, training=False):
        for conv in self.convs:
            x = conv(x, training=training) if self.norm else conv(x)
        return x


@register
class NiNBackbone(Backbone):
    """Blocks with 3x3 pooling at stride 2 and dropout after the first and the second.

    Args:
        image_shape: `(H, W, C)`.
        filters: Channels of each convolution of each block, three blocks or more, without the last
            one to the classes.
        norm: Batch norm instead of biases.
        drop_rate: Dropout after each pooling.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(
        self,
        image_shape,
        filters=((192, 160, 96), (192, 192, 192), (192, 192)),
        norm=False,
        drop_rate=0.0,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 4, "NiN")
        if len(filters) < len(KERNELS):
            raise UserError(
                f"filters {tuple(filters)}: must hold those of {len(KERNELS)} blocks or more"
            )
        self.blocks = [
            MLPConv(f, KERNELS[min(s, len(KERNELS) - 1)], norm, name=f"stage{s + 1}_block1")
            for s, f in enumerate(filters)
        ]
        self.drop1 = Dropout(drop_rate, name="drop1")
        self.drop2 = Dropout(drop_rate, name="drop2")
        self.strides = {f"stage{s + 1}": min(2**s, 4) for s in range(len(filters))}
        self.channels = {f"stage{s + 1}": f[-1] for s, f in enumerate(filters)}

    def build(self, input_shape):
        first, second, *others = self.blocks
        shape = strided(build_chain(input_shape, self.normalize, first), 2)
        shape = strided(build_chain(shape, self.drop1, second), 2)
        build_chain(shape, self.drop2, *others)

    def call(self, x, training=False):
        first, second, *others = self.blocks
        x = self.normalize(x)
        features = {}
        x = features["stage1"] = first(x, training=training)
        x = self.drop1(ops.max_pool(x, 3, 2, padding="same"), training=training)
        x = features["stage2"] = second(x, training=training)
        x = self.drop2(ops.average_pool(x, 3, 2, padding="same"), training=training)
        for s, block in enumerate(others, 3):
            x = features[f"stage{s}"] = block(x, training=training)
        return features


@register
class NiN(Classifier):
    """A `NiNBackbone`, a 1x1 convolution to the classes, and its average over all places.

    There is no dense layer: the averages are the logits (section 3.2).
    """

    backbone_class = NiNBackbone
    drops = ("backbone",)

    @staticmethod
    def make_head(num_classes):
        dtype = keras.config.dtype_policy().variable_dtype
        return Conv(num_classes, 1, dtype=dtype, name="head")

    def build(self, input_shape):
        self.backbone.build(input_shape)
        build_chain((None, None, None, self.backbone.width), self.drop, self.head)

    def class_maps(self, features):
        """Logits of each place, `(B, h, w, K)`, of the backbone's feature maps."""
        return self.head(list(features.values())[-1])

    def classify(self, features, training=False):
        return ops.mean(self.class_maps(features), axis=(1, 2))


def nin(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return make(NiN, "nin", image_shape, num_classes, {"drop_rate": 0.5}, kwargs)


def nin_small(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    """A third of the channels, and batch norm."""
    sizes = {"filters": ((64, 48, 32), (64, 64, 64), (64, 64)), "norm": True}
    return make(NiN, "nin_small", image_shape, num_classes, sizes, kwargs)


_TINY = {
    "image_shape": (9, 12, 1),
    "num_classes": 7,
    "filters": ((8, 7, 6), (9, 8), (10, 9)),
    "drop_rate": 0.1,
}
TINY = {"nin": _TINY, "nin_small": {**_TINY, "norm": True}}
# Of three settings, by the loss on validation
RECIPE = {
    "nin_small": {
        "epochs": 40,
        "lr": 0.01,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
