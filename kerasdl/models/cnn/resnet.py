"""Residual networks for image classification.

Paper:   Deep Residual Learning for Image Recognition, He et al. 2015,
         https://arxiv.org/abs/1512.03385 (table 1; figure 5; section 4.2 for CIFAR).
Differs: none; `stride_in_3x3=True` is the later variant known as v1.5.
"""

from keras import ops

from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import ConvNorm, build_chain, pad2d, padded_shortcut, register, strided
from kerasdl.layers.remat import Block


@register
class ResidualBlock(Block):
    """Two 3x3 convolutions added to a shortcut: `y = relu(F(x) + S(x))`.

    `S` is the identity where shapes agree; else option A (stride and zero channels, no weights)
    or option B (a strided 1x1 convolution and batch norm) of section 3.3.

    Args:
        filters: Channels of the output, `D`.
        stride: Stride `s` of the first convolution and of the shortcut.
        option: "A" or "B".

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.
    """

    def __init__(self, filters, stride=1, option="B", **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        self.option = option
        self.conv1 = ConvNorm(filters, 3, stride, activation="relu", name="conv1")
        self.conv2 = ConvNorm(filters, 3, name="conv2")
        self.project = None  # made in build(), once C is given

    def build(self, input_shape):
        build_chain(input_shape, self.conv1, self.conv2)
        changes = self.stride > 1 or input_shape[-1] != self.filters
        if changes and self.option == "B":
            self.project = ConvNorm(self.filters, 1, self.stride, name="project")
            self.project.build(input_shape)

    def compute_output_shape(self, input_shape):
        return strided(input_shape, self.stride, self.filters)

    def call(self, x, training=False):
        y = self.conv1(x, training=training)  # (B, H/s, W/s, D)
        y = self.conv2(y, training=training)  # no relu: it follows the sum
        return ops.relu(y + self._shortcut(x, training))

    def _shortcut(self, x, training):
        if self.project:
            return self.project(x, training=training)
        return padded_shortcut(x, self.stride, self.filters)


@register
class Bottleneck(Block):
    """1x1, 3x3 and 1x1 convolutions added to a shortcut; the last has four times the filters.

    Args:
        filters: Channels inside, `D`.
        stride: Stride `s` of the first 1x1 convolution and of the shortcut.
        stride_in_3x3: Put the stride into the 3x3 convolution instead.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), 4 D)`.
    """

    def __init__(self, filters, stride=1, stride_in_3x3=False, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        first, second = (1, stride) if stride_in_3x3 else (stride, 1)
        self.conv1 = ConvNorm(filters, 1, first, activation="relu", name="conv1")
        self.conv2 = ConvNorm(filters, 3, second, activation="relu", name="conv2")
        self.conv3 = ConvNorm(4 * filters, 1, name="conv3")
        self.project = None  # made in build(), once C is given

    def build(self, input_shape):
        build_chain(input_shape, self.conv1, self.conv2, self.conv3)
        if self.stride > 1 or input_shape[-1] != 4 * self.filters:
            self.project = ConvNorm(4 * self.filters, 1, self.stride, name="project")
            self.project.build(input_shape)

    def compute_output_shape(self, input_shape):
        return strided(input_shape, self.stride, 4 * self.filters)

    def call(self, x, training=False):
        shortcut = self.project(x, training=training) if self.project else x
        y = self.conv1(x, training=training)
        y = self.conv2(y, training=training)
        return ops.relu(self.conv3(y, training=training) + shortcut)


@register
class ResNetBackbone(Backbone):
    """Stem, then blocks in stages; every stage but the first halves the map.

    Args:
        image_shape: `(H, W, C)`.
        depths: Blocks per stage.
        block: "basic" or "bottleneck".
        filters: Channels inside the first stage's blocks, which double with each stage; or those
            of each stage.
        small: A 3x3 stem at stride 1 and option A shortcuts (section 4.2), instead of a 7x7 stem
            at stride 2 with max pooling and option B.
        stride_in_3x3: Of bottlenecks.
        stem_filters: Channels of the stem; those of the first stage if None.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(
        self,
        image_shape,
        depths,
        block="basic",
        filters=64,
        small=False,
        stride_in_3x3=False,
        stem_filters=None,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 2 ** (len(depths) - 1) * (1 if small else 4), "ResNet")
        self.small = small
        self.strides_in_1x1 = block == "bottleneck" and not stride_in_3x3
        first, stride = (1, 1) if small else (2, 4)
        if isinstance(filters, int):
            filters = tuple(filters * 2**s for s in range(len(depths)))
        stem_filters = stem_filters or filters[0]
        self.stem = ConvNorm(
            stem_filters, 3 if small else 7, 1 if small else 2, activation="relu", name="stem"
        )
        self.blocks, self.stage_of = [], []  # a flat list: Keras loses weights in nested ones
        self.strides = {} if small else {"stage1": 2}
        self.channels = {} if small else {"stage1": stem_filters}
        for s, (depth, d) in enumerate(zip(depths, filters, strict=True)):
            stage = f"stage{first + s}"
            for b in range(depth):
                name = f"{stage}_block{b + 1}"
                step = 2 if s and not b else 1
                if block == "bottleneck":
                    layer = Bottleneck(d, step, stride_in_3x3, name=name)
                else:
                    layer = ResidualBlock(d, step, "A" if small else "B", name=name)
                self.blocks.append(layer)
                self.stage_of.append(stage)
            self.strides[stage] = stride * 2**s
            self.channels[stage] = d * (4 if block == "bottleneck" else 1)

    def build(self, input_shape):
        shape = build_chain(input_shape, self.normalize, self.stem)
        build_chain(shape if self.small else strided(shape, 2), *self.blocks)

    def call(self, x, training=False):
        x = self.stem(self.normalize(x), training=training)
        features = {}
        if not self.small:
            features["stage1"] = x  # (B, H/2, W/2, D)
            x = ops.max_pool(pad2d(x, 1), 3, 2)  # zeros are right: x >= 0
        for stage, block in zip(self.stage_of, self.blocks, strict=True):
            x = features[stage] = block(x, training=training)
        return features


@register
class ResNet(Classifier):
    """A `ResNetBackbone`, average pooling, dropout and a dense layer; see `Classifier`."""

    backbone_class = ResNetBackbone


# Table 1: blocks per stage
IMAGENET = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
    "resnet152": ("bottleneck", (3, 8, 36, 3)),
}


def _imagenet(name, image_shape, num_classes, kwargs):
    block, depths = IMAGENET[name]
    return make(ResNet, name, image_shape, num_classes, {"depths": depths, "block": block}, kwargs)


def _cifar(name, image_shape, num_classes, kwargs):
    n = (int(name.removeprefix("resnet")) - 2) // 6  # section 4.2: 6 n + 2 layers
    sizes = {"depths": (n, n, n), "filters": 16, "small": True}
    return make(ResNet, name, image_shape, num_classes, sizes, kwargs)


def resnet18(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet18", image_shape, num_classes, kwargs)


def resnet34(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet34", image_shape, num_classes, kwargs)


def resnet50(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet50", image_shape, num_classes, kwargs)


def resnet101(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet101", image_shape, num_classes, kwargs)


def resnet152(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet152", image_shape, num_classes, kwargs)


def resnet20(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("resnet20", image_shape, num_classes, kwargs)


def resnet32(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("resnet32", image_shape, num_classes, kwargs)


def resnet44(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("resnet44", image_shape, num_classes, kwargs)


def resnet56(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("resnet56", image_shape, num_classes, kwargs)


def resnet110(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("resnet110", image_shape, num_classes, kwargs)


_TINY = {"image_shape": (32, 40, 1), "num_classes": 7, "depths": (1, 2), "filters": 8}
TINY = {
    **{
        name: {**_TINY, "filters": (8, 12), "stem_filters": 6, "drop_rate": 0.1}
        for name in ("resnet18", "resnet34")
    },
    **{
        name: {**_TINY, "drop_rate": 0.1, "stride_in_3x3": True}
        for name in ("resnet50", "resnet101", "resnet152")
    },
    **{f"resnet{n}": {**_TINY, "image_shape": (8, 12, 1)} for n in (20, 32, 44, 56, 110)},
}
RECIPE = {
    "resnet20": {
        "epochs": 20,
        "lr": 0.01,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
