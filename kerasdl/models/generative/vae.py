"""Variational autoencoders.

Paper:   Auto-Encoding Variational Bayes, Kingma and Welling 2013,
         https://arxiv.org/abs/1312.6114 (section 3, appendix C; `vae_mlp`); beta-VAE, Higgins et
         al. 2017 (`beta`).
Differs: pixels' intensities count as fractions of a one, as in the paper's code; Adam for Adagrad.
         The variance of the Gaussian decoder is one number for all pixels, learned with the weights
         (Rybkin et al. 2021, https://arxiv.org/abs/2006.13202): with one per pixel the density of a
         pixel that is the same in all images has no bound. `vae` is a convolutional form of our
         own: the paper has none.
"""

import math

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import check_size, dense_head
from kerasdl.layers.core import (
    Conv,
    Model,
    build_chain,
    check_counts,
    construct,
    register,
    upsample2x,
    upsampled_shape,
)
from kerasdl.ops import likelihood as schedules

LIKELIHOODS = ("bernoulli", "gaussian")
FIRST_LOG_VARIANCE = -2.0  # of a pixel under the Gaussian likelihood
MIN_LOG_VARIANCE = 2.0 * math.log(1 / 256 / math.sqrt(12))  # what rounding to 256 levels adds


class VariationalAutoencoder(Model):
    """`q(z | x)` and `p(x | z)` with normal `z`: the base of the forms below.

    Args:
        image_shape: `(H, W, C)`.
        latent_dim: `D`.
        likelihood: Of a pixel given `z`: "bernoulli" or "gaussian".
        beta: Weight of the divergence in the loss; 1 is the evidence lower bound.

    Attributes:
        variational: True: codes have a distribution, and a prior that images can be sampled from.

    Call arguments:
        x: float `(B, H, W, C)` in [0, 1].
        training: Accepted for the protocol's sake.

    Returns:
        `image` `(B, H, W, C)`, the mean intensities given the mean code; `mean` and
        `log_variance` of the code, `(B, D)`. At least float32.
    """

    variational = True

    def __init__(self, image_shape, latent_dim, likelihood="bernoulli", beta=1.0, **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.beta = beta
        check_counts(latent_dim=latent_dim)
        if likelihood not in LIKELIHOODS:
            raise UserError(f"likelihood {likelihood!r}: not one of {', '.join(LIKELIHOODS)}")
        if not isinstance(beta, int | float) or not 0 <= beta < math.inf:
            raise UserError(f"beta {beta!r}: must be a number from 0 on")
        self.mean = dense_head(latent_dim, "mean")
        self.log_variance = dense_head(latent_dim, "log_variance")
        if likelihood == "gaussian":
            self.pixel_log_variance = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(FIRST_LOG_VARIANCE),
                dtype=keras.config.dtype_policy().variable_dtype,
                name="pixel_log_variance",
            )

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def features(self, image, training=False):
        """What the code is read from, `(B, F)`, of an image `(B, H, W, C)`."""
        raise NotImplementedError

    def decode(self, z, training=False):
        """Logits of the mean intensities `(B, H, W, C)` of codes `(B, D)`."""
        raise NotImplementedError

    def encode(self, image, training=False):
        """`mean` and `log_variance` `(B, D)` of the codes of images `(B, H, W, C)`."""
        h = self.features(image, training)
        return {"mean": self.mean(h), "log_variance": self.log_variance(h)}

    def objective(self, image, noise, training=False):
        """The negative evidence lower bound of images, equation 10 with one code each.

        Args:
            image: float `(B, H, W, C)` in [0, 1].
            noise: float `(B, D)`, standard normal: `epsilon` of the code.
            training: Accepted for the protocol's sake.

        Returns:
            The loss `(B,)`, `reconstruction + beta kl`; and these two, in nats.
        """
        encoded = self.encode(image, training)
        z = schedules.reparameterize(encoded["mean"], encoded["log_variance"], noise)
        kl = schedules.normal_kl(encoded["mean"], encoded["log_variance"])
        reconstruction = self.nll(image, self.decode(z, training))
        return reconstruction + self.beta * kl, {"reconstruction": reconstruction, "kl": kl}

    def nll(self, image, logits):
        """`-log p(x | z)` in nats `(B,)` of images and the result of `decode`, `(B, H, W, C)`."""
        if self.likelihood == "bernoulli":
            return schedules.bernoulli_nll(image, logits)
        log_variance = ops.maximum(self.pixel_log_variance, MIN_LOG_VARIANCE)
        return schedules.gaussian_nll(image, ops.sigmoid(logits), log_variance)

    def call(self, x, training=False):
        encoded = self.encode(x, training)
        return {"image": ops.sigmoid(self.decode(encoded["mean"], training)), **encoded}


