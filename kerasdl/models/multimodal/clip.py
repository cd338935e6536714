"""CLIP: images and texts embedded in one space.

Paper:   Learning Transferable Visual Models From Natural Language Supervision, Radford et al. 2021,
         https://arxiv.org/abs/2103.00020 (sections 2.3 and 2.4, figure 3; table 20 for ViT-B/32).
Differs: a ResNet as image tower is one of the catalogue with average pooling, not the paper's own
         with attention pooling; kernels start as in our ViT and GPT; `clip_small` is our size for
         scenes of digits.
"""

import math

import keras
from keras import ops

from kerasdl.layers.classifier import pooled_last
from kerasdl.layers.core import check_counts, construct_on_backbone, register
from kerasdl.layers.mlp import dense
from kerasdl.models.selfsupervised.on_backbone import OnBackbone
from kerasdl.models.sequence.gpt import GPT
from kerasdl.ops.losses import unit

EPSILON = 1e-5  # of layer norm, in the authors' code
TEMPERATURE = 0.07  # at first


@register
class CLIP(OnBackbone):
    """Two towers, an image's and a text's, and a projection of each into one space.

    The tower of texts is a `GPT` of learned positions; what stands for a text is its answer at the
    token that ends it.

    Args:
        image_shape: `(H, W, C)`.
        vocab_size: `V`.
        max_length: Maximum number of tokens of a text, with those that begin and end it.
        projection_dim: Channels of the common space, `P`.
        text_dim: Channels of a token of a text.
        text_depth: Blocks of the tower of texts.
        text_heads: Heads of each of these blocks; divides `text_dim`.
        text_mlp_dim: Units inside each of their perceptrons.
        text_activation: Of these perceptrons; a name of `kerasdl.layers.activation.ACTIVATIONS`.
        text_epsilon: Of the layer norms of the tower of texts.
        text_drop_rate: Dropout of its tokens and blocks.
        eos_id: The id that ends a text, at its first place; if None the largest id of a text does.
        backbone: Name of a vision model of the catalogue, the tower of images; what stands for an
            image is its class token, or else the mean of its last map.
        input_mean, input_std: Per channel, of images in [0, 1].
        **backbone_args: Further arguments of the backbone's builder.

    Attributes:
        logit_scale: The logarithm of what cosines are multiplied by, `()`; `ln(1 / 0.07)` at first.

    Call arguments:
        x: `{"image": float (B, H, W, C) in [0, 1], "caption_ids": int (B, N)}`; what stands behind
            the end of a text changes nothing.
        training: Whether dropout and batch statistics are on.

    Returns:
        `{"image_embeds": (B, P), "text_embeds": (B, P)}`, float32 (or float64) of length 1.

    Raises:
        UserError: Sizes that do not fit, or an argument that the backbone does not take.
    """

    def __init__(
        self,
        image_shape=(224, 224, 3),
        vocab_size=49408,
        max_length=77,
        projection_dim=512,
        text_dim=512,
        text_depth=12,
        text_heads=8,
        text_mlp_dim=2048,
        text_activation="quick_gelu",
        text_epsilon=EPSILON,
        text_drop_rate=0.0,
        eos_id=None,
        backbone="vit_b16",
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        check_counts(projection_dim=projection_dim)
        statistics = {"input_mean": input_mean, "input_std": input_std}
        self.set_backbone(backbone, image_shape, **statistics, **backbone_args)
        self.context = max_length
        self.projection_dim = projection_dim
        self.eos_id = eos_id
        self.text = GPT(
            vocab_size,
            max_length,
            text_dim,
            text_depth,
            text_heads,
            text_mlp_dim,
            activation=text_activation,
            epsilon=text_epsilon,
            drop_rate=text_drop_rate,
            name="text",
        )
        self.visual_projection = self.text_projection = None  # made in build()

    def build(self, input_shape):
        self.text.build(input_shape["caption_ids"])
        widths = {"visual_projection": self.backbone.width, "text_projection": self.text.dim}
        for name, width in widths.items():
            layer = dense(self.projection_dim, name, width**-0.5, False, self.variable_dtype)
            layer.build((None, width))
            setattr(self, name, layer)
        self.logit_scale = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(-math.log(TEMPERATURE)),
            name="logit_scale",
            autocast=False,
        )

    def symbolic_inputs(self):
        return {
            "image": self.backbone.symbolic_inputs(),
            "caption_ids": keras.Input((None,), dtype="int32"),
        }

    def features(self, x, training=False):
        """What stands for images `(B, H, W, C)` in their own tower, float `(B, D)`."""
        maps = self.backbone(x, training=training)
        return maps["cls"] if "cls" in maps else pooled_last(maps)

    def project(self, features):
        """Embeddings `(B, P)` of length 1 of images whose features are `(B, D)`."""
        return unit(self.visual_projection(features))

    def encode_image(self, image, training=False):
        """Embeddings `(B, P)` of length 1 of images `(B, H, W, C)` in [0, 1]."""
        return self.project(self.features(image, training=training))

    def encode_text(self, caption_ids, training=False):
        """Embeddings `(B, P)` of length 1 of texts, int `(B, N)` with their end."""
        caption_ids = ops.cast(caption_ids, "int32")
        ends = caption_ids if self.eos_id is None else ops.equal(caption_ids, self.eos_id)
        end = ops.argmax(ops.cast(ends, "int32"), axis=-1)  # the first of the largest
        x = self.text.encode(caption_ids, training=training)  # (B, N, D)
        x = ops.take_along_axis(x, ops.cast(end, "int32")[:, None, None], axis=1)[:, 0]
        return unit(self.text_projection(x))

    def logits(self, image_embeds, text_embeds):
        """Scaled cosines `(B, M)` of images `(B, P)` and texts `(M, P)`."""
        return ops.exp(self.logit_scale) * ops.matmul(image_embeds, ops.transpose(text_embeds))

    def call(self, x, training=False):
        return {
            "image_embeds": self.encode_image(x["image"], training=training),
            "text_embeds": self.encode_text(x["caption_ids"], training=training),
        }


