"""Fast R-CNN, a classifier of proposed regions on one map of the image.

Paper:   Fast R-CNN, Girshick 2015, https://arxiv.org/abs/1504.08083 (sections 2.1 to 2.3).
Differs: trained from scratch, with no layer frozen; the smooth L1 loss becomes linear at 1/9, as in
         the authors' later code; the proposals are as many in training as in evaluation; no
         truncated SVD. `fast_rcnn_small` has batch norm, fewer bins and smaller dense layers, and
         learns from background that overlaps nothing too.
"""

import keras
from keras import ops

from kerasdl.layers.core import check_counts, construct, register
from kerasdl.models.detection import faster_rcnn
from kerasdl.models.detection.faster_rcnn import VGG16, FasterRCNN, Unpooled
from kerasdl.ops import boxes as bx


class RegionDetector(FasterRCNN):
    """The second stage of `FasterRCNN` on proposals that are given, the base of its forerunners.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        regions_sampled: Regions of an image that are learned from.
        objects_sampled: Fraction of them that are objects, where there are so many.
        background_from: Overlap with an object from which on a region can be background.
        fc_dim: Units of each of the two dense layers.
        drop_rate: Dropout after each of them.

    Call arguments:
        x: `image` float `(B, H, W, C)` in [0, 1], and `proposals` float `(B, R, 4)` in [0, 1], 0
            where there are fewer.
        training: Whether dropout and batch statistics are on.

    Returns:
        `maps` float `(B, h, w, D)`; `proposals` `(B, R, 4)` in pixels and `there` int32 `(B, R)`.
    """

    def __init__(
        self,
        image_shape,
        num_classes,
        regions_sampled,
        objects_sampled,
        background_from,
        fc_dim,
        drop_rate,
        **kwargs,
    ):
        super(FasterRCNN, self).__init__(**kwargs)
        check_counts(num_classes=num_classes, regions_sampled=regions_sampled, fc_dim=fc_dim)
        self.image_shape, self.num_classes = tuple(image_shape), num_classes
        self.samples, self.fraction = (None, regions_sampled), objects_sampled
        self.background_from = background_from
        self.make_head(fc_dim, drop_rate)

    def symbolic_inputs(self):
        return {"image": keras.Input(self.image_shape), "proposals": keras.Input((None, 4))}

    def call(self, x, training=False):
        maps = self.maps(x["image"], training=training)
        maps = ops.cast(maps, self.classes.dtype_policy.variable_dtype)
        boxes = self.in_pixels(ops.cast(x["proposals"], maps.dtype))
        there = bx.large(boxes, 1e-3)
        return {"maps": maps, "proposals": boxes, "there": ops.cast(there, "int32")}

    def detection_losses(self, predictions, batch, training=False):
        """Of the class and of the place, each the mean over the regions sampled."""
        sums = self.losses_of_regions(predictions, batch, training)
        return tuple(total / ops.maximum(count, 1) for total, count in sums.values())


@register
class FastRCNN(RegionDetector):
    """A `VGGBackbone`, and two dense layers on the maxima in the bins of each region.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        stages: Of the `VGGBackbone`, which does not pool after the last.
        norm: Of the `VGGBackbone`.
        bins: Of a region, along each side.
        regions_sampled: Regions of an image that are learned from.
        objects_sampled: Fraction of them that are objects, where there are so many.
        background_from: Overlap with an object from which on a region can be background.
        fc_dim: Units of each of the two dense layers.
        drop_rate: Dropout after each of them.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    roi = "pool"

    def __init__(
        self,
        image_shape=(600, 1000, 3),
        num_classes=20,
        stages=((64, 64), (128, 128)),
        norm=False,
        bins=7,
        regions_sampled=64,
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
        check_counts(bins=bins)
        self.bins = bins
        self.backbone = Unpooled(image_shape, stages, norm, input_mean, input_std)

    def build(self, input_shape):
        self.backbone.build(input_shape["image"])
        self.build_head(self.bins**2 * self.backbone.width)


def fast_rcnn(image_shape=(600, 1000, 3), num_classes=20, **kwargs):
    """On VGG-16."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(FastRCNN, "fast_rcnn", given, {"stages": VGG16}, kwargs)


def fast_rcnn_small(image_shape=(48, 48, 1), num_classes=10, **kwargs):
    """Six convolutions to a quarter of the image's sides: for the scenes of digits."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    sizes = {
        "stages": ((24,), (48, 48), (96, 96, 96)),
        "norm": True,
        "bins": 5,
        "regions_sampled": 32,
        "background_from": 0.0,
        "fc_dim": 192,
        "drop_rate": 0.0,
    }
    return construct(FastRCNN, "fast_rcnn_small", given, sizes, kwargs)


_TINY = {
    "image_shape": (16, 24, 3),
    "num_classes": 5,
    "stages": ((4,), (6,)),
    "bins": 2,
    "regions_sampled": 8,
    "background_from": 0.05,
    "fc_dim": 8,
    "drop_rate": 0.1,
}
TINY = {"fast_rcnn": _TINY, "fast_rcnn_small": _TINY}
RECIPE = {
    "fast_rcnn": faster_rcnn.RECIPE["faster_rcnn"],
    # The only setting that was tried
    "fast_rcnn_small": {
        **faster_rcnn.RECIPE["faster_rcnn_small"],
        "task_kwargs": {"max_proposals": 100},
    },
}
