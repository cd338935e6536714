"""A linear classifier: softmax regression, or a multiclass support vector machine.

Paper:   Weston and Watkins 1999, Support vector machines for multi-class pattern recognition
         (with `--loss hinge`); with the cross entropy it is multinomial logistic regression.
Differs: the score is trained by stochastic gradient descent, and the margin's quadratic term is
         weight decay.
"""

import math

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import check_size, dense_head, make
from kerasdl.layers.core import Model, Normalize, register


@register
class Linear(Model):
    """Scores `W x + b` of a flattened image; `W` and `b` start at zero.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].

    Returns:
        float32 (or float64) logits `(B, K)`.
    """

    def __init__(
        self, image_shape=(32, 32, 3), num_classes=10, input_mean=0.0, input_std=1.0, **kwargs
    ):
        super().__init__(**kwargs)
        check_size(image_shape, 1, self.name)
        self.image_shape = tuple(image_shape)
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        self.head = dense_head(num_classes)
        self.head.kernel_initializer = keras.initializers.Zeros()  # the loss starts at ln K

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        self.normalize.build(input_shape)
        self.head.build((None, math.prod(input_shape[1:])))

    def call(self, x):
        x = self.normalize(x)
        return self.head(ops.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3])))


def linear(image_shape=(32, 32, 3), num_classes=10, features=False, **kwargs):
    """The classifier; it has no feature maps, so `features=True` is a ValueError."""
    if features:
        raise UserError("linear has no backbone: features=True needs a model with hidden layers")
    return make(Linear, "linear", image_shape, num_classes, {}, kwargs)


TINY = {
    "linear": {"image_shape": (6, 7, 1), "num_classes": 7, "input_mean": 0.4, "input_std": 0.3},
}
RECIPE = {"linear": {"epochs": 40, "lr": 0.01, "weights": "last"}}
