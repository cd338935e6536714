"""DETR, which predicts a set of objects at once.

Paper:   End-to-End Object Detection with Transformers, Carion et al. 2020,
         https://arxiv.org/abs/2005.12872 (sections 3.1 and 3.2; appendices A.2 to A.4).
Differs: trained from scratch: no layer of the ResNet is frozen, and its batch norm learns. The
         backbone learns at the same rate as the rest. As in the appendix all losses are divided by
         the number of objects, of all replicas; the authors' code divides that of the classes by
         the sum of its weights, and counts an object where a batch has none; such a batch teaches
         nothing here. `detr_small` is pre-norm, without dropout.
"""

import math

import keras
import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.attention import CrossAttention, check_heads
from kerasdl.layers.core import Conv, build_chain, check_counts, construct, register
from kerasdl.layers.detector import Detector
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.mlp import MLP, dense
from kerasdl.layers.position import grid_sinusoids
from kerasdl.layers.transformer import ResidualBlock, layer_norm
from kerasdl.models.cnn.resnet import IMAGENET, ResNetBackbone
from kerasdl.ops import boxes as bx
from kerasdl.ops.matching import assign

NO_OBJECT = 0.1  # weight of the class "no object"
L1, GIOU = 5.0, 2.0  # weights of a box's distances; that of its class is 1
EPSILON = 1e-5  # of layer norms


@register
class EncoderBlock(ResidualBlock):
    """Self-attention, whose queries and keys know their positions, then a perceptron.

    Args:
        num_heads: `h`; it divides `D`.
        mlp_dim: Units inside the perceptron.
        drop_rate: Dropout of attention weights, of units, and of both answers.
        prenorm: Whether layer norm stands before attention and perceptron, not after the sums.

    Call arguments:
        x: float `(B, N, D)`.
        positions: float `(N, D)` or `(B, N, D)`.
        there: bool `(B, 1, 1, N)`, which tokens may be looked at; or None for all.
        training: Whether to drop.

    Returns:
        float `(B, N, D)`.
    """

    def __init__(self, num_heads, mlp_dim, drop_rate=0.0, prenorm=False, **kwargs):
        super().__init__(prenorm, drop_rate, **kwargs)
        self.attention = CrossAttention(num_heads, drop_rate, name="attention")
        self.norm1 = layer_norm("norm1", EPSILON)
        self.mlp = MLP(mlp_dim, "relu", drop_rate, name="mlp")  # drops its answer too
        self.norm2 = layer_norm("norm2", EPSILON)

    def build(self, input_shape):
        self.attention.build(input_shape, input_shape)
        for child in (self.norm1, self.mlp, self.norm2, self.drop):
            child.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, positions, there=None, training=False):
        y = self.before(self.norm1, x)
        memory = self.attention.remember(y, positions)
        y = self.attention(y + positions, memory, attention_mask=there, training=training)
        x = self.after(self.norm1, x, y, training)
        y = self.mlp(self.before(self.norm2, x), training=training)
        return self.after(self.norm2, x, y, False)


@register
class DecoderBlock(ResidualBlock):
    """Self-attention of queries, their attention to a memory, then a perceptron.

    Args:
        num_heads, mlp_dim, drop_rate, prenorm: Of the `EncoderBlock`.

    Call arguments:
        x: float `(B, Q, D)`.
        positions: float `(Q, D)`, of the queries.
        memory: float `(B, N, D)`.
        places: float `(N, D)` or `(B, N, D)`, positions of the memory.
        there: bool `(B, 1, 1, N)`, what of the memory may be looked at; or None for all.
        training: Whether to drop.

    Returns:
        float `(B, Q, D)`.
    """

    def __init__(self, num_heads, mlp_dim, drop_rate=0.0, prenorm=False, **kwargs):
        super().__init__(prenorm, drop_rate, **kwargs)
        self.attention = CrossAttention(num_heads, drop_rate, name="attention")
        self.norm1 = layer_norm("norm1", EPSILON)
        self.cross = CrossAttention(num_heads, drop_rate, name="cross")
        self.norm2 = layer_norm("norm2", EPSILON)
        self.mlp = MLP(mlp_dim, "relu", drop_rate, name="mlp")  # drops its answer too
        self.norm3 = layer_norm("norm3", EPSILON)

    def build(self, input_shape):
        for child in (self.attention, self.cross):
            child.build(input_shape, input_shape)
        for child in (self.norm1, self.norm2, self.mlp, self.norm3, self.drop):
            child.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, positions, memory, places, there=None, training=False):
        y = self.before(self.norm1, x)
        own = self.attention.remember(y, positions)
        y = self.attention(y + positions, own, training=training)
        x = self.after(self.norm1, x, y, training)
        y = self.before(self.norm2, x)
        remembered = self.cross.remember(memory, places)
        y = self.cross(y + positions, remembered, attention_mask=there, training=training)
        x = self.after(self.norm2, x, y, training)
        y = self.mlp(self.before(self.norm3, x), training=training)
        return self.after(self.norm3, x, y, False)


