"""A deep autoencoder.

Paper:   Reducing the Dimensionality of Data with Neural Networks, Hinton and Salakhutdinov 2006,
         Science 313 (figure 1; 784-1000-500-250-30 and back, cross entropy).
Differs: trained from the start with Adam instead of layer by layer as Boltzmann machines; relu for
         the logistic units, which need that; `dims` and `latent_dim` are arguments.
"""

import math

import keras
from keras import ops

from kerasdl.layers.classifier import check_size, dense_head
from kerasdl.layers.core import Model, build_chain, check_counts, construct, register
from kerasdl.ops.likelihood import bernoulli_nll


@register
class Autoencoder(Model):
    """Dense layers down to a linear code, and the same back to the pixels.

    Args:
        image_shape: `(H, W, C)`.
        latent_dim: Numbers of the code, `D`.
        dims: Units of the encoder's hidden layers; the decoder's are the same, reversed.

    Attributes:
        variational: False: a code is a point, and has no prior to sample from.

    Call arguments:
        x: float `(B, H, W, C)` in [0, 1].
        training: Accepted for the protocol's sake.

    Returns:
        `image` `(B, H, W, C)` in [0, 1] and `code` `(B, D)`, at least float32.
    """

    variational = False

    def __init__(self, image_shape=(28, 28, 1), latent_dim=30, dims=(1000, 500, 250), **kwargs):
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim
        self.dims = tuple(dims)
        check_size(self.image_shape, 1, self.name)
        check_counts(latent_dim=latent_dim, **{f"dims[{i}]": d for i, d in enumerate(dims)})
        self.encoder = [self._hidden(d, f"encoder{i + 1}") for i, d in enumerate(dims)]
        self.decoder = [self._hidden(d, f"decoder{i + 1}") for i, d in enumerate(dims[::-1])]
        self.code = dense_head(latent_dim, "code")
        self.pixels = dense_head(math.prod(self.image_shape), "pixels")

    @staticmethod
    def _hidden(dim, name):
        return keras.layers.Dense(dim, "relu", kernel_initializer="he_normal", name=name)

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        build_chain((None, math.prod(self.image_shape)), *self.encoder, self.code)
        build_chain((None, self.latent_dim), *self.decoder, self.pixels)

    def encode(self, image, training=False):
        """The `code` `(B, D)` of images `(B, H, W, C)`."""
        x = ops.reshape(image, (-1, math.prod(self.image_shape)))
        for layer in self.encoder:
            x = layer(x)
        return {"code": self.code(x)}

    def decode(self, z, training=False):
        """Logits of the intensities `(B, H, W, C)` of codes `(B, D)`."""
        for layer in self.decoder:
            z = layer(z)
        return ops.reshape(self.pixels(z), (-1, *self.image_shape))

    def objective(self, image, noise=None, training=False):
        """The loss `(B,)` of images `(B, H, W, C)`: the `reconstruction`, as there is no `kl`."""
        code = self.encode(image, training)["code"]
        loss = self.nll(image, self.decode(code, training))
        return loss, {"reconstruction": loss, "kl": ops.zeros_like(loss)}

    def nll(self, image, logits):
        """Cross entropy in nats `(B,)` of images and the result of `decode`, `(B, H, W, C)`."""
        return bernoulli_nll(image, logits)

    def call(self, x, training=False):
        encoded = self.encode(x, training)
        return {"image": ops.sigmoid(self.decode(encoded["code"], training)), **encoded}


def autoencoder(image_shape=(28, 28, 1), **kwargs):
    """The paper's for handwritten digits, with a code of 30."""
    given = {"image_shape": tuple(image_shape)}
    return construct(Autoencoder, "autoencoder", given, {}, kwargs)


TINY = {"autoencoder": {"image_shape": (8, 8, 1), "latent_dim": 8, "dims": (64, 32)}}
RECIPE = {"autoencoder": {"epochs": 40}}
