"""Generative adversarial networks of dense layers, and what every GAN here is made of.

Paper:   Generative Adversarial Networks, Goodfellow et al. 2014, https://arxiv.org/abs/1406.2661
         (section 5; sizes of its released code, github.com/goodfeli/adversarial, mnist.yaml).
Differs: the generator's last bias starts at 0, not at the logits of the training images' means;
         `norm` and `minibatch_std` are later inventions, off by default.
"""

import math

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.activation import Maxout
from kerasdl.layers.classifier import check_size, dense_head
from kerasdl.layers.core import BatchNorm, Model, build_chain, check_counts, construct, register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.minibatch import MinibatchStd
from kerasdl.system.names import nearest

LATENT_PRIORS = ("normal", "uniform")
# Goodfellow et al. 2014, twice; Lim and Ye 2017; Gulrajani et al. 2017
LOSSES = ("non_saturating", "minimax", "hinge", "wasserstein_gp")


class Gan(Model):
    """A generator and a discriminator, trained by the task `adversarial`.

    Args:
        generator: Layer: float latents `(B, D)` to images `(B, H, W, C)` in [0, 1].
        discriminator: Layer: such images to logits `(B,)` of their being real.
        image_shape: `(H, W, C)`.
        latent_dim: `D`.
        latent_prior: Distribution of the latents, "normal" or "uniform"; of variance 1.

    Call arguments:
        x: `{"image": float (B, H, W, C) in [0, 1], "latent": float (B, D)}`.
        training: Whether dropout and batch statistics are on.

    Returns:
        `{"image": (B, H, W, C), what the latents become; "real": logits (B,) of the given images;
        "fake": logits (B,) of those made}`.
    """

    def __init__(self, generator, discriminator, image_shape, latent_dim, latent_prior, **kwargs):
        super().__init__(**kwargs)
        if latent_prior not in LATENT_PRIORS:
            raise UserError(
                f"latent_prior {latent_prior!r}: not one of {', '.join(LATENT_PRIORS)}"
                f"{nearest(latent_prior, LATENT_PRIORS)}"
            )
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim
        self.latent_prior = latent_prior
        self.generator = generator
        self.discriminator = discriminator

    def symbolic_inputs(self):
        return {
            "image": keras.Input(self.image_shape, name="image"),
            "latent": keras.Input((self.latent_dim,), name="latent"),
        }

    def build(self, input_shape):
        self.generator.build((None, self.latent_dim))
        self.discriminator.build((None, *self.image_shape))

    def call(self, x, training=False):
        fake = self.generate(x["latent"], training)
        return {
            "image": fake,
            "real": self.discriminate(x["image"], training),
            "fake": self.discriminate(fake, training),
        }

    def discriminator_loss(self, loss, real, fake, smoothing=0.0):
        """What the discriminator minimizes.

        Args:
            loss: A name of `LOSSES`.
            real: Logits `(B,)` of real images, `r`.
            fake: Logits `(B,)` of made images, `f`.
            smoothing: `s`, by which the target of real images is below 1, where there is one.

        Returns:
            `(B,)`.
        """
        if loss in ("non_saturating", "minimax"):  # algorithm 1
            # Cross entropy with the target 1 - s is softplus(-r) + s r.
            return ops.softplus(-real) + smoothing * real + ops.softplus(fake)
        if loss == "hinge":
            return ops.relu(1.0 - real) + ops.relu(1.0 + fake)
        if loss == "wasserstein_gp":
            return fake - real
        raise _unknown(loss)

    def generator_loss(self, loss, fake):
        """What the generator minimizes `(B,)`, of logits `(B,)` of its images; `loss` likewise."""
        if loss == "non_saturating":  # section 3: maximize log D(G(z))
            return ops.softplus(-fake)
        if loss == "minimax":
            return -ops.softplus(fake)
        if loss in ("hinge", "wasserstein_gp"):
            return -fake
        raise _unknown(loss)

    def generate(self, latent, training=False):
        """Images `(B, H, W, C)` in [0, 1] of latents `(B, D)`."""
        return self.generator(latent, training=training)

    def discriminate(self, image, training=False):
        """Logits `(B,)` of images `(B, H, W, C)` in [0, 1]; the larger, the more real."""
        return self.discriminator(image, training=training)


def _unknown(loss):
    return ValueError(f"loss {loss!r}: not one of {', '.join(LOSSES)}{nearest(loss, LOSSES)}")


