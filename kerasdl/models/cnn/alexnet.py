"""AlexNet for image classification.

Paper:   ImageNet Classification with Deep Convolutional Neural Networks, Krizhevsky et al. 2012,
         https://papers.nips.cc/paper/4824 (section 3; figure 2).
Differs: images have 227 pixels a side, as the 55x55 of figure 2 needs, not 224; the two halves,
         which the paper has on two GPUs, are groups of channels; weights start He normal and biases
         at 0. Of larger images the answer is the mean over windows, of smaller ones the first dense
         layer is smaller. `alexnet_small` is the project's own row.
"""

import keras
from keras import ops

from kerasdl.layers.classifier import Backbone, ConvolvedClassifier, check_size, make
from kerasdl.layers.core import Conv, build_chain, he_normal, register
from kerasdl.layers.norm import LocalResponseNorm
from kerasdl.layers.remat import Block

# Figure 2: kernels, which of the layers are in groups, and which are pooled; section 3.3
KERNELS = (11, 5, 3, 3, 3)
GROUPED = (False, True, False, True, True)
POOLED = (True, True, False, False, True)
NORMED = (True, True, False, False, False)
STRIDE = 4  # of the first


def pooled(side):
    """Side of a map after overlapping pooling, 3x3 at stride 2 (section 3.4)."""
    return (side - 3) // 2 + 1


@register
class AlexBlock(Block):
    """Convolution, ReLU, local response norm and overlapping max pooling, the last two on request.

    Args:
        filters: Channels of the output, `D`.
        kernel_size: Side of the square kernel, odd.
        stride: Of the convolution, which pads at stride 1 only.
        groups: Of the convolution.
        norm: Whether there is local response norm.
        pool: Whether there is pooling.

    Call arguments:
        x: float `(B, H, W, C)`.

    Returns:
        float `(B, h, w, D)`.
    """

    def __init__(self, filters, kernel_size, stride=1, groups=1, norm=False, pool=False, **kwargs):
        super().__init__(**kwargs)
        self.pool = pool
        if stride == 1:
            self.conv = Conv(filters, kernel_size, groups=groups, activation="relu", name="conv")
        else:
            self.conv = keras.layers.Conv2D(
                filters,
                kernel_size,
                stride,
                activation="relu",
                kernel_initializer=he_normal(),
                name="conv",
            )
        # Section 3.3: k = 2, n = 5, alpha = 1e-4, beta = 0.75; there alpha is not divided by n
        self.norm = LocalResponseNorm(5, 5e-4, 0.75, 2.0, name="norm") if norm else None

    def build(self, input_shape):
        shape = build_chain(input_shape, self.conv)
        if self.norm is not None:
            self.norm.build(shape)

    def compute_output_shape(self, input_shape):
        batch, *sides, channels = self.conv.compute_output_shape(input_shape)
        return (batch, *((pooled(n) if self.pool else n) for n in sides), channels)

    def call(self, x):
        x = self.conv(x)
        if self.norm is not None:
            x = self.norm(x)
        return ops.max_pool(x, 3, 2) if self.pool else x


@register
class AlexNetBackbone(Backbone):
    """Five convolutions; maps are those after each pooling.

    Strides are between neighbors of a map: nothing is padded there, so a map is somewhat smaller
    than the image over its stride.

    Args:
        image_shape: `(H, W, C)`.
        filters: Channels of each convolution.
        groups: Of the second, fourth and fifth.
        small: A first convolution of 5x5 at stride 1, padded, instead of 11x11 at stride 4.
        input_mean, input_std: Per channel, of images in [0, 1].
    """

    def __init__(
        self,
        image_shape,
        filters=(96, 256, 384, 384, 256),
        groups=2,
        small=False,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, 15 if small else 67, "AlexNet")
        self.blocks = [
            AlexBlock(
                f,
                5 if small and not i else KERNELS[i],
                1 if small or i else STRIDE,
                groups if GROUPED[i] else 1,
                NORMED[i],
                POOLED[i],
                name=f"conv{i + 1}",
            )
            for i, f in enumerate(filters)
        ]
        first = 2 if small else 2 * STRIDE
        self.strides = {f"stage{s + 1}": first * 2**s for s in range(3)}
        self.channels = dict(zip(self.strides, (filters[0], filters[1], filters[4]), strict=True))

    def last_map(self):
        shape = (None, *self.image_shape)
        for block in self.blocks:
            shape = block.compute_output_shape(shape)
        return shape[1:3]

    def build(self, input_shape):
        build_chain(input_shape, self.normalize, *self.blocks)

    def call(self, x, training=False):
        x = self.normalize(x)
        maps = []
        for block in self.blocks:
            x = block(x)
            if block.pool:
                maps.append(x)
        return dict(zip(self.strides, maps, strict=True))


@register
class AlexNet(ConvolvedClassifier):
    """An `AlexNetBackbone` and three dense layers, with dropout after the first two."""

    backbone_class = AlexNetBackbone
    side = 6


def alexnet(image_shape=(227, 227, 3), num_classes=1000, **kwargs):
    return make(AlexNet, "alexnet", image_shape, num_classes, {}, kwargs)


def alexnet_small(image_shape=(32, 32, 3), num_classes=10, **kwargs):
    """A first convolution of 5x5 at stride 1, a third of the channels, dense layers of 256."""
    sizes = {"filters": (32, 96, 128, 128, 96), "small": True, "fc_dim": 256}
    return make(AlexNet, "alexnet_small", image_shape, num_classes, sizes, kwargs)


_TINY = {
    "image_shape": (70, 77, 1),
    "num_classes": 7,
    "filters": (6, 9, 12, 15, 18),
    "groups": 3,
    "fc_dim": 24,
    "drop_rate": 0.1,
}
TINY = {"alexnet": _TINY, "alexnet_small": {**_TINY, "image_shape": (15, 20, 1), "small": True}}
# Of three settings, by their losses on validation
RECIPE = {
    "alexnet_small": {
        "epochs": 30,
        "lr": 0.001,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",
    },
}
