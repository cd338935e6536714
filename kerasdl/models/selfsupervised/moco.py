"""Momentum contrast: a view is told from a queue of others, which a slow encoder has made.

Paper:   Momentum Contrast for Unsupervised Visual Representation Learning, He et al. 2019,
         https://arxiv.org/abs/1911.05722 (section 3.2, algorithm 1); `moco_v2` is of Improved
         Baselines with Momentum Contrastive Learning, Chen et al. 2020,
         https://arxiv.org/abs/2003.04297 (section 3).
Differs: batch norm is synchronized over all replicas, instead of shuffling the keys between them:
         either keeps its statistics from telling which key is a query's; no view is made gray;
         `moco_small` is our size for small images.
"""

import keras
from keras import ops

from kerasdl.layers.classifier import dense_head, pooled_last
from kerasdl.layers.core import check_counts, construct_on_backbone, register
from kerasdl.models.selfsupervised.on_backbone import OnBackbone
from kerasdl.models.selfsupervised.simclr import ProjectionHead
from kerasdl.models.selfsupervised.teacher import Taught


@register
class MoCo(OnBackbone, Taught):
    """A query encoder, which is a backbone and a head, a key encoder that follows it, and a queue.

    Args:
        image_shape: `(H, W, C)`.
        backbone: Name of a vision model of the catalogue.
        projection_dim: Numbers of a query or key, `D`.
        mlp: Whether the head has a hidden layer, as wide as the representation, as in v2; else it
            is one dense layer.
        queue_size: Keys in the queue, `K`.
        input_mean, input_std: Per channel, of images in [0, 1].
        **backbone_args: Further arguments of the backbone's builder.

    Attributes:
        queue: Weight `(K, D)`, not trained: keys of length 1, the newest first.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        Queries before they have length 1, float32 (or float64) `(B, D)`.

    Raises:
        UserError: A size below 1.
    """

    def __init__(
        self,
        image_shape=(224, 224, 3),
        backbone="resnet50",
        projection_dim=128,
        mlp=False,
        queue_size=65536,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        check_counts(projection_dim=projection_dim, queue_size=queue_size)
        self.projection_dim = projection_dim
        self.queue_size = queue_size
        statistics = {"input_mean": input_mean, "input_std": input_std}
        self.set_backbone(backbone, image_shape, **statistics, **backbone_args)
        if mlp:
            self.head = ProjectionHead(projection_dim=projection_dim, name="head")
        else:
            self.head = dense_head(projection_dim)
        self.set_teacher("key", "backbone", "head")

    def build(self, input_shape):
        super().build(input_shape)
        self.build_teacher(input_shape, (None, self.backbone.width))
        self.queue = self.add_weight(
            (self.queue_size, self.projection_dim), _directions, trainable=False, name="queue"
        )

    def project(self, h):
        """Queries `(B, D)` of representations `(B, C)`, before they have length 1."""
        return self.head(h)

    def call(self, x, training=False):
        return self.project(self.features(x, training=training))

    def keys(self, x, training=False):
        """What the key encoder makes of images, length 1, float `(B, D)`; without gradients."""
        maps = self.key_backbone(x, training=training)
        keys = self.key_head(pooled_last(maps))
        return ops.stop_gradient(ops.normalize(keys))

    def enqueue(self, keys):
        """Put keys `(B, D)` before the queue's, of which the oldest leave it."""
        keys = ops.cast(keys, self.queue.dtype)
        self.queue.assign(ops.concatenate([keys, self.queue])[: self.queue_size])


def _directions(shape, dtype=None):
    """Random directions `(K, D)`, of length 1."""
    return ops.normalize(keras.initializers.RandomNormal(stddev=1.0)(shape, dtype))


def moco_v1(image_shape=(224, 224, 3), **kwargs):
    """ResNet-50, one dense layer."""
    return construct_on_backbone(MoCo, "moco_v1", image_shape, {}, kwargs)


def moco_v2(image_shape=(224, 224, 3), **kwargs):
    """ResNet-50, a hidden layer of 2,048 units."""
    return construct_on_backbone(MoCo, "moco_v2", image_shape, {"mlp": True}, kwargs)


def moco_small(image_shape=(32, 32, 3), **kwargs):
    """v2 of a residual network for small images."""
    sizes = {"backbone": "resnet20", "projection_dim": 64, "mlp": True, "queue_size": 1024}
    return construct_on_backbone(MoCo, "moco_small", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 1),
    "backbone": "resnet32",
    "depths": (1, 1),
    "filters": 8,
    "projection_dim": 6,
    "mlp": True,
    "queue_size": 20,
}
TINY = {name: _TINY for name in ("moco_small", "moco_v1", "moco_v2")}
_PAPER = {  # section 3.3 and appendix; of 1.28 million images
    "epochs": 200,
    "batch_size": 256,
    "opt": "sgd",
    "lr": 0.03,
    "weight_decay": 1e-4,
    "crop_scale": (0.2, 1.0),
    "sync_batch_norm": True,
}
RECIPE = {
    "moco_v1": {
        **_PAPER,
        "sched": "step",
        "decay_epochs": 60.0,
        "augment": ("resized_crop", "flip", "color"),
    },
    "moco_v2": {
        **_PAPER,
        "augment": ("resized_crop", "flip", "color", "blur"),
        "task_kwargs": {"temperature": 0.2},
    },
    "moco_small": {
        "epochs": 100,
        "batch_size": 256,
        "lr": 0.002,
        "warmup_epochs": 3,
        "augment": ("resized_crop", "rotate", "color", "noise"),
        "sync_batch_norm": True,
        "task_kwargs": {"temperature": 0.2, "momentum": 0.99},
    },
}
