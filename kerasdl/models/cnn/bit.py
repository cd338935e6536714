"""ResNets v2 with group norm and standardized kernels, made to be trained on much and tuned on few.

Paper:   Big Transfer (BiT): General Visual Representation Learning, Kolesnikov et al. 2020,
         https://arxiv.org/abs/1912.11370 (sections 3.1 and 3.2).
Differs: 1e-8 is added to the variance of kernels, as timm has it; the authors' code has 1e-10. The
         data that BiT-M and BiT-L are trained on are not here; their weights can be imported.
"""

from kerasdl.layers.classifier import make
from kerasdl.models.cnn.resnet_v2 import ResNetV2

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
# What all of them have
BIT = {
    "bottleneck": True,
    "stride_in_3x3": True,
    "projects_first": True,
    "norm": "group",
    "kernel_epsilon": 1e-8,
    "pads_with_zeros": True,
}


def _bit(name, image_shape, num_classes, kwargs):
    depth, factor = map(int, name.removeprefix("bit_r").split("x"))
    widths = tuple(factor * d for d in (256, 512, 1024, 2048))
    sizes = {"depths": DEPTHS[depth], "filters": widths, "stem_filters": 64 * factor}
    return make(ResNetV2, name, image_shape, num_classes, {**BIT, **sizes}, kwargs)


def bit_r50x1(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _bit("bit_r50x1", image_shape, num_classes, kwargs)


def bit_r101x1(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    return _bit("bit_r101x1", image_shape, num_classes, kwargs)


_TINY = {
    "image_shape": (14, 20, 1),
    "num_classes": 7,
    "depths": (1, 2),
    "filters": (8, 12),
    "stem_filters": 8,
    "inner": (4, 6),
    "groups": 2,
    "kernel_epsilon": 1e-4,
    "drop_rate": 0.1,
}
TINY = {"bit_r50x1": _TINY, "bit_r101x1": _TINY}
