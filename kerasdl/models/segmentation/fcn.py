"""Fully convolutional networks for semantic segmentation.

Paper:   Fully Convolutional Networks for Semantic Segmentation, Long et al. 2015,
         https://arxiv.org/abs/1411.4038 (sections 3 and 4; figure 3).
Differs: after its 100 zeros on each side an image gets more at its end, until every halving is
         whole, where the authors' pooling rounds up; weights start He normal, not from a
         classifier (`--initial-checkpoint` of a `vgg16` run gives all but the scores). The small
         rows are the project's: any backbone, no dense layers, no zeros around, a last upsampling
         that is trained, and the strides of their backbone: `resnet20` has 4, 2 and 1.
"""

import keras
from keras import ops

from kerasdl import catalog
from kerasdl.errors import UserError
from kerasdl.layers.core import (
    Conv,
    Model,
    Normalize,
    arguments_of,
    build_chain,
    construct,
    he_normal,
    register,
)
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.upsampling import bilinear_upsampling, kernel_size


@register
class FCN(Model):
    """A backbone, its dense layers as convolutions, scores of its last maps, upsampling.

    Args:
        image_shape: `(H, W, C)`; the model takes images of any other height and width too.
        num_classes: `K`, the background included.
        backbone: Name of a vision model of the catalog, whose stages have maps.
        skips: How many of the maps before the last one, of other strides, are scored and added: of
            VGG-16 0 makes FCN-32s, 1 FCN-16s, 2 FCN-8s. These scores start at zero.
        fc_dim: Channels of the two convolutions that were dense layers; 0 for none.
        window: Side of the first one's kernel, odd.
        pad: Zeros around the image.
        learn_last: Whether the last upsampling is trained; else it stays bilinear.
        drop_rate: Dropout after each of the dense layers.
        input_mean, input_std: Per channel, of images in [0, 1].
        **backbone_args: Further arguments of the backbone's builder.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, H, W, K)`.
    """

    def __init__(
        self,
        image_shape=(500, 500, 3),
        num_classes=21,
        backbone="vgg16",
        skips=0,
        fc_dim=4096,
        window=7,
        pad=99,
        learn_last=False,
        drop_rate=0.5,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        if len(image_shape) != 3:
            raise UserError(f"image_shape {image_shape}: must be (height, width, channels)")
        self.image_shape, self.pad = tuple(image_shape), pad
        self.normalize = Normalize(input_mean, input_std, name="normalize")
        with keras.name_scope(self.name, caller=self):  # its weights' paths begin with our name
            self.backbone = _built(backbone, self.image_shape, pad, backbone_args)
        # Of several stages of one stride the last; the deepest first
        by_stride = {stride: stage for stage, stride in self.backbone.strides.items()}
        strides = sorted(by_stride, reverse=True)
        if not 0 <= skips < len(strides):
            raise UserError(f"skips {skips}: must be 0 to {len(strides) - 1} with {backbone}")
        self.strides = strides[: skips + 1]
        self.stages = [by_stride[stride] for stride in self.strides]
        self.fc1, self.fc2 = None, None
        if fc_dim:
            self.fc1, self.fc2 = _dense(fc_dim, window, "fc1"), _dense(fc_dim, 1, "fc2")
            self.drop1 = Dropout(drop_rate, name="drop1")
        self.drop = Dropout(drop_rate, name="drop")
        policy = keras.config.dtype_policy().variable_dtype  # at least float32
        names = ["head", *(f"head_{stage}" for stage in self.stages[1:])]
        self.scores = [
            Conv(num_classes, 1, kernel_initializer="zeros", dtype=policy, name=n) for n in names
        ]
        factors = [a // b for a, b in zip(self.strides, self.strides[1:], strict=False)]
        self.ups = [
            bilinear_upsampling(num_classes, factor, "valid", dtype=policy, name=f"head_up{i + 1}")
            for i, factor in enumerate(factors)
        ]
        self.last, last = None, self.strides[-1]
        if last > 1:
            self.last = bilinear_upsampling(
                num_classes, last, "valid", dtype=policy, trainable=learn_last, name="head_last"
            )
        self._align(window if fc_dim else 1, factors)

    def _align(self, window, factors):
        """Find which cells of two maps lie upon each other, and where the image is.

        In pixels, the center of the first cell of a map of stride `s` is at `(s - 1) / 2`, that of
        an upsampled map half a kernel before what it was.
        """
        start = (self.strides[0] - 1) / 2 + self.strides[0] * (window - 1) / 2
        self.offsets = []  # the cell of the skip that the first one of the upsampled map is upon
        for factor, stride in zip(factors, self.strides[1:], strict=True):
            start -= (kernel_size(factor) - 1) / 2 * stride
            self.offsets.append(int((start - (stride - 1) / 2) / stride))
            start += max(-self.offsets[-1], 0) * stride
        if self.last:
            start -= (kernel_size(self.strides[-1]) - 1) / 2
        self.crop = int(self.pad - start)  # 19, 27 and 31 pixels of the paper's three

    def symbolic_inputs(self):
        return keras.Input(self.image_shape)

    def build(self, input_shape):
        self.normalize.build(input_shape)  # the backbone comes built
        channels = [self.backbone.channels[stage] for stage in self.stages]
        dense = [self.fc1, self.drop1, self.fc2] if self.fc1 else []
        *_, channels[0] = build_chain((None, None, None, channels[0]), *dense, self.drop)
        for score, n in zip(self.scores, channels, strict=True):
            score.build((None, None, None, n))
        for up in filter(None, (*self.ups, self.last)):
            up.build((None, None, None, self.scores[0].filters))

    def call(self, x, training=False):
        height, width = x.shape[1:3]
        x, around = self.normalize(x), _around(height, width, self.pad, self.strides[0])
        x = ops.pad(x, around) if any(map(any, around)) else x
        features = self.backbone(x, training=training)
        x = features[self.stages[0]]
        if self.fc1:
            x = self.fc2(self.drop1(self.fc1(x), training=training))
        x = self.scores[0](self.drop(x, training=training))  # (B, H/s, W/s, K)
        for i, up in enumerate(self.ups):
            skip = self.scores[i + 1](features[self.stages[i + 1]])
            x = _added(up(x), skip, self.offsets[i])
        if self.last:
            x = self.last(x)
        return x[:, self.crop : self.crop + height, self.crop : self.crop + width]


def _built(backbone, image_shape, pad, backbone_args):
    """The backbone, for the image with the zeros around it."""
    height, width, channels = image_shape
    made = catalog.build(
        backbone,
        features=True,
        image_shape=(height + 2 * pad, width + 2 * pad, channels),
        **backbone_args,
    )
    if not getattr(made, "strides", None):
        raise UserError(f"backbone {backbone}: has no maps; resnet20 and vgg16 have, for example")
    return made


def _dense(units, window, name):
    """A dense layer of each window of a map."""
    return keras.layers.Conv2D(
        units, window, activation="relu", kernel_initializer=he_normal(), name=name
    )


def _around(height, width, pad, stride):
    """Zeros around images: `pad` on each side, and more at the end until the stride divides it."""
    after = [pad + -(side + 2 * pad) % stride for side in (height, width)]
    return ((0, 0), *((pad, n) for n in after), (0, 0))


def _added(x, skip, offset):
    """The sum of two maps where both are; `skip[offset]` lies upon `x[0]`."""
    skip, x = (m[:, max(n, 0) :, max(n, 0) :] for m, n in ((skip, offset), (x, -offset)))
    height, width = (min(pair) for pair in zip(x.shape[1:3], skip.shape[1:3], strict=True))
    return x[:, :height, :width] + skip[:, :height, :width]


def _make(name, image_shape, num_classes, sizes, kwargs):
    # What is no argument of this model is one of the backbone, which refuses what it does not know.
    own = {k: v for k, v in kwargs.items() if k in arguments_of(FCN)}
    backbone_args = {k: v for k, v in kwargs.items() if k not in own}
    given = {"image_shape": tuple(image_shape), "num_classes": num_classes, **backbone_args}
    return construct(FCN, name, given, sizes, own)


def fcn32s(image_shape=(500, 500, 3), num_classes=21, **kwargs):
    return _make("fcn32s", image_shape, num_classes, {}, kwargs)


def fcn16s(image_shape=(500, 500, 3), num_classes=21, **kwargs):
    return _make("fcn16s", image_shape, num_classes, {"skips": 1}, kwargs)


def fcn8s(image_shape=(500, 500, 3), num_classes=21, **kwargs):
    return _make("fcn8s", image_shape, num_classes, {"skips": 2}, kwargs)


SMALL = {"backbone": "resnet20", "fc_dim": 0, "pad": 0, "drop_rate": 0.0, "learn_last": True}


def fcn32s_small(image_shape=(48, 48, 1), num_classes=11, **kwargs):
    """The last map of `resnet20`, of stride 4, alone."""
    return _make("fcn32s_small", image_shape, num_classes, SMALL, kwargs)


def fcn16s_small(image_shape=(48, 48, 1), num_classes=11, **kwargs):
    """The last two maps, of strides 4 and 2."""
    return _make("fcn16s_small", image_shape, num_classes, {**SMALL, "skips": 1}, kwargs)


def fcn8s_small(image_shape=(48, 48, 1), num_classes=11, **kwargs):
    """All three maps, of strides 4, 2 and 1."""
    return _make("fcn8s_small", image_shape, num_classes, {**SMALL, "skips": 2}, kwargs)


# Two strides, a score that is upsampled and one that is not, dense layers, zeros around
_TINY = {
    "image_shape": (9, 14, 1),
    "num_classes": 5,
    "backbone": "vgg11",
    "stages": ((6,), (8,)),
    "skips": 1,
    "fc_dim": 12,
    "window": 3,
    "pad": 3,
    "drop_rate": 0.1,
}
NAMES = ("fcn32s", "fcn16s", "fcn8s", "fcn32s_small", "fcn16s_small", "fcn8s_small")
TINY = {name: _TINY for name in NAMES}
RECIPE = {  # the first setting that was tried
    name: {"epochs": 12, "batch_size": 32, "lr": 0.01, "warmup_epochs": 0.5, "weight_decay": 0.01}
    for name in NAMES[3:]
}
