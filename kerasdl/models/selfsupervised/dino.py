"""DINO: a student is to say of small crops what its own running average says of large ones.

Paper:   Emerging Properties in Self-Supervised Vision Transformers, Caron et al. 2021,
         https://arxiv.org/abs/2104.14294 (section 3; appendices C and D for the head and crops).
Differs: weight decay and learning rate do not follow schedules of their own beyond the run's; no
         crop is made gray or solarized, and all are blurred alike; kernels of the backbone start at
         Glorot's, that of the patches at LeCun's, and the class token at zeros, as in our ViT;
         `dino_small` is our size for small images.
"""

import keras
from keras import ops

from kerasdl.layers.core import BatchNorm, build_chain, check_counts, construct, register
from kerasdl.models.selfsupervised.teacher import Taught
from kerasdl.models.vision_transformer.vit import EPSILON, ViTBackbone

STDDEV = 0.02  # of the kernels of the head


@register
class DINOHead(keras.layers.Layer):
    """Three dense layers with GELU between them, length 1, and cosines with `K` prototypes.

    The last layer is one with weight norm and without bias, `g v / |v|`.

    Args:
        hidden_dim: Units of the first two layers.
        bottleneck_dim: Of the third, `D`.
        output_dim: `K`.
        norm_last_layer: Whether `g` stays 1; else it is trained.
        use_bn: Whether batch norm comes before each GELU, in the place of a bias.

    Call arguments:
        h: float `(B, C)`.
        training: Whether batch norm uses, and updates, batch statistics.
        frozen: bool scalar, whether the prototypes get no gradient.

    Returns:
        float32 (or float64) logits `(B, K)`.
    """

    def __init__(
        self,
        hidden_dim=2048,
        bottleneck_dim=256,
        output_dim=65536,
        norm_last_layer=True,
        use_bn=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.output_dim = output_dim
        self.norm_last_layer = norm_last_layer
        sizes = {"hidden1": hidden_dim, "hidden2": hidden_dim, "projection": bottleneck_dim}
        self.hidden1, self.hidden2, self.projection = (
            keras.layers.Dense(
                units,
                use_bias=name == "projection" or not use_bn,
                kernel_initializer=keras.initializers.TruncatedNormal(stddev=STDDEV),
                name=name,
            )
            for name, units in sizes.items()
        )
        self.norm1 = BatchNorm(name="norm1") if use_bn else None
        self.norm2 = BatchNorm(name="norm2") if use_bn else None

    def build(self, input_shape):
        layers = (self.hidden1, self.norm1, self.hidden2, self.norm2, self.projection)
        shape = build_chain(input_shape, *filter(None, layers))
        self.prototypes = self.add_weight(
            (shape[-1], self.output_dim), "glorot_uniform", name="prototypes", autocast=False
        )
        self.scale = self.add_weight(
            (self.output_dim,),
            "ones",
            trainable=not self.norm_last_layer,
            name="scale",
            autocast=False,
        )

    def bottleneck(self, h, training=False):
        """Vectors of length 1, float32 (or float64) `(B, D)`."""
        for hidden, norm in ((self.hidden1, self.norm1), (self.hidden2, self.norm2)):
            h = hidden(h)
            h = norm(h, training=training) if norm else h
            h = ops.gelu(h, approximate=False)
        return ops.normalize(ops.cast(self.projection(h), self.variable_dtype))

    def call(self, h, training=False, frozen=False):
        kernel = self.scale * ops.normalize(self.prototypes, axis=0)
        kernel = ops.where(frozen, ops.stop_gradient(kernel), kernel)
        return ops.matmul(self.bottleneck(h, training), kernel)


@register
class DINO(Taught):
    """A ViT and a head, the student, and a teacher that follows it, whose answers are centered.

    Args:
        image_shape: `(H, W, C)`; `patch_size` divides height and width, those of crops too.
        patch_size: Side of a patch.
        dim, depth, num_heads, mlp_dim: Of the ViT; see `ViTBackbone`.
        hidden_dim, bottleneck_dim, output_dim, norm_last_layer, use_bn: Of the head; see
            `DINOHead`.
        drop_rate, drop_path: Of the student.
        epsilon, activation, qkv_bias: Of the ViT.
        input_mean, input_std: Per channel, of images in [0, 1].

    Attributes:
        classifier: See `OnBackbone`.
        center: Weight `(K,)`, not trained: the mean of the teacher's logits so far.

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1]; crops of another size too.
        training: Whether to drop, and batch statistics are on.

    Returns:
        The student's logits, float32 (or float64) `(B, K)`.

    Raises:
        UserError: Sizes that do not fit.
    """

    def __init__(
        self,
        image_shape=(224, 224, 3),
        patch_size=16,
        dim=384,
        depth=12,
        num_heads=6,
        mlp_dim=1536,
        hidden_dim=2048,
        bottleneck_dim=256,
        output_dim=65536,
        norm_last_layer=True,
        use_bn=False,
        drop_rate=0.0,
        drop_path=0.0,
        epsilon=EPSILON,
        activation="gelu",
        qkv_bias=True,
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(hidden_dim=hidden_dim, bottleneck_dim=bottleneck_dim, output_dim=output_dim)
        self.output_dim = output_dim
        vit = {
            "patch_size": patch_size,
            "dim": dim,
            "depth": depth,
            "num_heads": num_heads,
            "mlp_dim": mlp_dim,
            "epsilon": epsilon,
            "activation": activation,
            "qkv_bias": qkv_bias,
        }
        self.classifier = ("vit_s16" if dim >= 192 else "vit_digits", vit)
        rates = {"drop_rate": drop_rate, "drop_path": drop_path}
        statistics = {"input_mean": input_mean, "input_std": input_std}
        self.backbone = ViTBackbone(image_shape, **vit, **rates, **statistics)
        head = (hidden_dim, bottleneck_dim, output_dim, norm_last_layer, use_bn)
        self.head = DINOHead(*head, name="head")
        self.set_teacher("teacher", "backbone", "head")

    def build(self, input_shape):
        self.backbone.build(input_shape)
        self.head.build((None, self.backbone.dim))
        self.build_teacher(input_shape, (None, self.backbone.dim))
        self.center = self.add_weight((self.output_dim,), "zeros", trainable=False, name="center")

    def symbolic_inputs(self):
        return self.backbone.symbolic_inputs()

    def features(self, x, training=False):
        """The class token of the student, float `(B, D)`: what is kept for other uses."""
        return self.backbone(x, training=training)["cls"]

    def project(self, h):
        """What the prototypes are compared with, length 1, of representations `(B, D)`."""
        return self.head.bottleneck(h)

    def call(self, x, training=False):
        return self.head(self.features(x, training), training=training)

    def teach(self, x, training=False):
        """The teacher's logits `(B, K)` of images, before they are centered; without gradients."""
        logits = self.teacher_head(self.teacher_backbone(x)["cls"], training=training)
        return ops.stop_gradient(logits)

    def move_center(self, logits, momentum):
        """Move the center towards the mean of the teacher's `logits` `(B, K)`: equation 4."""
        mean = ops.cast(ops.mean(logits, axis=0), self.center.dtype)
        self.center.assign(momentum * self.center + (1 - momentum) * mean)

    def adapt_weight(self, path, value, shape):
        """Interpolate the grid's positions of another image size; see `Model.adapt_weight`."""
        return self.backbone.adapt_weight(path, value, shape)


def dino_s16(image_shape=(224, 224, 3), **kwargs):
    """ViT-S/16, 65,536 prototypes."""
    return construct(DINO, "dino_s16", {"image_shape": tuple(image_shape)}, {}, kwargs)


def dino_small(image_shape=(8, 8, 1), **kwargs):
    """The backbone of `vit_digits`, 256 prototypes, batch norm in the head."""
    sizes = {"patch_size": 2, "dim": 64, "depth": 4, "num_heads": 4, "mlp_dim": 128}
    sizes |= {"hidden_dim": 256, "bottleneck_dim": 64, "output_dim": 256, "use_bn": True}
    return construct(DINO, "dino_small", {"image_shape": tuple(image_shape)}, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 1),
    "patch_size": 4,
    "dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 24,
    "hidden_dim": 14,
    "bottleneck_dim": 6,
    "output_dim": 10,
    "norm_last_layer": False,
    "use_bn": True,
    "drop_rate": 0.05,
    "drop_path": 0.1,
    "epsilon": 1e-5,
    "activation": "relu",
    "qkv_bias": False,
    "input_mean": 0.4,
    "input_std": 0.3,
}
TINY = {name: _TINY for name in ("dino_small", "dino_s16")}
RECIPE = {
    "dino_s16": {  # section 3.2, "Implementation details"
        "epochs": 100,
        "batch_size": 1024,
        "lr": 0.0005,
        "lr_base_batch": 256,
        "warmup_epochs": 10,
        "min_lr": 1e-6,
        "weight_decay": 0.04,
        "clip_grad": 3.0,
        "drop_path": 0.1,
        "augment": ("resized_crop", "flip", "color", "blur"),
        "crop_scale": (0.4, 1.0),
        "task_kwargs": {"local_size": 96, "local_crops": 8},
    },
    "dino_small": {
        "epochs": 100,
        "batch_size": 128,
        "lr": 0.001,
        "warmup_epochs": 5,
        "weight_decay": 0.04,
        "clip_grad": 3.0,
        "augment": ("resized_crop", "rotate", "color", "noise"),
        "crop_scale": (0.5, 1.0),
        "sync_batch_norm": True,
        "task_kwargs": {
            "local_size": 4,
            "local_crops": 4,
            "local_scale": 0.2,
            "momentum": 0.99,
            "teacher_temperature": 0.04,
            "warmup_temperature": 0.04,
            "freeze_last_layer": 0,
        },
    },
}
