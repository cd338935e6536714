"""A backbone and a head: what every image classifier is.

Source: none; these are the project's own conventions.
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import (
    OF_EVERY_MODEL,
    Model,
    Normalize,
    arguments_of,
    build_chain,
    construct,
    he_normal,
)
from kerasdl.layers.dropout import Dropout


class Backbone(Model):
    """Feature maps of an image.

    Attributes:
        image_shape: `(H, W, C)` it was made for.
        strides: `{stage: how much smaller its map is than the image}`.
        channels: `{stage: channels}`.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        `{"stage1": (B, h, w, c), ...}`, the last stage last.
    """

    strides: dict = {}
    channels: dict = {}

    def __init__(self, image_shape, input_mean=0.0, input_std=1.0, **kwargs):
        kwargs.setdefault("name", "backbone")
        super().__init__(**kwargs)
        self.image_shape = tuple(image_shape)
        self.normalize = Normalize(input_mean, input_std, name="normalize")

    @property
    def width(self):
        """Channels of the last stage."""
        return list(self.channels.values())[-1]

    def last_map(self):
        """Height and width of the last stage's map."""
        stride = max(self.strides.values())
        return tuple(side // stride for side in self.image_shape[:2])

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)


class Classifier(Model):
    """Global average pooling of the backbone's last stage, dropout, one dense layer.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        drop_rate: Dropout of the parts `drops`.
        **backbone_args: Further arguments of the class's backbone.

    Attributes:
        backbone_class: Of its backbone, whose arguments are the classifier's too.
        drops: What `drop_rate` is the rate of: "head", before the dense layer, or "backbone".

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, K)`.
    """

    backbone_class = Backbone
    drops = ("head",)

    def __new__(cls, *args, **kwargs):
        # So that the config holds the backbone's defaults too
        accepted = arguments_of(cls.backbone_class).values()
        defaults = {p.name: p.default for p in accepted if p.default is not p.empty}
        defaults.pop("drop_rate", None)  # the classifier's own
        return super().__new__(cls, *args, **{**defaults, **kwargs})

    def __init__(
        self,
        image_shape=(224, 224, 3),
        num_classes=1000,
        drop_rate=0.0,
        *,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        if "backbone" in self.drops:
            backbone_args["drop_rate"] = drop_rate
        self.backbone = self.backbone_class(image_shape, **backbone_args)
        self.drop = Dropout(drop_rate if "head" in self.drops else 0.0, name="drop")
        self.head = self.make_head(num_classes)

    @staticmethod
    def make_head(num_classes):
        """The last layer, which makes logits."""
        return dense_head(num_classes)

    @classmethod
    def argument_names(cls):
        bases = [base for base in cls.__mro__ if issubclass(base, Classifier)]
        names = [n for owner in (*bases, cls.backbone_class) for n in arguments_of(owner)]
        return [n for n in dict.fromkeys(names) if n not in OF_EVERY_MODEL]

    def symbolic_inputs(self):
        return self.backbone.symbolic_inputs()

    def build(self, input_shape):
        self.backbone.build(input_shape)
        build_chain((None, self.backbone.width), self.drop, self.head)

    def pool(self, features):
        """`(B, D)` of the backbone's feature maps."""
        return pooled_last(features)

    def places(self, features):
        """`(B, h, w, D)`: what `pool` makes of each window of the size of the model's images."""
        stride = list(self.backbone.strides.values())[-1]
        window = [-(-side // stride) for side in self.backbone.image_shape[:2]]
        return ops.average_pool(list(features.values())[-1], window, 1)

    def maps(self, x, training=False):
        """The backbone's feature maps of images, as `classify` takes them."""
        return self.backbone(x, training=training)

    def classify(self, features, training=False):
        """What the model returns, of the backbone's feature maps."""
        return self.head(self.drop(self.pool(features), training=training))

    def call(self, x, training=False):
        return self.classify(self.maps(x, training), training)


class ConvolvedClassifier(Classifier):
    """Two dense layers on the backbone's last map, with dropout after each, and a third.

    The dense layers are convolutions, as VGG's paper applies them to larger images: the first has a
    kernel of `side` x `side` pixels, or of the whole map of a smaller image, and what the second
    makes is averaged over all places.

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        drop_rate: Dropout after each of the first two dense layers.
        fc_dim: Units of each of them.
        **kwargs: Further arguments of the backbone.

    Attributes:
        side: Of the last map of an image of the paper's size.

    Source: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556, section 3.2.
    """

    side = 7

    def __init__(
        self, image_shape=(224, 224, 3), num_classes=1000, drop_rate=0.5, fc_dim=4096, **kwargs
    ):
        super().__init__(image_shape, num_classes, drop_rate, **kwargs)
        self.window = tuple(min(self.side, n) for n in self.backbone.last_map())
        self.fc1 = self._dense(fc_dim, self.window, "fc1")
        self.drop1 = Dropout(drop_rate, name="drop1")
        self.fc2 = self._dense(fc_dim, 1, "fc2")

    @staticmethod
    def _dense(units, window, name):
        return keras.layers.Conv2D(
            units, window, activation="relu", kernel_initializer=he_normal(), name=name
        )

    def build(self, input_shape):
        self.backbone.build(input_shape)
        window = (None, *self.window, self.backbone.width)
        *_, units = build_chain(window, self.fc1, self.drop1, self.fc2)
        build_chain((None, units), self.drop, self.head)

    def places(self, features, training=False):
        """`(B, h, w, D)`, what the second dense layer makes of each window."""
        x = self.fc1(list(features.values())[-1])  # one place at the paper's size
        return self.fc2(self.drop1(x, training=training))

    def pool(self, features, training=False):
        return ops.mean(self.places(features, training), axis=(1, 2))

    def classify(self, features, training=False):
        return self.head(self.drop(self.pool(features, training), training=training))


def pooled(x):
    """The mean over all places of a map `(B, ..., C)`: `(B, C)`."""
    return ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))


def pooled_last(maps):
    """The mean over all places of a backbone's last map, `(B, C)`, of `{stage: (B, ..., C)}`."""
    return pooled(list(maps.values())[-1])


def dense_head(num_classes, name="head"):
    """A dense layer that computes in at least float32, whatever the precision policy."""
    policy = keras.config.dtype_policy().variable_dtype
    return keras.layers.Dense(num_classes, dtype=policy, name=name)


def check_size(image_shape, minimum, name):
    """Refuse an image smaller than `minimum` pixels a side, or that is no `(H, W, C)`."""
    if len(image_shape) != 3 or min(image_shape[:2]) < minimum:
        raise UserError(
            f"image_shape {tuple(image_shape)}: {name} takes (height, width, channels) "
            f"of at least {minimum}x{minimum} pixels; --image-size enlarges them"
        )


def make(cls, name, image_shape, num_classes, defaults, kwargs):
    """Construct a classifier and make its weights; the last line of every builder.

    Args:
        cls: A `Classifier` class.
        name: Its name in the catalogue.
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        defaults: What makes it this row of the paper's table.
        kwargs: What the caller gave besides; `features=True` returns the backbone alone.

    Raises:
        ValueError: An argument that the class does not take.
    """
    features = kwargs.pop("features", False)
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes}
    return construct(
        cls, name, given, defaults, kwargs, lambda model: model.backbone if features else model
    )
