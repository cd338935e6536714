"""Mask R-CNN: boxes, classes and masks of all objects.

Paper:   Mask R-CNN, He et al. 2017, https://arxiv.org/abs/1703.06870 (section 3; figure 4, right).
Differs: what `kerasdl.models.detection.fpn` says; `mask_rcnn_small` has a shallow ResNet at the
         image's full size, maps at strides 2, 4 and 8, and smaller heads.
"""

import keras
from keras import ops

from kerasdl.layers.core import (
    OF_EVERY_MODEL,
    Conv,
    arguments_of,
    build_chain,
    check_counts,
    construct,
    he_normal,
    register,
)
from kerasdl.models.cnn.resnet import IMAGENET
from kerasdl.models.detection import fpn
from kerasdl.models.detection.fpn import PyramidRCNN
from kerasdl.ops.masks import cropped, paste
from kerasdl.ops.nms import rows


@register
class MaskHead(keras.layers.Layer):
    """3x3 convolutions, a transposed one that doubles the sides, and a mask of every class.

    Args:
        filters: Channels of the 3x3 convolutions.
        dim: Of the transposed one.
        num_classes: With the background, `K`.

    Call arguments:
        x: float `(B, R, P, P, C)`, what maps hold in regions.

    Returns:
        Logits float `(B, R, 2 P, 2 P, K)`.
    """

    def __init__(self, filters, dim, num_classes, **kwargs):
        super().__init__(**kwargs)
        policy = keras.config.dtype_policy().variable_dtype  # at least float32
        self.convs = [
            Conv(n, 3, activation="relu", name=f"conv{i}") for i, n in enumerate(filters, 1)
        ]
        self.enlarge = keras.layers.Conv2DTranspose(
            dim, 2, 2, activation="relu", kernel_initializer=he_normal(), name="enlarge"
        )
        self.logits = Conv(num_classes, 1, dtype=policy, name="logits")

    def build(self, input_shape):
        build_chain((None, *input_shape[2:]), *self.convs, self.enlarge, self.logits)

    def compute_output_shape(self, input_shape):
        batch, regions, height, width, _ = input_shape
        return (batch, regions, 2 * height, 2 * width, self.logits.filters)

    def call(self, x):
        _, regions, *shape = x.shape
        x = ops.reshape(x, (-1, *shape))
        for layer in (*self.convs, self.enlarge, self.logits):
            x = layer(x)
        return ops.reshape(x, (-1, regions, *x.shape[1:]))


@register
class MaskRCNN(PyramidRCNN):
    """`PyramidRCNN`, and a mask of each object that it finds.

    Args:
        mask_filters: Channels of the mask head's 3x3 convolutions.
        mask_dim: Of its transposed one.
        mask_bins: Of a region, along each side; masks have twice as many.
        **kwargs: Those of `PyramidRCNN`.
    """

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls, *args, **{**cls._inherited(), **kwargs})  # for the config

    def __init__(
        self,
        image_shape=(800, 1344, 3),
        num_classes=90,
        mask_filters=(256, 256, 256, 256),
        mask_dim=256,
        mask_bins=14,
        **kwargs,
    ):
        super().__init__(image_shape, num_classes, **kwargs)
        check_counts(mask_dim=mask_dim, mask_bins=mask_bins)
        self.mask_bins = mask_bins
        self.mask_head = MaskHead(mask_filters, mask_dim, num_classes + 1, name="mask_head")

    @classmethod
    def _inherited(cls):
        """`{argument of PyramidRCNN: its default}`."""
        own = arguments_of(MaskRCNN)
        defaults = {name: p.default for name, p in arguments_of(PyramidRCNN).items()}
        return {k: v for k, v in defaults.items() if k not in (*own, *OF_EVERY_MODEL)}

    @classmethod
    def argument_names(cls):
        return [*super().argument_names(), *cls._inherited()]

    def build(self, input_shape):
        super().build(input_shape)
        self.mask_head.build((None, None, self.mask_bins, self.mask_bins, self.map_width))

    def mask_logits(self, maps, boxes, label):
        """Of regions, the mask of one class each.

        Args:
            maps: Of `maps`.
            boxes: float `(B, R, 4)` in pixels.
            label: int32 `(B, R)`, the class, from 0 on.

        Returns:
            float `(B, R, 2 P, 2 P)`.
        """
        logits = self.mask_head(self.aligned(maps, boxes, self.mask_bins))
        own = ops.one_hot(label + 1, self.num_classes + 1, dtype=logits.dtype)  # 0: the background
        return ops.einsum("brpqk,brk->brpq", logits, own)

    def object_masks(self, predictions, boxes, label):
        size = self.image_shape[:2]
        boxes = self.in_pixels(boxes)
        logits = self.mask_logits(predictions["maps"], boxes, ops.maximum(label, 0))
        return paste(ops.sigmoid(logits), boxes, size, self.half_pixels)

    def losses_of_sampled(self, predictions, batch, boxes, match, rank, training=False):
        sums = super().losses_of_sampled(predictions, batch, boxes, match, rank, training)
        # Objects come first, and there are no more of them
        count = max(1, int(boxes.shape[1] * self.fraction))
        boxes, match, chosen = boxes[:, :count], match[:, :count], rank[:, :count] > 1
        label = rows(ops.cast(batch["labels"], "int32"), match)
        logits = self.mask_logits(predictions["maps"], boxes, label)
        target = rows(ops.cast(batch["instances"], boxes.dtype), match)
        target = cropped(target, boxes, logits.shape[-1], self.half_pixels)
        target = ops.cast(target, logits.dtype)
        cross = ops.mean(ops.softplus(logits) - target * logits, axis=(-2, -1))
        chosen = ops.cast(chosen, logits.dtype)
        sums["mask"] = ops.sum(cross * chosen, axis=-1), ops.sum(chosen, axis=-1)
        return sums


def mask_rcnn(image_shape=(800, 1344, 3), num_classes=90, **kwargs):
    """On ResNet-50."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    block, depths = IMAGENET["resnet50"]
    return construct(MaskRCNN, "mask_rcnn", given, {"depths": depths, "block": block}, kwargs)


def mask_rcnn_small(image_shape=(48, 48, 1), num_classes=10, **kwargs):
    """Three stages of one block, from the image's full size on: for the scenes of digits."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    sizes = {
        "mask_filters": (32, 32),
        "mask_dim": 32,
        "mask_bins": 10,
        "depths": (1, 1, 1),
        "block": "basic",
        "filters": 24,
        "small": True,
        "finest": 2,
        "pyramid": 48,
        "canonical": (20, 2),
        "aligned": True,
        "sizes": ((10,), (14,), (20,)),
        "before": 100,
        "after": 24,
        "after_training": 48,
        "anchors_sampled": 128,
        "regions_sampled": 32,
        "bins": 5,
        "fc_dim": 192,
    }
    return construct(MaskRCNN, "mask_rcnn_small", given, sizes, kwargs)


_TINY = fpn.TINY["faster_rcnn_fpn"] | {"mask_filters": (4,), "mask_dim": 4, "mask_bins": 3}
TINY = {"mask_rcnn": _TINY, "mask_rcnn_small": _TINY}
RECIPE = {
    "mask_rcnn": {"lr": 0.02, "opt": "sgd", "batch_size": 16, "weight_decay": 0.0001},
    # The only setting that was tried
    "mask_rcnn_small": {
        "epochs": 6,
        "batch_size": 16,
        "lr": 0.001,
        "warmup_epochs": 0.5,
        "weight_decay": 0.01,
        "augment": ("shift",),
        "eval_epochs": 3,
    },
}
