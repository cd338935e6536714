"""Normalizations that Keras lacks, and learned scales."""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import register


@register
class LocalResponseNorm(keras.layers.Layer):
    """Divide by the energy of neighboring channels: `y = x / (k + alpha / n sum x^2)^beta`.

    The sum runs over the `n` channels around each one, fewer at the ends. Defaults are those of
    Caffe's GoogLeNet. `alpha` is divided by `size` as in Caffe and PyTorch, unlike TensorFlow's.

    Args:
        size: `n`, odd.
        alpha: Of the sum of squares.
        beta: The exponent.
        k: What is added to the sum.

    Call arguments:
        x: float `(..., C)`.

    Returns:
        float `(..., C)`.

    Source: Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural
        Networks, section 3.3.
    """

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=1.0, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        z = ops.cast(x, self.variable_dtype)  # squares overflow float16
        c, half = x.shape[-1], self.size // 2
        square = ops.pad(ops.square(z), [(0, 0)] * (len(x.shape) - 1) + [(half, half)])
        energy = sum(square[..., i : i + c] for i in range(self.size))
        return ops.cast(z / (self.k + self.alpha / self.size * energy) ** self.beta, x.dtype)


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

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        z = ops.cast(x, self.variable_dtype)  # squares overflow float16
        z = z * ops.rsqrt(ops.mean(ops.square(z), axis=-1, keepdims=True) + self.epsilon)
        return ops.cast(z, x.dtype) * self.scale


@register
class GroupNorm(keras.layers.Layer):
    """Mean 0 and variance 1 over the pixels and channels of each group of channels.

    Scale and shift are one step here, which is why it is faster than Keras' layer.

    Args:
        groups: They divide the channels `C`.
        epsilon: Added to the variance.

    Call arguments:
        x: float `(B, H, W, C)`.

    Returns:
        float, the shape of `x`.

    Source: Wu and He 2018, https://arxiv.org/abs/1803.08494, equation 7.
    """

    def __init__(self, groups=32, epsilon=1e-6, **kwargs):
        super().__init__(**kwargs)
        self.groups = groups
        self.epsilon = epsilon

    def build(self, input_shape):
        c = input_shape[-1]
        if c % self.groups:
            raise UserError(f"groups {self.groups}: must divide the {c} channels")
        self.gamma = self.add_weight(shape=(c,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(c,), initializer="zeros", name="beta")

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        c, g = x.shape[-1], self.groups
        z = ops.cast(x, self.variable_dtype)  # squares overflow float16
        # Over the pixels of each channel first: the large sums are then of one axis.
        mean = ops.mean(z, axis=(1, 2))  # (B, C)
        square = ops.mean(ops.square(z), axis=(1, 2))
        mean, square = (
            ops.mean(ops.reshape(m, (-1, g, c // g)), axis=-1, keepdims=True)
            for m in (mean, square)
        )
        scale = ops.rsqrt(ops.maximum(square - ops.square(mean), 0.0) + self.epsilon)  # (B, G, 1)
        mean, scale = (
            ops.reshape(ops.tile(m, (1, 1, c // g)), (-1, 1, 1, c)) for m in (mean, scale)
        )
        scale = scale * ops.cast(self.gamma, z.dtype)
        shift = ops.cast(self.beta, z.dtype) - mean * scale
        y = z * scale + shift
        return ops.cast(y, x.dtype)


@register
class LayerScale(keras.layers.Layer):
    """Multiply every channel by a learned factor of its own.

    Args:
        init: What they all are at first.

    Call arguments:
        x: float `(..., D)`.

    Returns:
        float, the shape of `x`.

    Source: Touvron et al. 2021, https://arxiv.org/abs/2103.17239, equation 4.
    """

    def __init__(self, init=1e-5, **kwargs):
        super().__init__(**kwargs)
        self.init = init

    def build(self, input_shape):
        start = keras.initializers.Constant(self.init)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=start, name="gamma")

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        return x * self.gamma
