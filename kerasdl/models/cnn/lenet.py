"""LeNet-5, the convolutional network for digits.

Paper:   Gradient-Based Learning Applied to Document Recognition, LeCun et al. 1998,
         https://doi.org/10.1109/5.726791 (section II.B; figure 2; table 1; equations 6 and 7).
Differs: weights start normal with variance 1 / inputs. `lenet5` has what later copies have: C3 sees
         all maps, pooling has no weights, the answer is a dense layer's. `lenet5_1998` is the
         paper's, but that its ten codes are random, which the paper allows, not drawn bitmaps, and
         that the loss is cross entropy, equation 9 without its constant.
"""

import keras
import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import build_chain, register

CONNECTIVITIES = ("dense", "1998")
# Table 1: the maps of S2 that each of the 16 maps of C3 is connected to
TABLE_1 = (
    *(tuple((first + i) % 6 for i in range(3)) for first in range(6)),
    *(tuple((first + i) % 6 for i in range(4)) for first in range(6)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)
KERNEL = 5  # side of each kernel
NORMAL = "lecun_normal"


def squash(x):
    """`f(x) = A tanh(S x)`, which is 1 at 1 (equation 6 and appendix A)."""
    return 1.7159 * ops.tanh(2 / 3 * x)


@register
class Subsampling(keras.layers.Layer):
    """The sum of four neighbors times a weight plus a bias, one of each per map, squashed.

    Call arguments:
        x: float `(B, H, W, C)`.

    Returns:
        float `(B, floor(H/2), floor(W/2), C)`.
    """

    def build(self, input_shape):
        shape = (input_shape[-1],)
        start = keras.initializers.Constant(0.25)  # the average
        self.scale = self.add_weight(shape=shape, initializer=start, name="scale")
        self.bias = self.add_weight(shape=shape, initializer="zeros", name="bias")

    def call(self, x):
        return squash(4 * ops.average_pool(x, 2, 2) * self.scale + self.bias)


@register
class SparseConv(keras.layers.Layer):
    """A convolution each of whose maps sees some of the maps before it (table 1).

    Call arguments:
        x: float `(B, H, W, 6)`.

    Returns:
        float `(B, H - 4, W - 4, 16)`.
    """

    def build(self, input_shape):
        pairs = [(c, d) for d, maps in enumerate(TABLE_1) for c in maps]
        c, d = input_shape[-1], len(TABLE_1)
        self.place = np.zeros((len(pairs), c, d), "float32")  # of each connection's kernel
        for i, pair in enumerate(pairs):
            self.place[i][pair] = 1.0
        start = keras.initializers.RandomNormal(stddev=(KERNEL**2 * len(pairs) / d) ** -0.5)
        shape = (KERNEL, KERNEL, len(pairs))
        self.kernel = self.add_weight(shape=shape, initializer=start, name="kernel")
        self.bias = self.add_weight(shape=(d,), initializer="zeros", name="bias")

    def call(self, x):
        place = ops.cast(ops.convert_to_tensor(self.place), x.dtype)
        kernel = ops.tensordot(ops.cast(self.kernel, x.dtype), place, axes=1)  # (5, 5, 6, 16)
        return ops.conv(x, kernel) + self.bias


@register
class Codes(keras.layers.Layer):
    """Minus the squared distance to the code of each class (equation 7), in at least float32.

    Codes are of -1 and 1, the same in every model of as many classes and units, and not trained.

    Args:
        num_classes: `K`.

    Call arguments:
        x: float `(B, D)`.

    Returns:
        Logits `(B, K)`.
    """

    def __init__(self, num_classes, **kwargs):
        super().__init__(**kwargs)
        self.num_classes = num_classes

    def build(self, input_shape):
        shape = (input_shape[-1], self.num_classes)
        self.codes = self.add_weight(
            shape=shape, initializer=self._codes, trainable=False, name="codes"
        )

    @staticmethod
    def _codes(shape, dtype=None):
        codes = np.random.default_rng(1998).choice((-1.0, 1.0), shape)
        return ops.convert_to_tensor(codes, dtype=dtype)

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.num_classes)

    def call(self, x):
        square = ops.sum(ops.square(x), axis=-1, keepdims=True)
        return 2 * ops.matmul(x, self.codes) - square - ops.sum(ops.square(self.codes), axis=0)


