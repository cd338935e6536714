"""Residual networks with norms and activations before the convolutions.

Paper:   Identity Mappings in Deep Residual Networks, He et al. 2016,
         https://arxiv.org/abs/1603.05027 (figure 1 (b); figure 4 (e); equation 5; appendix).
Differs: the first block adds its raw input where no projection is needed, and the stem of the
         networks for ImageNet is pooled as it is, as later libraries have them, where the appendix
         has batch norm and ReLU before the first block parts; `stride_in_3x3=True` is the later
         place of the stride. `resnet20v2` is the project's own row.
"""

from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    build_chain,
    pad2d,
    padded_shortcut,
    register,
    strided,
)
from kerasdl.layers.norm import GroupNorm
from kerasdl.layers.remat import Block

NORMS = ("batch", "group")


@register
class StandardizedConv(Conv):
    """A convolution whose kernel has mean 0 and variance 1 for each channel that it makes.

    Args:
        *args, **kwargs: Of `Conv`.
        epsilon: Added to the variance.

    Source: Qiao et al. 2019, https://arxiv.org/abs/1903.10520, equations 6 to 9.
    """

    def __init__(self, *args, epsilon=1e-8, **kwargs):
        super().__init__(*args, **kwargs)
        self.epsilon = epsilon

    def convolution_op(self, inputs, kernel):
        k = ops.cast(kernel, self.variable_dtype)
        mean, variance = ops.moments(k, axes=(0, 1, 2), keepdims=True)
        k = (k - mean) * ops.rsqrt(variance + self.epsilon)
        return super().convolution_op(inputs, ops.cast(k, kernel.dtype))

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon}


