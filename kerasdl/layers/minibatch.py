"""Statistics of the batch as an input of a discriminator."""

import keras
from keras import ops

from kerasdl.layers import core

EPSILON = 1e-8


@core.register
class MinibatchStd(keras.layers.Layer):
    """Append how much the features differ within the batch, as one more channel.

    It is the standard deviation over the batch of every feature at every place, averaged to one
    number. In inference its moving average is used, as in batch norm: an image is scored alone.

    Args:
        momentum: Of the moving average.

    Call arguments:
        x: float `(B, ..., C)`.
        training: Whether the number is the batch's own, which then moves the average.

    Returns:
        float `(B, ..., C + 1)`.

    Attributes:
        synchronized: Whether the batch is that of all replicas.

    Source: Karras et al. 2018, https://arxiv.org/abs/1710.10196, section 3; the whole batch is one
        group.
    """

    synchronized = False

    def __init__(self, momentum=0.9, **kwargs):
        super().__init__(**kwargs)
        self.momentum = momentum

    def build(self, input_shape):
        self.moving_std = self.add_weight(
            shape=(), initializer="ones", trainable=False, autocast=False, name="moving_std"
        )

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] + 1)

    def call(self, x, training=False):
        std = self.moving_std.value
        if training:
            z = ops.cast(x, self.variable_dtype)  # squares overflow float16
            variance = self._mean(ops.square(z - self._mean(z)))
            std = ops.mean(ops.sqrt(variance + EPSILON))
            if not core.statistics_are_kept():
                old, new = self.momentum, 1.0 - self.momentum
                self.moving_std.assign(self.moving_std * old + ops.stop_gradient(std) * new)
        return ops.concatenate([x, ops.ones_like(x[..., :1]) * ops.cast(std, x.dtype)], axis=-1)

    def _mean(self, z):
        """Over the batch. Not the variance of `moments`: its second derivative is wrong."""
        return ops.moments(z, axes=[0], synchronized=self.synchronized)[0]