@register
class LeNetBackbone(Backbone):
    """C1 and S2, C3 and S4, and C5, whose kernel is the whole map of an image of 32x32 pixels.

    Args:
        image_shape: `(H, W, C)`.
        filters: Maps of C1 and of C3.
        fc_dim: Units of C5.
        connectivity: Of C3: "dense", or "1998" as in table 1.
        trained_pooling: Subsampling with a weight and a bias per map and a squashing of its own,
            instead of averages.
        input_mean, input_std: Per channel, of images in [0, 1].

    Raises:
        ValueError: An unknown connectivity, or table 1's for other numbers of maps.
    """

    def __init__(
        self,
        image_shape,
        filters=(6, 16),
        fc_dim=120,
        connectivity="dense",
        trained_pooling=False,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 16, "LeNet-5")
        connectivity = str(connectivity)  # the command line reads 1998 as a number
        if connectivity not in CONNECTIVITIES:
            raise UserError(
                f"connectivity {connectivity!r}: not one of {', '.join(CONNECTIVITIES)}"
            )
        if connectivity == "1998" and tuple(filters) != (6, 16):
            raise UserError(f"filters {tuple(filters)}: connectivity 1998 is of 6 and 16 maps")
        self.conv1 = _conv(filters[0], KERNEL, "conv1")
        self.conv3 = (
            _conv(filters[1], KERNEL, "conv3")
            if connectivity == "dense"
            else SparseConv(name="conv3")
        )
        self.pool2 = Subsampling(name="pool2") if trained_pooling else None
        self.pool4 = Subsampling(name="pool4") if trained_pooling else None
        self.window = tuple(min(KERNEL, ((n - 4) // 2 - 4) // 2) for n in self.image_shape[:2])
        self.conv5 = _conv(fc_dim, self.window, "conv5")
        self.strides = {"stage1": 2, "stage2": 4, "stage3": 4}
        self.channels = dict(zip(self.strides, (*filters, fc_dim), strict=True))

    def build(self, input_shape):
        c1, c3, c5 = self.channels.values()
        self.normalize.build(input_shape)
        # What these layers have to know is the channels and, of C5, its window
        for layer, channels in ((self.conv1, input_shape[-1]), (self.conv3, c1), (self.conv5, c3)):
            layer.build((None, None, None, channels))
        if self.pool2 is not None:
            self.pool2.build((None, None, None, c1))
            self.pool4.build((None, None, None, c3))

    def call(self, x, training=False):
        def pool(layer, x):
            return ops.average_pool(x, 2, 2) if layer is None else layer(x)

        x = self.normalize(x)
        features = {}
        x = features["stage1"] = pool(self.pool2, squash(self.conv1(x)))  # (B, 14, 14, 6)
        x = features["stage2"] = pool(self.pool4, squash(self.conv3(x)))  # (B, 5, 5, 16)
        features["stage3"] = squash(self.conv5(x))  # (B, 1, 1, 120)
        return features


def _conv(filters, kernel_size, name):
    return keras.layers.Conv2D(filters, kernel_size, kernel_initializer=NORMAL, name=name)


@register
class LeNet(Classifier):
    """A `LeNetBackbone`, F6 and a dense layer; of larger images F6 is averaged over all places.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        drop_rate: Dropout before the last layer.
        head_dim: Units of F6.
        **kwargs: Further arguments of the backbone.
    """

    backbone_class = LeNetBackbone

    def __init__(
        self,
        image_shape=(32, 32, 1),
        num_classes=10,
        drop_rate=0.0,
        head_dim=84,
        **kwargs,
    ):
        super().__init__(image_shape, num_classes, drop_rate, **kwargs)
        self.fc6 = keras.layers.Dense(head_dim, kernel_initializer=NORMAL, name="fc6")

    def build(self, input_shape):
        self.backbone.build(input_shape)
        build_chain((None, self.backbone.width), self.fc6, self.drop, self.head)

    def pool(self, features):
        return ops.mean(squash(self.fc6(features["stage3"])), axis=(1, 2))


@register
class LeNet1998(LeNet):
    """A `LeNet` whose last layer measures distances to fixed codes."""

    @staticmethod
    def make_head(num_classes):
        dtype = keras.config.dtype_policy().variable_dtype
        return Codes(num_classes, dtype=dtype, name="head")


def lenet5(image_shape=(32, 32, 1), num_classes=10, **kwargs):
    return make(LeNet, "lenet5", image_shape, num_classes, {}, kwargs)


def lenet5_1998(image_shape=(32, 32, 1), num_classes=10, **kwargs):
    sizes = {"connectivity": "1998", "trained_pooling": True}
    return make(LeNet1998, "lenet5_1998", image_shape, num_classes, sizes, kwargs)


TINY = {
    "lenet5": {
        "image_shape": (16, 20, 2),
        "num_classes": 7,
        "filters": (5, 7),
        "fc_dim": 11,
        "head_dim": 9,
        "drop_rate": 0.1,
    },
    "lenet5_1998": {"image_shape": (16, 20, 2), "num_classes": 7, "fc_dim": 11, "head_dim": 9},
}
# Of three settings of `lenet5` and six of `lenet5_1998`, by their losses on validation
_RECIPE = {"weight_decay": 0.05, "augment": ("shift",), "weights": "last"}
RECIPE = {
    "lenet5": {**_RECIPE, "epochs": 60, "lr": 0.003},
    "lenet5_1998": {**_RECIPE, "epochs": 120, "lr": 0.01},
}
