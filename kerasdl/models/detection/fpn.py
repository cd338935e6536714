"""Faster R-CNN on a feature pyramid.

Paper:   Feature Pyramid Networks for Object Detection, Lin et al. 2017,
         https://arxiv.org/abs/1612.03144 (figure 3; sections 4.1, 4.2 and 5.2), with RoI align of
         Mask R-CNN, He et al. 2017, https://arxiv.org/abs/1703.06870.
Differs: as torchvision has it: ResNet's strides are those of v1.5, the first stage has one score
         per anchor, anchors lie at the corners of the places, 1000 proposals of each map are kept
         before suppression, and 1000 of all after it. Trained from scratch, with batch norm of all
         layers, which `frozen=True` leaves as it is, for weights of others.
"""

import keras
import numpy as np
from keras import ops

from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    check_counts,
    construct,
    register,
    upsample2x,
)
from kerasdl.models.cnn.resnet import IMAGENET, ResNetBackbone
from kerasdl.models.detection.faster_rcnn import FasterRCNN
from kerasdl.ops.roi import multiscale_roi_align


@register
class FeaturePyramid(keras.layers.Layer):
    """Maps of a backbone, each with what the coarser ones know, and a last one coarser still.

    Args:
        filters: Channels of all maps, `D`.
        count: How many maps there are.

    Call arguments:
        features: Maps `(B, h, w, C)`, the finest first; each halves the one before, rounded up.

    Returns:
        A list of maps `(B, h, w, D)`: as many, and every other pixel of the last one.
    """

    def __init__(self, filters, count, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.laterals, self.outputs = (
            [
                Conv(filters, side, kernel_initializer=_lecun_uniform(), name=f"{name}{i + 1}")
                for i in range(count)
            ]
            for side, name in ((1, "lateral"), (3, "output"))
        )

    def build(self, shapes):
        for shape, lateral, output in zip(shapes, self.laterals, self.outputs, strict=True):
            lateral.build(shape)
            output.build((*shape[:-1], self.filters))

    def compute_output_shape(self, shapes):
        result = [(*shape[:-1], self.filters) for shape in shapes]
        batch, height, width, _ = result[-1]
        return [*result, (batch, *(n and -(-n // 2) for n in (height, width)), self.filters)]

    def call(self, features):
        maps, above = [], None
        pairs = zip(features, self.laterals, self.outputs, strict=True)
        for x, lateral, output in reversed(list(pairs)):
            x = lateral(x)
            if above is not None:  # what an odd side cuts off is the same pixel again
                x = x + upsample2x(above)[:, : x.shape[1], : x.shape[2]]
            above = x
            maps.insert(0, output(x))
        return [*maps, maps[-1][:, ::2, ::2]]


def _lecun_uniform():
    """A new initializer: uniform, of variance `1 / fan_in`."""
    return keras.initializers.VarianceScaling(1.0, "fan_in", "uniform")


@register
class PyramidRCNN(FasterRCNN):
    """`FasterRCNN` on a ResNet and its feature pyramid: regions are seen on the map of their size.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        depths, block, filters, small: Of the `ResNetBackbone`; its bottlenecks are those of v1.5.
        frozen: Whether its batch norm stays as it is.
        finest: Stride of the first map; each stage from there on makes one.
        pyramid: Channels of the maps.
        canonical: Side of a region in pixels and the level, `log2` of the stride, of the map that
            it is seen on.
        aligned: Whether the centers of pixels lie at halves, where regions are looked at; else they
            lie at whole numbers, as torchvision has it.
        sizes: Square roots of the anchors' areas, in pixels, for each map and the one that is
            coarser still.
        ratios, high, low, anchors_sampled, after, after_training, suppression, regions_sampled,
            objects_sampled, bins, fc_dim, drop_rate: Of `FasterRCNN`.
        before: How many proposals of each map there are before suppression.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    offset = 0.0
    scores = 1

    def __init__(
        self,
        image_shape=(800, 1344, 3),
        num_classes=90,
        depths=(3, 4, 6, 3),
        block="bottleneck",
        filters=64,
        small=False,
        frozen=False,
        finest=4,
        pyramid=256,
        canonical=(224, 4),
        aligned=False,
        sizes=((32,), (64,), (128,), (256,), (512,)),
        ratios=(0.5, 1.0, 2.0),
        high=0.7,
        low=0.3,
        anchors_sampled=256,
        before=1000,
        after=1000,
        after_training=2000,
        suppression=0.7,
        regions_sampled=512,
        objects_sampled=0.25,
        bins=7,
        fc_dim=1024,
        drop_rate=0.0,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        check_counts(pyramid=pyramid, finest=finest)
        resnet = {"depths": depths, "block": block, "filters": filters, "small": small}
        super().__init__(
            image_shape,
            num_classes,
            {"resnet": resnet, "frozen": frozen, "finest": finest, "pyramid": pyramid},
            True,
            sizes,
            ratios,
            high,
            low,
            anchors_sampled,
            before,
            after,
            after_training,
            suppression,
            regions_sampled,
            objects_sampled,
            "align",
            bins,
            fc_dim,
            drop_rate,
            input_mean,
            input_std,
            **kwargs,
        )
        self.canonical, self.half_pixels = canonical, aligned

    def make_backbone(self, image_shape, stages, norm, input_mean, input_std):
        backbone = ResNetBackbone(
            image_shape,
            **stages["resnet"],
            stride_in_3x3=True,
            input_mean=input_mean,
            input_std=input_std,
        )
        self.frozen = stages["frozen"]
        self.stages = [name for name, s in backbone.strides.items() if s >= stages["finest"]]
        self.pyramid = FeaturePyramid(stages["pyramid"], len(self.stages), name="pyramid")
        return backbone

    @property
    def map_width(self):
        return self.pyramid.filters

    def maps(self, x, training=False):
        features = self.backbone(x, training=training)
        return self.pyramid([features[stage] for stage in self.stages])

    def build(self, input_shape):
        super().build(input_shape)
        for layer in self.backbone._flatten_layers() if self.frozen else ():
            if isinstance(layer, BatchNorm):
                layer.trainable = False
        channels = [self.backbone.channels[stage] for stage in self.stages]
        self.pyramid.build([(None, None, None, n) for n in channels])

    def pooled(self, maps, boxes):
        x = self.aligned(maps, boxes, self.bins)
        return ops.reshape(x, (-1, boxes.shape[1], self.bins**2 * self.map_width))

    def aligned(self, maps, boxes, bins):
        """What maps hold in regions, each on the map of its size: float `(B, R, bins, bins, D)`."""
        levels = maps[:-1] or maps  # the coarsest is for the first stage alone
        scales = [[1 / stride for stride in self._strides(level)] for level in levels]
        # A map of an odd side has not quite half of the one before
        scales = [2.0 ** np.rint(np.log2(scale)) for scale in scales]
        size, aligned = (bins, bins), self.half_pixels
        return multiscale_roi_align(levels, boxes, size, scales, self.canonical, aligned=aligned)


def faster_rcnn_fpn(image_shape=(800, 1344, 3), num_classes=90, **kwargs):
    """On ResNet-50."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    block, depths = IMAGENET["resnet50"]
    return construct(
        PyramidRCNN, "faster_rcnn_fpn", given, {"depths": depths, "block": block}, kwargs
    )


TINY = {
    "faster_rcnn_fpn": {
        "image_shape": (24, 32, 1),
        "num_classes": 5,
        "depths": (1, 1),
        "block": "basic",
        "filters": 4,
        "small": True,
        "finest": 1,
        "pyramid": 6,
        "canonical": (12, 1),
        "aligned": True,
        "sizes": ((6, 8), (10, 12), (14, 18)),
        "ratios": (0.5, 2.0),
        "anchors_sampled": 16,
        "before": 8,
        "after": 6,
        "after_training": 8,
        "regions_sampled": 8,
        "bins": 2,
        "fc_dim": 8,
        "drop_rate": 0.1,
    },
}
RECIPE = {
    "faster_rcnn_fpn": {"lr": 0.02, "opt": "sgd", "batch_size": 16, "weight_decay": 0.0001},
}
