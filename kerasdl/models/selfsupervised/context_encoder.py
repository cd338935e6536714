"""Context encoder: the middle of an image from what is around it.

Paper:   Context Encoders: Feature Learning by Inpainting, Pathak et al. 2016,
         https://arxiv.org/abs/1604.07379 (section 3; figure 9 a; its released code).
Differs: between encoder and decoder stand the channel-wise dense layer and the convolution of
         section 3.1, not the 4,000 units of figure 9 a. `context_encoder_small` is the project's
         own row, on any backbone of the catalogue.
"""

import math

import keras
import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Backbone, check_size
from kerasdl.layers.core import (
    BatchNorm,
    build_chain,
    check_counts,
    construct_on_backbone,
    register,
)
from kerasdl.layers.remat import Block
from kerasdl.models.selfsupervised.on_backbone import OnBackbone

FILTERS = (64, 64, 128, 256, 512)  # figure 9 a
SLOPE = 0.2  # of leaky rectifiers, in the code
KERNEL = 4
SMALLEST = 4  # side of the discriminator's last map, or one below


def _normal():
    return keras.initializers.RandomNormal(stddev=0.02)  # of the code


def _norm(name):
    gamma = keras.initializers.RandomNormal(mean=1.0, stddev=0.02)
    return BatchNorm(gamma_initializer=gamma, name=name)


@register
class DownBlock(Block):
    """A convolution of 4x4 at stride 2, batch norm if `norm`, and a leaky rectifier.

    Args:
        filters: Channels of the output, `D`.
        norm: Whether there is batch norm.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch statistics are used, and updated.

    Returns:
        float `(B, ceil(H/2), ceil(W/2), D)`.
    """

    def __init__(self, filters, norm=True, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(
            filters, KERNEL, 2, padding="same", kernel_initializer=_normal(), name="conv"
        )
        self.norm = _norm("norm") if norm else None

    def build(self, input_shape):
        build_chain(input_shape, self.conv, *filter(None, [self.norm]))

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)

    def call(self, x, training=False):
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x, training=training)
        return ops.leaky_relu(x, negative_slope=SLOPE)


