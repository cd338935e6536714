"""What every model is made from: the `Model` base, registration, and conv-norm-activation.

Source: none; these are the project's own conventions.
"""

import contextlib
import contextvars
import gc
import inspect

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.system.names import nearest


def register(cls):
    """Make a class loadable from a `.keras` file, under the name of the module that defines it.

    Two classes of one name in different modules stay apart, and a loader knows from the name
    which module to import.
    """
    return keras.saving.register_keras_serializable(package=cls.__module__)(cls)


OF_EVERY_MODEL = ("self", "name", "dtype", "trainable", "kwargs", "backbone_args")


def arguments_of(cls) -> dict:
    """`{name: inspect.Parameter}` of a class's constructor."""
    return dict(inspect.signature(cls.__init__).parameters)


class Model(keras.Model):
    """A `keras.Model` whose plain constructor arguments are its config.

    `keras.Model.__new__` drops the arguments, so the automatic `get_config()` of a subclass would
    record the defaults; this base hands them on. Arguments are str, int, float, bool, None, or
    tuples and dicts of these.

    A model, as a layer, builds every child in its own `build(input_shape)`, from shapes and once;
    see `build_chain`. Nothing is traced for it: a network of hundreds of layers is made at once.

    Attributes:
        context: Maximum number of tokens, or None for no maximum.
    """

    context = None

    def __new__(cls, *args, **kwargs):
        return super(keras.Model, cls).__new__(cls, *args, **kwargs)

    def symbolic_inputs(self):
        """Its input, as a `keras.Input` or a dict of them; free axes are None."""
        raise NotImplementedError

    @classmethod
    def argument_names(cls) -> list[str]:
        """Names of its constructor arguments, but those that every model has."""
        return [name for name in arguments_of(cls) if name not in OF_EVERY_MODEL]

    def adapt_weight(self, path, value, shape):
        """A weight of another shape made to fit, when weights are taken from another model.

        Args:
            path: Of the weight, below this model.
            value: The other model's array.
            shape: What is needed.

        Returns:
            An array of `shape`, or None where it cannot be.
        """
        return None


def construct(cls, name, given, defaults, kwargs, part=lambda model: model):
    """Make a model of the catalogue, with its weights; the last line of every builder.

    Args:
        cls: A `Model` class.
        name: Its name in the catalogue.
        given: Arguments that the builder names.
        defaults: What makes it this row of the paper's table.
        kwargs: What the caller gave besides; overrides `defaults`.
        part: Which part of the model is wanted.

    Raises:
        ValueError: An argument that the class does not take.
    """
    accepted = cls.argument_names()
    for key in kwargs:
        if key not in (*accepted, "name", "dtype"):
            near = nearest(key, accepted)
            raise UserError(f"{name} has no argument {key!r}{near}; it takes {', '.join(accepted)}")
    collects = gc.isenabled()
    gc.disable()  # a network's objects are all used: looking for others takes a twentieth of it
    try:
        model = part(cls(**{"name": name, **given, **defaults, **kwargs}))
        model.build(keras.tree.map_structure(lambda x: x.shape, model.symbolic_inputs()))
    finally:
        if collects:
            gc.enable()
    unbuilt = [layer.name for layer in model._flatten_layers() if not layer.built]
    if unbuilt:  # Keras would lose their weights on loading, silently
        raise RuntimeError(f"{name}: no build() of its layers builds {', '.join(unbuilt)}")
    return model


def construct_on_backbone(cls, name, image_shape, defaults, kwargs):
    """`construct` of a model on a backbone that is named by its argument `backbone`.

    What is no argument of the model is one of the backbone, which refuses what it does not know.

    Args:
        cls: A `Model` class.
        name: Its name in the catalogue.
        image_shape: `(H, W, C)`.
        defaults: What makes it this row; the backbone's arguments among them are those of its own
            default backbone alone.
        kwargs: What the caller gave besides.

    Raises:
        ValueError: An argument that the backbone does not take.
    """
    names = (*cls.argument_names(), "name", "dtype")
    own = {k: v for k, v in kwargs.items() if k in names}
    given = {k: v for k, v in kwargs.items() if k not in names}
    defaults = {
        k: v
        for k, v in defaults.items()
        if k in names or ("backbone" not in own and k not in given)
    }
    return construct(cls, name, {"image_shape": tuple(image_shape), **given}, defaults, own)


