"""U-Net for semantic segmentation.

Paper:   U-Net: Convolutional Networks for Biomedical Image Segmentation, Ronneberger et al. 2015,
         https://arxiv.org/abs/1505.04597 (figure 1; section 2).
Differs: `unet` starts from kernels of He's variance, as the paper has them, and biases of 0; its
         loss has no weights of pixels. `unet_small`, the project's own, has padded convolutions, so
         that the output has the size of the input and skips are not cropped, batch norm after each
         of them, and three levels from 16 channels on instead of four from 64.
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Backbone
from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    Model,
    Normalize,
    build_chain,
    check_counts,
    construct,
    he_normal,
    register,
)
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.remat import Block

NORMS = ("batch", "none")
PADDINGS = ("same", "valid")


@register
class ConvPair(Block):
    """Two 3x3 convolutions, each followed by its norm and a relu: one level of figure 1.

    Args:
        filters: Channels of the output, `D`.
        norm: "batch" or "none".
        padding: "same" or "valid".

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, H, W, D)`, without padding `(B, H - 4, W - 4, D)`.
    """

    def __init__(self, filters, norm="batch", padding="same", **kwargs):
        super().__init__(**kwargs)
        self.conv1, self.conv2 = (
            keras.layers.Conv2D(
                filters,
                3,
                padding=padding,
                use_bias=norm == "none",  # else the norm's
                kernel_initializer=he_normal(),
                name=f"conv{i}",
            )
            for i in (1, 2)
        )
        self.norm1 = BatchNorm(name="norm1") if norm == "batch" else None
        self.norm2 = BatchNorm(name="norm2") if norm == "batch" else None

    def build(self, input_shape):
        norm1, norm2 = ([norm] if norm else [] for norm in (self.norm1, self.norm2))
        build_chain(input_shape, self.conv1, *norm1, self.conv2, *norm2)

    def compute_output_shape(self, input_shape):
        return self.conv2.compute_output_shape(self.conv1.compute_output_shape(input_shape))

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
        norm, padding: Of the `ConvPair`.

    Call arguments:
        x: float `(B, H, W, C)`.
        skip: float `(B, h, w, D)` of at least `2 H` and `2 W`; its center is joined.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, 2 H, 2 W, D)`, without padding `(B, 2 H - 4, 2 W - 4, D)`.
    """

    def __init__(self, filters, norm="batch", padding="same", **kwargs):
        super().__init__(**kwargs)
        self.up = keras.layers.Conv2DTranspose(
            filters, 2, 2, kernel_initializer="he_normal", name="up"
        )
        self.convs = ConvPair(filters, norm, padding, name="convs")

    def build(self, x_shape, skip_shape):
        self.up.build(x_shape)
        self.convs.build((None, None, None, skip_shape[-1] + self.up.filters))

    def call(self, x, skip, training=False):
        x = self.up(x)
        height, width = x.shape[1:3]
        top, left = (skip.shape[1] - height) // 2, (skip.shape[2] - width) // 2
        skip = skip[:, top : top + height, left : left + width]
        return self.convs(ops.concatenate([skip, x], axis=-1), training=training)


def contracting(depth, filters, norm, padding):
    """The levels of the contracting path, `depth` and the bottom, as `ConvPair`s."""
    pairs = [ConvPair(filters * 2**i, norm, padding, name=f"down{i + 1}") for i in range(depth)]
    return [*pairs, ConvPair(filters * 2**depth, norm, padding, name="bottom")]


@register
class UNetEncoder(Backbone):
    """The contracting path alone, as a backbone: its weights begin a `UNet`'s.

    Args:
        image_shape, depth, filters, norm, padding, input_mean, input_std: See `UNet`.

    Returns:
        `{"down1": float (B, H, W, D), ..., "bottom": (B, H/2**depth, W/2**depth, 2**depth D)}`.
    """

    def __init__(
        self,
        image_shape,
        depth=3,
        filters=16,
        norm="batch",
        padding="same",
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_sides(self.image_shape, depth, padding)
        self.pairs = contracting(depth, filters, norm, padding)
        self.strides = {pair.name: 2**i for i, pair in enumerate(self.pairs)}
        self.channels = {pair.name: pair.conv2.filters for pair in self.pairs}

    def build(self, input_shape):
        build_chain(input_shape, self.normalize, *self.pairs)

    def call(self, x, training=False):
        x, maps = self.normalize(x), {}
        for pair in self.pairs:
            x = pair(x if not maps else ops.max_pool(x, 2, 2), training=training)
            maps[pair.name] = x
        return maps


@register
class UNet(Model):
    """A contracting path of levels, an expanding path of as many, and a 1x1 convolution.

    Args:
        image_shape: `(H, W, C)`; both sides must be multiples of `2**depth`, without padding
            even before each halving. The model takes images of any other such size too.
        num_classes: `K`, the background included.
        depth: How often the image is halved.
        filters: Channels of the first level; they double with each halving.
        drop_rate: Dropout at the end of the contracting path.
        norm: After each 3x3 convolution: "batch", or "none" with biases instead.
        padding: Of the 3x3 convolutions: "same", or "valid", which makes the map smaller.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, H, W, K)`, without padding of the center of the image that
        all of their windows lie in: of 572 pixels a side 388.
    """

    def __init__(
        self,
        image_shape=(48, 48, 1),
        num_classes=11,
        depth=3,
        filters=16,
        drop_rate=0.0,
        norm="batch",
        padding="same",
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(num_classes=num_classes, depth=depth, filters=filters)
        for what, value, known in (("norm", norm, NORMS), ("padding", padding, PADDINGS)):
            if value not in known:
                raise UserError(f"{what} {value!r}: not one of {', '.join(known)}")
        self.image_shape = check_sides(image_shape, depth, padding)
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        *self.downs, self.bottom = contracting(depth, filters, norm, padding)
        self.drop = Dropout(drop_rate, name="drop")
        self.ups = [
            UpLevel(filters * 2**i, norm, padding, name=f"up{i + 1}")
            for i in reversed(range(depth))
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
        # What a layer has to know is the channels, which pooling leaves alone.
        shape, skips = (None, None, None, input_shape[-1]), []
        self.normalize.build(shape)
        for down in self.downs:
            shape = build_chain(shape, down)
            skips.append(shape)
        shape = build_chain(shape, self.bottom, self.drop)
        for up in self.ups:
            skip = skips.pop()
            up.build(shape, skip)
            shape = skip  # an expanding level ends with the channels of the one beside it
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


def check_sides(image_shape, depth, padding="same"):
    """The image's shape as a tuple.

    Raises:
        ValueError: Where a side cannot be halved `depth` times; names the nearest that can.
    """
    shape, factor = tuple(image_shape), 2**depth
    if len(shape) != 3:
        raise UserError(f"image_shape {shape}: must be (height, width, channels)")

    def fits(side):
        lost = 4 if padding == "valid" else 0
        for _ in range(depth):
            side -= lost
            if side < 2 or side % 2:
                return False
            side //= 2
        side -= lost
        for _ in range(depth):
            side = 2 * side - lost
        return side > 0

    if not all(map(fits, shape[:2])):
        smallest = next(side for side in range(1, 100 * factor) if fits(side))
        near = [
            min(range(smallest, smallest + side + factor, factor), key=lambda n: abs(n - side))
            for side in shape[:2]
        ]
        rule = "" if smallest == factor else f"{smallest} and "
        more = "" if smallest == factor else " more"
        raise UserError(
            f"image_shape {shape}: sides must be {rule}multiples of {factor}{more} to be halved "
            f"{depth} times; the nearest is ({near[0]}, {near[1]}, {shape[2]}), "
            f"--image-size {' '.join(map(str, near))}"
        )
    return shape


def _make(name, image_shape, num_classes, sizes, kwargs):
    if kwargs.pop("features", False):
        given = {"image_shape": tuple(image_shape)}
        sizes = {k: v for k, v in sizes.items() if k != "drop_rate"}
        return construct(UNetEncoder, "backbone", given, sizes, kwargs)
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(UNet, name, given, sizes, kwargs)


def unet(image_shape=(572, 572, 1), num_classes=2, **kwargs):
    """Figure 1: four halvings, 64 to 1,024 channels, 23 convolutions."""
    sizes = {"depth": 4, "filters": 64, "drop_rate": 0.5, "norm": "none", "padding": "valid"}
    return _make("unet", image_shape, num_classes, sizes, kwargs)


def unet_small(image_shape=(48, 48, 1), num_classes=11, **kwargs):
    """Three halvings, 16 to 128 channels: for the scenes of digits."""
    return _make("unet_small", image_shape, num_classes, {}, kwargs)


TINY = {
    "unet": {
        "image_shape": (20, 24, 3),
        "num_classes": 5,
        "depth": 1,
        "filters": 4,
        "drop_rate": 0.1,
    },
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
