"""What models that predict channels of an image from others have in common.

Source: Zhang et al. 2016, https://arxiv.org/abs/1603.08511, section 2;
        Zhang et al. 2017, https://arxiv.org/abs/1611.09842, section 3.
"""

from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import check_counts
from kerasdl.models.selfsupervised.on_backbone import OnBackbone
from kerasdl.ops.lab import ab_bins, annealed_mean, lab_to_rgb, rgb_to_lab
from kerasdl.system.names import nearest

OBJECTIVES = ("classification", "regression")
AB = 110.0  # what `a` and `b` are divided by, where they are numbers
LIGHTNESS = 100.0  # likewise


class CrossChannel(OnBackbone):
    """Lab colors predicted at a size of the model's own, as classes or as numbers.

    Subclasses have a `backbone`, and answer with `{"ab": (B, h, w, Q), ...}`.

    Args:
        objective: "classification" or "regression".
        grid: Distance of two colors that are classes.

    Attributes:
        bins: `{channels: the classes, float32 (Q, channels)}`.
        scales: `{channels: what their numbers are divided by}`.
    """

    scales = {"ab": AB, "lightness": LIGHTNESS}

    def __init__(self, objective, grid, **kwargs):
        super().__init__(**kwargs)
        if objective not in OBJECTIVES:
            raise UserError(
                f"objective {objective!r}: not one of {', '.join(OBJECTIVES)}"
                f"{nearest(str(objective), OBJECTIVES)}"
            )
        check_counts(grid=grid)
        self.objective = objective
        self.bins = {"ab": ab_bins(grid)}

    def outputs(self, channels):
        """How many numbers are predicted of each place for some channels: classes, or channels."""
        return self.bins[channels].shape[0 if self.objective == "classification" else 1]

    def colors(self, predicted, temperature):
        """`a` and `b` `(B, h, w, 2)` of what `call` predicts of them `(B, h, w, Q)`."""
        if self.objective == "regression":
            return AB * predicted
        return annealed_mean(predicted, self.bins["ab"], temperature)

    def colored(self, x, temperature):
        """Images `(B, H, W, 3)` in [0, 1] of the lightness of others and the colors predicted.

        Args:
            x: float `(B, H, W, 3)` in [0, 1].
            temperature: See `ops.lab.annealed_mean`.
        """
        ab = self.colors(self(x, training=False)["ab"], temperature)
        ab = ops.image.resize(ab, x.shape[1:3], interpolation="bilinear")
        lightness = ops.cast(rgb_to_lab(x)[..., :1], ab.dtype)
        return lab_to_rgb(ops.concatenate([lightness, ab], axis=-1))


def check_colors(image_shape):
    """Refuse images that have no colors."""
    if len(image_shape) != 3 or image_shape[-1] != 3:
        raise UserError(
            f"image_shape {tuple(image_shape)}: colors are learned from images of (height, width, "
            "3 channels)"
        )
