"""Colors of images from their lightness.

Paper:   Colorful Image Colorization, Zhang et al. 2016, https://arxiv.org/abs/1603.08511
         (table 4; sections 2.1 to 2.3).
Differs: any backbone of the catalogue may stand for the paper's eight blocks; it is given the
         lightness in the place of each color. `colorization_small` is the project's own row.
"""

import keras
from keras import ops

from kerasdl.layers.classifier import Backbone, check_size, dense_head, pooled
from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    build_chain,
    construct_on_backbone,
    he_normal,
    register,
)
from kerasdl.layers.remat import Block
from kerasdl.models.selfsupervised.cross_channel import CrossChannel, check_colors
from kerasdl.ops.lab import rgb_to_lab

# Table 4: channels of the convolutions of each block, and their dilation
FILTERS = ((64, 64), (128, 128), (256, 256, 256), *((512, 512, 512),) * 4)
DILATED = (False, False, False, False, True, True, False)
HALVED = 3  # blocks whose last convolution has stride 2


@register
class ColorBlock(Block):
    """Convolutions of 3x3 with ReLU, and batch norm at the end.

    Args:
        filters: Channels of each.
        stride: Of the last one.
        dilation: Of all.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch statistics are used, and updated.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.
    """

    def __init__(self, filters, stride=1, dilation=1, **kwargs):
        super().__init__(**kwargs)
        self.convs = [
            Conv(
                f,
                strides=stride if i == len(filters) else 1,
                dilation_rate=dilation,
                activation="relu",
                name=f"conv{i}",
            )
            for i, f in enumerate(filters, 1)
        ]
        self.norm = BatchNorm(name="norm")

    def build(self, input_shape):
        build_chain(input_shape, *self.convs, self.norm)

    def compute_output_shape(self, input_shape):
        for conv in self.convs:
            input_shape = conv.compute_output_shape(input_shape)
        return input_shape

    def call(self, x, training=False):
        for conv in self.convs:
            x = conv(x)
        return self.norm(x, training=training)


@register
class ColorBackbone(Backbone):
    """The first seven blocks of table 4, from the lightness to 1/8 of the image's size.

    Args:
        image_shape: `(H, W, 1)`.
        filters: Channels of the convolutions of each block.
    """

    def __init__(self, image_shape, filters=FILTERS, **kwargs):
        super().__init__(image_shape, 0.5, 1.0, **kwargs)
        check_size(self.image_shape, 8, "colorization")
        self.blocks = [
            ColorBlock(
                f, 2 if i < HALVED else 1, 2 if DILATED[i] else 1, name=f"stage{i + 1}_block1"
            )
            for i, f in enumerate(filters)
        ]
        self.strides = {f"stage{i + 1}": 2 ** min(i + 1, HALVED) for i in range(len(filters))}
        self.channels = {f"stage{i}": f[-1] for i, f in enumerate(filters, 1)}

    def build(self, input_shape):
        build_chain(input_shape, self.normalize, *self.blocks)

    def call(self, x, training=False):
        x = self.normalize(x)
        maps = []
        for block in self.blocks:
            x = block(x, training=training)
            maps.append(x)
        return dict(zip(self.channels, maps, strict=True))


@register
class ColorHead(keras.layers.Layer):
    """The eighth block: a map of twice the size, two convolutions, and a color for each place.

    Args:
        filters: Channels of the map.
        outputs: Numbers that are predicted for each place, `Q`.

    Call arguments:
        x: float `(B, h, w, C)`.

    Returns:
        float32 (or float64) `(B, 2 h, 2 w, Q)`.
    """

    def __init__(self, filters, outputs, **kwargs):
        super().__init__(**kwargs)
        self.up = keras.layers.Conv2DTranspose(
            filters,
            4,
            2,
            padding="same",
            activation="relu",
            kernel_initializer=he_normal(),
            name="up",
        )
        self.convs = [Conv(filters, activation="relu", name=f"conv{i}") for i in (1, 2)]
        self.predict = dense_head(outputs, name="predict")

    def build(self, input_shape):
        build_chain(input_shape, self.up, *self.convs, self.predict)

    def call(self, x):
        x = self.up(x)
        for conv in self.convs:
            x = conv(x)
        return self.predict(x)


