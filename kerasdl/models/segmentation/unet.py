"""U-Net for semantic segmentation.

Paper:   U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger et al. 2015,
         https://arxiv.org/abs/1505.04597 (figure 1; section 2).
Differs: padded convolutions, so that the output has the size of the input and skips are not
         cropped; batch norm after each convolution (`norm="none"` is the paper's); `unet_small`
         has three levels from 16 channels on instead of four from 64.
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    Model,
    Normalize,
    check_counts,
    construct,
    register,
)
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.remat import Block

NORMS = ("batch", "none")


@register
class ConvPair(Block):
    """Two 3x3 convolutions, each followed by its norm and a relu: one level of figure 1.

    Args:
        filters: Channels of the output, `D`.
        norm: "batch" or "none".

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, H, W, D)`.
    """

    def __init__(self, filters, norm="batch", **kwargs):
        super().__init__(**kwargs)
        bias = norm == "none"  # else the norm's
        self.conv1 = Conv(filters, 3, use_bias=bias, name="conv1")
        self.conv2 = Conv(filters, 3, use_bias=bias, name="conv2")
        self.norm1 = BatchNorm(name="norm1") if norm == "batch" else None
        self.norm2 = BatchNorm(name="norm2") if norm == "batch" else None

    def build(self, input_shape):
        shape = tuple(input_shape)
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
            if norm:
                norm.build(shape)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.conv2.filters)

    def call(self, x, training=False):
        for conv, norm in ((self.conv1, self.norm1), (self.conv2, self.norm2)):
            x = conv(x)
            x = ops.relu(norm(x, training=training) if norm else x)
        return x


@register
class UpLevel(Block):
    """A 2x2 up-convolution that halves the channels, the skip joined to it, and a `ConvPair`.

    Args:
        filters: Channels of the output, `D`.
        norm: Of the `ConvPair`.

    Call arguments:
        x: float `(B, H, W, C)`.
        skip: float `(B, 2 H, 2 W, D)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, 2 H, 2 W, D)`.
    """

    def __init__(self, filters, norm="batch", **kwargs):
        super().__init__(**kwargs)
        self.up = keras.layers.Conv2DTranspose(
            filters, 2, 2, kernel_initializer="he_normal", name="up"
        )
        self.convs = ConvPair(filters, norm, name="convs")

    def build(self, x_shape, skip_shape):
        self.up.build(x_shape)
        self.convs.build((*skip_shape[:-1], skip_shape[-1] + self.up.filters))

    def call(self, x, skip, training=False):
        x = ops.concatenate([skip, self.up(x)], axis=-1)  # (B, 2 H, 2 W, 2 D)
        return self.convs(x, training=training)


@register
class UNet(Model):
    """A contracting path of levels, an expanding path of as many, and a 1x1 convolution.

    Args:
        image_shape: `(H, W, C)`; both sides must be multiples of `2**depth`.
        num_classes: `K`, the background included.
        depth: How often the image is halved.
        filters: Channels of the first level; they double with each halving.
        drop_rate: Dropout at the end of the contracting path.
        norm: After each 3x3 convolution: "batch", or "none" with biases instead.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, H, W, K)`.
    """

    def __init__(
        self,
        image_shape=(48, 48, 1),
        num_classes=11,
        depth=3,
        filters=16,
        drop_rate=0.0,
        norm="batch",
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(num_classes=num_classes, depth=depth, filters=filters)
        if norm not in NORMS:
            raise UserError(f"norm {norm!r}: not one of {', '.join(NORMS)}")
        self.image_shape = check_sides(image_shape, depth)
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        self.downs = [ConvPair(filters * 2**i, norm, name=f"down{i + 1}") for i in range(depth)]
        self.bottom = ConvPair(filters * 2**depth, norm, name="bottom")
        self.drop = Dropout(drop_rate, name="drop")
        self.ups = [
            UpLevel(filters * 2**i, norm, name=f"up{i + 1}") for i in reversed(range(depth))
        ]
        self.head = Conv(
            num_classes,
            1,
            kernel_initializer="glorot_uniform",
            dtype=keras.config.dtype_policy().variable_dtype,  # at least float32
            name="head",
        )

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        shape, skips = tuple(input_shape), []
        self.normalize.build(shape)
        for down in self.downs:
            down.build(shape)
            skips.append(down.compute_output_shape(shape))
            batch, height, width, channels = skips[-1]
            shape = (batch, height // 2, width // 2, channels)
        self.bottom.build(shape)
        shape = self.bottom.compute_output_shape(shape)
        self.drop.build(shape)
        for up in self.ups:
            skip = skips.pop()
            up.build(shape, skip)
            shape = skip  # an expanding level ends as the contracting one beside it
        self.head.build(shape)

    def call(self, x, training=False):
        x, skips = self.normalize(x), []
        for down in self.downs:
            x = down(x, training=training)
            skips.append(x)
            x = ops.max_pool(x, 2, 2)
        x = self.drop(self.bottom(x, training=training), training=training)
        for up in self.ups:
            x = up(x, skips.pop(), training=training)
        return self.head(x)


def check_sides(image_shape, depth):
    """The image's shape as a tuple.

    Raises:
        ValueError: Where a side cannot be halved `depth` times; names the nearest that can.
    """
    shape, factor = tuple(image_shape), 2**depth
    if len(shape) != 3:
        raise UserError(f"image_shape {shape}: must be (height, width, channels)")
    if any(side < factor or side % factor for side in shape[:2]):
        near = [max(factor, factor * round(side / factor)) for side in shape[:2]]
        raise UserError(
            f"image_shape {shape}: sides must be multiples of {factor} to be halved {depth} times; "
            f"the nearest is ({near[0]}, {near[1]}, {shape[2]}), "
            f"--image-size {' '.join(map(str, near))}"
        )
    return shape


def unet_small(image_shape=(48, 48, 1), num_classes=11, **kwargs):
    """Three halvings, 16 to 128 channels: for the scenes of digits."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(UNet, "unet_small", given, {}, kwargs)


TINY = {
    "unet_small": {
        "image_shape": (8, 12, 3),
        "num_classes": 5,
        "depth": 2,
        "filters": 4,
        "drop_rate": 0.1,
        "norm": "none",
    },
}
RECIPE = {
    "unet_small": {
        "epochs": 6,
        "batch_size": 32,
        "lr": 0.006,
        "warmup_epochs": 0.5,
        "weight_decay": 0.01,
    },
}
