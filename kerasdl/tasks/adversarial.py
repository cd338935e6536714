"""Adversarial training: one network generates images, another tells them from real ones."""

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.errors import UserError
from kerasdl.layers.core import keep_statistics
from kerasdl.ops import noise
from kerasdl.ops.gradient import value_and_gradient
from kerasdl.tasks.sampling import sample_signature
from kerasdl.tasks.task import Noise, Number, Signature, Task

LOSSES = ("non_saturating", "minimax", "hinge", "wasserstein_gp")
OF_PROBABILITIES = ("non_saturating", "minimax")
WASSERSTEIN_PENALTY = 10.0  # section 4 of its paper
DRAW_STREAM, DISCRIMINATOR_STREAM, GENERATOR_STREAM, MIX_STREAM = range(4)
SAMPLES, COLUMNS = 64, 8  # of the grid of samples
WALKS, STOPS, STRIDE = 4, 4, 6  # latents that each walk visits, and steps between two of them


class Adversarial(Task):
    """A generator against a discriminator, in turn. The model is a `Gan`.

    The model owns the losses: `discriminator_loss(loss, real, fake, smoothing)` and
    `generator_loss(loss, fake)`, of logits and the setting `loss`.

    `score` is what the discriminator thinks of the images that a player is about, the real ones in
    its own turn and the made ones in the generator's: their mean probability of being real, or
    where the loss knows no probabilities, hinge and Wasserstein, their mean logit.

    Settings:
        loss: Of logits `r` of real and `f` of made images, the discriminator's and the
            generator's:
            non_saturating: `softplus(-r) + softplus(f)` and `softplus(-f)`, Goodfellow et al. 2014;
            minimax: the same and `-softplus(f)`;
            hinge: `relu(1 - r) + relu(1 + f)` and `-f`, Lim and Ye 2017;
            wasserstein_gp: `f - r` and `-f`, Gulrajani et al. 2017.
        discriminator_steps: Updates of the discriminator per update of the generator; each takes
            its part of the batch.
        gradient_penalty: Weight of a penalty on the gradient of the discriminator's logit with
            respect to the image in [0, 1], while training. With wasserstein_gp, 10 if not given:
            `(|gradient| - 1)^2` between real and made images. Else, 0 if not given:
            `|gradient|^2 / 2` at real images, R1 of Mescheder et al. 2018.

    `--label-smoothing` lowers the target of real images, one-sided (Salimans et al. 2016).
    """

    inputs = {"image": Spec(("H", "W", "C"), "float32", "image")}
    targets = {"label": Spec((), "int32", "label")}
    optional = ("label",)
    recipe = {"weights": "last"}
    settings = {"loss": "non_saturating", "discriminator_steps": 1, "gradient_penalty": None}
    allowed = {
        "loss": LOSSES,
        "discriminator_steps": Number(1, whole=True),
        "gradient_penalty": Number(0),
    }
    players = ("discriminator", "generator")
    metrics = ("loss", "score")
    monitor = "-generator_loss"

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        self.inputs = {"image": Spec(tuple(info.image_shape), "float32", "image")}
        self.loss = self.settings["loss"]
        self.label_smoothing = recipe.label_smoothing
        if self.label_smoothing and self.loss not in OF_PROBABILITIES:
            raise UserError(
                f"--label-smoothing {self.label_smoothing}: the {self.loss} loss has no labels to "
                f"smooth; {' and '.join(OF_PROBABILITIES)} have"
            )
        self.updates_per_step = {"discriminator": self.settings["discriminator_steps"]}
        self.gradient_penalty = self.settings["gradient_penalty"]
        if self.gradient_penalty is None:
            wasserstein = self.loss == "wasserstein_gp"
            self.gradient_penalty = WASSERSTEIN_PENALTY if wasserstein else 0.0

    def arguments(self):
        return {"image_shape": tuple(self.info.image_shape)}

    def model_inputs(self, model, batch):
        latent = self.latent(model, batch["key"], DRAW_STREAM)
        return {"image": batch["image"], "latent": latent}

    def latent(self, model, key, stream=DRAW_STREAM):
        """Latents of mean 0 and variance 1 `(B, D)`, of keys `(B, 2)`."""
        return noise.standardized(key, (model.latent_dim,), model.latent_prior, stream)

    def variables(self, model, player):
        return getattr(model, player).trainable_variables

    def losses(self, model, batch, player, training=False):
        if player == "generator":
            fake = model.generate(self.latent(model, batch["key"], GENERATOR_STREAM), training)
            with keep_statistics():
                logits = model.discriminate(fake, training)
            return model.generator_loss(self.loss, logits), {"score": self._score(logits)}
        with keep_statistics():
            latent = self.latent(model, batch["key"], DISCRIMINATOR_STREAM)
            fake = ops.stop_gradient(model.generate(latent, training))
        image = ops.cast(batch["image"], fake.dtype)

        def evaluate(image):
            return model.discriminate(image, training)

        penalty = 0.0
        wasserstein = self.loss == "wasserstein_gp"
        if training and self.gradient_penalty and not wasserstein:
            real, gradient = value_and_gradient(evaluate, image)
            penalty = _squared_norm(gradient) / 2.0
        else:
            real = evaluate(image)
        if training and self.gradient_penalty and wasserstein:
            weight = ops.reshape(noise.uniform(batch["key"], (1,), MIX_STREAM), (-1, 1, 1, 1))
            weight = ops.cast(weight, fake.dtype)
            with keep_statistics():
                _, gradient = value_and_gradient(evaluate, fake + weight * (image - fake))
            norm = ops.sqrt(_squared_norm(gradient) + 1e-12)  # the root of 0 has no gradient
            penalty = ops.square(norm - 1.0)
        smoothing = self.label_smoothing * training
        loss = model.discriminator_loss(self.loss, real, evaluate(fake), smoothing)
        return loss + self.gradient_penalty * penalty, {"score": self._score(real)}

    def _score(self, logits):
        return ops.sigmoid(logits) if self.loss in OF_PROBABILITIES else logits

    def predict(self, model, batch):
        return {"score": model.discriminate(batch["image"])}

    def sampling_modes(self, model):
        return {"samples": {}}

    def sample(self, model, key, label=None):
        return model.generate(self.latent(model, key))

    def pictures(self, model, batch):
        key = noise.sample_keys((0, 0), SAMPLES)
        latent = self.latent(model, key)
        blend = linear if model.latent_prior == "uniform" else slerp
        ends = latent[:COLUMNS], latent[COLUMNS : 2 * COLUMNS]
        weights = [i / (COLUMNS - 1) for i in range(COLUMNS)]
        between = ops.stack([blend(*ends, weight) for weight in weights], axis=1)
        stops = ops.reshape(latent[: WALKS * STOPS], (WALKS, STOPS, -1))
        walk = [
            blend(stops[:, i], stops[:, (i + 1) % STOPS], step / STRIDE)  # and back to the first
            for i in range(STOPS)
            for step in range(STRIDE)
        ]
        return {
            "samples": _grid(model, ops.reshape(latent, (-1, COLUMNS, latent.shape[-1]))),
            "interpolation": _grid(model, between),
            "walk_trajectory": _grid(model, ops.stack(walk, axis=1)),
        }

    def signatures(self, model):
        def generate(latent):
            return {"image": model.generate(latent)}

        def discriminate(image):
            return {"score": model.discriminate(image)}

        latent = Spec((model.latent_dim,), "float32")
        tried = np.asarray(self.latent(model, noise.sample_keys((0, 0), SAMPLES)), "float32")
        return [
            Signature(
                "generate",
                {"latent": latent},
                generate,
                outputs=self.inputs,
                noise={"latent": Noise(model.latent_prior, DRAW_STREAM)},
                examples={"latent": tried},
            ),
            Signature("discriminate", self.inputs, discriminate),
            sample_signature(lambda key: self.sample(model, key), self.info.image_shape),
        ]