@register
class Colorization(CrossChannel):
    """A backbone that sees the lightness, and a head that predicts colors.

    Args:
        image_shape: `(H, W, 3)`.
        backbone: Name of a vision model of the catalogue; None for the paper's own.
        block_filters: Channels of the convolutions of each block of the paper's own.
        head_filters: Channels of the head.
        objective: "classification", of colors as classes, or "regression", of their numbers.
        grid: Distance of two colors that are classes; see `ops.lab.ab_bins`.
        input_mean, input_std: Per channel, of images in [0, 1]; not used by the paper's own.
        **backbone_args: Further arguments of the backbone's builder.

    Call arguments:
        x: float `(B, H, W, 3)`, images in [0, 1]; their colors are not looked at.
        training: Whether dropout and batch statistics are on.

    Returns:
        `{"ab": float32 (or float64) (B, h, w, Q)}`: logits of `bins`, or `a` and `b` over 110, of
        the image at twice the size of the backbone's last map.

    Raises:
        UserError: Images without colors, or an unknown objective.
    """

    def __init__(
        self,
        image_shape=(256, 256, 3),
        backbone=None,
        block_filters=FILTERS,
        head_filters=256,
        objective="classification",
        grid=10,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(objective, grid, name=name, dtype=dtype, trainable=trainable)
        check_colors(image_shape)
        self.image_shape = tuple(image_shape)
        if backbone is None:
            self.classifier = None  # no classifier of the catalogue is made of it
            shape = (*self.image_shape[:2], 1)
            self.backbone = ColorBackbone(shape, block_filters, name="backbone", **backbone_args)
        else:
            statistics = {"input_mean": input_mean, "input_std": input_std}
            self.set_backbone(backbone, image_shape, **statistics, **backbone_args)
        self.head = ColorHead(head_filters, self.outputs("ab"), name="head")

    def build(self, input_shape):
        if not self.backbone.built:
            self.backbone.build((None, *self.backbone.image_shape))
        self.head.build((None, *self.backbone.last_map(), self.backbone.width))

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def look(self, x, training=False):
        """The backbone's last map of the lightness of images `(B, H, W, 3)`."""
        gray = rgb_to_lab(ops.cast(x, self.variable_dtype))[..., :1] / 100.0
        gray = ops.repeat(gray, self.backbone.image_shape[-1], axis=-1)
        return list(self.backbone(gray, training=training).values())[-1]

    def features(self, x, training=False):
        """The representation, float `(B, C)`: of the lightness alone."""
        return pooled(self.look(x, training=training))

    def call(self, x, training=False):
        return {"ab": self.head(self.look(x, training=training))}


def colorization(image_shape=(256, 256, 3), **kwargs):
    return construct_on_backbone(Colorization, "colorization", image_shape, {}, kwargs)


def colorization_small(image_shape=(32, 32, 3), **kwargs):
    sizes = {"backbone": "resnet20", "depths": (1, 1, 1), "head_filters": 32}
    return construct_on_backbone(Colorization, "colorization_small", image_shape, sizes, kwargs)


TINY = {
    "colorization": {
        "image_shape": (8, 16, 3),
        "block_filters": ((4, 5), (6,), (7,), (8,)),
        "head_filters": 6,
        "grid": 40,
    },
    "colorization_small": {
        "image_shape": (8, 12, 3),
        "backbone": "resnet32",
        "depths": (1, 1),
        "filters": 8,
        "head_filters": 6,
        "grid": 40,
    },
}
RECIPE = {
    "colorization_small": {"epochs": 3, "batch_size": 64, "lr": 0.003, "weights": "last"},
}
