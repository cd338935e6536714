"""The middle of an image from what is around it, without labels.

Source: Pathak et al. 2016, https://arxiv.org/abs/1604.07379, section 3.2, and its released code.
"""

import math

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.layers.core import keep_statistics
from kerasdl.tasks.representation import Representation
from kerasdl.tasks.task import Number, Signature

OVERLAP_WEIGHT = 10.0  # of what is predicted though it is seen
LEAST_ERROR = 1e-10
SHOWN = 8  # images of the pictures


class Inpaint(Representation):
    """An inpainting network against a discriminator of what it predicts, in turn.

    The model is a `ContextEncoder`. The generator's loss is the mean squared error of the middle's
    pixels in [-1, 1], the visible margin's ten times as much, and the adversarial loss of the
    discriminator's logits. `psnr` is the mean of each image's peak signal-to-noise ratio of the
    hidden pixels, in decibels, and `neighbors_psnr` what it is where each of them is the mean of
    those around the hole, weighted by one over their squared distances. Features are of whole
    images.

    Settings:
        adversarial: Weight of the adversarial loss; that of the reconstruction is 1 less it.
    """

    settings = {"adversarial": 0.001, **Representation.settings}
    allowed = {"adversarial": Number(0, 1), **Representation.allowed}
    players = ("generator", "discriminator")  # what is evaluated is the first
    metrics = ("loss", "psnr", "neighbors_psnr")
    monitor = "-generator_loss"

    def variables(self, model, player):
        if player == "discriminator":
            return model.discriminator.trainable_variables
        return [*model.backbone.trainable_variables, *model.decoder.trainable_variables]

    def losses(self, model, batch, player, training=False):
        image = batch["image"]
        if player == "generator":
            middle = model.inpaint(image, training)
            with keep_statistics():
                logits = model.discriminate(middle, training)
            squares = ops.square(middle - ops.cast(model.middle(image), middle.dtype))
            hidden = model.middle(model.hole[None])
            weights = ops.convert_to_tensor(np.where(hidden, 1.0, OVERLAP_WEIGHT), squares.dtype)
            error = 4.0 * ops.mean(squares * weights, axis=(1, 2, 3))  # of pixels in [-1, 1]
            share = self.settings["adversarial"]
            loss = (1.0 - share) * error + share * ops.softplus(-logits)
        else:
            with keep_statistics():
                middle = ops.stop_gradient(model.inpaint(image, training))
            real = model.discriminate(ops.cast(model.middle(image), middle.dtype), training)
            fake = model.discriminate(middle, training)
            loss = ops.softplus(-real) + ops.softplus(fake)
        true, around = _hole_and_around(image, model.hole)
        guess, _ = _hole_and_around(model.filled(image, middle), model.hole)
        return loss, {
            "psnr": _psnr(true, guess),
            "neighbors_psnr": _psnr(true, _from_around(around, model.hole)),
        }

    def summarize(self, means, part):
        """What is the same of both players, once."""
        return {
            name.removeprefix("generator_") if name.endswith("psnr") else name: value
            for name, value in means.items()
            if not (name.startswith("discriminator_") and name.endswith("psnr"))
        }

    def pictures(self, model, batch):
        """From above: images, the same with a hole, and it filled."""
        image = batch["image"][:SHOWN]
        filled = model.filled(image, model.inpaint(image))
        return {"filled": ops.stack([image, model.with_hole(image), filled])}

    def signatures(self, model):
        def restore(image):
            return {"restored": model.filled(image, model.inpaint(image))}

        spec = Spec(self.inputs["image"].shape, "float32", "image")
        return [
            *super().signatures(model),
            Signature("restore", self.inputs, restore, outputs={"restored": spec}),
        ]


def _psnr(true, guess):
    """Peak signal-to-noise ratio `(B,)`, in decibels, of pixels `(B, N, C)` in [0, 1]."""
    error = ops.mean(ops.square(true - guess), axis=(1, 2))
    return -10.0 / math.log(10.0) * ops.log(ops.maximum(error, LEAST_ERROR))


def _places(hole):
    """Rows and columns `(N, 2)` of the pixels of a hole `(H, W, 1)`, and `(M, 2)` of those around
    it."""
    hole = hole[..., 0]
    wider = hole.copy()
    for axis in (0, 1):  # nothing comes in from the other edge: a hole reaches none
        wider = wider | np.roll(wider, 1, axis) | np.roll(wider, -1, axis)
    return np.argwhere(hole), np.argwhere(wider & ~hole)


def _hole_and_around(image, hole):
    """The pixels of images `(B, H, W, C)` in a hole, `(B, N, C)`, and around it, `(B, M, C)`."""
    _, height, width, channels = image.shape
    pixels = ops.reshape(image, (-1, height * width, channels))
    return tuple(
        ops.take(pixels, ops.convert_to_tensor(at @ (width, 1), "int32"), axis=1)
        for at in _places(hole)
    )


def _from_around(around, hole):
    """The pixels `(B, N, C)` of a hole as means of those around it `(B, M, C)`."""
    inside, outside = _places(hole)
    weights = 1.0 / np.square(inside[:, None] - outside).sum(-1)
    weights = ops.convert_to_tensor(weights / weights.sum(1, keepdims=True), around.dtype)
    return ops.matmul(weights, around)


TASK = Inpaint
