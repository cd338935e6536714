"""Dilated convolutions for semantic segmentation: a front-end and a context module.

Paper:   Multi-Scale Context Aggregation by Dilated Convolutions, Yu and Koltun 2015,
         https://arxiv.org/abs/1511.07122 (sections 3 and 4; table 1; equations 4 and 5).
Differs: both parts are trained together; the front-end starts He normal, not from VGG-16; the
         biases of its scores start at 1, so that the module's ReLUs cut few of them off; a last
         upsampling, bilinear and fixed, gives every pixel scores.
         `dilated_small` is the project's own: batch norm, zeros around each convolution instead of
         a reflection around the image, one pooling, a context module of fewer layers and with ELUs,
         a last upsampling that is trained.
"""

import keras
import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import check_size
from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    Model,
    Normalize,
    build_chain,
    construct,
    he_normal,
    register,
)
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.remat import Block
from kerasdl.layers.upsampling import bilinear_upsampling

CONTEXTS = {  # table 1: channels of the seven 3x3 layers, as multiples of the classes
    "none": (),
    "basic": (1, 1, 1, 1, 1, 1, 1),
    "large": (2, 2, 4, 8, 16, 32, 32),
}
DILATIONS = (1, 1, 2, 4, 8, 16, 1)  # of them: a receptive field of 67x67
NOISE = 1e-3  # of equation 5, as a fraction of the weights that are not noise


