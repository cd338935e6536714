"""Multi-layer perceptron with a choice of activations.

Paper:   Learning representations by back-propagating errors, Rumelhart et al. 1986; the
         activations' papers stand in `kerasdl/layers/activation.py`.
Differs: cross entropy, He or Glorot kernels, dropout (Srivastava et al. 2014).
"""

import math

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.activation import check_activation, kernel_initializer, make_activation
from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import build_chain, register
from kerasdl.layers.dropout import Dropout


@register
class HiddenLayer(keras.layers.Layer):
    """A dense layer and its activation.

    Args:
        dim: Units, `D`.
        activation: A name of `kerasdl.layers.activation.ACTIVATIONS`.
        pieces: Affine pieces per unit of `maxout`.

    Call arguments:
        x: float `(B, C)`.

    Returns:
        float `(B, D)`.
    """

    def __init__(self, dim, activation="relu", pieces=2, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
        self.dense = keras.layers.Dense(
            dim * pieces if activation == "maxout" else dim,
            kernel_initializer=kernel_initializer(activation),
            name="dense",
        )
        self.activation = make_activation(activation, pieces)

    def build(self, input_shape):
        build_chain(input_shape, self.dense, self.activation)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.dim)

    def call(self, x):
        return self.activation(self.dense(x))


@register
class PerceptronBackbone(Backbone):
    """Hidden layers on the flattened image, with dropout between them.

    Args:
        image_shape: `(H, W, C)`.
        dims: Units of each hidden layer.
        activation: A name of `kerasdl.layers.activation.ACTIVATIONS`.
        pieces: Affine pieces per unit of `maxout`.
        drop_rate: Dropout between the layers.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether to drop.

    Returns:
        `{"stage1": (B, D), ...}`, one per hidden layer.
    """

    def __init__(
        self,
        image_shape,
        dims=(256, 256),
        activation="relu",
        pieces=2,
        drop_rate=0.0,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 1, self.name)
        check_activation(activation)
        if not dims or min(dims) < 1:
            raise UserError(f"dims {tuple(dims)}: must hold the units of at least one hidden layer")
        self.stages = [
            HiddenLayer(dim, activation, pieces, name=f"stage{i + 1}") for i, dim in enumerate(dims)
        ]
        self.drops = [Dropout(drop_rate, name=f"drop{i + 1}") for i in range(len(dims) - 1)]
        self.channels = {f"stage{i + 1}": dim for i, dim in enumerate(dims)}

    def build(self, input_shape):
        self.normalize.build(input_shape)
        shape = (None, math.prod(input_shape[1:]))
        for i, stage in enumerate(self.stages):
            shape = build_chain(shape, *self.drops[i - 1 : i], stage)  # none before the first

    def call(self, x, training=False):
        x = self.normalize(x)
        x = ops.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))
        features = {}
        for i, stage in enumerate(self.stages):
            if i:
                x = self.drops[i - 1](x, training=training)
            x = features[stage.name] = stage(x)
        return features


@register
class Perceptron(Classifier):
    """A `PerceptronBackbone` and a dense layer, with dropout after every hidden layer."""

    backbone_class = PerceptronBackbone
    drops = ("backbone", "head")

    def pool(self, features):
        return list(features.values())[-1]


def mlp(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    """The perceptron; `dims`, `activation`, `pieces` and `drop_rate` choose its form."""
    return make(Perceptron, "mlp", image_shape, num_classes, {}, kwargs)


TINY = {
    "mlp": {
        "image_shape": (6, 7, 1),
        "num_classes": 7,
        "dims": (12, 10, 8),
        "activation": "maxout",
        "pieces": 3,
        "drop_rate": 0.1,
        "input_mean": 0.4,
        "input_std": 0.3,
    },
}
RECIPE = {
    "mlp": {
        "epochs": 40,
        "weights": "last",
        "lr": 0.003,
        "weight_decay": 0.05,
        "drop_rate": 0.2,
        "augment": ("shift",),
    },
}
