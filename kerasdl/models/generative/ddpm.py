"""The U-Net of denoising diffusion.

Paper:   Denoising Diffusion Probabilistic Models, Ho et al. 2020,
         https://arxiv.org/abs/2006.11239 (appendix B; the authors' code for the CIFAR-10 network).
Differs: a class may be given as in Classifier-Free Diffusion Guidance, Ho and Salimans 2022,
         https://arxiv.org/abs/2207.12598: its embedding is added to that of the time, and one more
         stands for no class. Attention is placed by level instead of by pixels.
"""

import keras
import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.attention import SelfAttention
from kerasdl.layers.core import (
    Model,
    build_chain,
    check_counts,
    construct,
    register,
    upsample2x,
    upsampled_shape,
)
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.norm import GroupNorm
from kerasdl.layers.remat import Block
from kerasdl.system.names import nearest_multiples

TIME_SCALE = 1000.0  # the paper's times are 1 to 1,000


def time_embedding(t, dim):
    """Sines, then cosines of `t / 10000^(i / (dim / 2 - 1))`.

    Args:
        t: float `(B,)`.
        dim: `D`, even, at least 4.

    Returns:
        float `(B, D)`.
    """
    rates = 10000.0 ** (-np.arange(dim // 2) / (dim // 2 - 1))
    a = t[:, None] * ops.convert_to_tensor(rates, t.dtype)
    return ops.concatenate([ops.sin(a), ops.cos(a)], axis=-1)


def norm(channels, name, groups=None, epsilon=1e-6):
    """Group norm in `groups`; if None in 32, or fewer, of at least 4 channels each."""
    if groups is None:
        most = min(32, max(1, channels // 4))
        groups = next(g for g in range(most, 0, -1) if channels % g == 0)
    return GroupNorm(groups, epsilon, name=name)


def conv(filters, name, kernel_size=3, strides=1, zeros=False):
    """Square convolution that keeps the size at stride 1; a zero kernel adds nothing at first."""
    start = "zeros" if zeros else keras.initializers.VarianceScaling(1.0, "fan_avg", "uniform")
    return keras.layers.Conv2D(
        filters, kernel_size, strides, padding="same", kernel_initializer=start, name=name
    )


@register
class ResBlock(Block):
    """`x + F(x, time)`: norm, swish, convolution, twice; the time is added between them.

    Args:
        filters: Channels of the output, `D`.
        drop_rate: Dropout before the second convolution.
        groups, epsilon: Of the norms; see `norm`.

    Call arguments:
        x: float `(B, H, W, C)`.
        embedding: float `(B, E)`, of the time.
        training: Whether to drop.

    Returns:
        float `(B, H, W, D)`.
    """

    def __init__(self, filters, drop_rate=0.0, groups=None, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.filters = filters
        self.norms = (groups, epsilon)
        self.conv1 = conv(filters, "conv1")
        self.time = keras.layers.Dense(filters, name="time")
        self.norm2 = norm(filters, "norm2", groups, epsilon)
        self.drop = Dropout(drop_rate, name="drop")
        self.conv2 = conv(filters, "conv2", zeros=True)
        self.norm1 = self.project = None  # made in build(), once C is given

    def build(self, x_shape, embedding_shape):
        c, inner = x_shape[-1], (*x_shape[:-1], self.filters)
        self.norm1 = norm(c, "norm1", *self.norms)
        self.norm1.build(x_shape)
        self.conv1.build(x_shape)
        self.time.build(embedding_shape)
        self.norm2.build(inner)
        self.conv2.build(inner)
        if c != self.filters:
            self.project = conv(self.filters, "project", kernel_size=1)
            self.project.build(x_shape)
        self.drop.build(inner)

    def call(self, x, embedding, training=False):
        y = self.conv1(ops.silu(self.norm1(x)))
        y = y + self.time(ops.silu(embedding))[:, None, None, :]
        y = self.conv2(self.drop(ops.silu(self.norm2(y)), training=training))
        return (self.project(x) if self.project else x) + y


@register
class AttentionBlock(Block):
    """`x + attention(norm(x))` with one head over all pixels.

    Args:
        groups, epsilon: Of the norm; see `norm`.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether to drop, of which there is none here.

    Returns:
        float `(B, H, W, C)`.
    """

    def __init__(self, groups=None, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.norms = (groups, epsilon)

    def build(self, input_shape):
        h, w, c = input_shape[1:]
        self.norm = norm(c, "norm", *self.norms)
        self.attention = SelfAttention(1, stddevs=(c**-0.5, 1e-5), name="attention")
        self.norm.build(input_shape)
        self.attention.build((input_shape[0], h * w, c))

    def call(self, x, training=False):
        h, w, c = x.shape[1:]
        y = ops.reshape(self.norm(x), (-1, h * w, c))  # (B, N, C)
        return x + ops.reshape(self.attention(y, training=training), (-1, h, w, c))


@register
class UNet(Model):
    """What is predicted at a noisy image, a time and, where there are any, a class.

    Args:
        image_shape: `(H, W, C)`; each side is halved once for every level but the last.
        num_classes: `K`; None makes it unconditional.
        dim: Channels of the first level.
        multipliers: Of the channels of every level, the first at full size.
        depth: Residual blocks per level on the way down; one more on the way up.
        attention_levels: Which levels, from 0, have attention behind each residual block.
        drop_rate: Dropout in the residual blocks.
        groups: Of every group norm; they divide all channels. If None 32, or fewer; see `norm`.
        epsilon: Of every group norm.
        widths: Channels of every level, the first of them `dim`; those of `multipliers` if None.
        first_time: What the network is told at the first of the 1,000 steps, time 0.001: 1 as in
            the paper, or 0 as in the authors' code and published weights.

    Call arguments:
        x: a dict of `image`, float `(B, H, W, C)`, noisy, of images scaled to [-1, 1]; `time`,
            float `(B,)` in [0, 1]; of a conditional one `label`, int32 `(B,)`, `K` for no class.
        training: Whether to drop.

    Returns:
        float32 (or float64) `(B, H, W, C)`.

    Raises:
        ValueError: A size that cannot be halved so often, or a level that does not exist.
    """

    def __init__(
        self,
        image_shape,
        num_classes=None,
        dim=128,
        multipliers=(1, 2, 2, 2),
        depth=2,
        attention_levels=(1,),
        drop_rate=0.1,
        groups=None,
        epsilon=1e-6,
        widths=None,
        first_time=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if widths is not None:
            check_counts(**{f"widths[{i}]": width for i, width in enumerate(widths)})
            multipliers = (1,) * len(widths)  # for the number of levels alone
        check_sizes(image_shape, dim, multipliers, depth, attention_levels)
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.dim = dim
        self.first_time = first_time
        self.groups = groups
        self.depth = depth
        widths = tuple(widths or (dim * m for m in multipliers))
        self.levels = len(widths)
        norms = {"groups": groups, "epsilon": epsilon}
        wide = keras.config.dtype_policy().variable_dtype
        self.time1 = keras.layers.Dense(4 * dim, name="time1")
        self.time2 = keras.layers.Dense(4 * dim, name="time2")
        self.classes = (
            keras.layers.Embedding(num_classes + 1, 4 * dim, name="classes")
            if num_classes
            else None
        )
        self.stem = conv(dim, "stem")
        self.layers_down, self.layers_middle, self.layers_up = [], [], []

        def block(where, filters, attends, name):
            where.append(ResBlock(filters, drop_rate, **norms, name=f"{name}_block"))
            if attends:
                where.append(AttentionBlock(**norms, name=f"{name}_attention"))

        levels = list(enumerate(widths))
        for level, width in levels:
            for i in range(depth):
                name = f"down{level + 1}_{i + 1}"
                block(self.layers_down, width, level in attention_levels, name)
            if level < len(levels) - 1:
                self.layers_down.append(conv(width, f"down{level + 1}_sample", strides=2))
        block(self.layers_middle, widths[-1], True, "middle1")
        block(self.layers_middle, widths[-1], False, "middle2")
        for level, width in reversed(levels):
            for i in range(depth + 1):
                name = f"up{level + 1}_{i + 1}"
                block(self.layers_up, width, level in attention_levels, name)
            if level:
                self.layers_up.append(conv(width, f"up{level + 1}_sample"))
        self.norm = norm(widths[0], "norm", **norms)
        self.head = keras.layers.Conv2D(
            image_shape[-1], 3, padding="same", kernel_initializer="zeros", dtype=wide, name="head"
        )

    def build(self, input_shape):
        embedding = build_chain((None, self.dim), self.time1, self.time2)
        if self.classes is not None:
            self.classes.build((None,))

        def through(layer, shape):
            if isinstance(layer, ResBlock):
                layer.build(shape, embedding)
                return (*shape[:-1], layer.filters)
            layer.build(shape)
            return shape if isinstance(layer, AttentionBlock) else layer.compute_output_shape(shape)

        shape = build_chain((None, *self.image_shape), self.stem)
        skips = [shape[-1]]  # channels
        for i, layer in enumerate(self.layers_down):
            shape = through(layer, shape)
            if self._is_skip(i):
                skips.append(shape[-1])
        for layer in self.layers_middle:
            shape = through(layer, shape)
        for layer in self.layers_up:
            if isinstance(layer, ResBlock):
                shape = (*shape[:-1], shape[-1] + skips.pop())
            elif isinstance(layer, keras.layers.Conv2D):
                shape = upsampled_shape(shape)
            shape = through(layer, shape)
        build_chain(shape, self.norm, self.head)

    def _is_skip(self, i):
        """Whether what layer `i` on the way down makes is handed to the way up."""
        after = self.layers_down[i + 1] if i + 1 < len(self.layers_down) else None
        return not isinstance(after, AttentionBlock)  # which belongs to the block before it

    def symbolic_inputs(self):
        inputs = {"image": keras.Input(self.image_shape), "time": keras.Input(())}
        if self.num_classes:
            inputs["label"] = keras.Input((), dtype="int32")
        return inputs

    def embed(self, x):
        """The embedding of time and class `(B, E)` of the call's inputs."""
        t = TIME_SCALE * x["time"]
        if self.first_time != 1.0:
            t = t + (self.first_time - 1.0)
        embedding = time_embedding(t, self.dim)
        embedding = self.time2(ops.silu(self.time1(embedding)))
        if self.classes is None:
            return embedding
        return embedding + self.classes(x["label"])

    def middle(self, x, training=False):
        """What the way down and the middle make of the call's inputs, float `(B, h, w, C)`."""
        return self._encoded(x, training)[0]

    def _encoded(self, x, training):
        """The middle, what is handed to the way up, and the function that applies a layer."""
        if ("label" in x) != bool(self.num_classes):
            what = "needs a label" if self.num_classes else "is unconditional and takes no label"
            raise UserError(f"{self.name} {what}")
        embedding = self.embed(x)
        y = self.stem(x["image"])
        skips = [y]

        def through(layer, y):
            if isinstance(layer, ResBlock):
                return layer(y, embedding, training=training)
            return layer(y, training=training)

        for i, layer in enumerate(self.layers_down):
            y = through(layer, y)
            if self._is_skip(i):
                skips.append(y)
        for layer in self.layers_middle:
            y = through(layer, y)
        return y, skips, through

    def call(self, x, training=False):
        y, skips, through = self._encoded(x, training)
        for layer in self.layers_up:
            if isinstance(layer, ResBlock):
                y = ops.concatenate([y, skips.pop()], axis=-1)
            elif isinstance(layer, keras.layers.Conv2D):
                y = upsample2x(y)
            y = through(layer, y)
        return self.head(ops.silu(self.norm(y)))


def check_sizes(image_shape, dim, multipliers, depth, attention_levels):
    """Refuse images that cannot be halved on the way down, and sizes that mean nothing.

    Raises:
        ValueError: Names the nearest sizes that work.
    """
    check_counts(
        dim=dim, depth=depth, **{f"multipliers[{i}]": m for i, m in enumerate(multipliers)}
    )
    if dim % 2 or dim < 4:
        raise UserError(f"dim {dim}: must be even and at least 4")
    for level in attention_levels:
        if level not in range(len(multipliers)):
            raise UserError(
                f"attention_levels {level}: must be at least 0 and at most {len(multipliers) - 1}"
            )
    part = 2 ** (len(multipliers) - 1)
    if len(image_shape) != 3:
        raise UserError(f"image_shape {tuple(image_shape)}: must be (height, width, channels)")
    for side in image_shape[:2]:
        if side % part:
            near = " and ".join(nearest_multiples(side, part))
            raise UserError(
                f"image_shape {tuple(image_shape)}: with {len(multipliers)} levels each side must "
                f"be a multiple of {part}; the nearest to {side} are {near}; "
                "--image-size resizes images"
            )


def ddpm_unet(image_shape=(32, 32, 3), num_classes=None, **kwargs):
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(UNet, "ddpm_unet", given, {}, kwargs)


def ddpm_unet_small(image_shape=(8, 8, 1), num_classes=10, **kwargs):
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(UNet, "ddpm_unet_small", given, SMALL, kwargs)


SMALL = {"dim": 32, "multipliers": (1, 2, 2), "depth": 1, "attention_levels": ()}

_TINY = {
    "image_shape": (8, 8, 2),
    "dim": 8,
    "multipliers": (1, 2),
    "depth": 1,
    "attention_levels": (0,),
    "drop_rate": 0.0,
}
TINY = {
    "ddpm_unet": {**_TINY, "multipliers": (2,), "attention_levels": ()},
    "ddpm_unet_small": {**_TINY, "num_classes": 3},
}
RECIPE = {
    "ddpm_unet": {
        "batch_size": 128,
        "lr": 2e-4,
        "warmup_epochs": 5,
        "clip_grad": 1.0,
        "ema_decay": 0.9999,
        "weights": "last",
    },
    "ddpm_unet_small": {
        "epochs": 170,
        "batch_size": 64,
        "lr": 2e-3,
        "warmup_epochs": 5,
        "drop_rate": 0.2,
        "clip_grad": 1.0,
        "task_kwargs": {"conditional": True},
        "ema_decay": 0.998,
        "weights": "last",
    },
}