@register
class Identity(keras.initializers.Initializer):
    """A convolution that passes on what it is given (equation 4; with more channels equation 5).

    With `C` classes, `c` channels before and `d` after, the center of the kernel is `C / d` from
    each channel to those of the same class, and all else is noise that breaks ties: a chain that
    begins and ends with `C` channels passes its input through. Equal numbers have no noise.

    Args:
        classes: `C`.
    """

    def __init__(self, classes):
        self.classes = classes

    def __call__(self, shape, dtype=None):
        dtype = dtype or keras.config.floatx()
        height, width, before, after = shape
        of_class = [np.arange(n) * self.classes // n for n in (before, after)]
        same = of_class[0][:, None] == of_class[1][None]  # (c, d)
        kernel = np.zeros(shape)
        kernel[height // 2, width // 2] = same * self.classes / after
        kernel = ops.convert_to_tensor(kernel, dtype=dtype)
        if before == after == self.classes:
            return kernel
        noise = keras.initializers.RandomNormal(stddev=NOISE * self.classes / after)
        return ops.where(kernel > 0, kernel, noise(shape, dtype=dtype))

    def get_config(self):
        return {"classes": self.classes}


@register
class ContextModule(Block):
    """Seven 3x3 convolutions of growing dilation and a 1x1 one, which start as the identity.

    An activation follows each of the seven; with a ReLU what is not negative passes through at the
    start.

    Args:
        classes: `C`, channels of the input and the output.
        kind: Of `CONTEXTS`, but "none".
        dilations: Of the 3x3 convolutions; fewer make a smaller module.
        activation: After each of them.

    Call arguments:
        x: float `(B, H, W, C)`.

    Returns:
        float `(B, H, W, C)`.
    """

    def __init__(self, classes, kind="basic", dilations=DILATIONS, activation="relu", **kwargs):
        super().__init__(**kwargs)
        if kind not in CONTEXTS:
            raise UserError(f"context {kind!r}: not one of {', '.join(CONTEXTS)}")
        if not 1 <= len(dilations) <= len(DILATIONS):
            raise UserError(f"dilations {dilations}: must be 1 to {len(DILATIONS)} numbers")
        # Of a shorter module the first layers, and the last
        multiples = (*CONTEXTS[kind][: len(dilations) - 1], CONTEXTS[kind][-1])
        self.convs = [
            self._conv(classes, multiple * classes, 3, dilation, activation, f"conv{i}")
            for i, (multiple, dilation) in enumerate(zip(multiples, dilations, strict=True), 1)
        ]
        self.convs.append(self._conv(classes, classes, 1, 1, None, "last"))

    def _conv(self, classes, filters, window, dilation, activation, name):
        return keras.layers.Conv2D(
            filters,
            window,
            padding="same",
            dilation_rate=dilation,
            activation=activation,
            kernel_initializer=Identity(classes),
            dtype=self.dtype_policy,
            name=name,
        )

    def build(self, input_shape):
        build_chain(input_shape, *self.convs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        for layer in self.convs:
            x = layer(x)
        return x


@register
class ConvBlock(Block):
    """A dilated convolution, batch norm if `norm`, ReLU.

    Args:
        filters: Channels of the output, `D`.
        window: Side of the kernel, odd.
        dilation: Of the kernel.
        norm: Whether there is batch norm instead of a bias.
        padding: "same" or "valid".

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, H, W, D)`, without padding `dilation (window - 1)` less of each side.
    """

    def __init__(self, filters, window, dilation, norm, padding, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(
            filters,
            window,
            padding=padding,
            dilation_rate=dilation,
            use_bias=not norm,
            kernel_initializer=he_normal(),
            name="conv",
        )
        self.norm = BatchNorm(name="norm") if norm else None

    def build(self, input_shape):
        build_chain(input_shape, self.conv, *([self.norm] if self.norm else []))

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)

    def call(self, x, training=False):
        x = self.conv(x)
        return ops.relu(self.norm(x, training=training) if self.norm else x)


@register
class Dilated(Model):
    """A front-end whose late poolings are dilations instead, a context module, upsampling.

    Args:
        image_shape: `(H, W, C)`; the model takes images of any other height and width too, without
            padding larger than the reflection around them, of 186 pixels at the defaults.
        num_classes: `K`, the background included.
        stages: Channels of each convolution of each stage of the front-end.
        poolings: How many stages end in 2x2 max pooling: the first. In the place of each other one
            the dilation of all that follows doubles.
        fc_dim: Channels of the two convolutions that were dense layers.
        window: Side of the first one's kernel, odd.
        drop_rate: Dropout after each of them.
        context: The context module: "basic", "large" or "none".
        dilations: Of its 3x3 convolutions.
        activation: After each of them.
        norm: Whether batch norm follows the convolutions of the front-end.
        padding: "valid", unpadded convolutions of the image and its reflection around it, or
            "same".
        learn_last: Whether the last upsampling is trained; else it stays bilinear.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, H, W, K)`.
    """

    def __init__(
        self,
        image_shape=(528, 528, 3),
        num_classes=21,
        stages=((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
        poolings=3,
        fc_dim=4096,
        window=7,
        drop_rate=0.5,
        context="basic",
        dilations=DILATIONS,
        activation="relu",
        norm=False,
        padding="valid",
        learn_last=False,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not 0 <= poolings <= len(stages):
            raise UserError(f"poolings {poolings}: must be 0 to {len(stages)}, that of stages")
        self.image_shape, self.stride = tuple(image_shape), 2**poolings
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        self.poolings, self.depths = poolings, [len(filters) for filters in stages]
        blocks, self.margin = [], 0  # pixels that unpadded convolutions take from each side
        layers = [(s, i, f, 3) for s, fs in enumerate(stages, 1) for i, f in enumerate(fs, 1)]
        last = len(stages) + 1
        for stage, i, filters, side in (*layers, (last, 1, fc_dim, window)):
            dilation = 2 ** max(0, stage - 1 - poolings)
            stride = 2 ** min(stage - 1, poolings)
            name = "fc1" if stage == last else f"stage{stage}_conv{i}"
            block = ConvBlock(filters, side, dilation, norm, padding, name=name)
            self.margin += (side - 1) // 2 * dilation * stride
            blocks.append(block)
        *self.blocks, self.fc1 = blocks
        self.fc2 = ConvBlock(fc_dim, 1, 1, norm, padding, name="fc2")
        self.drop1, self.drop2 = (Dropout(drop_rate, name=f"drop{i}") for i in (1, 2))
        self.margin = 0 if padding == "same" else self.margin
        check_size(self.image_shape, self.margin + self.stride, "the dilated network")
        policy = keras.config.dtype_policy().variable_dtype  # at least float32
        self.head = Conv(
            num_classes,
            1,
            kernel_initializer="glorot_uniform",
            bias_initializer="ones",  # so that the module's ReLUs pass most scores on
            dtype=policy,
            name="head",
        )
        self.context_module = None
        if context != "none":
            self.context_module = ContextModule(
                num_classes, context, dilations, activation, dtype=policy, name="head_context"
            )
        self.last = None
        if self.stride > 1:
            self.last = bilinear_upsampling(
                num_classes, self.stride, dtype=policy, trainable=learn_last, name="head_last"
            )

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        # What a layer has to know is the channels, which pooling leaves alone.
        chain = [self.normalize, *self.blocks, self.fc1, self.drop1, self.fc2, self.drop2]
        rest = filter(None, (self.head, self.context_module, self.last))
        build_chain((None, None, None, input_shape[-1]), *chain, *rest)

    def front_end(self, x, training=False):
        """Scores `(B, h, w, K)` of images `(B, H, W, C)` and what lies around them."""
        x, blocks = self.normalize(x), iter(self.blocks)
        for stage, depth in enumerate(self.depths):
            for _ in range(depth):
                x = next(blocks)(x, training=training)
            if stage < self.poolings:
                x = ops.max_pool(x, 2, 2)
        x = self.drop1(self.fc1(x, training=training), training=training)
        x = self.drop2(self.fc2(x, training=training), training=training)
        return self.head(x)

    def call(self, x, training=False):
        height, width = x.shape[1:3]
        over = [(self.margin, self.margin + -side % self.stride) for side in (height, width)]
        mode = "reflect" if self.margin else "constant"
        if any(after for _, after in over):
            x = ops.pad(x, ((0, 0), *over, (0, 0)), mode=mode)
        x = self.front_end(x, training)
        if self.context_module is not None:
            x = self.context_module(x)
        if self.last is not None:
            x = self.last(x)
        return x[:, :height, :width]


def dilated(image_shape=(528, 528, 3), num_classes=21, **kwargs):
    """VGG-16's convolutions at stride 8, and the basic context module."""
    return _make("dilated", image_shape, num_classes, {}, kwargs)


def dilated_large(image_shape=(528, 528, 3), num_classes=21, **kwargs):
    """The same with the large context module."""
    return _make("dilated_large", image_shape, num_classes, {"context": "large"}, kwargs)


def dilated_small(image_shape=(48, 48, 1), num_classes=11, **kwargs):
    """Six convolutions of 32 to 64 channels at stride 2, and a context module of five layers."""
    sizes = {
        "stages": ((16, 16), (32, 32), (64, 64)),
        "poolings": 1,
        "fc_dim": 64,
        "window": 3,
        "drop_rate": 0.0,
        "dilations": (1, 1, 2, 4, 1),
        "activation": "elu",
        "norm": True,
        "padding": "same",
        "learn_last": True,
    }
    return _make("dilated_small", image_shape, num_classes, sizes, kwargs)


def _make(name, image_shape, num_classes, sizes, kwargs):
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(Dilated, name, given, sizes, kwargs)


_TINY = {
    "image_shape": (21, 24, 3),
    "num_classes": 5,
    "stages": ((6,), (8,)),
    "poolings": 1,
    "fc_dim": 10,
    "window": 3,
    "drop_rate": 0.1,
    "context": "large",
    "dilations": (1, 2),
    "norm": True,
    "padding": "valid",
}
TINY = {name: _TINY for name in ("dilated", "dilated_large", "dilated_small")}
RECIPE = {  # of three settings; with ReLUs in the module rare classes get no gradient any more
    "dilated_small": {
        "epochs": 10,
        "batch_size": 32,
        "lr": 0.005,
        "warmup_epochs": 0.5,
        "weight_decay": 0.01,
    },
}