@register
class PreActBlock(Block):
    """`y = S(x) + F(x)`: nothing follows the sum (equation 5 and figure 4 (e)).

    `F` is batch norm, ReLU and convolution, twice (3x3, 3x3) or three times (1x1, 3x3, 1x1). `S`
    is the identity where shapes agree; else a strided 1x1 convolution of what the first ReLU
    makes, or, without weights, a stride and zero channels.

    Args:
        filters: Channels of the output, `D`.
        inner: Channels inside a bottleneck; None for two 3x3 convolutions.
        stride: Stride `s` of the first convolution and of the shortcut.
        projects: Whether shapes are changed by a convolution; "always" has one where they agree
            too.
        stride_in_3x3: Put a bottleneck's stride into the 3x3 convolution.
        conv: Makes a convolution of channels, kernel size and stride.
        norm: Makes a norm.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.
    """

    def __init__(
        self,
        filters,
        inner=None,
        stride=1,
        projects=True,
        stride_in_3x3=False,
        conv=Conv,
        norm=BatchNorm,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = filters
        self.stride = stride
        self.projects = projects
        shapes = [(filters, 3)] * 2 if inner is None else [(inner, 1), (inner, 3), (filters, 1)]
        at = 1 if stride_in_3x3 and inner else 0
        self.norms, self.convs = [], []
        for i, (d, kernel_size) in enumerate(shapes):
            step = stride if i == at else 1
            self.norms.append(norm(name=f"norm{i + 1}"))
            self.convs.append(conv(d, kernel_size, step, use_bias=False, name=f"conv{i + 1}"))
        self.conv = conv
        self.project = None  # made in build(), once C is given

    def build(self, input_shape):
        shape = input_shape
        for norm, conv in zip(self.norms, self.convs, strict=True):
            shape = build_chain(shape, norm, conv)
        changes = self.stride > 1 or input_shape[-1] != self.filters
        if self.projects == "always" or (self.projects and changes):
            self.project = self.conv(self.filters, 1, self.stride, use_bias=False, name="project")
            self.project.build(input_shape)

    def compute_output_shape(self, input_shape):
        return strided(input_shape, self.stride, self.filters)

    def call(self, x, training=False):
        y = ops.relu(self.norms[0](x, training=training))
        if self.project is not None:
            shortcut = self.project(y)
        else:
            shortcut = padded_shortcut(x, self.stride, self.filters)
        y = self.convs[0](y)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            y = conv(ops.relu(norm(y, training=training)))
        return shortcut + y


@register
class ResNetV2Backbone(Backbone):
    """Stem, blocks in stages, a last norm and ReLU; every stage but the first halves the map.

    Maps are sums of a stage's last block; that of the last stage is after the last norm and ReLU.

    Args:
        image_shape: `(H, W, C)`.
        depths: Blocks per stage.
        filters: Channels of each stage's output.
        stem_filters: Channels of the stem.
        bottleneck: Whether blocks have three convolutions.
        inner: Channels inside each stage's bottlenecks; a quarter of `filters` if None.
        small: A 3x3 stem at stride 1, and shortcuts without weights unless there are bottlenecks,
            instead of a 7x7 stem at stride 2 with max pooling.
        stride_in_3x3: Of bottlenecks.
        projects_first: Whether the first block of every stage projects, even where its shapes
            agree.
        norm: "batch", or "group" (Wu and He 2018, https://arxiv.org/abs/1803.08494).
        groups: Of group norm.
        kernel_epsilon: Where given, kernels are standardized, with this added to their variance
            (Qiao et al. 2019, https://arxiv.org/abs/1903.10520).
        pads_with_zeros: Whether the stem's max pooling pads with zeros, which may be the largest.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(
        self,
        image_shape,
        depths,
        filters=(64, 128, 256, 512),
        stem_filters=64,
        bottleneck=False,
        inner=None,
        small=False,
        stride_in_3x3=False,
        projects_first=False,
        norm="batch",
        groups=32,
        kernel_epsilon=None,
        pads_with_zeros=False,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        if norm not in NORMS:
            raise UserError(f"norm {norm!r}: must be one of {', '.join(NORMS)}")

        def make_norm(name):
            return BatchNorm(name=name) if norm == "batch" else GroupNorm(groups, 1e-5, name=name)

        def make_conv(*args, **kwargs):
            if kernel_epsilon is None:
                return Conv(*args, **kwargs)
            return StandardizedConv(*args, epsilon=kernel_epsilon, **kwargs)

        check_size(self.image_shape, 2 ** (len(depths) - 1) * (1 if small else 4), "ResNet v2")
        self.small = small
        first, stride = (1, 1) if small else (2, 4)
        size, step = (3, 1) if small else (7, 2)
        self.pads_with_zeros = pads_with_zeros
        self.strides_in_1x1 = bottleneck and not stride_in_3x3
        self.stem = make_conv(stem_filters, size, step, use_bias=False, name="stem")
        self.blocks, self.stage_of = [], []  # a flat list: Keras loses weights in nested ones
        self.strides = {} if small else {"stage1": 2}
        self.channels = {} if small else {"stage1": stem_filters}
        inner = inner or tuple(d // 4 for d in filters)
        for s, (depth, d) in enumerate(zip(depths, filters, strict=True)):
            stage = f"stage{first + s}"
            for b in range(depth):
                block = PreActBlock(
                    d,
                    inner[s] if bottleneck else None,
                    2 if s and not b else 1,
                    "always" if projects_first and not b else bottleneck or not small,
                    stride_in_3x3,
                    make_conv,
                    make_norm,
                    name=f"{stage}_block{b + 1}",
                )
                self.blocks.append(block)
                self.stage_of.append(stage)
            self.strides[stage] = stride * 2**s
            self.channels[stage] = d
        self.norm = make_norm(name="norm")

    def build(self, input_shape):
        shape = build_chain(input_shape, self.normalize, self.stem)
        build_chain(shape if self.small else strided(shape, 2), *self.blocks, self.norm)

    def call(self, x, training=False):
        x = self.stem(self.normalize(x))
        features = {}
        if not self.small:
            features["stage1"] = x  # (B, H/2, W/2, D)
            if self.pads_with_zeros:
                x = pad2d(x, 1)
            else:  # what a mirror shows lies in the window: as if padding were never the largest
                x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
            x = ops.max_pool(x, 3, 2)
        for stage, block in zip(self.stage_of, self.blocks, strict=True):
            x = features[stage] = block(x, training=training)
        features[stage] = ops.relu(self.norm(x, training=training))
        return features


@register
class ResNetV2(Classifier):
    """A `ResNetV2Backbone`, average pooling, dropout and a dense layer; see `Classifier`."""

    backbone_class = ResNetV2Backbone


# Blocks per stage, as in table 1 of the first paper
IMAGENET = {
    "resnet18v2": (2, 2, 2, 2),
    "resnet34v2": (3, 4, 6, 3),
    "resnet50v2": (3, 4, 6, 3),
    "resnet101v2": (3, 4, 23, 3),
    "resnet152v2": (3, 8, 36, 3),
}
BOTTLENECKS = ("resnet50v2", "resnet101v2", "resnet152v2")


def _imagenet(name, image_shape, num_classes, kwargs):
    sizes = {"depths": IMAGENET[name]}
    if name in BOTTLENECKS:
        sizes |= {"bottleneck": True, "filters": (256, 512, 1024, 2048)}
    return make(ResNetV2, name, image_shape, num_classes, sizes, kwargs)


def _cifar(name, image_shape, num_classes, kwargs):
    depth = int(name.removeprefix("resnet").removesuffix("v2"))
    bottleneck = depth >= 164  # as in the paper's tables
    n = (depth - 2) // (9 if bottleneck else 6)
    filters = (64, 128, 256) if bottleneck else (16, 32, 64)
    sizes = {"depths": (n, n, n), "filters": filters, "stem_filters": 16, "small": True}
    sizes["bottleneck"] = bottleneck
    return make(ResNetV2, name, image_shape, num_classes, sizes, kwargs)


def resnet18v2(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet18v2", image_shape, num_classes, kwargs)


def resnet34v2(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet34v2", image_shape, num_classes, kwargs)


def resnet50v2(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet50v2", image_shape, num_classes, kwargs)


def resnet101v2(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet101v2", image_shape, num_classes, kwargs)


def resnet152v2(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _imagenet("resnet152v2", image_shape, num_classes, kwargs)


def resnet20v2(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("resnet20v2", image_shape, num_classes, kwargs)


def resnet110v2(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("resnet110v2", image_shape, num_classes, kwargs)


def resnet164v2(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    return _cifar("resnet164v2", image_shape, num_classes, kwargs)


_TINY = {
    "image_shape": (14, 20, 1),
    "num_classes": 7,
    "depths": (1, 2),
    "filters": (8, 12),
    "stem_filters": 6,
    "drop_rate": 0.1,
}
_INNER = {"inner": (4, 5), "stride_in_3x3": True}
TINY = {
    **{name: _TINY for name in IMAGENET if name not in BOTTLENECKS},
    **{name: {**_TINY, **_INNER} for name in BOTTLENECKS},
    **{name: {**_TINY, "image_shape": (8, 12, 1)} for name in ("resnet20v2", "resnet110v2")},
    "resnet164v2": {**_TINY, "image_shape": (8, 12, 1), "inner": (4, 5)},
}
# The first setting tried
RECIPE = {
    "resnet20v2": {
        "epochs": 20,
        "lr": 0.01,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
