"""Test-time augmentation: probabilities averaged over crops and mirror images.

Source: Krizhevsky et al. 2012, https://papers.nips.cc/paper/4824, section 4.1 (four corners and the
        center, and their mirror images).
"""

import numpy as np
import tensorflow as tf

from kerasdl.data.pixels import warp
from kerasdl.errors import UserError
from kerasdl.ops.likelihood import log_mean_softmax

PART = 224 / 256  # of an image's sides, that of a crop
CORNERS = ((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))  # the center first


def check(number: int, task) -> None:
    """UserError where a task's metrics cannot be those of averaged probabilities."""
    how = task.evaluated_by("savedmodel") or {}
    wanted = {"inputs": ["image"], "output": "logits", "loss": "cross_entropy"}
    if number > 1 and any(how.get(key) != value for key, value in wanted.items()):
        raise UserError(
            f"--tta {number} averages probabilities: it applies to classifiers of images with "
            "--loss cross_entropy"
        )


def views(image, number: int) -> list:
    """The views of images.

    Args:
        image: float32 `(B, H, W, C)` in [0, 1].
        number: 1, the images; 2, and their mirror images; 5, the center and the four corners, each
            at the size of the image; 10, and their mirror images.

    Returns:
        `number` tensors of the shape of `image`.
    """
    image = tf.convert_to_tensor(image)
    result = [image]
    if number >= 5:
        _, height, width, _ = image.shape
        result = []
        for top, left in CORNERS:
            # The center of output pixel x is at (x + 1/2) PART + left (1 - PART) width.
            dy, dx = (
                at * (1 - PART) * side + 0.5 * PART - 0.5
                for at, side in ((top, height), (left, width))
            )
            transform = tf.constant([[PART, 0, dx, 0, PART, dy, 0, 0]], tf.float32)
            transform = tf.repeat(transform, tf.shape(image)[0], axis=0)
            result.append(warp(image, transform, "BILINEAR", 0.0, "NEAREST"))
    if number in (2, 10):
        result += [tf.reverse(one, [2]) for one in result]
    return result


class Averaged:
    """A classifier whose probabilities are the mean over the views of its images.

    Args:
        model: Returns logits `(B, K)`, or a dict of `logits` and others.
        number: Of views.
    """

    def __init__(self, model, number: int):
        self.model, self.number = model, number

    def __call__(self, image, training=False):
        """Logits `(B, K)`: the logarithms of the mean."""
        logits = []
        for view in views(image, self.number):
            outputs = self.model(view, training=training)
            logits.append(outputs["logits"] if isinstance(outputs, dict) else outputs)
        return log_mean_softmax(logits)

    def __getattr__(self, name):
        return getattr(self.model, name)


class AveragedFile:
    """An opened classifier, with `answer`, likewise.

    Args:
        artifact: See `kerasdl.inference.artifact.Artifact`.
        number: Of views.
    """

    def __init__(self, artifact, number: int):
        self.artifact, self.number = artifact, number

    def answer(self, signature: str, inputs: dict) -> dict:
        """`probabilities` float32 `(B, K)`, the mean, their logarithms, `logits`, and the `label`
        `(B,)`."""
        logits = [
            self.artifact.answer(signature, {**inputs, "image": view.numpy()})["logits"]
            for view in views(np.asarray(inputs["image"], np.float32), self.number)
        ]
        logits = np.asarray(log_mean_softmax(logits))
        return {
            "logits": logits,
            "probabilities": np.exp(logits),
            "label": logits.argmax(axis=-1),
        }
