"""Contrastive learning of images without labels.

Paper:   A Simple Framework for Contrastive Learning of Visual Representations, Chen et al. 2020,
         https://arxiv.org/abs/2002.05709 (figure 2; section 4.2 for the projection head; section
         2.1 and appendix B.6 for the recipe).
Differs: `simclr_small` is a small residual network for small images. The recipe of `simclr` has
         batches of 256, which fit small data; with larger ones the rate grows as the paper's.
"""

import keras

from kerasdl.layers.classifier import dense_head
from kerasdl.layers.core import build_chain, construct_on_backbone, register
from kerasdl.models.selfsupervised.on_backbone import OnBackbone


@register
class ProjectionHead(keras.layers.Layer):
    """`g(h) = W2 relu(W1 h)`: what the contrastive loss compares, and is then thrown away.

    Args:
        hidden_dim: Units of the hidden layer, or None for as many as `h` has.
        projection_dim: `D`.

    Call arguments:
        h: float `(B, C)`.

    Returns:
        float32 (or float64) `(B, D)`.
    """

    def __init__(self, hidden_dim=None, projection_dim=128, **kwargs):
        super().__init__(**kwargs)
        self.hidden_dim = hidden_dim
        self.output_layer = dense_head(projection_dim, name="output")

    def build(self, input_shape):
        units = self.hidden_dim or input_shape[-1]
        self.hidden = keras.layers.Dense(units, activation="relu", name="hidden")
        build_chain(input_shape, self.hidden, self.output_layer)

    def call(self, h):
        return self.output_layer(self.hidden(h))


@register
class SimCLR(OnBackbone):
    """A backbone `f`, average pooling, and a projection head `g`.

    Args:
        image_shape: `(H, W, C)`.
        backbone: Name of a vision model of the catalogue.
        hidden_dim: Units of the head's hidden layer; as many as the representation has if None.
        projection_dim: `D`.
        input_mean, input_std: Per channel, of images in [0, 1].
        **backbone_args: Further arguments of the backbone's builder.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        Projections `z = g(h)`, float32 (or float64) `(B, D)`.
    """

    def __init__(
        self,
        image_shape=(224, 224, 3),
        backbone="resnet50",
        hidden_dim=None,
        projection_dim=128,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        statistics = {"input_mean": input_mean, "input_std": input_std}
        self.set_backbone(backbone, image_shape, **statistics, **backbone_args)
        self.head = ProjectionHead(hidden_dim, projection_dim, name="head")

    def project(self, h):
        """Projections `z = g(h)` `(B, D)` of representations `(B, C)`."""
        return self.head(h)

    def call(self, x, training=False):
        return self.project(self.features(x, training=training))


def simclr(image_shape=(224, 224, 3), **kwargs):
    """A ResNet-50, and a head of 2,048 and 128 units."""
    return construct_on_backbone(SimCLR, "simclr", image_shape, {}, kwargs)


def simclr_small(image_shape=(32, 32, 3), **kwargs):
    sizes = {"backbone": "resnet20", "projection_dim": 64}
    return construct_on_backbone(SimCLR, "simclr_small", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 1),
    "backbone": "resnet32",
    "depths": (1, 1),
    "filters": 8,
    "hidden_dim": 11,
    "projection_dim": 6,
}
TINY = {"simclr": _TINY, "simclr_small": _TINY}
RECIPE = {
    "simclr": {
        "epochs": 100,
        "batch_size": 256,
        "opt": "lars",
        "lr": 0.3,
        "lr_base_batch": 256,
        "weight_decay": 1e-6,
        "warmup_epochs": 10,
        "augment": ("resized_crop", "flip", "color", "blur"),
        "crop_scale": (0.08, 1.0),
        "sync_batch_norm": True,  # section 2.1: else a replica's statistics tell its own pairs
        "task_kwargs": {"temperature": 0.1},
    },
    "simclr_small": {
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.002,
        "warmup_epochs": 3,
        "augment": ("resized_crop", "rotate", "color", "noise"),
        "sync_batch_norm": True,
    },
}