def _squared_norm(gradient):
    """Of each example's `(B, H, W, C)`."""
    return ops.sum(ops.square(gradient), axis=(1, 2, 3))


def _grid(model, latent):
    """Images `(R, N, H, W, C)` of latents `(R, N, D)`."""
    image = model.generate(ops.reshape(latent, (-1, latent.shape[-1])))
    return ops.reshape(image, (*latent.shape[:2], *image.shape[1:]))


def linear(a, b, weight):
    """The point at `weight` of the line from `a` to `b`."""
    return a + weight * (b - a)


def slerp(a, b, weight):
    """The point at `weight` of the arc from `a` to `b` `(B, D)`, whose lengths pass too.

    Source: Shoemake 1985; of latents White 2016, https://arxiv.org/abs/1609.04468.
    """
    lengths = [ops.sqrt(ops.sum(ops.square(v), axis=-1, keepdims=True)) for v in (a, b)]
    u, v = a / lengths[0], b / lengths[1]
    angle = ops.arccos(ops.clip(ops.sum(u * v, axis=-1, keepdims=True), -1.0 + 1e-6, 1.0 - 1e-6))
    arc = (ops.sin((1.0 - weight) * angle) * u + ops.sin(weight * angle) * v) / ops.sin(angle)
    return linear(*lengths, weight) * arc


TASK = Adversarial
