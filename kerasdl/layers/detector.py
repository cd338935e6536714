"""What the task `detect` needs of a model: the protocol of all detectors.

Source: none; these are the project's own conventions.
"""

from kerasdl.layers.core import Model


class Detector(Model):
    """A model that finds objects. What its call returns, `predictions`, is its own affair.

    Its constructor takes `image_shape`, `num_classes` (without a background), `input_mean` and
    `input_std`.
    """

    def detection_losses(self, predictions, batch, training=False):
        """What it costs to predict so, per example.

        Args:
            predictions: What the call returned for the batch's images.
            batch: `boxes` float `(B, M, 4)`, `ymin xmin ymax xmax` in [0, 1], `labels` int
                `(B, M)`, `valid` bool `(B, M)` and `key` uint32 `(B, 2)`, which decides what is
                random.
            training: Whether dropout and batch statistics are on.

        Returns:
            Two float `(B,)`, whose sum is the loss: of what there is, and of where it is; a third
            of models that make masks, whose batch has `instances` `(B, M, H, W)` too. Or as many
            pairs of sums and weights `(B,), (B,)`, as of `Task.losses`, with the same weights.
        """
        raise NotImplementedError

    def candidates(self, predictions):
        """Boxes float `(B, N, 4)` in [0, 1], or `(B, N, K, 4)` where each class has its own, and
        their scores `(B, N, K)` in [0, 1], before suppression."""
        raise NotImplementedError

    def object_masks(self, predictions, boxes, label):
        """Masks of objects, of models that make them.

        Args:
            predictions: What the call returned.
            boxes: float `(B, N, 4)` in [0, 1], those that were found.
            label: int32 `(B, N)`, negative where there is none.

        Returns:
            float `(B, N, H, W)` in [0, 1], of the size of the model's images.
        """
        raise NotImplementedError
