"""Dropout and stochastic depth that differ between replicas.

Source: Srivastava et al. 2014, Dropout; Huang et al. 2016, https://arxiv.org/abs/1603.09382
        (stochastic depth, whose rate is here of examples, not of batches).
"""

import contextvars

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import having, register

_replica = contextvars.ContextVar("replica", default=None)


def replica(number):
    """Within it, the layers of this module use the masks of replica `number`, an int tensor."""
    return having(_replica, number)


class ReplicaSeed(keras.random.SeedGenerator):
    """A `SeedGenerator` whose seeds differ between replicas, though its state does not."""

    def next(self, ordered=True):
        seed = super().next(ordered)
        number = _replica.get()
        if number is None:
            return seed
        # Far apart, so that no replica meets another's later states.
        return seed + ops.cast(ops.stack([number * 1_000_003, 0]), seed.dtype)


@register
class Dropout(keras.layers.Layer):
    """Dropout with another mask on every replica.

    Args:
        rate: Probability, below 1; what is kept is divided by `1 - rate`.
        seed: Of the masks; random if None.

    Call arguments:
        x: float, of any shape.
        training: Whether to drop.

    Returns:
        float, the shape of `x`.
    """

    def __init__(self, rate, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        if not 0 <= rate < 1:
            raise UserError(f"drop rate {rate}: must be at least 0 and below 1")
        self.rate = rate
        self.seed = seed

    def build(self, input_shape):
        if self.rate > 0:  # made here, its path names the layer
            self.seed_generator = ReplicaSeed(self.seed, name="seed")

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, training=False):
        if not training or self.rate == 0:
            return x
        shape = self.noise_shape(x)
        return keras.random.dropout(x, self.rate, noise_shape=shape, seed=self.seed_generator)

    def noise_shape(self, x):
        """Which entries are dropped alone: all of them; None is the batch."""
        return None


@register
class DropPath(Dropout):
    """Stochastic depth: drop a residual branch of an example with probability `rate`.

    Args:
        rate: Probability; what is kept is divided by `1 - rate`.
        seed: Of the masks; random if None.

    Call arguments:
        x: float `(B, ...)`.
        training: Whether to drop.

    Returns:
        float, the shape of `x`.
    """

    def noise_shape(self, x):
        return (None,) + (1,) * (len(x.shape) - 1)
