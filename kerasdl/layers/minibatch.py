"""What a discriminator is told of the other images of its batch."""

import keras
from keras import ops

from kerasdl.layers.core import register, statistics_are_kept

EPSILON = 1e-8


@register
class MinibatchStd(keras.layers.Layer):
    """Append how much the features differ within the batch, as one more channel.

    It is the standard deviation over the batch of every feature at every place, averaged to one
    number. In inference a moving average takes its place, as in batch norm: an image is judged by
    itself.

    Args:
        momentum: Of the moving average.

    Call arguments:
        x: float `(B, ..., C)`.
        training: Whether it uses, and updates, the batch's statistics.

    Returns:
        float `(B, ..., C + 1)`.

    Attributes:
        synchronized: Whether the batch is that of all replicas.

    Source: Karras et al. 2018, https://arxiv.org/abs/1710.10196, section 3, whose groups of 4
        images are the whole batch here.
    """

    synchronized = False

    def __init__(self, momentum=0.9, **kwargs):
        super().__init__(**kwargs)
        self.momentum = momentum

    def build(self, input_shape):
        self.moving_std = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="moving_std"
        )

    def call(self, x, training=False):
        std = self.moving_std.value
        if training:
            z = ops.cast(x, self.variable_dtype)  # squares overflow float16
            _, variance = ops.moments(z, axes=[0], synchronized=self.synchronized)
            std = ops.mean(ops.sqrt(variance + EPSILON))
            if not statistics_are_kept():
                mean = ops.stop_gradient(std)
                self.moving_std.assign(
                    self.moving_std * self.momentum + mean * (1.0 - self.momentum)
                )
        return ops.concatenate([x, ops.ones_like(x[..., :1]) * ops.cast(std, x.dtype)], axis=-1)