@register
class InpaintingBackbone(Backbone):
    """The encoder of figure 9 a: strided convolutions, of which all but the first are normed.

    Args:
        image_shape: `(H, W, C)`.
        filters: Channels of each.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(self, image_shape, filters=FILTERS, input_mean=0.0, input_std=1.0, **kwargs):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 2 ** len(filters), "context_encoder")
        self.blocks = [
            DownBlock(f, norm=i > 0, name=f"stage{i + 1}_block1") for i, f in enumerate(filters)
        ]
        self.strides = {f"stage{i + 1}": 2 ** (i + 1) for i in range(len(filters))}
        self.channels = dict(zip(self.strides, filters, strict=True))

    def build(self, input_shape):
        build_chain(input_shape, self.normalize, *self.blocks)

    def call(self, x, training=False):
        x = self.normalize(x)
        maps = []
        for block in self.blocks:
            x = block(x, training=training)
            maps.append(x)
        return dict(zip(self.strides, maps, strict=True))


@register
class ChannelwiseDense(keras.layers.Layer):
    """Each channel's map through a dense layer of its own: `C (h w)^2` weights, no bias.

    Call arguments:
        x: float `(B, h, w, C)`.

    Returns:
        float `(B, h, w, C)`.

    Source: section 3.1, channel-wise fully-connected layer.
    """

    def build(self, input_shape):
        _, height, width, channels = input_shape
        self.places = height * width
        self.kernel = self.add_weight(
            shape=(channels, self.places, self.places),
            initializer=keras.initializers.RandomNormal(stddev=self.places**-0.5),
            name="kernel",
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        _, *shape = x.shape
        maps = ops.transpose(ops.reshape(x, (-1, self.places, shape[-1])), (2, 0, 1))  # (C, B, n)
        maps = ops.matmul(maps, ops.cast(self.kernel, x.dtype))
        return ops.reshape(ops.transpose(maps, (1, 2, 0)), (-1, *shape))


@register
class InpaintingDecoder(keras.layers.Layer):
    """A channel-wise dense layer, a 1x1 convolution over all channels, and up-convolutions.

    Args:
        channels: Of the result, `C`.
        doublings: How often height and width double; the channels halve each time but the last.

    Call arguments:
        x: float `(B, h, w, D)`.
        training: Whether batch statistics are used, and updated.

    Returns:
        float32 (or float64) `(B, 2^n h, 2^n w, C)` in [0, 1].
    """

    def __init__(self, channels, doublings, **kwargs):
        super().__init__(**kwargs)
        self.channels = channels
        self.doublings = doublings
        self.channelwise = ChannelwiseDense(name="channelwise")

    def build(self, input_shape):
        width = input_shape[-1]
        self.mix = keras.layers.Conv2D(width, 1, kernel_initializer=_normal(), name="mix")

        def up(filters, name, **kwargs):
            return keras.layers.Conv2DTranspose(
                filters, KERNEL, 2, "same", kernel_initializer=_normal(), name=name, **kwargs
            )

        filters = [max(1, width >> i) for i in range(1, self.doublings)]
        self.ups = [up(f, f"up{i}") for i, f in enumerate(filters, 1)]
        self.norms = [_norm(f"norm{i}") for i in range(self.doublings)]
        wide = keras.config.dtype_policy().variable_dtype
        self.pixels = up(self.channels, "pixels", dtype=wide)
        shape = build_chain(input_shape, self.channelwise, self.mix, self.norms[0])
        for layer, norm in zip(self.ups, self.norms[1:], strict=True):
            shape = build_chain(shape, layer, norm)
        self.pixels.build(shape)

    def call(self, x, training=False):
        x = ops.relu(self.norms[0](self.mix(self.channelwise(x)), training=training))
        for layer, norm in zip(self.ups, self.norms[1:], strict=True):
            x = ops.relu(norm(layer(x), training=training))
        return (ops.tanh(self.pixels(x)) + 1.0) / 2.0


@register
class InpaintingDiscriminator(keras.layers.Layer):
    """Strided convolutions, of which all but the first are normed, and one over the last map.

    Args:
        filters: Channels of the first; they double with each.

    Call arguments:
        x: float `(B, h, w, C)` in [0, 1].
        training: Whether batch statistics are used, and updated.

    Returns:
        float32 (or float64) logits `(B,)`; the larger, the more real.
    """

    def __init__(self, filters=64, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters

    def build(self, input_shape):
        count = max(1, int(math.log2(min(input_shape[1:3]) / SMALLEST)))
        self.blocks = [
            DownBlock(self.filters * 2**i, norm=i > 0, name=f"block{i + 1}") for i in range(count)
        ]
        shape = build_chain(input_shape, *self.blocks)
        wide = keras.config.dtype_policy().variable_dtype
        self.head = keras.layers.Conv2D(
            1, shape[1:3], kernel_initializer=_normal(), dtype=wide, name="head"
        )
        self.head.build(shape)

    def call(self, x, training=False):
        x = 2.0 * x - 1.0
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(x)[:, 0, 0, 0]


@register
class ContextEncoder(OnBackbone):
    """An encoder of images with a hole, a decoder of their middle, and a discriminator of it.

    The middle has half the image's height and width. All of it is predicted and hidden but for its
    margin, which is seen, lest the edges of the hole show.

    Args:
        image_shape: `(H, W, C)`; the middle must be 2, 4, 8, ... times the backbone's last map.
        backbone: Name of a vision model of the catalogue; None for the paper's own.
        encoder_filters: Channels of each convolution of the paper's own.
        discriminator_filters: Channels of the discriminator's first convolution.
        overlap: Pixels of the margin.
        input_mean, input_std: Per channel, of images in [0, 1]. The hole is filled with the mean.
        **backbone_args: Further arguments of the backbone's builder.

    Attributes:
        hole: Where a pixel of the image is hidden, numpy bool `(H, W, 1)`.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1]; what is hidden of them is not looked at.
        training: Whether dropout and batch statistics are on.

    Returns:
        `{"middle": float32 (or float64) (B, h, w, C) in [0, 1], what is predicted; "real": logits
        (B,) of the true middle; "fake": logits (B,) of that predicted}`.

    Raises:
        UserError: Sizes that do not fit.
    """

    def __init__(
        self,
        image_shape=(128, 128, 3),
        backbone=None,
        encoder_filters=FILTERS,
        discriminator_filters=64,
        overlap=4,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        check_counts(discriminator_filters=discriminator_filters)
        statistics = {"input_mean": input_mean, "input_std": input_std}
        if backbone is None:
            self.classifier = None  # no classifier of the catalogue is made of it
            self.backbone = InpaintingBackbone(
                image_shape, encoder_filters, name="backbone", **statistics, **backbone_args
            )
        else:
            self.set_backbone(backbone, image_shape, **statistics, **backbone_args)
        self.image_shape = tuple(image_shape)
        self.overlap = overlap
        self.input_mean = input_mean
        self.middle_size = tuple(side // 2 for side in self.image_shape[:2])
        if not 0 <= 2 * overlap < min(self.middle_size):
            raise UserError(
                f"overlap {overlap}: must be at least 0, and leave something of the "
                f"{'x'.join(map(str, self.middle_size))} pixels in the middle"
            )
        self.hole = np.zeros((*self.image_shape[:2], 1), bool)
        pairs = zip(self._corner(), self.middle_size, strict=True)
        self.hole[tuple(slice(at + overlap, at + n - overlap) for at, n in pairs)] = True
        self.decoder = InpaintingDecoder(self.image_shape[-1], self._doublings(), name="decoder")
        self.discriminator = InpaintingDiscriminator(discriminator_filters, name="discriminator")

    def _doublings(self):
        """How often the last map doubles until it is as large as the middle."""
        times = [n / m for n, m in zip(self.middle_size, self.backbone.last_map(), strict=True)]
        n = round(math.log2(max(times[0], 1)))
        if n < 1 or set(times) != {2**n}:
            middle, last = (
                "x".join(map(str, size)) for size in (self.middle_size, self.backbone.last_map())
            )
            raise UserError(
                f"image_shape {self.image_shape}: the middle, {middle} pixels, must be 2, 4, 8, "
                f"... times the backbone's last map, which has {last}"
            )
        return n

    def build(self, input_shape):
        if not self.backbone.built:
            self.backbone.build((None, *self.image_shape))
        self.decoder.build((None, *self.backbone.last_map(), self.backbone.width))
        self.discriminator.build((None, *self.middle_size, self.image_shape[-1]))

    def middle(self, x):
        """The middle `(B, h, w, C)` of images `(B, H, W, C)`."""
        (height, width), (top, left) = self.middle_size, self._corner()
        return x[:, top : top + height, left : left + width]

    def _corner(self):
        pairs = zip(self.image_shape[:2], self.middle_size, strict=True)
        return tuple((side - n) // 2 for side, n in pairs)

    def with_hole(self, x):
        """Images `(B, H, W, C)` whose hidden pixels are the mean color."""
        mean = ops.cast(ops.convert_to_tensor(self.input_mean), x.dtype)
        return ops.where(ops.convert_to_tensor(self.hole), mean, x)

    def filled(self, x, middle):
        """Images whose hidden pixels are those of a `middle` `(B, h, w, C)`."""
        pairs = zip(self.image_shape[:2], self.middle_size, self._corner(), strict=True)
        around = [(at, side - n - at) for side, n, at in pairs]
        placed = ops.pad(ops.cast(middle, x.dtype), ((0, 0), *around, (0, 0)))
        return ops.where(ops.convert_to_tensor(self.hole), placed, x)

    def inpaint(self, x, training=False):
        """The middle `(B, h, w, C)` in [0, 1] that is predicted of images `(B, H, W, C)`."""
        maps = self.backbone(self.with_hole(x), training=training)
        return self.decoder(list(maps.values())[-1], training=training)

    def discriminate(self, x, training=False):
        """Logits `(B,)` of middles `(B, h, w, C)` being real."""
        return self.discriminator(x, training=training)

    def call(self, x, training=False):
        middle = self.inpaint(x, training=training)
        return {
            "middle": middle,
            "real": self.discriminate(self.middle(x), training=training),
            "fake": self.discriminate(middle, training=training),
        }


def context_encoder(image_shape=(128, 128, 3), **kwargs):
    return construct_on_backbone(ContextEncoder, "context_encoder", image_shape, {}, kwargs)


def context_encoder_small(image_shape=(32, 32, 3), **kwargs):
    sizes = {
        "backbone": "resnet20",
        "depths": (1, 1, 1),
        "discriminator_filters": 16,
        "overlap": 1,
    }
    return construct_on_backbone(
        ContextEncoder, "context_encoder_small", image_shape, sizes, kwargs
    )


TINY = {
    "context_encoder": {
        "image_shape": (16, 24, 1),
        "encoder_filters": (4, 6),
        "discriminator_filters": 5,
        "overlap": 1,
        "input_mean": 0.4,
        "input_std": 0.3,
    },
    "context_encoder_small": {
        "image_shape": (16, 24, 1),
        "backbone": "resnet32",
        "depths": (1, 1, 1),
        "filters": 4,
        "discriminator_filters": 5,
        "overlap": 2,
        "input_mean": 0.4,
        "input_std": 0.3,
    },
}
RECIPE = {
    "context_encoder_small": {"epochs": 20, "batch_size": 64, "lr": 0.001, "weights": "last"},
}
