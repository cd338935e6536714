"""Faster R-CNN, a detector of two stages.

Paper:   Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks,
         Ren et al. 2015, https://arxiv.org/abs/1506.01497 (sections 3.1 to 3.3); VGG-16 as in
         Fast R-CNN, Girshick 2015, https://arxiv.org/abs/1504.08083.
Differs: trained from scratch, with no layer frozen; approximate joint training; anchors that cross
         the image's edge count too; the true boxes are among the regions that the second stage
         learns from, as in the authors' code. `faster_rcnn_small` has batch norm, RoI align and
         smaller anchors, numbers of regions and dense layers.
"""

import keras
import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import Conv, build_chain, check_counts, construct, he_normal, register
from kerasdl.layers.detector import Detector
from kerasdl.layers.dropout import Dropout
from kerasdl.models.cnn.vgg import DEPTHS, FILTERS, VGGBackbone
from kerasdl.ops import boxes as bx
from kerasdl.ops import noise
from kerasdl.ops.nms import NEVER, best, nms, rows
from kerasdl.ops.roi import roi_align, roi_pool

WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the second stage's codes
BETA = 1 / 9  # where the smooth L1 loss becomes linear, as in the authors' code
ANCHORS, REGIONS = 0, 1  # streams of the example's key
ROIS = ("pool", "align")
VGG16 = tuple((f,) * depth for f, depth in zip(FILTERS, DEPTHS["vgg16"], strict=True))


@register
class Unpooled(VGGBackbone):
    """`VGGBackbone` without the pooling after its last stage."""

    def call(self, x, training=False):
        x, blocks = self.normalize(x), iter(self.blocks)
        for stage, depth in enumerate(self.depths):
            x = ops.max_pool(x, 2, 2) if stage else x
            for _ in range(depth):
                x = next(blocks)(x, training=training)
        return x