def build_chain(shape, *layers):
    """Build layers of which each is given what the one before it makes.

    Args:
        shape: What the first is given; the batch and other free axes are None.
        layers: Layers that know the shape of what they make.

    Returns:
        The shape of what the last one makes.
    """
    for layer in layers:
        layer.build(shape)
        shape = layer.compute_output_shape(shape)
    return tuple(shape)


def check_counts(**counts) -> None:
    """Refuse sizes that are no whole numbers from 1 on; None is not given.

    Raises:
        ValueError: Names the first such.
    """
    for name, value in counts.items():
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if value is not None and not whole:
            raise UserError(f"{name} {value!r}: must be a whole number from 1 on")


def he_normal():
    """A new initializer: normal of variance `2 / fan_in`.

    Keras' own "he_normal" samples the truncated normal, which takes three times as long. One for
    each layer: an initializer without a seed gives the same numbers whenever it is called.

    Source: He et al. 2015, https://arxiv.org/abs/1502.01852, equation 10.
    """
    return keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")


def strided(shape, stride, channels=None):
    """The shape `(B, ceil(H/s), ceil(W/s), C)` of a map `(B, H, W, C)` at stride `s`.

    It is that after a convolution or max pooling that pads `kernel_size // 2` on each side.

    Args:
        shape: `(B, H, W, C)`; any may be None.
        stride: `s`.
        channels: Of the result; those of `shape` if None.
    """
    batch, height, width, before = shape
    sides = (side and -(-side // stride) for side in (height, width))
    return (batch, *sides, channels or before)


@register
class Normalize(keras.layers.Layer):
    """`(x - mean) / std` per channel, with constants; the identity by default.

    Args:
        mean: A float, or one float per channel.
        std: Likewise; none may be 0.

    Call arguments:
        x: float `(..., C)`, images in [0, 1].

    Returns:
        float `(..., C)`.
    """

    def __init__(self, mean=0.0, std=1.0, **kwargs):
        super().__init__(**kwargs)
        self.mean = mean
        self.std = std

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x):
        mean = ops.cast(ops.convert_to_tensor(self.mean), x.dtype)
        std = ops.cast(ops.convert_to_tensor(self.std), x.dtype)
        return (x - mean) / std


@register
class ConvNorm(keras.layers.Layer):
    """Convolution without bias, batch norm, activation.

    Strided convolutions pad symmetrically (`kernel_size // 2` on each side) as the papers' code
    did, which TensorFlow's own "same" padding does not.

    Args:
        filters: Channels of the output, `D`.
        kernel_size: Side of the square kernel, odd.
        stride: Stride `s`.
        activation: Name of a Keras activation, or None.

    Call arguments:
        x: float `(B, H, W, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.
    """

    def __init__(self, filters, kernel_size=3, stride=1, activation=None, **kwargs):
        super().__init__(**kwargs)
        self.conv = Conv(filters, kernel_size, stride, use_bias=False, name="conv")
        self.norm = BatchNorm(name="norm")
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        build_chain(input_shape, self.conv, self.norm)

    def compute_output_shape(self, input_shape):
        return self.conv.compute_output_shape(input_shape)

    def call(self, x, training=False):
        x = self.norm(self.conv(x), training=training)
        return self.activation(x)


@register
class Conv(keras.layers.Conv2D):
    """Square convolution that pads `kernel_size // 2` zeros on each side, whatever its stride.

    The kernel starts He normal, as in the residual networks' paper. With `groups` it is as many
    convolutions side by side, each of its part of the channels: `1 / groups` of the weights.

    Args:
        filters: Channels of the output, `D`.
        kernel_size: Side of the square kernel, odd.
        strides: Stride `s`.
        **kwargs: Other arguments of `keras.layers.Conv2D`, but for `padding`.

    Call arguments:
        x: float `(B, H, W, C)`.

    Returns:
        float `(B, ceil(H/s), ceil(W/s), D)`.
    """

    def __init__(self, filters, kernel_size=3, strides=1, **kwargs):
        kwargs.setdefault("kernel_initializer", he_normal())
        kwargs.pop("padding", None)
        # "same" is symmetric at stride 1 only
        padding = "same" if strides in (1, (1, 1), [1, 1]) else "valid"
        super().__init__(filters, kernel_size, strides, padding=padding, **kwargs)

    def call(self, x):
        return super().call(pad2d(x, self._pad()))

    def convolution_op(self, inputs, kernel):
        # One by one: TensorFlow's own grouped convolution needs XLA on CPUs, which no file has
        if self.groups == 1:
            return super().convolution_op(inputs, kernel)
        parts = []
        inputs, kernels = (ops.split(x, self.groups, axis=-1) for x in (inputs, kernel))
        for x, part in zip(inputs, kernels, strict=True):
            parts.append(super().convolution_op(x, part))
        return ops.concatenate(parts, axis=-1)

    def compute_output_shape(self, input_shape):
        p = 2 * self._pad()
        b, h, w, c = input_shape
        return super().compute_output_shape((b, h and h + p, w and w + p, c))

    def _pad(self):
        return self.kernel_size[0] // 2 if self.padding == "valid" else 0


def pad2d(x, pad, value=0.0):
    """Pad height and width of `x` `(B, H, W, C)` by `pad` on each side with `value`."""
    if not pad:
        return x
    return ops.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), constant_values=value)


