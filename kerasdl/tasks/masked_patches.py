"""Masked image modeling: most patches of an image from the few that are visible, without labels."""

import numpy as np
from keras import ops

from kerasdl.columns import Spec
from kerasdl.ops import noise
from kerasdl.tasks.representation import Representation
from kerasdl.tasks.task import Noise, Signature

ORDER = 0  # the stream of an example's key
SHOWN = 8  # images of the pictures
GRAY = 0.5  # of masked patches there


class MaskedPatches(Representation):
    """Patches in an order of each example's own, of which the model is given the first.

    The order comes from the example's key. The model owns the rest: it has `num_patches`, takes
    `image` and `order`, answers with `prediction` and `mask`, and has `errors(image, prediction)`
    `(B, N)`. The loss is their mean over the masked patches. Features are of whole images.
    """

    def model_inputs(self, model, batch):
        place = noise.uniform(batch["key"], (model.num_patches,), ORDER, "float32")
        return {"image": batch["image"], "order": order_of(place)}

    def losses(self, model, batch, player="model", training=False):
        outputs = model(self.model_inputs(model, batch), training=training)
        return masked_mean(model.errors(batch["image"], outputs["prediction"]), outputs["mask"]), {}

    def pictures(self, model, batch):
        """From above: images, what is visible of them, and what is restored."""
        shown = {name: batch[name][:SHOWN] for name in ("image", "key")}
        outputs = model(self.model_inputs(model, shown), training=False)
        image, masked = shown["image"], model.mask_of_pixels(outputs["mask"]) > 0
        restored = ops.cast(model.restored(image, outputs), image.dtype)
        return {"restored": ops.stack([image, ops.where(masked, GRAY, image), restored])}

    def signatures(self, model):
        def restore(image, noise):
            outputs = model({"image": image, "order": order_of(noise)}, training=False)
            restored = model.restored(image, outputs)
            return {"restored": restored, "mask": outputs["mask"]}

        shape = self.inputs["image"].shape
        of_noise = Spec((model.num_patches,), "float32")
        places = np.random.default_rng(0).random((16, model.num_patches), np.float32)
        return [
            *super().signatures(model),
            Signature(
                "restore",
                {**self.inputs, "noise": of_noise},
                restore,
                formats=("savedmodel",),
                outputs={"restored": Spec(shape, "float32", "image")},
                noise={"noise": Noise("uniform", ORDER)},
                examples={"noise": places},
            ),
        ]


def order_of(place):
    """int32 `(B, N)`: the numbers of the patches, the one with the least `place` `(B, N)` first."""
    return ops.cast(ops.argsort(place, axis=-1), "int32")


def masked_mean(errors, mask):
    """`(B,)`: the mean of errors `(B, N)` where `mask` is 1; 0 where it is nowhere."""
    return ops.sum(errors * mask, axis=-1) / ops.maximum(ops.sum(mask, axis=-1), 1.0)


TASK = MaskedPatches