@register
class ProposalNetwork(keras.layers.Layer):
    """A 3x3 convolution, and for every anchor one or two scores and the code of a box.

    Args:
        filters: Channels of the convolution.
        count: Anchors of a place, `A`.
        scores: Of an anchor: 2 for nothing and an object, 1 for their difference.

    Call arguments:
        maps: float `(B, h, w, C)`.

    Returns:
        Logits that there is an object `(B, h w A)`, and codes `(B, h w A, 4)`.
    """

    def __init__(self, filters, count, scores=2, **kwargs):
        super().__init__(**kwargs)
        self.scores = scores
        policy = keras.config.dtype_policy().variable_dtype  # at least float32
        small = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01)}
        self.conv = Conv(filters, 3, name="conv")
        self.objectness = Conv(scores * count, 1, dtype=policy, name="objectness", **small)
        small = {"kernel_initializer": keras.initializers.RandomNormal(stddev=0.01)}
        self.codes = Conv(4 * count, 1, dtype=policy, name="codes", **small)

    def build(self, input_shape):
        shape = build_chain(input_shape, self.conv)
        self.objectness.build(shape)
        self.codes.build(shape)

    def call(self, maps):
        x = ops.relu(self.conv(maps))
        count = x.shape[1] * x.shape[2] * (self.codes.filters // 4)
        scores = ops.reshape(self.objectness(x), (-1, count, self.scores))
        # The softmax of two, background and object, is the sigmoid of their difference.
        objectness = scores[..., 1] - scores[..., 0] if self.scores > 1 else scores[..., 0]
        return objectness, ops.reshape(self.codes(x), (-1, count, 4))


@register
class FasterRCNN(Detector):
    """A region proposal network and a classifier of the regions, on the same maps.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        stages: Of the `VGGBackbone`.
        norm: Of the `VGGBackbone`.
        sizes: Square roots of the anchors' areas, in pixels; of each of several maps, if nested.
        ratios: Their height by width.
        high, low: Of `kerasdl.ops.boxes.match`, for anchors.
        anchors_sampled: Anchors of an image that the first stage learns from.
        before, after: How many proposals there are before and after suppression.
        after_training: The latter, while training.
        suppression: Overlap from which on a proposal gives way to a better one.
        regions_sampled: Regions of an image that the second stage learns from.
        objects_sampled: Fraction of them that are objects, where there are so many.
        roi: "pool" or "align".
        bins: Of a region, along each side.
        fc_dim: Units of each of the two dense layers.
        drop_rate: Dropout after each of them.
        input_mean, input_std: Per channel, of images in [0, 1].

    Attributes:
        offset: Of the first anchor's center from the image's edge, in strides.
        scores: Of the `ProposalNetwork`.
        background_from: Overlap with an object from which on the second stage learns from a region.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        `maps` `(B, h, w, D)`, or a list of them; `objectness` `(B, N)` and `codes` `(B, N, 4)` of
        the anchors; `proposals` `(B, R, 4)` in pixels and `there` int32 `(B, R)`, 0 where there
        are fewer.
    """

    offset = 0.5
    scores = 2
    background_from = 0.0

    def __init__(
        self,
        image_shape=(600, 1000, 3),
        num_classes=20,
        stages=((64, 64), (128, 128)),
        norm=False,
        sizes=(128, 256, 512),
        ratios=(0.5, 1.0, 2.0),
        high=0.7,
        low=0.3,
        anchors_sampled=256,
        before=6000,
        after=300,
        after_training=2000,
        suppression=0.7,
        regions_sampled=128,
        objects_sampled=0.25,
        roi="pool",
        bins=7,
        fc_dim=4096,
        drop_rate=0.5,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(
            num_classes=num_classes,
            anchors_sampled=anchors_sampled,
            before=before,
            after=after,
            after_training=after_training,
            regions_sampled=regions_sampled,
            bins=bins,
            fc_dim=fc_dim,
        )
        if roi not in ROIS:
            raise UserError(f"roi {roi!r}: not one of {', '.join(ROIS)}")
        self.num_classes, self.thresholds, self.suppression = num_classes, (high, low), suppression
        self.before, self.after = before, (after, after_training)
        self.samples, self.fraction = (anchors_sampled, regions_sampled), objects_sampled
        self.roi, self.bins = roi, bins
        self.backbone = self.make_backbone(image_shape, stages, norm, input_mean, input_std)
        self.image_shape = self.backbone.image_shape
        sizes = sizes if isinstance(sizes[0], tuple | list) else (sizes,)
        self.cells = [bx.cell_anchors(one, ratios, rounded=True) for one in sizes]
        count = len(self.cells[0])
        self.proposing = ProposalNetwork(self.map_width, count, self.scores, name="proposing")
        self.make_head(fc_dim, drop_rate)

    def make_head(self, fc_dim, drop_rate):
        """Make the layers of the second stage."""
        self.dense = [
            keras.layers.Dense(
                fc_dim, activation="relu", kernel_initializer=he_normal(), name=f"fc{i}"
            )
            for i in (6, 7)
        ]
        self.drops = [Dropout(drop_rate, name=f"drop{i}") for i in (6, 7)]
        policy = keras.config.dtype_policy().variable_dtype  # at least float32
        self.classes, self.codes = (
            keras.layers.Dense(
                units,
                dtype=policy,
                kernel_initializer=keras.initializers.RandomNormal(stddev=std),
                name=name,
            )
            for name, units, std in (
                ("classes", self.num_classes + 1, 0.01),
                ("codes", 4 * (self.num_classes + 1), 0.001),
            )
        )

    def make_backbone(self, image_shape, stages, norm, input_mean, input_std):
        """A layer that makes a map of images."""
        return Unpooled(image_shape, stages, norm, input_mean, input_std)

    @property
    def map_width(self):
        """Channels of the maps."""
        return self.backbone.width

    def maps(self, x, training=False):
        """Of images: what both stages look at, a map or a list of them."""
        return self.backbone(x, training=training)

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        self.backbone.build(input_shape)
        self.proposing.build((None, None, None, self.map_width))
        self.build_head(self.bins**2 * self.map_width)

    def build_head(self, width):
        """Build the layers of the second stage, of regions of `width` numbers."""
        one, two = zip(self.dense, self.drops, strict=True)
        shape = build_chain((None, width), *one, *two)
        self.classes.build(shape)
        self.codes.build(shape)

    def call(self, x, training=False):
        maps = self.maps(x, training=training)
        pairs = [self.proposing(level) for level in _levels(maps)]
        counts = [codes.shape[1] for _, codes in pairs]
        objectness, codes = (ops.concatenate(one, axis=1) for one in zip(*pairs, strict=True))
        anchors, size = self.anchors(maps), self.image_shape[:2]
        proposals, there = self.propose(objectness, codes, anchors, size, training, counts)
        return {
            "maps": keras.tree.map_structure(lambda x: ops.cast(x, codes.dtype), maps),
            "objectness": objectness,
            "codes": codes,
            "proposals": proposals,
            "there": ops.cast(there, "int32"),
        }

    def anchors(self, maps):
        """float64 `(N, 4)` in pixels: those of every place of maps."""
        return np.concatenate(
            [
                bx.anchors(cell, level.shape[1:3], self._strides(level), self.offset)
                for cell, level in zip(self.cells, _levels(maps), strict=True)
            ]
        )

    def _strides(self, maps):
        return [a / b for a, b in zip(self.image_shape[:2], maps.shape[1:3], strict=True)]

    def propose(self, objectness, codes, anchors, size, training=False, counts=None):
        """The regions that the second stage looks at.

        Args:
            objectness: Logits `(B, N)`.
            codes: float `(B, N, 4)`.
            anchors: `(N, 4)`.
            size: Height and width of the images.
            training: Whether there are as many as for training.
            counts: How many anchors each map has; those of different maps are chosen and
                suppressed apart.

        Returns:
            `(B, R, 4)` in pixels, without gradients, the best first; and bool `(B, R)`, whether
            there is one.
        """
        objectness, codes = ops.stop_gradient(objectness), ops.stop_gradient(codes)
        scores, place, level, start = [], [], [], 0
        for number, count in enumerate(counts or [objectness.shape[1]]):
            value, index, _ = best(objectness[:, start : start + count, None], self.before)
            scores.append(value)
            place.append(index + start)
            level.append(ops.zeros_like(index) + number)
            start += count
        scores, place, level = (ops.concatenate(x, axis=1) for x in (scores, place, level))
        anchors = ops.take(ops.cast(anchors, codes.dtype), place, axis=0)
        boxes = bx.clip(bx.decode(rows(codes, place), anchors), size)
        scores = ops.where(bx.large(boxes, 1e-3), ops.sigmoid(scores), NEVER)
        count = min(self.after[bool(training)], boxes.shape[1])
        level = level if len(counts or ()) > 1 else None
        index = nms(boxes, scores, self.suppression, count, level)
        return rows(boxes, index), index >= 0

    def regions(self, maps, boxes, training=False):
        """What the second stage says of regions.

        Args:
            maps: float `(B, h, w, D)`.
            boxes: float `(B, R, 4)` in pixels.
            training: Whether dropout is on.

        Returns:
            Logits `(B, R, 1 + K)`, the background first, and codes `(B, R, 1 + K, 4)`.
        """
        x = self.pooled(maps, boxes)
        for dense, drop in zip(self.dense, self.drops, strict=True):
            x = drop(dense(x), training=training)
        codes = self.codes(x)
        return self.classes(x), ops.reshape(codes, (-1, *codes.shape[1:2], self.num_classes + 1, 4))

    def pooled(self, maps, boxes):
        """What maps hold within regions, float `(B, R, N)`."""
        scale = [1 / stride for stride in self._strides(maps)]
        size = (self.bins, self.bins)
        if self.roi == "pool":
            x = roi_pool(maps, boxes, size, scale)
        else:
            x = roi_align(maps, boxes, size, scale, aligned=False)
        return ops.reshape(x, (-1, boxes.shape[1], self.bins**2 * maps.shape[-1]))

    def candidates(self, predictions):
        boxes, size = predictions["proposals"], self.image_shape[:2]
        logits, codes = self.regions(predictions["maps"], boxes)
        there = ops.cast(predictions["there"], logits.dtype)[..., None]
        scores = ops.softmax(logits, axis=-1)[..., 1:] * there
        found = bx.clip(bx.decode(codes[..., 1:, :], boxes[:, :, None], WEIGHTS), size)
        return found / ops.cast(np.array((*size, *size)), found.dtype), scores

    def in_pixels(self, boxes):
        """Boxes in [0, 1] as ones in pixels of the model's images."""
        size = self.image_shape[:2]
        return boxes * ops.cast(np.array((*size, *size)), boxes.dtype)

    def detection_losses(self, predictions, batch, training=False):
        """The losses of both stages, each the mean over the anchors or regions sampled."""
        sums = self.losses_of_stages(predictions, batch, training)
        means = {k: total / ops.maximum(count, 1) for k, (total, count) in sums.items()}
        of_class = means.pop("objectness") + means.pop("class")
        return of_class, means.pop("proposal_box") + means.pop("box"), *means.values()

    def losses_of_stages(self, predictions, batch, training=False):
        """Sums and numbers of the anchors or regions sampled, `{name: ((B,), (B,))}`."""
        dtype = predictions["codes"].dtype
        true = self.in_pixels(ops.cast(batch["boxes"], dtype))
        valid = ops.cast(batch["valid"], "bool")
        anchors = ops.cast(self.anchors(predictions["maps"]), dtype)
        match = bx.match(bx.pairwise(bx.iou, anchors, true), valid, *self.thresholds)
        chosen = self._sampled(match, batch["key"], ANCHORS, self.samples[0], 0.5)
        object_here = ops.cast(match >= 0, dtype)
        logits = predictions["objectness"]
        count = ops.sum(chosen, axis=-1)
        cross = ops.softplus(logits) - object_here * logits
        target = bx.encode(rows(true, match), anchors)
        distance = _smooth(predictions["codes"] - target) * object_here
        result = {
            "objectness": (ops.sum(cross * chosen, axis=-1), count),
            "proposal_box": (ops.sum(distance * chosen, axis=-1), count),
        }
        return result | self.losses_of_regions(predictions, batch, training)

    def losses_of_regions(self, predictions, batch, training=False):
        """Those of `losses_of_stages` that are the second stage's."""
        dtype = predictions["proposals"].dtype
        true = self.in_pixels(ops.cast(batch["boxes"], dtype))
        valid = ops.cast(batch["valid"], "bool")
        boxes = ops.concatenate([predictions["proposals"], true], axis=1)
        there = ops.concatenate([predictions["there"] > 0, valid], axis=1)
        overlap = bx.pairwise(bx.iou, boxes, true)
        match = bx.match(overlap, valid, 0.5, 0.5, low_quality=False)
        overlap = ops.max(ops.where(valid[:, None], overlap, 0), axis=-1)
        match = ops.where(there & (overlap >= self.background_from), match, bx.BETWEEN)
        total = min(self.samples[1], boxes.shape[1])
        chosen = self._sampled(match, batch["key"], REGIONS, total, self.fraction)
        # The sampled ones in a fixed number of places, the objects first
        rank, index, _ = best((chosen + chosen * ops.cast(match >= 0, dtype))[..., None], total)
        return self.losses_of_sampled(
            predictions, batch, rows(boxes, index), rows(match, index), rank, training
        )

    def losses_of_sampled(self, predictions, batch, boxes, match, rank, training=False):
        """The second stage's, of sampled regions.

        Args:
            predictions, batch, training: Of `losses_of_stages`.
            boxes: `(B, R, 4)` in pixels.
            match: int32 `(B, R)`, the object that each belongs to, negative of none.
            rank: float `(B, R)`: 2 of objects, 1 of the background, 0 of places that are free.
        """
        dtype = boxes.dtype
        true = self.in_pixels(ops.cast(batch["boxes"], dtype))
        chosen = ops.minimum(rank, 1)
        count = ops.sum(chosen, axis=-1)
        label = ops.where(match >= 0, rows(ops.cast(batch["labels"], "int32"), match) + 1, 0)
        logits, codes = self.regions(predictions["maps"], boxes, training)
        hot = ops.one_hot(label, self.num_classes + 1, dtype=dtype)
        cross = -ops.sum(hot * ops.log_softmax(logits, axis=-1), axis=-1)
        sides = ops.maximum(boxes[..., 2:] - boxes[..., :2], 1e-3)  # of places that are not chosen
        boxes = ops.concatenate([boxes[..., :2], boxes[..., :2] + sides], axis=-1)
        target = bx.encode(rows(true, match), boxes, WEIGHTS)
        own = ops.sum(codes * hot[..., None], axis=-2)
        distance = _smooth(own - target) * ops.cast(match >= 0, dtype)
        return {
            "class": (ops.sum(cross * chosen, axis=-1), count),
            "box": (ops.sum(distance * chosen, axis=-1), count),
        }

    def _sampled(self, match, key, stream, count, fraction):
        """float `(B, N)`: 1 of those that are sampled."""
        random = noise.uniform(key, (match.shape[1],), stream, "float32")
        chosen = bx.sample(match, random, min(count, match.shape[1]), fraction)
        return ops.cast(chosen, self.classes.dtype_policy.variable_dtype)


def _levels(maps):
    """Several maps, or the only one, as a list."""
    return list(maps) if isinstance(maps, tuple | list) else [maps]


def _smooth(x):
    """The smooth L1 loss, summed over the last axis."""
    size = ops.abs(x)
    return ops.sum(ops.where(size < BETA, 0.5 * size**2 / BETA, size - 0.5 * BETA), axis=-1)


def faster_rcnn(image_shape=(600, 1000, 3), num_classes=20, **kwargs):
    """On VGG-16."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(FasterRCNN, "faster_rcnn", given, {"stages": VGG16}, kwargs)


def faster_rcnn_small(image_shape=(48, 48, 1), num_classes=10, **kwargs):
    """Six convolutions to a quarter of the image's sides: for the scenes of digits."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    sizes = {
        "stages": ((24,), (48, 48), (96, 96, 96)),
        "norm": True,
        "sizes": (10, 14, 20),
        "before": 200,
        "after": 24,
        "after_training": 48,
        "anchors_sampled": 128,
        "regions_sampled": 32,
        "roi": "align",
        "bins": 5,
        "fc_dim": 192,
        "drop_rate": 0.0,
    }
    return construct(FasterRCNN, "faster_rcnn_small", given, sizes, kwargs)


_TINY = {
    "image_shape": (16, 24, 3),
    "num_classes": 5,
    "stages": ((4,), (6,)),
    "sizes": (6, 10, 14),
    "before": 20,
    "after": 6,
    "after_training": 8,
    "anchors_sampled": 16,
    "regions_sampled": 8,
    "bins": 2,
    "fc_dim": 8,
    "drop_rate": 0.1,
}
TINY = {"faster_rcnn": _TINY, "faster_rcnn_small": _TINY}
RECIPE = {
    "faster_rcnn": {"lr": 0.001, "opt": "sgd", "batch_size": 2, "weight_decay": 0.0005},
    # The only setting that was tried
    "faster_rcnn_small": {
        "epochs": 6,
        "batch_size": 16,
        "lr": 0.001,
        "warmup_epochs": 0.5,
        "weight_decay": 0.01,
        "augment": ("shift",),
        "eval_epochs": 3,
    },
}