_VIT = {"pre_norm": True, "patch_bias": False, "activation": "quick_gelu", "epsilon": EPSILON}


def clip_b32(image_shape=(224, 224, 3), vocab_size=49408, max_length=77, **kwargs):
    """The paper's ViT-B/32 with 12 blocks of 512 channels for texts."""
    kwargs = {"vocab_size": vocab_size, "max_length": max_length, **kwargs}
    sizes = {"backbone": "vit_b16", "patch_size": 32, **_VIT}
    return construct_on_backbone(CLIP, "clip_b32", image_shape, sizes, kwargs)


def clip_small(image_shape=(48, 48, 1), vocab_size=512, max_length=16, **kwargs):
    """A residual network of three narrow stages, and two blocks of 64 channels for texts."""
    kwargs = {"vocab_size": vocab_size, "max_length": max_length, **kwargs}
    sizes = {"backbone": "resnet18", "depths": (1, 1, 1), "filters": (32, 64, 128)}
    sizes |= {"projection_dim": 64, "text_dim": 64, "text_depth": 2}
    sizes |= {"text_heads": 4, "text_mlp_dim": 256}
    return construct_on_backbone(CLIP, "clip_small", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 1),
    "vocab_size": 13,
    "max_length": 8,
    "projection_dim": 6,
    "text_dim": 12,
    "text_depth": 1,
    "text_heads": 3,
    "text_mlp_dim": 20,
    "text_drop_rate": 0.05,
    "eos_id": 2,
    "input_mean": 0.4,
    "input_std": 0.3,
}
TINY = {
    "clip_b32": {
        **_TINY,
        "patch_size": 4,
        "dim": 16,
        "depth": 1,
        "num_heads": 2,
        "mlp_dim": 24,
    },
    "clip_small": {**_TINY, "backbone": "resnet32", "depths": (1, 1), "filters": 8},
}
RECIPE = {
    "clip_b32": {"lr": 0.0005, "weight_decay": 0.2, "warmup_epochs": 1.0},
    "clip_small": {
        "epochs": 50,
        "batch_size": 128,
        "lr": 0.002,
        "warmup_epochs": 1.0,
        "weight_decay": 0.1,
        "augment": ("shift", "rotate", "noise"),
        "eval_epochs": 10,
        "task_kwargs": {"templates": ["a {}", "an {}"]},
    },
}
