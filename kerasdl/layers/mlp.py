"""The perceptron of a Transformer's block.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.3.
"""

import keras

from kerasdl.layers.activation import make_activation
from kerasdl.layers.core import register
from kerasdl.layers.dropout import Dropout


@register
class MLP(keras.layers.Layer):
    """Two dense layers along the last axis, each followed by dropout: `D -> hidden -> D`.

    Args:
        hidden_dim: Units between the two.
        activation: Of them; a name of `kerasdl.layers.activation.ACTIVATIONS`.
        drop_rate: Of both dropouts.

    Call arguments:
        x: float `(..., D)`.
        training: Whether to drop.

    Returns:
        float, the shape of `x`.
    """

    def __init__(self, hidden_dim, activation="gelu", drop_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.dense1 = keras.layers.Dense(hidden_dim, name="dense1")
        self.activation = make_activation(activation)
        self.drop1 = Dropout(drop_rate, name="drop1")
        self.dense2 = None  # made in build(), once D is known
        self.drop2 = Dropout(drop_rate, name="drop2")

    def build(self, input_shape):
        self.dense2 = keras.layers.Dense(input_shape[-1], name="dense2")
        self.dense1.build(input_shape)
        hidden = (*input_shape[:-1], self.dense1.units)
        self.activation.build(hidden)
        self.dense2.build(hidden)

    def call(self, x, training=False):
        x = self.drop1(self.activation(self.dense1(x)), training=training)
        return self.drop2(self.dense2(x), training=training)
