"""SPP-net, a classifier of proposed regions by spatial pyramids on one map of the image.

Paper:   Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition,
         He et al. 2014, https://arxiv.org/abs/1406.4729 (section 4; ZF-5 of table 1).
Differs: trained end to end from scratch, where the paper keeps the convolutions of a classifier as
         they are (`--initial-checkpoint` with `--freeze-backbone` does); a softmax and a linear
         layer learn with the rest, where the paper fits support vector machines and ridge
         regression of the boxes afterwards; one scale of the image; maps are padded, and a region
         is rounded to the nearest pixels of the map. `sppnet_small` has smaller kernels at stride
         1, batch norm for the local response norm, and fewer channels.
"""

from keras import ops

from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    Normalize,
    build_chain,
    construct,
    register,
    strided,
)
from kerasdl.layers.norm import LocalResponseNorm
from kerasdl.layers.remat import Block
from kerasdl.models.detection import fast_rcnn
from kerasdl.models.detection.fast_rcnn import RegionDetector
from kerasdl.ops.roi import roi_pool

POOLED = 2  # convolutions that are followed by a norm and by pooling


@register
class ZFBlock(Block):
    """Convolution and ReLU, and where it is pooled a norm and 3x3 max pooling at stride 2.

    Args:
        filters: Channels of the output, `D`.
        kernel_size: Side of the square kernel, odd.
        stride: Of the convolution.
        pool: Whether there are norm and pooling.
        batch_norm: Batch norm before each ReLU, for local response norm after some.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, h, w, D)`.
    """

    def __init__(self, filters, kernel_size, stride=1, pool=False, batch_norm=False, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.pool = Conv(filters, kernel_size, stride, name="conv"), pool
        self.batch_norm = BatchNorm(name="norm") if batch_norm else None
        local = pool and not batch_norm
        self.local_norm = LocalResponseNorm(5, 5e-4, 0.75, 2.0, name="norm") if local else None

    def build(self, input_shape):
        shape = build_chain(input_shape, self.conv)
        for norm in filter(None, (self.batch_norm, self.local_norm)):
            norm.build(shape)

    def compute_output_shape(self, input_shape):
        shape = self.conv.compute_output_shape(input_shape)
        return strided(shape, 2) if self.pool else shape

    def call(self, x, training=False):
        x = self.conv(x)
        if self.batch_norm is not None:
            x = self.batch_norm(x, training=training)
        x = ops.relu(x)
        if self.local_norm is not None:
            x = self.local_norm(x)
        return ops.max_pool(x, 3, 2, padding="same") if self.pool else x


@register
class ZF5(Block):
    """The five convolutions of Zeiler and Fergus.

    Args:
        filters: Channels of each.
        kernels: Sides of their kernels.
        strides: Of each.
        batch_norm: Of `ZFBlock`.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, h, w, D)`.
    """

    def __init__(self, filters, kernels, strides, batch_norm, input_mean, input_std, **kwargs):
        super().__init__(**kwargs)
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        sizes = zip(filters, kernels, strides, strict=True)
        self.blocks = [
            ZFBlock(*size, i < POOLED, batch_norm, name=f"conv{i + 1}")
            for i, size in enumerate(sizes)
        ]

    def build(self, input_shape):
        build_chain((None, None, None, input_shape[-1]), self.normalize, *self.blocks)

    def call(self, x, training=False):
        x = self.normalize(x)
        for block in self.blocks:
            x = block(x, training=training)
        return x


@register
class SPPNet(RegionDetector):
    """`ZF5`, and two dense layers on the spatial pyramid of each region.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        filters: Channels of the five convolutions.
        kernels: Sides of their kernels.
        strides: Of each.
        batch_norm: Of `ZFBlock`.
        pyramid: Bins of a region along each side, level by level.
        regions_sampled: Regions of an image that are learned from.
        objects_sampled: Fraction of them that are objects, where there are so many.
        background_from: Overlap with an object from which on a region can be background.
        fc_dim: Units of each of the two dense layers.
        drop_rate: Dropout after each of them.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(
        self,
        image_shape=(688, 917, 3),
        num_classes=20,
        filters=(96, 256, 384, 384, 256),
        kernels=(7, 5, 3, 3, 3),
        strides=(2, 2, 1, 1, 1),
        batch_norm=False,
        pyramid=(1, 2, 3, 6),
        regions_sampled=128,
        objects_sampled=0.25,
        background_from=0.1,
        fc_dim=4096,
        drop_rate=0.5,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        sampling = (regions_sampled, objects_sampled, background_from)
        super().__init__(image_shape, num_classes, *sampling, fc_dim, drop_rate, **kwargs)
        self.pyramid = tuple(pyramid)
        self.width = filters[-1] * sum(n**2 for n in pyramid)
        self.backbone = ZF5(
            filters, kernels, strides, batch_norm, input_mean, input_std, name="backbone"
        )

    def build(self, input_shape):
        self.backbone.build(input_shape["image"])
        self.build_head(self.width)

    def pooled(self, maps, boxes):
        scale = [1 / stride for stride in self._strides(maps)]
        levels = []
        for n in self.pyramid:
            x = roi_pool(maps, boxes, (n, n), scale)  # (B, R, n, n, D)
            levels.append(ops.reshape(x, (-1, boxes.shape[1], n**2 * maps.shape[-1])))
        return ops.concatenate(levels, axis=-1)


def sppnet(image_shape=(688, 917, 3), num_classes=20, **kwargs):
    """ZF-5 at the scale of section 4.1."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(SPPNet, "sppnet", given, {}, kwargs)


def sppnet_small(image_shape=(48, 48, 1), num_classes=10, **kwargs):
    """Maps of a quarter of the image's sides: for the scenes of digits."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    sizes = {
        "filters": (24, 48, 96, 96, 96),
        "kernels": (5, 3, 3, 3, 3),
        "strides": (1,) * 5,
        "batch_norm": True,
        "regions_sampled": 32,
        "background_from": 0.0,
        "fc_dim": 192,
        "drop_rate": 0.0,
    }
    return construct(SPPNet, "sppnet_small", given, sizes, kwargs)


_TINY = {
    "image_shape": (16, 24, 3),
    "num_classes": 5,
    "filters": (4, 5, 6, 7, 8),
    "kernels": (3, 3, 1, 1, 1),
    "strides": (1, 1, 1, 1, 1),
    "pyramid": (1, 2),
    "regions_sampled": 8,
    "background_from": 0.05,
    "fc_dim": 8,
    "drop_rate": 0.1,
}
TINY = {"sppnet": _TINY, "sppnet_small": _TINY}
RECIPE = {
    "sppnet": fast_rcnn.RECIPE["fast_rcnn"],
    # Those of `fast_rcnn_small`; half the epochs are enough for an AP50 above 0.85
    "sppnet_small": fast_rcnn.RECIPE["fast_rcnn_small"],
}
