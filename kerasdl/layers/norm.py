"""Normalisations that Keras lacks."""

import keras
from keras import ops

from kerasdl.layers.core import register


@register
class LocalResponseNorm(keras.layers.Layer):
    """Divide by the energy of neighbouring channels: `y = x / (1 + alpha / n sum x^2)^beta`.

    The sum runs over the `n` channels around each one, fewer at the ends. Defaults are those of
    Caffe's GoogLeNet. `alpha` is divided by `size` as in Caffe and PyTorch, unlike TensorFlow's.

    Args:
        size: `n`, odd.
        alpha: Of the sum of squares.
        beta: The exponent.

    Call arguments:
        x: float `(..., C)`.

    Returns:
        float `(..., C)`.

    Source: Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural
        Networks, section 3.3.
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta

    def call(self, x):
        z = ops.cast(x, self.variable_dtype)  # squares overflow float16
        c, half = x.shape[-1], self.size // 2
        square = ops.pad(ops.square(z), [(0, 0)] * (len(x.shape) - 1) + [(half, half)])
        energy = sum(square[..., i : i + c] for i in range(self.size))
        return ops.cast(z / (1.0 + self.alpha / self.size * energy) ** self.beta, x.dtype)


@register
class RMSNorm(keras.layers.Layer):
    """Divide by the root mean square of the channels: `y = x / sqrt(mean x^2 + epsilon) * scale`.

    It is layer norm without its mean and bias, and computes in at least float32.

    Args:
        epsilon: Added to the mean square.

    Call arguments:
        x: float `(..., D)`.

    Returns:
        float, the shape of `x`.

    Source: Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, equation 4.
    """

    def __init__(self, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        z = ops.cast(x, self.variable_dtype)  # squares overflow float16
        z = z * ops.rsqrt(ops.mean(ops.square(z), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(z, x.dtype) * self.scale
