"""VGG networks for image classification.

Paper:   Very Deep Convolutional Networks for Large-Scale Image Recognition,
         Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556 (table 1; sections 2 and 3).
Differs: weights start He normal, not from a shallower network; batch norm is offered, as
         later libraries have it, with the convolutions' biases kept. An image of less than 224
         pixels a side has a smaller first dense layer. `vgg_small` is the project's own row.
"""

from keras import ops

from kerasdl.layers.classifier import Backbone, ConvolvedClassifier, check_size, make
from kerasdl.layers.core import BatchNorm, Conv, build_chain, register
from kerasdl.layers.remat import Block


@register
class ConvBlock(Block):
    """3x3 convolution with a bias, batch norm if `norm`, ReLU.

    Args:
        filters: Channels of the output, `D`.
        norm: Whether there is batch norm.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, H, W, D)`.
    """

    def __init__(self, filters, norm=False, **kwargs):
        super().__init__(**kwargs)
        self.conv = Conv(filters, 3, name="conv")
        self.norm = BatchNorm(name="norm") if norm else None

    def build(self, input_shape):
        shape = build_chain(input_shape, self.conv)
        if self.norm is not None:
            self.norm.build(shape)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)

    def call(self, x, training=False):
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x, training=training)
        return ops.relu(x)


@register
class VGGBackbone(Backbone):
    """3x3 convolutions in stages, each of which ends in 2x2 max pooling.

    Args:
        image_shape: `(H, W, C)`.
        stages: Channels of each convolution of each stage.
        norm: Whether batch norm follows each convolution.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(self, image_shape, stages, norm=False, input_mean=0.0, input_std=1.0, **kwargs):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 2 ** len(stages), "VGG")
        self.depths = tuple(len(filters) for filters in stages)
        self.blocks = [  # a flat list: Keras loses weights in nested ones
            ConvBlock(f, norm, name=f"stage{s + 1}_conv{i + 1}")
            for s, filters in enumerate(stages)
            for i, f in enumerate(filters)
        ]
        self.strides = {f"stage{s + 1}": 2 ** (s + 1) for s in range(len(stages))}
        self.channels = {f"stage{s + 1}": filters[-1] for s, filters in enumerate(stages)}

    def build(self, input_shape):
        # What a convolution has to know is the channels, which pooling leaves alone.
        build_chain((None, None, None, input_shape[-1]), self.normalize, *self.blocks)

    def call(self, x, training=False):
        x = self.normalize(x)
        features, blocks = {}, iter(self.blocks)
        for stage, depth in zip(self.strides, self.depths, strict=True):
            for _ in range(depth):
                x = next(blocks)(x, training=training)
            x = features[stage] = ops.max_pool(x, 2, 2)
        return features


@register
class VGG(ConvolvedClassifier):
    """A `VGGBackbone` and three dense layers, with dropout after the first two (section 3.2)."""

    backbone_class = VGGBackbone


# Table 1: convolutions of each stage, in columns A, B, D and E
DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
FILTERS = (64, 128, 256, 512, 512)


def _imagenet(name, image_shape, num_classes, kwargs):
    depths = DEPTHS[name.removesuffix("_bn")]
    stages = tuple((f,) * depth for f, depth in zip(FILTERS, depths, strict=True))
    sizes = {"stages": stages, "norm": name.endswith("_bn")}
    return make(VGG, name, image_shape, num_classes, sizes, kwargs)


def vgg11(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("vgg11", image_shape, num_classes, kwargs)


def vgg13(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("vgg13", image_shape, num_classes, kwargs)


def vgg16(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("vgg16", image_shape, num_classes, kwargs)


def vgg19(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("vgg19", image_shape, num_classes, kwargs)


def vgg11_bn(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("vgg11_bn", image_shape, num_classes, kwargs)


def vgg13_bn(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("vgg13_bn", image_shape, num_classes, kwargs)


def vgg16_bn(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("vgg16_bn", image_shape, num_classes, kwargs)


def vgg19_bn(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("vgg19_bn", image_shape, num_classes, kwargs)


def vgg_small(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    """Six convolutions in three stages, batch norm, dense layers of 128 units."""
    sizes = {"stages": ((32, 32), (64, 64), (128, 128)), "norm": True, "fc_dim": 128}
    return make(VGG, "vgg_small", image_shape, num_classes, sizes, kwargs)


_TINY = {
    "image_shape": (9, 14, 1),
    "num_classes": 7,
    "stages": ((6, 8), (10,)),
    "fc_dim": 24,
    "drop_rate": 0.1,
}
TINY = {
    **{name: _TINY for name in DEPTHS},
    **{name: {**_TINY, "norm": True} for name in (*(f"{n}_bn" for n in DEPTHS), "vgg_small")},
}
RECIPE = {
    "vgg_small": {
        "epochs": 20,
        "lr": 0.002,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
