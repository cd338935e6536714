"""Contrastive prediction: what comes below a patch is told from all other patches of the batch.

Source: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, equation 4; section 3.2 for
        what is done to patches; Henaff et al. 2019, https://arxiv.org/abs/1905.09272, section 2.2.
"""

import math

import numpy as np
from keras import ops

from kerasdl.ops import noise, tiles
from kerasdl.ops.gather import gather, offset
from kerasdl.ops.losses import info_nce
from kerasdl.tasks.representation import Representation
from kerasdl.tasks.task import Number

# Streams of an example's key
TOP, LEFT, CHANNEL, NOISE = range(4)


class PredictPatches(Representation):
    """Patches of an image are predicted from those above, and told from all others.

    The others are those of the same image and of the whole batch, of all replicas. The loss is
    InfoNCE; `contrast_top1` is how often the right patch is the likeliest of all, and `information`
    is `ln N - loss` of `N` patches: what a context and what it predicts have in common is at least
    so many nats (section 2.3). Both of an example are the mean over its patches and steps.

    With `crop` below 1 each patch keeps a box of that part of its height and width, which lies
    anywhere in it, and is 0 around; with `color=drop` each patch of a color image keeps one
    channel. `projection` of an image is what all its patches are known by, row by row. Models have
    `steps`, `patches(image)`, and the parts of `features`, which are `encode`, `represent` and
    `targets`; they are called with patches.
    """

    settings = {"crop": 1.0, "color": "keep", **Representation.settings}
    allowed = {"crop": Number(0.5, 1), "color": ("keep", "drop"), **Representation.allowed}
    coupled = True
    metrics = ("loss", "contrast_top1", "information")

    def model_inputs(self, model, batch):
        patches, key = model.patches(batch["image"]), batch["key"]
        if self.settings["crop"] < 1:
            patches = cropped(patches, key, self.settings["crop"])
        if self.settings["color"] == "drop" and patches.shape[-1] > 1:
            mean = self.info.input_mean or 0.5
            patches = tiles.one_channel(patches, key, mean, (CHANNEL, NOISE))
        return patches

    def losses(self, model, batch, player="model", training=False):
        outputs = model(self.model_inputs(model, batch), training=training)
        targets, predictions = outputs["targets"], outputs["predictions"]
        h, w, dim = targets.shape[1:]
        # Which patch is expected at a place, after each step that ends within the grid
        made = [predictions[:, : h - step, :, k] for k, step in enumerate(model.steps)]
        made = [ops.reshape(p, (-1, p.shape[1] * w, dim)) for p in made]
        place = np.concatenate([np.arange(step * w, h * w) for step in model.steps])
        targets = ops.reshape(targets, (-1, h * w, dim))
        weight = None if training else gather(batch["weight"])  # what fills the last batch up
        loss, top1, candidates = info_nce(
            ops.concatenate(made, axis=1), gather(targets), place, offset(targets), weight
        )
        return loss, {"contrast_top1": top1, "information": ops.log(candidates) - loss}

    def predict(self, model, batch):
        z = model.encode(model.patches(batch["image"]))
        targets = model.targets(z)  # in at least float32
        return {
            "features": ops.cast(model.represent(z), targets.dtype),
            "projection": ops.reshape(targets, (-1, math.prod(targets.shape[1:]))),
        }


def cropped(patches, key, part):
    """Patches of which a box is left, at a place of its own in each, and 0 around.

    Args:
        patches: float `(B, N, h, w, C)`.
        key: uint32 `(B, 2)`.
        part: Of the height and of the width, below 1; at least a pixel is left.

    Returns:
        float `(B, N, h, w, C)`: the box is moved into the middle.
    """
    b, n, *sides, channels = patches.shape
    size = [max(1, int(part * side)) for side in sides]
    first = [
        ops.reshape(noise.randint(key, (n,), 0, side - kept + 1, stream), (-1, 1))
        for side, kept, stream in zip(sides, size, (TOP, LEFT), strict=True)
    ]
    boxes = tiles.cut(ops.reshape(patches, (-1, *sides, channels)), *first, size)
    boxes = ops.reshape(boxes, (-1, n, *size, channels))
    free = [side - kept for side, kept in zip(sides, size, strict=True)]
    around = [(f // 2, f - f // 2) for f in free]
    return ops.pad(boxes, ((0, 0), (0, 0), *around, (0, 0)))


TASK = PredictPatches
