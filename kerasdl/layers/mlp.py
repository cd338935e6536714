"""The perceptrons of Transformer blocks.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.3 (two dense layers);
        Shazeer 2020, https://arxiv.org/abs/2002.05202, equations 5 and 6 (GEGLU, SwiGLU).
"""

import keras
from keras import ops

from kerasdl.layers.activation import ELEMENTWISE, activate, check_activation, make_activation
from kerasdl.layers.core import build_chain, register
from kerasdl.layers.dropout import Dropout


@register
class Dense(keras.layers.Dense):
    """`keras.layers.Dense` that takes the tokens of static sequences as one long batch.

    Keras' own works out the shape of what it multiplies at every call, in a TFLite file in more
    operations than all others of a small Transformer together.

    Call arguments:
        x: float `(..., D)`.

    Returns:
        float `(..., units)`.
    """

    def call(self, x, training=None):
        _, *tokens, dim = x.shape
        if not tokens or None in tokens:
            return super().call(x, training=training)
        y = super().call(ops.reshape(x, (-1, dim)), training=training)
        return ops.reshape(y, (-1, *tokens, self.units))


def dense(units, name, stddev=None, use_bias=True, dtype=None):
    """A `Dense` whose kernel starts normal with `stddev`, or Glorot uniform if that is None."""
    start = "glorot_uniform" if stddev is None else keras.initializers.RandomNormal(0.0, stddev)
    return Dense(units, use_bias=use_bias, kernel_initializer=start, dtype=dtype, name=name)


@register
class MLP(keras.layers.Layer):
    """Two dense layers along the last axis, each followed by dropout: `D -> hidden -> D`.

    Args:
        hidden_dim: Units between the two.
        activation: Of them; a name of `kerasdl.layers.activation.ACTIVATIONS`.
        drop_rate: Of both dropouts.
        stddevs: Of the two kernels at the start; Glorot's if None.
        use_bias: Whether the two have biases.

    Call arguments:
        x: float `(..., D)`.
        training: Whether to drop.

    Returns:
        float, the shape of `x`.
    """

    def __init__(
        self, hidden_dim, activation="gelu", drop_rate=0.0, stddevs=None, use_bias=True, **kwargs
    ):
        super().__init__(**kwargs)
        self.stddevs = stddevs or (None, None)
        self.use_bias = use_bias
        self.dense1 = dense(hidden_dim, "dense1", self.stddevs[0], use_bias)
        self.activation = make_activation(activation)
        self.drop1 = Dropout(drop_rate, name="drop1")
        self.dense2 = None  # made in build(), once D is given
        self.drop2 = Dropout(drop_rate, name="drop2")

    def build(self, input_shape):
        self.dense2 = dense(input_shape[-1], "dense2", self.stddevs[1], self.use_bias)
        build_chain(input_shape, self.dense1, self.activation, self.drop1, self.dense2, self.drop2)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, training=False):
        x = self.drop1(self.activation(self.dense1(x)), training=training)
        return self.drop2(self.dense2(x), training=training)


@register
class SwiGLU(keras.layers.Layer):
    """A gated perceptron: `y = (silu(x W) * (x V)) W2`.

    Args:
        hidden_dim: Units between `W`, `V` and `W2`.
        stddevs: Of the kernels at the start, the two of `D -> hidden` and that of `hidden -> D`;
            Glorot's if None.
        use_bias: Whether each has a bias; the paper's have none.
        activation: In the place of silu, one of `kerasdl.layers.activation.ELEMENTWISE`.

    Call arguments:
        x: float `(..., D)`.

    Returns:
        float, the shape of `x`.
    """

    def __init__(self, hidden_dim, stddevs=None, use_bias=False, activation="silu", **kwargs):
        super().__init__(**kwargs)
        check_activation(activation, ELEMENTWISE)
        self.activation = activation
        self.hidden_dim = hidden_dim
        self.stddevs = stddevs or (None, None)
        self.use_bias = use_bias
        self.gate = dense(hidden_dim, "gate", self.stddevs[0], use_bias)
        self.up = dense(hidden_dim, "up", self.stddevs[0], use_bias)
        self.down = None  # made in build(), once D is given

    def build(self, input_shape):
        self.down = dense(input_shape[-1], "down", self.stddevs[1], self.use_bias)
        self.gate.build(input_shape)
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.hidden_dim))

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        return self.down(activate(self.activation, self.gate(x)) * self.up(x))