@register
class DETR(Detector):
    """A Transformer from the maps of a ResNet to a set of boxes, one for each of some queries.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        depths, block, filters, small, stride_in_3x3: Of the `ResNetBackbone`.
        queries: `Q`; no more objects can be found.
        dim: Channels of the Transformer, `D`, a multiple of 4.
        encoder_depth: Blocks of the encoder.
        decoder_depth: Blocks of the decoder, `L`; each of them predicts.
        num_heads: Of each attention.
        mlp_dim: Units inside the blocks' perceptrons.
        drop_rate: Dropout in the Transformer.
        prenorm: Whether its blocks are pre-norm.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        real: bool `(B, H, W)`, False where an image is but padding; or None.
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) `logits` `(B, L, Q, K + 1)`, the last class no object, and `boxes`
        `(B, L, Q, 4)`: center and sides in [0, 1], `y x height width`.
    """

    def __init__(
        self,
        image_shape=(800, 1333, 3),
        num_classes=91,
        depths=(3, 4, 6, 3),
        block="bottleneck",
        filters=64,
        small=False,
        stride_in_3x3=True,
        queries=100,
        dim=256,
        encoder_depth=6,
        decoder_depth=6,
        num_heads=8,
        mlp_dim=2048,
        drop_rate=0.1,
        prenorm=False,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(
            num_classes=num_classes,
            queries=queries,
            dim=dim,
            encoder_depth=encoder_depth,
            decoder_depth=decoder_depth,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
        )
        check_heads(num_heads, dim)
        if dim % 4:
            raise UserError(f"dim {dim}: must be a multiple of 4, for the positions' sinusoids")
        self.backbone = self.make_backbone(
            image_shape=image_shape,
            depths=depths,
            block=block,
            filters=filters,
            small=small,
            stride_in_3x3=stride_in_3x3,
            input_mean=input_mean,
            input_std=input_std,
        )
        self.image_shape, self.num_classes = tuple(image_shape), num_classes
        self.dim, self.queries = dim, queries
        self.project = Conv(dim, 1, kernel_initializer="glorot_uniform", name="project")
        self.drop = Dropout(drop_rate, name="drop")
        sizes = (num_heads, mlp_dim, drop_rate, prenorm)
        self.encoder = [
            EncoderBlock(*sizes, name=f"encoder_block{i + 1}") for i in range(encoder_depth)
        ]
        self.encoder_norm = layer_norm("encoder_norm", EPSILON) if prenorm else None
        self.decoder = [
            DecoderBlock(*sizes, name=f"decoder_block{i + 1}") for i in range(decoder_depth)
        ]
        self.decoder_norm = layer_norm("decoder_norm", EPSILON)
        policy = keras.config.dtype_policy().variable_dtype  # at least float32
        self.classes = dense(num_classes + 1, "classes", dtype=policy)
        self.box1, self.box2 = (dense(dim, f"box{i}") for i in (1, 2))
        self.box3 = dense(4, "box3", dtype=policy)

    def make_backbone(self, **arguments):
        """A model that makes a dict of maps of images, the last one last."""
        return ResNetBackbone(**arguments)

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        self.backbone.build(input_shape)
        self.project.build((None, None, None, self.backbone.width))
        tokens, queries = (None, None, self.dim), (None, self.queries, self.dim)
        for block in self.encoder:
            block.build(tokens)
        if self.encoder_norm is not None:
            self.encoder_norm.build(tokens)
        self.positions = self.add_weight(
            shape=queries[1:],
            initializer=keras.initializers.RandomNormal(stddev=1.0),
            name="query_positions",
        )
        for layer in (*self.decoder, self.decoder_norm, self.classes):
            layer.build(queries)
        build_chain(queries, self.box1, self.box2, self.box3)
        self.drop.build(queries)

    def call(self, x, real=None, training=False):
        maps = self.features(x, training)
        return self.decode(*self.encode(maps, real, training), training)

    def features(self, x, training=False):
        """The backbone's last map `(B, h, w, C)`."""
        return list(self.backbone(x, training=training).values())[-1]

    def encode(self, maps, real=None, training=False):
        """What the decoder attends to.

        Args:
            maps: float `(B, h, w, C)`.
            real: bool `(B, H, W)`, or None.
            training: Whether to drop.

        Returns:
            The memory `(B, h w, D)`; its positions `(h w, D)` or `(B, h w, D)`; and which of its
            tokens are of the image, bool `(B, 1, 1, h w)` or None.
        """
        _, h, w, _ = maps.shape
        there = None
        if real is None:
            rows, columns = angles(np.ones((1, h, w), "float32"), np)
        else:
            for axis, n in ((1, h), (2, w)):  # the nearest pixel of each place
                real = ops.take(real, np.arange(n) * real.shape[axis] // n, axis=axis)
            there = ops.reshape(real, (-1, 1, 1, h * w))
            rows, columns = angles(ops.cast(real, self.variable_dtype), ops)
        rows, columns = (ops.reshape(x, (-1,)) for x in (rows, columns))
        positions = grid_sinusoids(rows, columns, self.dim, self.variable_dtype)
        if real is not None:
            positions = ops.reshape(positions, (-1, h * w, self.dim))
        x = ops.reshape(self.project(maps), (-1, h * w, self.dim))
        positions = ops.cast(positions, x.dtype)
        for block in self.encoder:
            x = block(x, positions, there, training=training)
        x = self.encoder_norm(x) if self.encoder_norm is not None else x
        return x, positions, there

    def decode(self, memory, places, there=None, training=False):
        """The predictions of all queries, of what `encode` gave."""
        positions = ops.cast(self.positions, memory.dtype)
        x = ops.zeros_like(memory[:, :1]) + ops.zeros_like(positions)
        layers = []
        for block in self.decoder:
            x = block(x, positions, memory, places, there, training=training)
            layers.append(self.decoder_norm(x))
        x = ops.stack(layers, axis=1)  # (B, L, Q, D)
        box = self.box3(ops.relu(self.box2(ops.relu(self.box1(x)))))
        return {"logits": self.classes(x), "boxes": ops.sigmoid(box)}

    def candidates(self, predictions):
        """Boxes of all queries of the last layer, each with a score of its likeliest class."""
        center, sides = ops.split(predictions["boxes"][:, -1], 2, axis=-1)
        scores = ops.softmax(predictions["logits"][:, -1], axis=-1)[..., :-1]
        highest = scores >= ops.max(scores, axis=-1, keepdims=True)
        return bx.clip(bx.corners(center, sides)), ops.where(highest, scores, 0)

    def detection_losses(self, predictions, batch, training=False):
        """Equation 2 with the weights of the appendix, summed over all layers."""
        sums = self.set_losses(predictions, batch)
        count = sums["objects"]
        return (sums["class"], count), (L1 * sums["l1"] + GIOU * sums["giou"], count)

    def set_losses(self, predictions, batch):
        """What the predictions of all layers differ from the objects that they are matched with.

        Args:
            predictions: What the call returned.
            batch: Of `detection_losses`.

        Returns:
            Sums over the layers and queries of each example, `(B,)`: `class`, weighted cross
            entropies; `weights`, theirs; `l1` and `giou`, distances of matched boxes. Of each
            example `objects`, how many there are. And `query` int32 `(B, L, M)`, whom each object
            is matched with, `ABSENT` where there is none.
        """
        logits, boxes = predictions["logits"], predictions["boxes"]
        dtype, depth = logits.dtype, logits.shape[1]
        true = ops.cast(batch["boxes"], dtype)[:, None]  # (B, 1, M, 4)
        centered = ops.concatenate(bx.centers_and_sides(true), axis=-1)
        label = ops.cast(ops.maximum(batch["labels"], 0), "int32")
        label = ops.one_hot(label, self.num_classes + 1, dtype=dtype)[:, None]
        valid = ops.cast(batch["valid"], "bool")
        there = ops.repeat(valid[:, None], depth, axis=1)  # (B, L, M)

        # Of every query to every object: (B, L, M, Q)
        l1, far = distances(ops.stop_gradient(boxes)[:, :, None], centered[:, :, :, None])
        p = ops.softmax(ops.stop_gradient(logits), axis=-1)
        likely = ops.matmul(label, ops.transpose(p, (0, 1, 3, 2)))
        query = assign(L1 * l1 + GIOU * far - likely, there)

        taken = ops.maximum(query, 0)[..., None]  # (B, L, M, 1)
        there = ops.cast(query >= 0, dtype)
        l1, far = distances(ops.take_along_axis(boxes, taken, axis=2), centered)
        log_p = ops.log_softmax(logits, axis=-1)
        nothing = -NO_OBJECT * log_p[..., -1]  # (B, L, Q)
        of_matched = -ops.sum(ops.take_along_axis(log_p, taken, axis=2) * label, axis=-1)
        of_matched = of_matched - ops.take_along_axis(nothing, taken[..., 0], axis=2)

        def total(x):
            return ops.sum(x, axis=(1, 2))

        matched = total(there)
        return {
            "class": total(nothing) + total(of_matched * there),
            "weights": NO_OBJECT * depth * self.queries + (1 - NO_OBJECT) * matched,
            "l1": total(l1 * there),
            "giou": total(far * there),
            "objects": ops.sum(ops.cast(valid, dtype), axis=-1),
            "query": query,
        }


def distances(a, b):
    """How far boxes `(..., 4)`, centers and sides, are from others: in L1, and 1 less the GIoU."""
    overlap = bx.giou(*(bx.corners(*bx.ends(x)) for x in (a, b)))
    return ops.sum(ops.abs(a - b), axis=-1), 1 - overlap


def angles(there, library):
    """Where the places of a map stand among those that are there, as angles up to a full turn.

    Args:
        there: `(B, h, w)`, 1 where a place is of the image, else 0.
        library: What computes: numpy, or `keras.ops`.

    Returns:
        Those of the rows and of the columns, `(B, h, w)` each.
    """
    y, x = (library.cumsum(there, axis=axis) for axis in (1, 2))
    turn = 2 * math.pi
    return turn * y / (y[:, -1:] + 1e-6), turn * x / (x[:, :, -1:] + 1e-6)


def detr(image_shape=(800, 1333, 3), num_classes=91, **kwargs):
    """On ResNet-50; 91 classes are those of COCO, by number."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    block, depths = IMAGENET["resnet50"]
    return construct(DETR, "detr", given, {"depths": depths, "block": block}, kwargs)


def detr_small(image_shape=(48, 48, 1), num_classes=10, **kwargs):
    """Of the map at an eighth of the image's sides: for the scenes of digits."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    sizes = {
        "depths": (2, 2),
        "block": "basic",
        "filters": 48,
        "queries": 16,
        "dim": 96,
        "encoder_depth": 2,
        "decoder_depth": 3,
        "num_heads": 4,
        "mlp_dim": 256,
        "drop_rate": 0.0,
        "prenorm": True,
    }
    return construct(DETR, "detr_small", given, sizes, kwargs)


_TINY = {
    "image_shape": (32, 40, 1),
    "num_classes": 5,
    "depths": (1, 1),
    "block": "basic",
    "filters": 4,
    "stride_in_3x3": False,
    "queries": 6,
    "dim": 8,
    "encoder_depth": 1,
    "decoder_depth": 2,
    "num_heads": 2,
    "mlp_dim": 12,
    "drop_rate": 0.05,
    "prenorm": True,
}
TINY = {"detr": _TINY, "detr_small": _TINY}
_NO_SUPPRESSION = {"nms_iou": 1.0}
RECIPE = {
    # Appendix A.4, but for the backbone's own rate
    "detr": {
        "epochs": 300,
        "batch_size": 64,
        "lr": 0.0001,
        "weight_decay": 0.0001,
        "sched": "step",
        "decay_epochs": 200,
        "clip_grad": 0.1,
        "augment": ("flip",),
        "task_kwargs": _NO_SUPPRESSION,
    },
    # Of two settings, the one with the highest average precision of the validation part; the other
    # had maps of stride 4, half the epochs in the same time
    "detr_small": {
        "epochs": 60,
        "batch_size": 32,
        "lr": 0.001,
        "warmup_epochs": 1,
        "weight_decay": 0.01,
        "clip_grad": 0.1,
        "augment": ("shift",),
        "eval_epochs": 5,
        "task_kwargs": _NO_SUPPRESSION,
    },
}
