"""A classifier as a convolutional network: its dense layers become convolutions.

Source: Long et al. 2015, https://arxiv.org/abs/1411.4038, section 3.1.
"""

import keras

from kerasdl.errors import UserError
from kerasdl.layers.classifier import Classifier


def convolution_of(dense, window=(1, 1)):
    """A convolution that computes of each window what a dense layer computes of one.

    Args:
        dense: A built dense layer, of flattened maps `(h, w, C)` where the window is not 1x1.
        window: `(h, w)`.

    Returns:
        A built layer: `(B, H, W, C)` to `(B, H - h + 1, W - w + 1, D)`.
    """
    inputs, units = dense.kernel.shape
    channels = inputs // (window[0] * window[1])
    conv = keras.layers.Conv2D(
        units,
        window,
        activation=dense.activation,
        use_bias=dense.use_bias,
        dtype=dense.dtype_policy,
        name=dense.name,
    )
    conv.build((None, None, None, channels))
    conv.kernel.assign(keras.ops.reshape(dense.kernel, (*window, channels, units)))
    if dense.use_bias:
        conv.bias.assign(dense.bias)
    return conv


def heat_map(classifier):
    """A classifier as a model of images of any size, whose logits are a map.

    At each place of the map stands what the classifier says of the window there, of the size of its
    images: exactly that where its convolutions are unpadded. The windows are as far apart as the
    backbone's stride. Weights but those of dense layers are the classifier's own.

    Args:
        classifier: A built `Classifier`, or a `keras.Sequential` of image layers in which dense
            layers follow `Flatten` or global average pooling.

    Returns:
        A `keras.Model`: float `(B, H, W, C)` to logits `(B, h, w, K)`; one place for an image of
        the classifier's size.

    Raises:
        UserError: A model of another kind.
    """
    if isinstance(classifier, keras.Sequential):
        return _of_chain(classifier)
    cls = type(classifier)
    if not isinstance(classifier, Classifier) or (
        cls.pool is not Classifier.pool and cls.places is Classifier.places
    ):
        raise UserError(
            f"{classifier.name}: must be a classifier whose dense layers follow a map, or a "
            "keras.Sequential"
        )
    return _HeatMap(classifier)


class _HeatMap(keras.Model):
    def __init__(self, classifier):
        super().__init__(name=classifier.name)
        self.backbone, self.places = classifier.backbone, classifier.places
        self.head = convolution_of(classifier.head)

    def call(self, x):
        return self.head(self.places(self.backbone(x, training=False)))


def _of_chain(classifier):
    inputs = keras.Input((None, None, classifier.input_shape[-1]))
    x, window = inputs, (1, 1)
    for layer in classifier.layers:
        if isinstance(layer, keras.layers.Flatten):
            window = tuple(layer.input.shape[1:3])
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D):
            x = keras.layers.AveragePooling2D(tuple(layer.input.shape[1:3]), 1)(x)
        elif isinstance(layer, keras.layers.Dense):
            x, window = convolution_of(layer, window)(x), (1, 1)
        else:
            x = layer(x)
    return keras.Model(inputs, x, name=classifier.name)
