"""Bootstrap your own latent: one view predicts what a slow network makes of another.

Paper:   Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning, Grill et al. 2020,
         https://arxiv.org/abs/2006.07733 (figure 2; sections 3.1 and 3.2).
Differs: dense layers before batch norm have no bias, which it would take away again; both views
         go through batch norm together, and are blurred alike; none is made gray or solarized;
         `byol_small` is our size for small images.
"""

import keras
from keras import ops

from kerasdl.layers.classifier import pooled_last
from kerasdl.layers.core import (
    BatchNorm,
    build_chain,
    check_counts,
    construct_on_backbone,
    register,
)
from kerasdl.models.selfsupervised.on_backbone import OnBackbone
from kerasdl.models.selfsupervised.teacher import Taught


@register
class NormedMLP(keras.layers.Layer):
    """A dense layer, batch norm, ReLU and a dense layer without bias: projector and predictor.

    Args:
        hidden_dim: Units of the hidden layer.
        output_dim: `D`.

    Call arguments:
        x: float `(B, C)`.
        training: Whether batch norm uses, and updates, batch statistics.

    Returns:
        float32 (or float64) `(B, D)`.
    """

    def __init__(self, hidden_dim, output_dim, **kwargs):
        super().__init__(**kwargs)
        self.hidden = keras.layers.Dense(hidden_dim, use_bias=False, name="hidden")
        self.norm = BatchNorm(name="norm")
        wide = keras.config.dtype_policy().variable_dtype
        self.output_layer = keras.layers.Dense(
            output_dim, use_bias=False, dtype=wide, name="output"
        )

    def build(self, input_shape):
        build_chain(input_shape, self.hidden, self.norm, self.output_layer)

    def call(self, x, training=False):
        return self.output_layer(ops.relu(self.norm(self.hidden(x), training=training)))


@register
class BYOL(OnBackbone, Taught):
    """An online network of backbone, projector and predictor, and a target network of two of them.

    Args:
        image_shape: `(H, W, C)`.
        backbone: Name of a vision model of the catalogue.
        hidden_dim: Units of the hidden layers of projector and predictor.
        projection_dim: `D`.
        input_mean, input_std: Per channel, of images in [0, 1].
        **backbone_args: Further arguments of the backbone's builder.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        Predictions `q(z)` of the online network, float32 (or float64) `(B, D)`.

    Raises:
        UserError: A size below 1.
    """

    def __init__(
        self,
        image_shape=(224, 224, 3),
        backbone="resnet50",
        hidden_dim=4096,
        projection_dim=256,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        check_counts(hidden_dim=hidden_dim, projection_dim=projection_dim)
        self.projection_dim = projection_dim
        statistics = {"input_mean": input_mean, "input_std": input_std}
        self.set_backbone(backbone, image_shape, **statistics, **backbone_args)
        self.head = NormedMLP(hidden_dim, projection_dim, name="head")
        self.predictor = NormedMLP(hidden_dim, projection_dim, name="predictor")
        self.set_teacher("target", "backbone", "head")

    def build(self, input_shape):
        super().build(input_shape)
        self.predictor.build((None, self.projection_dim))
        self.build_teacher(input_shape, (None, self.backbone.width))

    def project(self, h, training=False):
        """Projections `z` `(B, D)` of representations `(B, C)`."""
        return self.head(h, training=training)

    def predictions(self, z, training=False):
        """Predictions `q(z)` `(B, D)` of projections `(B, D)`."""
        return self.predictor(z, training=training)

    def call(self, x, training=False):
        return self.predictions(self.project(self.features(x, training), training), training)

    def targets(self, x, training=False):
        """What the target network makes of images, float `(B, D)`; without gradients."""
        maps = self.target_backbone(x, training=training)
        z = self.target_head(pooled_last(maps), training=training)
        return ops.stop_gradient(z)


def byol(image_shape=(224, 224, 3), **kwargs):
    """ResNet-50."""
    return construct_on_backbone(BYOL, "byol", image_shape, {}, kwargs)


def byol_small(image_shape=(32, 32, 3), **kwargs):
    """A residual network for small images."""
    sizes = {"backbone": "resnet20", "hidden_dim": 256, "projection_dim": 64}
    return construct_on_backbone(BYOL, "byol_small", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 1),
    "backbone": "resnet32",
    "depths": (1, 1),
    "filters": 8,
    "hidden_dim": 11,
    "projection_dim": 6,
}
TINY = {name: _TINY for name in ("byol_small", "byol")}
RECIPE = {
    "byol": {  # section 3.3, but for LARS
        "epochs": 1000,
        "batch_size": 4096,
        "opt": "sgd",
        "lr": 0.2,
        "lr_base_batch": 256,
        "warmup_epochs": 10,
        "weight_decay": 1.5e-6,
        "crop_scale": (0.08, 1.0),
        "augment": ("resized_crop", "flip", "color", "blur"),
        "sync_batch_norm": True,
    },
    "byol_small": {
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.002,
        "warmup_epochs": 3,
        "augment": ("resized_crop", "rotate", "color", "noise"),
        "sync_batch_norm": True,
        "task_kwargs": {"momentum": 0.98},
    },
}
