"""Generative adversarial networks of strided convolutions.

Paper:   Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
         Networks, Radford et al. 2015, https://arxiv.org/abs/1511.06434 (figure 1; section 3).
Differs: the default is the layout that became common, with 4x4 kernels and 64 filters at the
         largest map; `base_filters=128, kernel_size=5` is the paper's, its 5x5 kernels padded by 1
         and 2 instead of 2 and 2. `norm="none"`, `minibatch_std` are later inventions.
"""

import math

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import BatchNorm, build_chain, check_counts, construct, register
from kerasdl.layers.minibatch import MinibatchStd
from kerasdl.models.generative.gan import TRAINING, Gan, check_norm

SLOPE = 0.2  # of the discriminator's leaky rectifiers, section 4


def _normal():
    return keras.initializers.RandomNormal(stddev=0.02)  # section 4


def _scale():
    return keras.initializers.RandomNormal(mean=1.0, stddev=0.02)  # of the released code


@register
class DcganGenerator(keras.layers.Layer):
    """A dense layer to the smallest map, then fractionally-strided convolutions to the image.

    Args:
        image_shape: `(S, S, C)`, `S = smallest * 2^n`.
        base_filters: Of the largest hidden map; they double with each smaller one.
        kernel_size: Side of the kernels.
        smallest: Side of the smallest map.

    Call arguments:
        x: float `(B, D)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float32 (or float64) `(B, S, S, C)` in [0, 1].
    """

    def __init__(self, image_shape, base_filters=64, kernel_size=4, smallest=4, **kwargs):
        super().__init__(**kwargs)
        self.smallest = smallest
        n = int(math.log2(image_shape[0] // smallest))
        filters = [base_filters * 2**i for i in reversed(range(n))]  # 512, 256, 128, 64
        self.filters = filters[0]
        self.project = keras.layers.Dense(
            smallest**2 * filters[0],
            use_bias=False,
            kernel_initializer=_normal(),
            name="project",
        )

        def up(filters, name, **kwargs):
            return keras.layers.Conv2DTranspose(
                filters,
                kernel_size,
                2,
                padding="same",
                use_bias=False,
                kernel_initializer=_normal(),
                name=name,
                **kwargs,
            )

        self.ups = [up(f, f"up{i + 1}") for i, f in enumerate(filters[1:])]
        self.norms = [
            BatchNorm(gamma_initializer=_scale(), name=f"norm{i}") for i in range(len(filters))
        ]
        wide = keras.config.dtype_policy().variable_dtype
        self.head = up(image_shape[-1], "head", dtype=wide)

    def build(self, input_shape):
        self.project.build(input_shape)
        shape = build_chain((None, self.smallest, self.smallest, self.filters), self.norms[0])
        for up, norm in zip(self.ups, self.norms[1:], strict=True):
            shape = build_chain(shape, up, norm)
        self.head.build(shape)

    def call(self, x, training=False):
        x = ops.reshape(self.project(x), (-1, self.smallest, self.smallest, self.filters))
        x = ops.relu(self.norms[0](x, training=training))
        for up, norm in zip(self.ups, self.norms[1:], strict=True):
            x = ops.relu(norm(up(x), training=training))
        return (ops.tanh(self.head(x)) + 1.0) / 2.0


@register
class DcganDiscriminator(keras.layers.Layer):
    """Strided convolutions to the smallest map, and one logit of the whole of it.

    Args:
        image_shape: `(S, S, C)`, `S = smallest * 2^n`.
        base_filters: Of the largest map; they double with each smaller one.
        kernel_size: Side of the kernels.
        smallest: Side of the smallest map.
        norm: "batch" (of all convolutions but the first) or "none".
        minibatch_std: Whether the last layer reads how much the images of the batch differ.

    Call arguments:
        x: float `(B, S, S, C)` in [0, 1].
        training: Whether batch statistics are used, and updated.

    Returns:
        float32 (or float64) logits `(B,)`.
    """

    def __init__(
        self,
        image_shape,
        base_filters=64,
        kernel_size=4,
        smallest=4,
        norm="batch",
        minibatch_std=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.smallest = smallest
        n = int(math.log2(image_shape[0] // smallest))
        self.convs = [
            keras.layers.Conv2D(
                base_filters * 2**i,
                kernel_size,
                2,
                padding="same",
                use_bias=False,
                kernel_initializer=_normal(),
                name=f"conv{i + 1}",
            )
            for i in range(n)
        ]
        self.norms = [
            BatchNorm(gamma_initializer=_scale(), name=f"norm{i + 1}")
            for i in range(1, n)
            if norm == "batch"
        ]
        self.minibatch_std = MinibatchStd(name="minibatch_std") if minibatch_std else None
        self.head = keras.layers.Dense(
            1,
            use_bias=False,
            kernel_initializer=_normal(),
            dtype=keras.config.dtype_policy().variable_dtype,
            name="head",
        )

    def build(self, input_shape):
        shape = input_shape
        for i, conv in enumerate(self.convs):
            shape = build_chain(shape, conv, *self.norms[i - 1 : i])  # none after the first
        if self.minibatch_std:
            shape = build_chain(shape, self.minibatch_std)
        self.head.build((None, math.prod(shape[1:])))

    def call(self, x, training=False):
        x = 2.0 * x - 1.0
        for i, conv in enumerate(self.convs):
            x = conv(x)
            if i and self.norms:
                x = self.norms[i - 1](x, training=training)
            x = ops.leaky_relu(x, negative_slope=SLOPE)
        if self.minibatch_std:
            x = self.minibatch_std(x, training=training)
        return self.head(ops.reshape(x, (-1, self.smallest**2 * x.shape[-1])))[:, 0]


@register
class Dcgan(Gan):
    """A deep convolutional GAN for square images of `smallest * 2^n` pixels a side, `n` from 1.

    Args:
        image_shape: `(S, S, C)`.
        latent_dim: `D`.
        latent_prior: Distribution of the latents, "normal" or "uniform"; the paper's is uniform.
        base_filters: Of the largest hidden maps; they double with each smaller one.
        kernel_size: Side of the kernels.
        smallest: Side of the smallest maps, `S / 2^n`.
        norm: The discriminator's, "batch" or "none". A gradient penalty wants none: batch norm
            couples the images, and on one device TensorFlow's second derivative of it is wrong.
        minibatch_std: Whether the discriminator reads how much the images of the batch differ.

    Raises:
        ValueError: Names the nearest accepted sizes.
    """

    def __init__(
        self,
        image_shape=(64, 64, 3),
        latent_dim=100,
        latent_prior="normal",
        base_filters=64,
        kernel_size=4,
        smallest=4,
        norm="batch",
        minibatch_std=False,
        **kwargs,
    ):
        check_counts(
            latent_dim=latent_dim,
            base_filters=base_filters,
            kernel_size=kernel_size,
            smallest=smallest,
        )
        _check_size(image_shape, smallest)
        check_norm(norm)
        super().__init__(
            DcganGenerator(image_shape, base_filters, kernel_size, smallest, name="generator"),
            DcganDiscriminator(
                image_shape,
                base_filters,
                kernel_size,
                smallest,
                norm,
                minibatch_std,
                name="discriminator",
            ),
            image_shape,
            latent_dim,
            latent_prior,
            **kwargs,
        )


def _check_size(image_shape, smallest):
    """Refuse images that are not square of `smallest * 2^n` pixels a side, `n` at least 1."""
    if len(image_shape) != 3:
        raise UserError(f"image_shape {tuple(image_shape)}: dcgan needs (side, side, channels)")
    height, width = image_shape[:2]
    side = max(height, width)
    below = smallest * 2 ** max(1, int(math.log2(max(side / smallest, 1))))
    if not height == width == below:
        nearest = {below, below if side <= below else 2 * below}
        raise UserError(
            f"image_shape {tuple(image_shape)}: dcgan needs square images of {smallest} * 2^n "
            f"pixels a side; the nearest are {', '.join(f'{s}x{s}' for s in sorted(nearest))}; "
            f"--image-size resizes them"
        )


def dcgan(image_shape=(64, 64, 3), **kwargs):
    """512-256-128-64 filters at 64x64 pixels."""
    return construct(Dcgan, "dcgan", {"image_shape": tuple(image_shape)}, {}, kwargs)


TINY = {
    "dcgan": {
        "image_shape": (8, 8, 1),
        "latent_dim": 5,
        "latent_prior": "uniform",
        "base_filters": 6,
        "kernel_size": 5,
        "smallest": 2,
        "norm": "none",
        "minibatch_std": True,
    }
}
# For the digits of 8x8 pixels, on which the plain recipe of 2015 loses classes. That one is
# --model-kwargs smallest=4 latent_dim=100 latent_prior=uniform norm=batch minibatch_std=false
# --task-kwargs gradient_penalty=0 --lr 0.0002 --beta1 0.5 --sched constant --ema-decay 0
RECIPE = {
    "dcgan": {
        **TRAINING,
        "epochs": 120,
        "model_kwargs": {"smallest": 2, "latent_dim": 20, "norm": "none", "minibatch_std": True},
        "task_kwargs": {"gradient_penalty": 2.0},
    }
}
