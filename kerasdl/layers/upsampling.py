"""Upsampling by transposed convolutions that start as bilinear interpolation.

Source: Long et al. 2015, https://arxiv.org/abs/1411.4038, section 3.3.
"""

import keras
import numpy as np
from keras import ops

from kerasdl.layers.core import register


@register
class Bilinear(keras.initializers.Initializer):
    """Kernel of a transposed convolution that interpolates each channel bilinearly.

    Call arguments:
        shape: `(h, w, D, C)`; a side of `kernel_size(s)` suits the stride `s`.

    Returns:
        float `(h, w, D, C)`; of a 4x4 kernel `outer([1, 3, 3, 1], [1, 3, 3, 1]) / 16` from each
        channel to itself.
    """

    def __call__(self, shape, dtype=None):
        rows, columns = (_triangle(side) for side in shape[:2])
        kernel = np.outer(rows, columns)[:, :, None, None] * np.eye(*shape[2:])
        return ops.convert_to_tensor(kernel, dtype=dtype or keras.config.floatx())

    def get_config(self):
        return {}


def _triangle(side):
    """Weights of linear interpolation `(side,)`."""
    half = (side + 1) // 2
    center = half - 1 if side % 2 else half - 0.5
    return 1 - np.abs(np.arange(side) - center) / half


def kernel_size(factor):
    """Side of the kernel that interpolates bilinearly at a stride."""
    return 2 * factor - factor % 2


def bilinear_upsampling(channels, factor, padding="same", **kwargs):
    """A transposed convolution that starts as bilinear interpolation.

    Args:
        channels: Of the map, `C`.
        factor: How much larger the map becomes, `s`.
        padding: "same" makes `(B, s H, s W, C)` of `(B, H, W, C)`, "valid"
            more, of which the former is the center: of even `s` `(B, s (H + 1), s (W + 1), C)`.
            Outside the map there are zeros, which half a cell at its border is mixed with.
        **kwargs: Other arguments of `keras.layers.Conv2DTranspose`.
    """
    return keras.layers.Conv2DTranspose(
        channels,
        kernel_size(factor),
        factor,
        padding,
        use_bias=False,
        kernel_initializer=Bilinear(),
        **kwargs,
    )
