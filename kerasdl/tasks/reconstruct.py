"""Images coded and decoded: autoencoders, variational ones evaluated by their evidence bound."""

from math import prod

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.errors import UserError
from kerasdl.metrics.evaluator import Evaluator
from kerasdl.ops import likelihood, noise
from kerasdl.tasks.sampling import sample_signature
from kerasdl.tasks.task import Noise, Number, Signature, Task

CODE = 0  # the stream of the code's noise; those after it are the importance samples'
MOST_SAMPLES = 10_000
SAMPLES = 64  # of a picture
SHOWN = 8  # images, or dimensions of the code, in the other pictures
STEPS = 9  # of a walk and of an interpolation
REACH = 2.5  # of a walk, in standard deviations of the codes
LEVELS = 256  # of a pixel, for bits per dimension of a density


class Reconstruct(Task):
    """Images from their codes: `loss = reconstruction + beta KL`, in nats per image.

    The model owns the loss, `objective(image, noise, training)`: it returns `(B,)`, and
    `reconstruction` and `kl`, which is an autoencoder's 0. The noise of a code comes from the
    example's key. Of a set `elbo` is `-(reconstruction + kl)`, whatever `beta` is, and
    `bits_per_dim` says the same per number; a Gaussian likelihood is a density, of pixels in [0, 1]
    as if rounded to 256 levels. An autoencoder has no bound and reports neither.

    The setting `importance_samples` (0 is none) adds `log_likelihood`, the importance-weighted
    estimate with so many codes per image (Burda et al. 2015, https://arxiv.org/abs/1509.00519): a
    lower bound too, the tighter the more.
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {"label": Spec((), "int32", "label")}
    optional = ("label",)
    settings = {"importance_samples": 0}
    allowed = {"importance_samples": Number(0, MOST_SAMPLES, whole=True)}
    metrics = ("loss", "reconstruction", "kl")
    monitor = "-loss"

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}
        self.model = None  # whose losses were computed last: what `summarize` is given is its
        self.importance_samples = self.settings["importance_samples"]

    def arguments(self):
        return {"image_shape": tuple(self.info.image_shape)}

    def losses(self, model, batch, player="model", training=False):
        self.model = model
        normal = self._latent(model, batch["key"]) if model.variational else None
        return model.objective(batch["image"], normal, training)

    def summarize(self, means, part):
        if self.model is None or not self.model.variational:
            return means
        nll = means["reconstruction"] + means["kl"]
        levels = LEVELS if self.model.likelihood == "gaussian" else 0
        bits = likelihood.bits_per_dim(nll, prod(self.info.image_shape), levels)
        return {**means, "elbo": -nll, "bits_per_dim": bits}

    def predict(self, model, batch):
        outputs = model(batch["image"], training=False)
        if self.importance_samples:
            outputs["log_likelihood"] = self.log_likelihood(model, batch)
        return outputs

    def log_likelihood(self, model, batch):
        """The importance-weighted estimate of `log p(x)` `(B,)`, in nats.

        Args:
            model: A variational autoencoder.
            batch: `image` `(B, H, W, C)` and `key` `(B, 2)`.
        """
        if not model.variational:
            raise UserError("importance_samples: an autoencoder has no prior, give 0")
        encoded = model.encode(batch["image"])

        def weight(k):
            normal = self._latent(model, batch["key"], CODE + 1 + k)
            z = likelihood.reparameterize(encoded["mean"], encoded["log_variance"], normal)
            nll = model.nll(batch["image"], model.decode(z))
            return likelihood.log_weight(nll, z, encoded["mean"], encoded["log_variance"])

        return likelihood.log_mean_exp(weight(0), weight, self.importance_samples)

    def evaluators(self):
        return [LogLikelihood()] if self.importance_samples else []

    def sampling_modes(self, model):
        return {"samples": {}} if model.variational else {}

    def sample(self, model, key, label=None):
        return ops.sigmoid(model.decode(self._latent(model, key)))

    def _latent(self, model, key, stream=CODE):
        return noise.normal(key, (model.latent_dim,), stream)

    def pictures(self, model, batch):
        image = batch["image"][:SHOWN]
        encoded = model(batch["image"], training=False)
        codes = encoded["mean" if model.variational else "code"]

        def grid(z):  # (rows, columns, D)
            images = ops.sigmoid(model.decode(ops.reshape(z, (-1, model.latent_dim))))
            return ops.reshape(images, (*z.shape[:2], *images.shape[1:]))

        # The dimensions in which these codes differ most, each moved around the mean code.
        spread = ops.std(codes, axis=0)  # (D,)
        maximum = ops.top_k(spread, min(SHOWN, model.latent_dim))[1]
        way = ops.take(ops.diag(spread), maximum, axis=0)[:, None]  # (rows, 1, D)
        steps = ops.linspace(-REACH, REACH, STEPS, dtype=codes.dtype)[:, None]
        walk = ops.mean(codes, axis=0) + steps * way  # (rows, columns, D)
        # From each image to the next one, and from the last to the first
        start, end = codes[:SHOWN, None], ops.roll(codes[:SHOWN], -1, axis=0)[:, None]
        weight = ops.linspace(0.0, 1.0, STEPS, dtype=codes.dtype)[:, None]
        between = start * (1 - weight) + end * weight
        result = {
            "reconstructions": ops.stack([image, encoded["image"][:SHOWN]]),
            "walk": grid(walk),
            "interpolation": grid(between),
        }
        if model.variational:
            samples = self.sample(model, noise.sample_keys((0, 0), SAMPLES))
            result["samples"] = ops.reshape(samples, (SHOWN, -1, *samples.shape[1:]))
        return result

    def signatures(self, model):
        latent = {"latent": Spec((model.latent_dim,), "float32")}

        def reconstruct(image):
            return model(image, training=False)

        def encode(image):
            return model.encode(image)

        def decode(latent):
            return {"image": ops.sigmoid(model.decode(latent))}

        codes = np.random.default_rng(0).normal(size=(16, model.latent_dim)).astype("float32")
        result = [
            Signature("reconstruct", self.inputs, reconstruct, outputs=self.inputs),
            Signature("encode", self.inputs, encode),
            Signature(
                "decode",
                latent,
                decode,
                outputs=self.inputs,
                noise={"latent": Noise("normal", CODE)} if model.variational else {},
                examples={"latent": codes},
            ),
        ]
        if model.variational:
            result.append(
                sample_signature(lambda key: self.sample(model, key), self.info.image_shape)
            )
        return result

    def evaluated_by(self, target):
        return {
            "signature": "reconstruct",
            "inputs": ["image"],
            "output": "image",
            "target": "image",
            "loss": "mse",
        }


class LogLikelihood(Evaluator):
    """The mean of `log_likelihood` over a set."""

    metrics = ("log_likelihood",)

    def __init__(self):
        self.total, self.weight = 0.0, 0.0

    def update(self, outputs: dict, batch: dict) -> None:
        """Add a batch of numpy arrays; examples of weight 0 do not count."""
        weight = np.asarray(batch["weight"], np.float64)
        self.total += float((weight * outputs["log_likelihood"]).sum())
        self.weight += float(weight.sum())

    def state(self):
        return {"total": np.float64(self.total), "weight": np.float64(self.weight)}

    def merge(self, state):
        self.total += float(state["total"])
        self.weight += float(state["weight"])

    def result(self) -> dict:
        """`{"test": {"log_likelihood": nats per example}}`."""
        return {"test": {"log_likelihood": self.total / self.weight}}


TASK = Reconstruct