def padded_shortcut(x, stride, channels):
    """Every `stride`-th pixel of `x` `(B, H, W, C)`, with channels of zeros up to `channels`.

    Source: He et al. 2015, https://arxiv.org/abs/1512.03385, section 3.3, option A.
    """
    if stride > 1:  # TFLite would copy it even at stride 1
        x = x[:, ::stride, ::stride]
    more = channels - x.shape[-1]
    return ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, more))) if more else x


def upsample2x(x):
    """Every pixel of `(B, H, W, C)` four times: `(B, 2 H, 2 W, C)`.

    By joins and reshapes: of `UpSampling2D` TFLite's converter loses the height.
    """
    _, height, width, channels = x.shape
    x = ops.reshape(ops.concatenate([x, x], axis=-1), (-1, height, 2 * width * channels))
    return ops.reshape(ops.concatenate([x, x], axis=-1), (-1, 2 * height, 2 * width, channels))


def upsampled_shape(shape):
    """The shape that `upsample2x` makes of a map of the shape `(B, H, W, C)`."""
    batch, height, width, channels = shape
    return (batch, 2 * height, 2 * width, channels)


_keeps_statistics = contextvars.ContextVar("keeps_statistics", default=False)


@contextlib.contextmanager
def having(variable: contextvars.ContextVar, value):
    """Within it, a context variable has that value."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def keep_statistics():
    """Within it, `BatchNorm` uses the statistics of a batch without moving its own towards them."""
    return having(_keeps_statistics, True)


def statistics_are_kept() -> bool:
    """Whether this is within `keep_statistics`."""
    return _keeps_statistics.get()


@register
class BatchNorm(keras.layers.BatchNormalization):
    """Batch norm with the papers' momentum 0.9 and epsilon 1e-5.

    Keras' 0.99 leaves the moving statistics near their start after a few hundred steps.
    """

    def __init__(self, momentum=0.9, epsilon=1e-5, **kwargs):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    @property
    def momentum(self):
        """How much of the moving statistics a batch leaves as it is."""
        return 1.0 if statistics_are_kept() else self._momentum

    @momentum.setter
    def momentum(self, value):
        self._momentum = value
