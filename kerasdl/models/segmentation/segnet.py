"""SegNet for semantic segmentation.

Paper:   SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation,
         Badrinarayanan et al. 2015, https://arxiv.org/abs/1511.00561 (figure 2; section 3).
Differs: convolutions have no bias beside their batch norm; the encoder starts He normal, not from
         VGG-16; `segnet_small` is the project's own row.
"""

import keras

from kerasdl.errors import UserError
from kerasdl.layers.classifier import check_size
from kerasdl.layers.core import Conv, ConvNorm, Model, Normalize, build_chain, construct, register
from kerasdl.ops.pooling import bed_of_nails, max_pool_with_indices, max_unpool

UNPOOLINGS = ("indices", "nails")


@register
class SegNet(Model):
    """An encoder of convolutions and max pooling, and a decoder that mirrors it by unpooling.

    Args:
        image_shape: `(H, W, C)`; the model takes images of any other height and width too.
        num_classes: `K`, the background included.
        stages: Channels of each convolution of each stage of the encoder.
        unpooling: "indices" puts values where the encoder's maxima were (figure 3), "nails" in the
            upper left of each window, without what the encoder knows.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float32 (or float64) logits `(B, H, W, K)`.
    """

    def __init__(
        self,
        image_shape=(360, 480, 3),
        num_classes=11,
        stages=((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
        unpooling="indices",
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_size(image_shape, 2 ** len(stages), "SegNet")
        if unpooling not in UNPOOLINGS:
            raise UserError(f"unpooling {unpooling!r}: not one of {', '.join(UNPOOLINGS)}")
        self.image_shape, self.unpooling = tuple(image_shape), unpooling
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        self.depths = [len(filters) for filters in stages]
        self.encoder = [
            ConvNorm(f, activation="relu", name=f"encoder{s}_conv{i}")
            for s, filters in enumerate(stages, 1)
            for i, f in enumerate(filters, 1)
        ]
        # What each convolution of the encoder was given is what its mirror makes; the first's
        # mirror makes the scores.
        given = [f for filters in stages for f in filters][:-1]
        names = [layer.name.replace("encoder", "decoder") for layer in self.encoder[1:]]
        mirrored = [
            ConvNorm(f, activation="relu", name=n) for f, n in zip(given, names, strict=True)
        ]
        self.decoder = mirrored[::-1]
        self.head = Conv(
            num_classes,
            3,
            kernel_initializer="glorot_uniform",
            dtype=keras.config.dtype_policy().variable_dtype,  # at least float32
            name="head",
        )

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        shape = (None, None, None, input_shape[-1])  # pooling leaves the channels alone
        build_chain(shape, self.normalize, *self.encoder, *self.decoder, self.head)

    def call(self, x, training=False):
        x, encoder, pooled = self.normalize(x), iter(self.encoder), []
        for depth in self.depths:
            for _ in range(depth):
                x = next(encoder)(x, training=training)
            size = x.shape[1:3]
            x, indices = max_pool_with_indices(x)
            pooled.append((indices, size))
        decoder = iter([*self.decoder, self.head])
        for depth in reversed(self.depths):
            indices, size = pooled.pop()
            if self.unpooling == "indices":
                x = max_unpool(x, indices, size)
            else:
                x = bed_of_nails(x, size)
            for _ in range(depth):
                layer = next(decoder)
                x = layer(x) if layer is self.head else layer(x, training=training)
        return x


def segnet(image_shape=(360, 480, 3), num_classes=11, **kwargs):
    """The 13 convolutions of VGG-16 and their mirror; the 11 classes of CamVid."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(SegNet, "segnet", given, {}, kwargs)


def segnet_small(image_shape=(48, 48, 1), num_classes=11, **kwargs):
    """Seven convolutions of 16 to 64 channels in three stages, and their mirror."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    stages = ((16, 16), (32, 32), (64, 64, 64))
    return construct(SegNet, "segnet_small", given, {"stages": stages}, kwargs)


_TINY = {"image_shape": (9, 14, 3), "num_classes": 5, "stages": ((6,), (8, 7))}
TINY = {"segnet": _TINY, "segnet_small": _TINY}
RECIPE = {
    "segnet_small": {
        "epochs": 16,  # 8 are too few; no other setting was tried
        "batch_size": 32,
        "lr": 0.01,
        "warmup_epochs": 0.5,
        "weight_decay": 0.01,
    },
}