@register
class DenseGenerator(keras.layers.Layer):
    """Two hidden layers of rectifiers, and sigmoid pixels.

    Args:
        image_shape: `(H, W, C)`.
        hidden_dim: Units of each hidden layer.
        norm: Of the hidden layers, "batch" or "none".

    Call arguments:
        x: float `(B, D)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float32 (or float64) `(B, H, W, C)` in [0, 1].
    """

    def __init__(self, image_shape, hidden_dim, norm="none", **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        height, width, channels = self.image_shape
        normed = norm == "batch"  # which takes any bias away
        self.hidden = [
            _dense(hidden_dim, 0.05, name=f"hidden{i}", use_bias=not normed) for i in (1, 2)
        ]
        self.norms = [BatchNorm(name=f"norm{i}") for i in (1, 2) if normed]
        self.head = dense_head(height * width * channels)
        self.head.kernel_initializer = _uniform(0.05)

    def build(self, input_shape):
        shape = input_shape
        for i, layer in enumerate(self.hidden):
            shape = build_chain(shape, layer, *self.norms[i : i + 1])
        self.head.build(shape)

    def call(self, x, training=False):
        for i, layer in enumerate(self.hidden):
            x = layer(x)
            if self.norms:
                x = self.norms[i](x, training=training)
            x = ops.relu(x)
        return ops.reshape(ops.sigmoid(self.head(x)), (-1, *self.image_shape))


@register
class MaxoutDiscriminator(keras.layers.Layer):
    """Two maxout layers, with dropout before each layer, and one logit.

    Args:
        units: Of each maxout layer.
        pieces: Affine pieces per unit.
        input_drop_rate: Dropout of the pixels.
        drop_rate: Dropout of the units.
        minibatch_std: Whether the last layer reads how much the images of the batch differ.

    Call arguments:
        x: float `(B, H, W, C)` in [0, 1].
        training: Whether to drop, and to use batch statistics.

    Returns:
        float32 (or float64) logits `(B,)`.
    """

    def __init__(
        self,
        units,
        pieces,
        input_drop_rate=0.2,
        drop_rate=0.5,
        minibatch_std=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden = [_dense(units * pieces, 0.005, name=f"hidden{i}") for i in (1, 2)]
        rates = (input_drop_rate, drop_rate, drop_rate)
        self.drops = [Dropout(rate, name=f"drop{i}") for i, rate in enumerate(rates)]
        self.maxout = Maxout(pieces, name="maxout")
        self.minibatch_std = MinibatchStd(name="minibatch_std") if minibatch_std else None
        self.head = dense_head(1)
        self.head.kernel_initializer = _uniform(0.005)

    def build(self, input_shape):
        shape = (None, math.prod(input_shape[1:]))
        for layer, drop in zip(self.hidden, self.drops[:2], strict=True):
            shape = build_chain(shape, drop, layer, self.maxout)
        last = [self.drops[2], self.minibatch_std, self.head]
        build_chain(shape, *(layer for layer in last if layer))

    def call(self, x, training=False):
        height, width, channels = x.shape[1:]
        x = ops.reshape(x, (-1, height * width * channels))
        for layer, drop in zip(self.hidden, self.drops[:2], strict=True):
            x = self.maxout(layer(drop(x, training=training)))
        x = self.drops[2](x, training=training)
        if self.minibatch_std:
            x = self.minibatch_std(x, training=training)
        return self.head(x)[:, 0]


def _dense(units, limit, **kwargs):
    return keras.layers.Dense(units, kernel_initializer=_uniform(limit), **kwargs)


def _uniform(limit):
    return keras.initializers.RandomUniform(-limit, limit)


@register
class GanMlp(Gan):
    """The GAN of 2014 for MNIST.

    Args:
        image_shape: `(H, W, C)`.
        latent_dim: `D`.
        latent_prior: Distribution of the latents, "normal" or "uniform".
        hidden_dim: Units of each of the generator's hidden layers.
        norm: Of the generator's hidden layers, "batch" or "none".
        units: Of each of the discriminator's maxout layers.
        pieces: Affine pieces per maxout unit.
        input_drop_rate: Dropout of the discriminator's pixels.
        drop_rate: Dropout of its units.
        minibatch_std: Whether its last layer reads how much the images of the batch differ.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        latent_dim=100,
        latent_prior="uniform",
        hidden_dim=1200,
        norm="none",
        units=240,
        pieces=5,
        input_drop_rate=0.2,
        drop_rate=0.5,
        minibatch_std=False,
        **kwargs,
    ):
        check_size(image_shape, 1, "gan_mlp")
        check_counts(latent_dim=latent_dim, hidden_dim=hidden_dim, units=units, pieces=pieces)
        check_norm(norm)
        super().__init__(
            DenseGenerator(image_shape, hidden_dim, norm, name="generator"),
            MaxoutDiscriminator(
                units, pieces, input_drop_rate, drop_rate, minibatch_std, name="discriminator"
            ),
            image_shape,
            latent_dim,
            latent_prior,
            **kwargs,
        )


def check_norm(norm):
    """Raise a ValueError unless `norm` is "batch" or "none"."""
    if norm not in ("batch", "none"):
        raise UserError(f"norm {norm!r}: not one of batch, none{nearest(norm, ('batch', 'none'))}")


def gan_mlp(image_shape=(28, 28, 1), **kwargs):
    """Rectifiers against maxout units, 28x28 gray images by default."""
    return construct(GanMlp, "gan_mlp", {"image_shape": tuple(image_shape)}, {}, kwargs)


TINY = {
    "gan_mlp": {
        "image_shape": (8, 8, 1),
        "latent_dim": 5,
        "latent_prior": "normal",
        "hidden_dim": 12,
        "norm": "batch",
        "units": 7,
        "pieces": 3,
        "input_drop_rate": 0.1,
        "drop_rate": 0.2,
        "minibatch_std": True,
    }
}
# For the digits of 8x8 pixels. The recipe of 2014 is the builder's own arguments with
# --task-kwargs gradient_penalty=0 --opt sgd --momentum 0.5 --lr 0.1 --ema-decay 0
TRAINING = {"batch_size": 64, "opt": "adam", "beta1": 0.5, "lr": 0.001, "ema_decay": 0.99}
RECIPE = {
    "gan_mlp": {
        **TRAINING,
        "epochs": 100,
        "model_kwargs": {
            "latent_dim": 20,
            "hidden_dim": 256,
            "norm": "batch",
            "input_drop_rate": 0.0,
            "drop_rate": 0.0,
            "minibatch_std": True,
        },
        "task_kwargs": {"gradient_penalty": 1.0},
    }
}
