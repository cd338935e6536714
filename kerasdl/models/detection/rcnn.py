"""R-CNN, a classifier of images cut out at proposed regions.

Paper:   Rich Feature Hierarchies for Accurate Object Detection and Semantic Segmentation,
         Girshick et al. 2014, https://arxiv.org/abs/1311.2524 (section 2; appendices A and C).
Differs: trained from scratch in one stage: a softmax and a linear layer, both on the second dense
         layer, learn with the rest, where the paper fits support vector machines and ridge
         regression of the boxes on the last pooling afterwards, with other thresholds; as many
         regions are sampled of every image. `rcnn_small` has a first convolution at stride 1, less
         of the channels, and smaller crops and dense layers.
"""

from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import Normalize, check_counts, construct, register
from kerasdl.models.cnn.alexnet import AlexNetBackbone
from kerasdl.models.detection import fast_rcnn
from kerasdl.models.detection.fast_rcnn import RegionDetector
from kerasdl.ops.roi import warp

CHUNK = 256  # regions at a time, for memory's sake


@register
class RCNN(RegionDetector):
    """`AlexNetBackbone` and two dense layers on each region, warped to one size.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        crop: Side of the warped regions in pixels.
        context: How many of these on each side are of what lies around the region.
        filters, groups, small: Of the `AlexNetBackbone`.
        regions_sampled: Regions of an image that are learned from.
        objects_sampled: Fraction of them that are objects, where there are so many.
        background_from: Overlap with an object from which on a region can be background.
        fc_dim: Units of each of the two dense layers.
        drop_rate: Dropout after each of them.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(
        self,
        image_shape=(375, 500, 3),
        num_classes=20,
        crop=227,
        context=16,
        filters=(96, 256, 384, 384, 256),
        groups=2,
        small=False,
        regions_sampled=64,
        objects_sampled=0.25,
        background_from=0.0,
        fc_dim=4096,
        drop_rate=0.5,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        sampling = (regions_sampled, objects_sampled, background_from)
        super().__init__(image_shape, num_classes, *sampling, fc_dim, drop_rate, **kwargs)
        check_counts(crop=crop)
        if not 0 <= context < crop / 2:
            raise UserError(f"context {context}: must be from 0 on and below half of crop {crop}")
        self.crop, self.context = crop, context
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        shape = (crop, crop, self.image_shape[-1])
        self.backbone = AlexNetBackbone(shape, filters, groups, small)
        height, width = self.backbone.last_map()
        self.width = height * width * filters[-1]

    def build(self, input_shape):
        self.normalize.build(input_shape["image"])
        self.backbone.build((None, *self.backbone.image_shape))
        self.build_head(self.width)

    def maps(self, x, training=False):
        """The image, 0 where it is as the mean, with which crops are filled up."""
        return self.normalize(x)

    def pooled(self, maps, boxes):
        parts = []
        for start in range(0, boxes.shape[1], CHUNK):
            some = boxes[:, start : start + CHUNK]
            x = warp(maps, some, (self.crop, self.crop), self.context)
            x = self.backbone(ops.reshape(x, (-1, *self.backbone.image_shape)))
            parts.append(ops.reshape(x["stage3"], (-1, some.shape[1], self.width)))
        return ops.concatenate(parts, axis=1)


def rcnn(image_shape=(375, 500, 3), num_classes=20, **kwargs):
    """On AlexNet."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(RCNN, "rcnn", given, {}, kwargs)


def rcnn_small(image_shape=(48, 48, 1), num_classes=10, **kwargs):
    """Crops of 24 pixels a side: for the scenes of digits."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    sizes = {
        "crop": 24,
        "context": 2,
        "filters": (16, 48, 64, 64, 48),
        "small": True,
        "regions_sampled": 32,
        "fc_dim": 128,
        "drop_rate": 0.0,
    }
    return construct(RCNN, "rcnn_small", given, sizes, kwargs)


_TINY = {
    "image_shape": (16, 24, 3),
    "num_classes": 5,
    "crop": 15,
    "context": 2,
    "filters": (4, 6, 6, 6, 4),
    "groups": 1,
    "small": True,
    "regions_sampled": 8,
    "background_from": 0.05,
    "fc_dim": 8,
    "drop_rate": 0.1,
}
TINY = {"rcnn": _TINY, "rcnn_small": _TINY}
RECIPE = {
    "rcnn": fast_rcnn.RECIPE["fast_rcnn"],
    # Those of `fast_rcnn_small` with half the epochs, which take twice as long
    "rcnn_small": {**fast_rcnn.RECIPE["fast_rcnn_small"], "epochs": 3},
}
