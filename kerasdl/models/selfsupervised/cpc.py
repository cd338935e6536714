"""Contrastive predictive coding of images and of sequences.

Paper:   Representation Learning with Contrastive Predictive Coding, van den Oord et al. 2018,
         https://arxiv.org/abs/1807.03748 (figures 1 and 4; equations 3 and 4; sections 3.1, 3.2);
         Data-Efficient Image Recognition with Contrastive Predictive Coding, Henaff et al. 2019,
         https://arxiv.org/abs/1905.09272 (section 2.2; appendix, for the context and the scores).
Differs: `cpc` is the first paper's network with the second's layer norm, which here is one over all
         of a patch's map, masked convolutions, and targets of 64 channels; it predicts downwards
         only. Scores are divided by the root of the channels, by 8 of 64, not by 10. `cpc_small`
         and `cpc_rows` are the project's own rows.
"""

import math

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import dense_head, pooled, pooled_last
from kerasdl.layers.core import check_counts, construct_on_backbone, he_normal, register
from kerasdl.layers.recurrent import RecurrentStack
from kerasdl.models.selfsupervised.on_backbone import OnBackbone

POOLINGS = ("encodings", "context")


@register
class MaskedBlock(keras.layers.Layer):
    """A residual block of convolutions that see no row below: 1x1, 1x3, 2x1 and 1x1.

    Args:
        dim: Channels inside.

    Call arguments:
        x: float `(B, h, w, D)`.

    Returns:
        float `(B, h, w, D)`; a row depends on itself and those above.

    Source: Henaff et al. 2019, appendix.
    """

    def __init__(self, dim=256, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
        self.conv1 = _conv(dim, 1, "conv1", activation="relu")
        self.conv2 = _conv(dim, (1, 3), "conv2", padding="same")
        self.conv3 = _conv(dim, (2, 1), "conv3", activation="relu")

    def build(self, input_shape):
        self.conv4 = _conv(input_shape[-1], 1, "conv4")
        self.conv1.build(input_shape)
        for conv in (self.conv2, self.conv3, self.conv4):
            conv.build((*input_shape[:-1], self.dim))

    def call(self, x):
        y = self.conv2(self.conv1(x))
        y = ops.pad(y, ((0, 0), (1, 0), (0, 0), (0, 0)))  # above: a row and the one before it
        return x + self.conv4(self.conv3(y))


def _conv(filters, size, name, **kwargs):
    return keras.layers.Conv2D(filters, size, kernel_initializer=he_normal(), name=name, **kwargs)


@register
class MaskedContext(keras.layers.Layer):
    """What each row of a grid and those above it say: masked residual blocks, and a ReLU.

    Args:
        dim: Channels inside the blocks.
        depth: Blocks.

    Call arguments:
        z: float `(B, h, w, D)`.
        training: Changes nothing.

    Returns:
        float `(B, h, w, D)`.
    """

    def __init__(self, dim=256, depth=5, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [MaskedBlock(dim, name=f"block{i + 1}") for i in range(depth)]

    def build(self, input_shape):
        for block in self.blocks:
            block.build(input_shape)

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def call(self, z, training=False):
        for block in self.blocks:
            z = block(z)
        return ops.relu(z)


@register
class RecurrentContext(keras.layers.Layer):
    """What each place of a grid and those above it say: GRUs that read each column downwards.

    Args:
        dim: Units of each, `U`.
        depth: Layers.

    Call arguments:
        z: float `(B, h, w, D)`.
        training: Whether the gradient is ready.

    Returns:
        float `(B, h, w, U)`.
    """

    def __init__(self, dim=256, depth=1, **kwargs):
        super().__init__(**kwargs)
        self.rnn = RecurrentStack("gru", dim, depth, name="rnn")

    def build(self, input_shape):
        self.rnn.build((None, input_shape[1], input_shape[-1]))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.rnn.width)

    def call(self, z, training=False):
        _, h, w, d = z.shape
        columns = ops.reshape(ops.transpose(z, (0, 2, 1, 3)), (-1, h, d))
        c, _ = self.rnn(columns, training=training)  # (B w, h, U)
        return ops.transpose(ops.reshape(c, (-1, w, h, self.rnn.width)), (0, 2, 1, 3))


CONTEXTS = {"masked": MaskedContext, "gru": RecurrentContext}


@register
class CPC(OnBackbone):
    """An encoder of patches, and a context of the rows above that predicts those below.

    Patches lie on a grid of `h` by `w`, which overlap where `stride` is less than `patch_size`. A
    sequence is a grid of one column: the rows of an image, with patches as wide as it is.

    Args:
        image_shape: `(H, W, C)`.
        backbone: Name of a vision model of the catalogue: the encoder of a patch.
        patch_size: Height and width of a patch, or one number for both.
        stride: From a patch to the next, likewise.
        steps: How many rows below are predicted, each with a linear map of its own: the nearest
            ones may be left out, where patches overlap.
        context: "masked", convolutions that see no row below, or "gru", down each column.
        context_dim: Channels inside the context's blocks, or units of its GRUs.
        context_depth: Blocks or layers of it.
        target_dim: Channels `E` that encodings are mapped to before they are compared with
            predictions; None compares themselves.
        pooling: What the features are the mean of: "encodings" of patches or their "context".
        input_mean, input_std: Per channel, of images in [0, 1].
        **backbone_args: Further arguments of the backbone's builder.

    Attributes:
        grid: `(h, w)`.

    Call arguments:
        x: float `(B, h w, p, q, C)`, patches row by row, of images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        `{"targets": (B, h, w, E), "predictions": (B, h, w, K, E)}`, float32 (or float64): what
        each patch is known by, and what is expected `steps[k]` rows below it.

    Raises:
        UserError: Patches that do not fit into the image, steps beyond the grid, or an unknown
            context or pooling.
    """

    def __init__(
        self,
        image_shape=(256, 256, 3),
        backbone="resnet101v2",
        patch_size=64,
        stride=32,
        steps=(2, 3, 4, 5, 6),
        context="masked",
        context_dim=256,
        context_depth=5,
        target_dim=64,
        pooling="encodings",
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        for what, value, allowed in (
            ("context", context, tuple(CONTEXTS)),
            ("pooling", pooling, POOLINGS),
        ):
            if value not in allowed:
                raise UserError(f"{what} {value!r}: not one of {', '.join(allowed)}")
        check_counts(context_dim=context_dim, context_depth=context_depth, target_dim=target_dim)
        self.image_shape = tuple(image_shape)
        self.patch_size = _pair(patch_size, "patch_size")
        self.stride = _pair(stride, "stride")
        sides = zip(self.image_shape, self.patch_size, self.stride, strict=False)
        self.grid = tuple(1 + (side - patch) // step for side, patch, step in sides)
        if min(self.grid) < 1:
            raise UserError(
                f"patch_size {self.patch_size}: larger than images of {self.image_shape[:2]}"
            )
        self.steps = tuple(steps)
        if not self.steps or not all(k in range(1, self.grid[0]) for k in self.steps):
            raise UserError(
                f"steps {self.steps}: must be whole numbers from 1 to {self.grid[0] - 1}, of "
                f"{self.grid[0]} rows of patches"
            )
        self.pooling = pooling
        statistics = {"input_mean": input_mean, "input_std": input_std}
        patch_shape = (*self.patch_size, self.image_shape[-1])
        self.set_backbone(backbone, patch_shape, **statistics, **backbone_args)
        self.autoregressor = CONTEXTS[context](context_dim, context_depth, name="context")
        self.target_dim = target_dim or self.backbone.width
        self.target = None
        if target_dim:  # without bias, which would add the same to all scores of a prediction
            policy = keras.config.dtype_policy().variable_dtype
            self.target = keras.layers.Dense(
                target_dim, use_bias=False, dtype=policy, name="target"
            )
        self.head = dense_head(len(self.steps) * self.target_dim)

    def build(self, input_shape):
        encodings = (None, *self.grid, self.backbone.width)
        self.autoregressor.build(encodings)
        self.head.build(self.autoregressor.compute_output_shape(encodings))
        if self.target is not None:
            self.target.build(encodings)

    def symbolic_inputs(self):
        count = self.grid[0] * self.grid[1]
        return keras.Input((count, *self.patch_size, self.image_shape[-1]))

    def corners(self):
        """Rows and columns `(h w,)` of the first pixels of patches, row by row: two lists."""
        (h, w), (down, right) = self.grid, self.stride
        return [i * down for i in range(h) for _ in range(w)], [
            j * right for _ in range(h) for j in range(w)
        ]

    def patches(self, image):
        """The patches `(B, h w, p, q, C)` of images `(B, H, W, C)`, row by row."""
        p, q = self.patch_size
        corners = zip(*self.corners(), strict=True)
        return ops.stack([image[:, y : y + p, x : x + q] for y, x in corners], axis=1)

    def encode(self, patches, training=False):
        """Encodings `(B, h, w, D)` of patches `(B, h w, p, q, C)`."""
        x = ops.reshape(patches, (-1, *patches.shape[2:]))
        z = pooled_last(self.backbone(x, training=training))
        return ops.reshape(z, (-1, *self.grid, self.backbone.width))

    def targets(self, z):
        """What encodings `(B, h, w, D)` are known by, `(B, h, w, E)`."""
        return ops.cast(z, self.variable_dtype) if self.target is None else self.target(z)

    def represent(self, z, training=False):
        """The features `(B, D)` of images, from the encodings of their patches; see `pooling`."""
        return pooled(self.autoregressor(z, training=training) if self.pooling == "context" else z)

    def features(self, x, training=False):
        """The representation of images `(B, H, W, C)`, float `(B, D)`; see `pooling`."""
        return self.represent(self.encode(self.patches(x), training=training), training=training)

    def call(self, x, training=False):
        z = self.encode(x, training=training)
        shape = (-1, *self.grid, len(self.steps), self.target_dim)
        c = self.autoregressor(z, training=training)
        # W_k c_t of equation 3, such that scores are of order 1 whatever E is
        predictions = ops.reshape(self.head(c), shape) / math.sqrt(self.target_dim)
        return {"targets": self.targets(z), "predictions": predictions}


def _pair(size, name):
    """Height and width of what may be one number for both."""
    pair = (size, size) if isinstance(size, int) else tuple(size)
    if len(pair) != 2:
        raise UserError(f"{name} {pair}: must be one number, or a height and a width")
    check_counts(**{name: pair[0]})
    check_counts(**{name: pair[1]})
    return pair


def cpc(image_shape=(256, 256, 3), **kwargs):
    """The first three stages of ResNet-v2-101 on 7x7 patches of 64x64 pixels."""
    sizes = {"backbone": "resnet101v2", "depths": (3, 4, 23), "filters": (256, 512, 1024)}
    sizes |= {"norm": "group", "groups": 1}
    return construct_on_backbone(CPC, "cpc", image_shape, sizes, kwargs)


def cpc_small(image_shape=(8, 8, 1), **kwargs):
    """Two stages of 16 and 32 channels on 3x3 patches of 4x4 pixels."""
    sizes = {"backbone": "resnet20v2", "depths": (1, 1), "filters": (16, 32)}
    sizes |= {"norm": "group", "groups": 1, "patch_size": 4, "stride": 2, "steps": (1, 2)}
    sizes |= {"context_dim": 32, "context_depth": 2, "target_dim": 32}
    return construct_on_backbone(CPC, "cpc_small", image_shape, sizes, kwargs)


def cpc_rows(image_shape=(8, 8, 1), **kwargs):
    """A perceptron on each row of an image, and a GRU of 64 units from row to row."""
    row = (1, image_shape[1])
    sizes = {"backbone": "mlp", "dims": (64, 64), "patch_size": row, "stride": row}
    sizes |= {"steps": (1, 2, 3), "context": "gru", "context_dim": 64, "context_depth": 1}
    sizes |= {"target_dim": None, "pooling": "context"}
    return construct_on_backbone(CPC, "cpc_rows", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 1),
    "backbone": "resnet20v2",
    "depths": (1,),
    "filters": (8,),
    "stem_filters": 4,
    "norm": "group",
    "groups": 2,
    "patch_size": (4, 6),
    "stride": (2, 3),
    "steps": (1, 2),
    "context_dim": 16,
    "context_depth": 1,
    "target_dim": 12,
}
TINY = {
    "cpc": _TINY,
    "cpc_small": _TINY,
    "cpc_rows": {
        "image_shape": (4, 6, 1),
        "backbone": "mlp",
        "dims": (9,),
        "drop_rate": 0.1,
        "patch_size": (1, 6),
        "stride": (1, 6),
        "steps": (1, 3),
        "context": "gru",
        "context_dim": 7,
        "context_depth": 2,
        "target_dim": None,
        "pooling": "context",
    },
}
RECIPE = {
    "cpc": {  # of the first paper, with the second's dropping of colors
        "batch_size": 16,
        "opt": "adam",
        "lr": 0.0002,
        "augment": ("shift", "flip"),
        "task_kwargs": {"crop": 0.9375, "color": "drop"},
    },
    # Of one setting of `cpc_small` and two of `cpc_rows`, by the linear probe on validation
    "cpc_small": {"epochs": 20, "batch_size": 64, "lr": 0.003, "augment": ("shift",)},
    "cpc_rows": {"epochs": 60, "batch_size": 64, "lr": 0.003, "augment": ("shift",)},
}