@register
class MLPVariationalAutoencoder(VariationalAutoencoder):
    """One hidden layer of tanh units on each side.

    Args:
        image_shape: `(H, W, C)`.
        latent_dim: `D`.
        hidden_dim: Units of each hidden layer.
        likelihood, beta: Of `VariationalAutoencoder`.

    Call arguments:
        x: float `(B, H, W, C)` in [0, 1].
        training: Accepted for the protocol's sake.

    Returns:
        `image`, `mean` and `log_variance`.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        latent_dim=20,
        hidden_dim=500,
        likelihood="bernoulli",
        beta=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, latent_dim, likelihood, beta, **kwargs)
        check_size(self.image_shape, 1, self.name)
        check_counts(hidden_dim=hidden_dim)
        self.encoder = keras.layers.Dense(hidden_dim, "tanh", name="encoder")
        self.decoder = keras.layers.Dense(hidden_dim, "tanh", name="decoder")
        self.pixels = dense_head(math.prod(self.image_shape), "pixels")

    def build(self, input_shape):
        shape = build_chain((None, math.prod(self.image_shape)), self.encoder)
        self.mean.build(shape)
        self.log_variance.build(shape)
        build_chain((None, self.latent_dim), self.decoder, self.pixels)

    def features(self, image, training=False):
        return self.encoder(ops.reshape(image, (-1, math.prod(self.image_shape))))

    def decode(self, z, training=False):
        return ops.reshape(self.pixels(self.decoder(z)), (-1, *self.image_shape))


@register
class ConvVariationalAutoencoder(VariationalAutoencoder):
    """Strided convolutions down to a small map, a dense layer, and the same back.

    Each stage halves the image, so both sides must be multiples of `2 ** len(filters)`.

    Args:
        image_shape: `(H, W, C)`.
        latent_dim: `D`.
        filters: Channels of each stage.
        hidden_dim: Units of the dense layers.
        likelihood, beta: Of `VariationalAutoencoder`.

    Call arguments:
        x: float `(B, H, W, C)` in [0, 1].
        training: Accepted for the protocol's sake.

    Returns:
        `image`, `mean` and `log_variance`.
    """

    def __init__(
        self,
        image_shape=(28, 28, 1),
        latent_dim=16,
        filters=(32, 64),
        hidden_dim=256,
        likelihood="bernoulli",
        beta=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, latent_dim, likelihood, beta, **kwargs)
        self.filters = tuple(filters)
        check_counts(hidden_dim=hidden_dim, **{f"filters[{i}]": f for i, f in enumerate(filters)})
        if not self.filters:
            raise UserError("filters (): must hold the channels of at least one stage")
        self.small = small_map(self.image_shape, len(self.filters))
        self.stages = [
            Conv(f, 3, 2, activation="silu", name=f"down{i + 1}")
            for i, f in enumerate(self.filters)
        ]
        self.encoder = keras.layers.Dense(hidden_dim, "silu", name="encoder")
        self.decoder1 = keras.layers.Dense(hidden_dim, "silu", name="decoder1")
        self.decoder2 = keras.layers.Dense(
            math.prod(self.small) * self.filters[-1], "silu", name="decoder2"
        )
        self.ups = [
            Conv(f, 3, activation="silu", name=f"up{i + 1}")
            for i, f in enumerate(reversed(self.filters))
        ]
        self.pixels = Conv(
            self.image_shape[-1],
            3,
            kernel_initializer="glorot_uniform",
            dtype=keras.config.dtype_policy().variable_dtype,
            name="pixels",
        )

    def build(self, input_shape):
        shape = build_chain((None, *self.image_shape), *self.stages)
        shape = build_chain((None, math.prod(shape[1:])), self.encoder)
        self.mean.build(shape)
        self.log_variance.build(shape)
        build_chain((None, self.latent_dim), self.decoder1, self.decoder2)
        shape = (None, *self.small, self.filters[-1])
        for up in self.ups:
            shape = build_chain(upsampled_shape(shape), up)
        self.pixels.build(shape)

    def features(self, image, training=False):
        x = 2.0 * image - 1.0
        for stage in self.stages:
            x = stage(x)
        return self.encoder(ops.reshape(x, (-1, math.prod(x.shape[1:]))))

    def decode(self, z, training=False):
        x = self.decoder2(self.decoder1(z))
        x = ops.reshape(x, (-1, *self.small, self.filters[-1]))
        for up in self.ups:
            x = up(upsample2x(x))  # not a strided transpose, which leaves a checkerboard
        return self.pixels(x)


def small_map(image_shape, halvings):
    """Height and width after so many halvings.

    Raises:
        ValueError: Where a side cannot be halved so often; names the nearest image that can.
    """
    factor = 2**halvings
    check_size(image_shape, 1, "vae")
    height, width, channels = image_shape
    if height % factor or width % factor:
        near = [max(factor, factor * round(side / factor)) for side in (height, width)]
        raise UserError(
            f"image_shape {tuple(image_shape)}: sides must be multiples of {factor} to be halved "
            f"{halvings} times; the nearest is ({near[0]}, {near[1]}, {channels}), "
            f"--image-size {' '.join(map(str, near))}"
        )
    return height // factor, width // factor


def vae_mlp(image_shape=(28, 28, 1), **kwargs):
    """The paper's: 500 hidden units on each side of a code of 20."""
    given = {"image_shape": tuple(image_shape)}
    return construct(MLPVariationalAutoencoder, "vae_mlp", given, {}, kwargs)


def vae(image_shape=(28, 28, 1), **kwargs):
    """Convolutional; `beta` weighs the divergence, `likelihood` is that of the pixels."""
    given = {"image_shape": tuple(image_shape)}
    return construct(ConvVariationalAutoencoder, "vae", given, {}, kwargs)


TINY = {
    "vae_mlp": {"image_shape": (8, 8, 1), "latent_dim": 4, "hidden_dim": 96, "beta": 0.5},
    "vae": {
        "image_shape": (8, 8, 1),
        "latent_dim": 4,
        "filters": (8, 12),
        "hidden_dim": 16,
        "likelihood": "gaussian",
        "beta": 0.5,
    },
}
# With `beta` below 1 codes hold more and samples are sharper, for a slightly lower bound.
_RECIPE = {
    "warmup_epochs": 5.0,
    "weights": "last",
    "model_kwargs": {"beta": 0.7},
}
RECIPE = {
    "vae_mlp": {**_RECIPE, "epochs": 500, "lr": 0.003},
    "vae": {**_RECIPE, "epochs": 100, "lr": 0.002},
}
