"""By how much an image is turned: 0, 90, 180 or 270 degrees.

Source: Gidaris et al. 2018, https://arxiv.org/abs/1803.07728, section 3.
"""

import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.ops.decoding import greedy
from kerasdl.ops.losses import cross_entropy
from kerasdl.tasks.representation import Representation

TURNS = 4


class Rotate(Representation):
    """Each image is given in all four rotations, and costs their mean cross entropy (equation 3).

    The four stand in one batch, as the paper found best. Models return logits `(B, 4)` of the
    number of quarter turns, counterclockwise. Images must be square.
    """

    metrics = ("loss", "rotation_top1")

    def __init__(self, info, recipe):
        super().__init__(info, recipe)
        height, width, _ = info.image_shape
        if height != width:
            raise UserError(
                f"images of {height}x{width} pixels: rotated ones must be square; --image-size "
                f"{height} makes them so"
            )

    def losses(self, model, batch, player="model", training=False):
        image = batch["image"]
        turned = ops.stack([ops.rot90(image, k, axes=(1, 2)) for k in range(TURNS)], axis=1)
        logits = model(ops.reshape(turned, (-1, *image.shape[1:])), training=training)
        logits = ops.reshape(logits, (-1, TURNS, TURNS))  # of each example and each of its turns
        label = ops.convert_to_tensor(np.eye(TURNS), dtype=logits.dtype)
        loss = cross_entropy(label, logits)  # (B, 4)
        right = ops.cast(greedy(logits) == ops.arange(TURNS, dtype="int32"), logits.dtype)
        return ops.mean(loss, axis=1), {"rotation_top1": ops.mean(right, axis=1)}

    def predict(self, model, batch):
        features = model.features(batch["image"])
        logits = model(batch["image"], training=False)
        return {"features": ops.cast(features, logits.dtype), "logits": logits}


TASK = Rotate
