"""YOLO, a detector of one stage.

Paper:   You Only Look Once: Unified, Real-Time Object Detection, Redmon et al. 2016,
         https://arxiv.org/abs/1506.02640 (figure 3; sections 2 and 2.2, equation 3).
Differs: no part is pretrained as a classifier; the network predicts the square roots of height and
         width, as the authors' code does. `yolo_v1_small` has batch norm, and a 1x1 convolution in
         place of the two dense layers, so that an object looks alike in every cell; it has a finer
         grid for its image, since digits are small and close.
"""

import keras
import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import (
    BatchNorm,
    Conv,
    Normalize,
    build_chain,
    check_counts,
    construct,
    he_normal,
    register,
    strided,
)
from kerasdl.layers.detector import Detector
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.remat import Block
from kerasdl.ops import boxes as bx
from kerasdl.ops.nms import rows

SLOPE = 0.1  # of the activation below 0
BOX, NO_OBJECT = 5.0, 0.5  # weights of equation 3
NORMS = ("batch", "none")


@register
class ConvUnit(Block):
    """Convolution, norm, and a leaky ReLU of the slope 0.1.

    Args:
        kernel_size: Side of the kernel.
        filters: Channels of the output, `D`.
        stride: Stride `s`.
        norm: "batch", or "none" with a bias instead.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.
    """

    def __init__(self, kernel_size, filters, stride=1, norm="none", **kwargs):
        super().__init__(**kwargs)
        self.conv = Conv(filters, kernel_size, stride, use_bias=norm == "none", name="conv")
        self.norm = BatchNorm(name="norm") if norm == "batch" else None

    def build(self, input_shape):
        shape = build_chain(input_shape, self.conv)
        if self.norm is not None:
            self.norm.build(shape)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)

    def call(self, x, training=False):
        x = self.conv(x)
        x = self.norm(x, training=training) if self.norm is not None else x
        return ops.leaky_relu(x, negative_slope=SLOPE)


