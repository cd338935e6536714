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
    hidden pixels, in decibels. Features are of whole images.

    Settings:
        adversarial: Weight of the adversarial loss; that of the reconstruction is 1 less it.
    """

    settings = {"adversarial": 0.001, **Representation.settings}
    allowed = {"adversarial": Number(0, 1), **Representation.allowed}
    players = ("discriminator", "generator")
    metrics = ("loss", "psnr")
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
            squares = self._squares(model, image, middle)
            weights = np.where(model.hidden > 0, 1.0, OVERLAP_WEIGHT)
            weights = ops.convert_to_tensor(weights, dtype=squares.dtype)
            error = 4.0 * ops.mean(squares * weights, axis=(1, 2, 3))  # of pixels in [-1, 1]
            share = self.settings["adversarial"]
            loss = (1.0 - share) * error + share * ops.softplus(-logits)
        else:
            with keep_statistics():
                middle = ops.stop_gradient(model.inpaint(image, training))
            squares = self._squares(model, image, middle)
            real = model.discriminate(ops.cast(model.middle(image), middle.dtype), training)
            fake = model.discriminate(middle, training)
            loss = ops.softplus(-real) + ops.softplus(fake)
        return loss, {"psnr": _psnr(squares, model.hidden)}

    def _squares(self, model, image, middle):
        """The squared error of each pixel of the middle, `(B, h, w, C)`."""
        return ops.square(middle - ops.cast(model.middle(image), middle.dtype))

    def summarize(self, means, part):
        """Of both players' `psnr`, which are of the same images, one."""
        kept = {name: value for name, value in means.items() if name != "discriminator_psnr"}
        return {name.replace("generator_psnr", "psnr"): value for name, value in kept.items()}

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


def _psnr(squares, hidden):
    """Peak signal-to-noise ratio `(B,)`, in decibels, of pixels in [0, 1].

    Args:
        squares: Squared errors `(B, h, w, C)`.
        hidden: 1 where a pixel counts, numpy `(h, w, 1)`.
    """
    mask = ops.convert_to_tensor(hidden / (hidden.sum() * squares.shape[-1]), dtype=squares.dtype)
    error = ops.sum(squares * mask, axis=(1, 2, 3))
    return -10.0 / math.log(10.0) * ops.log(ops.maximum(error, LEAST_ERROR))


TASK = Inpaint
