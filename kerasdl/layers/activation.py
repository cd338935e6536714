"""Activations by name, among them those that have weights or merge units.

Source: He et al. 2015, https://arxiv.org/abs/1502.01852 (PReLU, and the initial kernels of the
        rectifiers); Goodfellow et al. 2013, https://arxiv.org/abs/1302.4389 (maxout);
        Clevert et al. 2015, https://arxiv.org/abs/1511.07289 (ELU);
        Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415 (GELU, SiLU);
        Maas et al. 2013 (leaky ReLU); Glorot and Bengio 2010 (kernels of tanh and sigmoid).
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import register
from kerasdl.system.names import nearest

ELEMENTWISE = (  # without weights
    "relu",
    "leaky_relu",
    "elu",
    "gelu",
    "gelu_tanh",
    "quick_gelu",
    "silu",
    "tanh",
    "sigmoid",
)
ACTIVATIONS = (*ELEMENTWISE, "prelu", "maxout")


def activate(name, x):
    """An activation of `ELEMENTWISE` of `x`.

    `gelu` is the exact form, `x Phi(x)`, `gelu_tanh` the approximation that GPT-2 used, and
    `quick_gelu` that by a sigmoid, `x sigmoid(1.702 x)`.
    `leaky_relu` has the slope 0.01 of its paper.
    """
    if name in ("gelu", "gelu_tanh"):
        return ops.gelu(x, approximate=name == "gelu_tanh")
    if name == "quick_gelu":
        return x * ops.sigmoid(1.702 * x)
    if name == "leaky_relu":
        return ops.leaky_relu(x, negative_slope=0.01)
    return getattr(ops, name)(x)


@register
class Activation(keras.layers.Layer):
    """An elementwise activation without weights; see `activate`.

    Args:
        function: Its name, one of `ELEMENTWISE`.

    Call arguments:
        x: float, any shape.

    Returns:
        float, the shape of `x`.
    """

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function
        self.built = True

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        return activate(self.function, x)


@register
class Maxout(keras.layers.Layer):
    """The largest of `k` affine pieces, unit by unit.

    Args:
        pieces: `k`; it divides the number of inputs.

    Call arguments:
        x: float `(..., k D)`: the first pieces of all units, then their second ones, and so on.

    Returns:
        float `(..., D)`.

    Source: Goodfellow et al. 2013, https://arxiv.org/abs/1302.4389, equation in section 3.
    """

    def __init__(self, pieces=2, **kwargs):
        super().__init__(**kwargs)
        self.pieces = pieces

    def build(self, input_shape):
        if input_shape[-1] % self.pieces:
            raise UserError(
                f"maxout of {self.pieces} pieces: {input_shape[-1]} inputs are no multiple of it"
            )

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], input_shape[-1] // self.pieces)

    def call(self, x):
        parts = ops.split(x, self.pieces, axis=-1)
        y = parts[0]
        for part in parts[1:]:
            y = ops.maximum(y, part)
        return y


@register
class PReLU(keras.layers.Layer):
    """`max(0, x) + a min(0, x)` with one learned slope `a` per channel, 0.25 at first.

    Call arguments:
        x: float `(..., C)`.

    Returns:
        float, the shape of `x`.

    Source: He et al. 2015, https://arxiv.org/abs/1502.01852, equation 1.
    """

    def build(self, input_shape):
        self.slope = self.add_weight(
            shape=(input_shape[-1],), initializer=keras.initializers.Constant(0.25), name="slope"
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        return ops.relu(x) - self.slope * ops.relu(-x)


def check_activation(name, known=ACTIVATIONS):
    """UserError that names the nearest of `known` unless `name` is one."""
    if name not in known:
        raise UserError(f"activation {name!r}: not one of {', '.join(known)}{nearest(name, known)}")


def make_activation(name, pieces=2):
    """The layer of an activation.

    Args:
        name: One of `ACTIVATIONS`.
        pieces: Of `maxout`, which makes `D` outputs of `pieces * D` inputs.

    Raises:
        ValueError: An unknown name.
    """
    check_activation(name)
    if name == "maxout":
        return Maxout(pieces, name="activation")
    if name == "prelu":
        # 0.25 is where the paper starts; one slope per channel, over all places of a map.
        return PReLU(name="activation")
    return Activation(name, name="activation")


def kernel_initializer(activation):
    """What a kernel before `activation` starts as: He normal, or Glorot where it saturates."""
    return "glorot_uniform" if activation in ("tanh", "sigmoid") else "he_normal"