@register
class YOLO(Detector):
    """Convolutions and a head that says of every cell of a grid which object has its center there.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        stages: Of each stage its convolutions, `(kernel size, filters, stride)`; 2x2 max pooling
            with stride 2 follows each stage but the last.
        boxes: Boxes of a cell, `N`.
        dense: Units of the dense layer before the last one; None for a 1x1 convolution in place of
            both.
        drop_rate: Dropout after the dense layer, or before the convolution.
        norm: After each convolution: "batch", or "none" with biases instead.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) `(B, h, w, 5 N + K)`, for each cell of the last map: of each box the
        center `y x` in cells from the cell's upper left corner, the square roots of height and
        width in pictures, and the confidence; then the probabilities of the classes.
    """

    def __init__(
        self,
        image_shape=(448, 448, 3),
        num_classes=20,
        stages=(((3, 16, 1),), ((3, 32, 1),)),
        boxes=2,
        dense=4096,
        drop_rate=0.5,
        norm="none",
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(num_classes=num_classes, boxes=boxes, dense=dense)
        if norm not in NORMS:
            raise UserError(f"norm {norm!r}: not one of {', '.join(NORMS)}")
        self.image_shape, self.num_classes = tuple(image_shape), num_classes
        self.num_boxes, self.depth = boxes, 5 * boxes + num_classes
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        self.lengths = tuple(len(stage) for stage in stages)
        self.convs = [  # a flat list: Keras loses weights in nested ones
            ConvUnit(*conv, norm=norm, name=f"stage{s + 1}_conv{i + 1}")
            for s, stage in enumerate(stages)
            for i, conv in enumerate(stage)
        ]
        self.grid = self._grid(stages)
        policy = keras.config.dtype_policy().variable_dtype  # at least float32
        self.fc = None
        if dense:
            self.fc = keras.layers.Dense(dense, kernel_initializer=he_normal(), name="fc")
            cells = self.grid[0] * self.grid[1]
            self.head = keras.layers.Dense(cells * self.depth, dtype=policy, name="head")
        else:
            self.head = Conv(
                self.depth, 1, kernel_initializer="glorot_uniform", dtype=policy, name="head"
            )
        self.drop = Dropout(drop_rate, name="drop")

    def _grid(self, stages):
        """`(h, w)` of the last map."""
        shape = (None, *self.image_shape)
        for i, stage in enumerate(stages):
            if i:
                shape = (None, *(side // 2 for side in shape[1:3]), 1)
            for _, _, stride in stage:
                shape = strided(shape, stride, 1)
        if len(self.image_shape) != 3 or min(shape[1:3]) < 1:
            raise UserError(
                f"image_shape {self.image_shape}: must be (height, width, channels), large enough "
                f"to be halved {len(stages) - 1} times and more; --image-size enlarges images"
            )
        return shape[1:3]

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        # What a convolution has to know is the channels, which pooling leaves alone.
        shape = build_chain((None, None, None, input_shape[-1]), self.normalize, *self.convs)
        if self.fc is None:
            build_chain((None, *self.grid, shape[-1]), self.drop, self.head)
        else:
            units = self.grid[0] * self.grid[1] * shape[-1]
            build_chain((None, units), self.fc, self.drop, self.head)

    def call(self, x, training=False):
        x, convs = self.normalize(x), iter(self.convs)
        for stage, length in enumerate(self.lengths):
            x = ops.max_pool(x, 2, 2) if stage else x
            for _ in range(length):
                x = next(convs)(x, training=training)
        if self.fc is None:
            return self.head(self.drop(x, training=training))
        x = ops.reshape(x, (-1, self.grid[0] * self.grid[1] * x.shape[-1]))
        x = ops.leaky_relu(self.fc(x), negative_slope=SLOPE)
        x = self.head(self.drop(x, training=training))
        return ops.reshape(x, (-1, *self.grid, self.depth))

    def _parts(self, predictions):
        """Codes `(B, h w, N, 4)`, boxes of the same shape, confidences `(B, h w, N)`, classes
        `(B, h w, K)`."""
        cells, n = self.grid[0] * self.grid[1], self.num_boxes
        flat = ops.reshape(predictions, (-1, cells, self.depth))
        of_boxes = ops.reshape(flat[..., : 5 * n], (-1, cells, n, 5))
        codes, confidence = of_boxes[..., :4], of_boxes[..., 4]
        corner = np.stack(np.meshgrid(*map(np.arange, self.grid), indexing="ij"), -1)
        corner = ops.cast(corner.reshape(-1, 1, 2), flat.dtype)
        center = (corner + codes[..., :2]) / ops.cast(np.array(self.grid), flat.dtype)
        sides = ops.square(ops.maximum(codes[..., 2:], 0))
        return codes, bx.corners(center, sides), confidence, flat[..., 5 * n :]

    def candidates(self, predictions):
        _, boxes, confidence, classes = self._parts(predictions)
        scores = ops.clip(confidence, 0, 1)[..., None] * ops.clip(classes, 0, 1)[..., None, :]
        count = boxes.shape[1] * self.num_boxes
        boxes = bx.clip(ops.reshape(boxes, (-1, count, 4)))
        return boxes, ops.reshape(scores, (-1, count, self.num_classes))

    def detection_losses(self, predictions, batch, training=False):
        """Equation 3: the first two terms, which are of boxes, and the other three."""
        codes, boxes, confidence, classes = self._parts(predictions)
        dtype = predictions.dtype
        valid = ops.cast(batch["valid"], dtype)  # (B, M)
        true = ops.cast(batch["boxes"], dtype)
        center, sides = bx.centers_and_sides(true)
        grid = np.array(self.grid)
        cell = ops.clip(ops.floor(center * ops.cast(grid, dtype)), 0, ops.cast(grid - 1, dtype))
        offset = center * ops.cast(grid, dtype) - cell
        cell = ops.cast(cell, "int32")
        index = cell[..., 0] * self.grid[1] + cell[..., 1]  # (B, M)
        target = ops.concatenate([offset, ops.sqrt(ops.maximum(sides, 0))], axis=-1)

        overlap = bx.iou(rows(boxes, index), true[:, :, None])  # (B, M, N)
        overlap = ops.stop_gradient(overlap)
        best = ops.one_hot(ops.top_k(overlap, 1)[1][..., 0], self.num_boxes, dtype=dtype)
        responsible = best * valid[..., None]  # (B, M, N)

        def total(x, weight):
            return ops.sum(x * weight, axis=(1, 2))

        box = total(ops.sum((rows(codes, index) - target[:, :, None]) ** 2, -1), responsible)
        there = total((rows(confidence, index) - overlap) ** 2, responsible)
        label = ops.one_hot(ops.maximum(batch["labels"], 0), self.num_classes, dtype=dtype)
        kind = total((rows(classes, index) - label) ** 2, valid[..., None])
        here = ops.one_hot(index, boxes.shape[1], dtype=dtype)  # (B, M, h w)
        taken = ops.max(here[..., None] * responsible[:, :, None], axis=1)  # (B, h w, N)
        nothing = total(confidence**2, 1 - taken)
        return there + NO_OBJECT * nothing + kind, BOX * box


# Figure 3
STAGES = (
    ((7, 64, 2),),
    ((3, 192, 1),),
    ((1, 128, 1), (3, 256, 1), (1, 256, 1), (3, 512, 1)),
    (*(((1, 256, 1), (3, 512, 1)) * 4), (1, 512, 1), (3, 1024, 1)),
    (*(((1, 512, 1), (3, 1024, 1)) * 2), (3, 1024, 1), (3, 1024, 2), *(((3, 1024, 1),) * 2)),
)
SMALL = (
    ((3, 24, 1),),
    ((3, 48, 1), (3, 48, 1)),
    ((3, 96, 1), (1, 48, 1), (3, 96, 1), (1, 48, 1), (3, 96, 1), (3, 192, 1)),
)


def yolo_v1(image_shape=(448, 448, 3), num_classes=20, **kwargs):
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(YOLO, "yolo_v1", given, {"stages": STAGES}, kwargs)


def yolo_v1_small(image_shape=(48, 48, 1), num_classes=10, **kwargs):
    """Nine convolutions to a quarter of the image's sides: for the scenes of digits."""
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    sizes = {"stages": SMALL, "dense": None, "drop_rate": 0.0, "norm": "batch"}
    return construct(YOLO, "yolo_v1_small", given, sizes, kwargs)


_TINY = {
    "image_shape": (16, 24, 3),
    "num_classes": 5,
    "stages": (((3, 4, 2),), ((1, 4, 1), (3, 6, 1))),
    "dense": 12,
    "drop_rate": 0.1,
    "norm": "batch",
}
TINY = {"yolo_v1": _TINY, "yolo_v1_small": _TINY}
RECIPE = {
    "yolo_v1": {
        # Section 2.2
        "epochs": 135,
        "batch_size": 64,
        "lr": 0.01,
        "opt": "sgd",
        "weight_decay": 0.0005,
    },
    # Of two settings, the one with the highest average precision of the validation part
    "yolo_v1_small": {
        "epochs": 30,
        "batch_size": 32,
        "lr": 0.004,
        "warmup_epochs": 0.5,
        "weight_decay": 0.01,
        "augment": ("shift",),
        "eval_epochs": 5,
    },
}
