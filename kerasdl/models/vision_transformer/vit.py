"""Vision Transformer.

Paper:   An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale,
         Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929 (section 3.1, equations 1 to 4,
         table 1); the sizes Ti and S are of Touvron et al. 2020, https://arxiv.org/abs/2012.12877
         (table 1). `dinov2_s14` is of DINOv2, Oquab et al. 2023, https://arxiv.org/abs/2304.07193;
         registers are those of Darcet et al. 2023, https://arxiv.org/abs/2309.16588; layer scale
         is of Touvron et al. 2021, https://arxiv.org/abs/2103.17239 (equation 4); fixed positions
         are those of He et al. 2021, https://arxiv.org/abs/2111.06377.
Differs: stochastic depth is offered (Touvron et al., table 9); `vit_digits` is our size for small
         images; the head is one dense layer, the paper's for fine-tuning, and starts at Glorot's
         kernel.
"""

import math

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.attention import SelfAttention
from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import build_chain, register
from kerasdl.layers.dropout import Dropout, DropPath
from kerasdl.layers.mlp import MLP, SwiGLU
from kerasdl.layers.norm import LayerScale
from kerasdl.layers.position import resize_grid
from kerasdl.layers.remat import Block
from kerasdl.models.vision_transformer.tokens import Tokens
from kerasdl.ops.tokens import take_tokens

EPSILON = 1e-6  # of layer norm, in the paper's code
POOLINGS = ("cls", "mean", "cls_mean", "all_mean")


@register
class EncoderBlock(Block):
    """Pre-norm attention and perceptron, each added to its input (equations 2 and 3).

    Args:
        num_heads: Heads of the attention.
        mlp_dim: Units inside the perceptron.
        drop_rate: Dropout after every dense layer but the one of query, key and value.
        drop_path: Stochastic depth of both branches.
        epsilon: Of layer norm.
        activation: Of the perceptron; a name of `kerasdl.layers.activation.ACTIVATIONS`.
        gated: Whether the perceptron is a `SwiGLU` instead, of `mlp_dim` units.
        qkv_bias: Whether query, key and value have biases.
        mlp_bias: Whether the perceptron has biases.
        project_bias: Whether the dense layer behind the heads has one; as `mlp_bias` says if None.
        layer_scale: What each channel of both branches is multiplied by at first; None for no
            such factors.

    Call arguments:
        x: float `(B, N, D)`.
        training: Whether to drop.
        return_weights: Whether to give the attention weights as well.

    Returns:
        float `(B, N, D)`; with `return_weights` also `(B, h, N, N)`.
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        drop_rate=0.0,
        drop_path=0.0,
        epsilon=EPSILON,
        activation="gelu",
        gated=False,
        qkv_bias=True,
        mlp_bias=True,
        layer_scale=None,
        project_bias=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        project_bias = mlp_bias if project_bias is None else project_bias
        self.norm1 = keras.layers.LayerNormalization(epsilon=epsilon, name="norm1")
        self.attention = SelfAttention(
            num_heads, use_bias=qkv_bias, project_bias=project_bias, name="attention"
        )
        self.drop = Dropout(drop_rate, name="drop")
        self.norm2 = keras.layers.LayerNormalization(epsilon=epsilon, name="norm2")
        if gated:
            self.mlp = SwiGLU(mlp_dim, use_bias=mlp_bias, name="mlp")
        else:
            self.mlp = MLP(mlp_dim, activation, drop_rate, use_bias=mlp_bias, name="mlp")
        self.scale1 = self.scale2 = None
        if layer_scale is not None:
            self.scale1 = LayerScale(layer_scale, name="scale1")
            self.scale2 = LayerScale(layer_scale, name="scale2")
        self.drop_path1 = DropPath(drop_path, name="drop_path1")
        self.drop_path2 = DropPath(drop_path, name="drop_path2")

    def build(self, input_shape):
        branches = (self.norm1, self.attention, self.drop, self.norm2, self.mlp)
        scales = (self.scale1, self.scale2) if self.scale1 else ()
        for child in (*branches, *scales, self.drop_path1, self.drop_path2):
            child.build(input_shape)

    def call(self, x, training=False, return_weights=False):
        y, weights = self.attention(self.norm1(x), training=training, return_weights=True)
        y = self.drop(y, training=training)
        x = x + self.drop_path1(self.scale1(y) if self.scale1 else y, training=training)
        y = self.mlp(self.norm2(x), training=training)
        y = self.scale2(y) if self.scale2 else y
        x = x + self.drop_path2(y, training=training)
        return (x, weights) if return_weights else x


@register
class ViTBackbone(Backbone):
    """Tokens, then encoder blocks, then layer norm.

    Args:
        image_shape: `(H, W, C)`; `patch_size` divides height and width.
        patch_size: Side of a patch, `P`.
        dim: Channels of a token, `D`.
        depth: Blocks, `L`.
        num_heads: Heads of each block.
        mlp_dim: Units inside each block's perceptron.
        drop_rate: Dropout of the tokens, and after the dense layers of the blocks.
        drop_path: Stochastic depth of the last block; it rises linearly from 0 at the first.
        epsilon: Of every layer norm.
        activation, gated, qkv_bias, mlp_bias, project_bias, layer_scale: Of the blocks; see
            `EncoderBlock`.
        class_token, registers, positions_before, patch_bias, fixed_positions: Of the tokens; see
            `Tokens`.
        final_norm: Whether layer norm comes last.
        pre_norm: Whether layer norm comes between the tokens and the blocks.
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1]; of another size too, to whose patches the
            positions are interpolated.
        training: Whether to drop.

    Returns:
        `{"cls": (B, D), "stage1": (B, H/P, W/P, D), ...}`: the patches' tokens after each quarter
        of the blocks, the last of them after layer norm as the class token is. `cls` is there if
        the class token is.
    """

    def __init__(
        self,
        image_shape,
        patch_size=16,
        dim=192,
        depth=12,
        num_heads=3,
        mlp_dim=768,
        drop_rate=0.0,
        drop_path=0.0,
        epsilon=EPSILON,
        activation="gelu",
        gated=False,
        qkv_bias=True,
        mlp_bias=True,
        layer_scale=None,
        class_token=True,
        registers=0,
        positions_before=None,
        fixed_positions=False,
        final_norm=True,
        input_mean=0.0,
        input_std=1.0,
        project_bias=None,
        patch_bias=True,
        pre_norm=False,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, patch_size, f"a ViT of {patch_size}x{patch_size} patches")
        check_patches(self.image_shape, patch_size)
        if dim % num_heads:
            raise UserError(f"num_heads {num_heads}: must divide dim {dim}")
        self.dim = dim
        self.num_heads = num_heads
        self.gated = gated
        self.grid = tuple(side // patch_size for side in self.image_shape[:2])
        tokens = (class_token, registers, positions_before, patch_bias, fixed_positions)
        self.tokens = Tokens(dim, patch_size, *tokens, name="tokens")
        self.pre_norm = None
        if pre_norm:
            self.pre_norm = keras.layers.LayerNormalization(epsilon=epsilon, name="pre_norm")
        self.drop = Dropout(drop_rate, name="drop")
        self.blocks = [
            EncoderBlock(
                num_heads,
                mlp_dim,
                drop_rate,
                drop_path * i / max(1, depth - 1),
                epsilon,
                activation,
                gated,
                qkv_bias,
                mlp_bias,
                layer_scale,
                project_bias,
                name=f"block{i + 1}",
            )
            for i in range(depth)
        ]
        self.norm = None
        if final_norm:
            self.norm = keras.layers.LayerNormalization(epsilon=epsilon, name="norm")
        quarters = min(4, depth)
        self.ends = {depth * (i + 1) // quarters: f"stage{i + 1}" for i in range(quarters)}
        self.strides = dict.fromkeys(self.ends.values(), patch_size)
        self.channels = dict.fromkeys(self.ends.values(), dim)

    def build(self, input_shape):
        build_chain(input_shape, self.normalize, self.tokens)
        shape = (None, self.tokens.before + self.grid[0] * self.grid[1], self.dim)
        for child in filter(None, (self.pre_norm, self.drop, *self.blocks, self.norm)):
            child.build(shape)

    def call(self, x, training=False):
        x, stages = self._encoded(x, training)
        return {**({"cls": x[:, 0]} if self.tokens.class_token else {}), **stages}

    def encode(self, x, training=False, visible=None):
        """Every token after the last layer norm, float `(B, N, D)`, those of the patches last.

        Args:
            x: float `(B, H, W, C)`, images in [0, 1].
            training: Whether to drop.
            visible: int `(B, M)`, the numbers of the patches that the blocks are given, in the
                order of their tokens; all if None.
        """
        return self._encoded(x, training, visible)[0]

    def _encoded(self, x, training, visible=None):
        grid = tuple(side // self.tokens.patch_size for side in x.shape[1:3])
        x = self.embed(x)  # (B, N, D)
        if visible is not None:
            before = self.tokens.before
            x = ops.concatenate([x[:, :before], take_tokens(x[:, before:], visible)], axis=1)
        x = self.drop(x, training=training)
        stages = {}
        for i, block in enumerate(self.blocks):
            x = block(x, training=training)
            if i + 1 == len(self.blocks) and self.norm:
                x = self.norm(x)
            if i + 1 in self.ends and visible is None:
                patches = x[:, self.tokens.before :]
                stages[self.ends[i + 1]] = ops.reshape(patches, (-1, *grid, self.dim))
        return x, stages

    def embed(self, x):
        """What the first block is given, float `(B, N, D)`; it has no dropout."""
        x = self.tokens(self.normalize(x))
        return self.pre_norm(x) if self.pre_norm else x

    def attention_maps(self, x):
        """The attention weights of every block; see `ViT.attention_maps`."""
        x = self.embed(x)
        maps = []
        for block in self.blocks:
            x, weights = block(x, training=False, return_weights=True)
            maps.append(weights)
        return ops.stack(maps, axis=1)

    def adapt_weight(self, path, value, shape):
        """Interpolate the grid's positions of another image size; see `Model.adapt_weight`."""
        if path.endswith("positions/grid") and value.shape[-1] == shape[-1]:
            return resize_grid(value, *shape[:2])
        return super().adapt_weight(path, value, shape)


@register
class ViT(Classifier):
    """A `ViTBackbone`, which has the dropout, and a dense layer on the class token (equation 4).

    Args:
        image_shape: `(H, W, C)`.
        num_classes: `K`.
        drop_rate: Of the backbone.
        pooling: What the dense layer is given: "cls", the class token; "mean", that of the
            patches; "cls_mean", both side by side; "all_mean", the mean of both together.
        pool_norm: Whether layer norm comes behind the pooling, as where `final_norm` is off.
        **kwargs: Further arguments of the backbone.
    """

    backbone_class = ViTBackbone
    drops = ("backbone",)

    def __init__(
        self,
        image_shape=(224, 224, 3),
        num_classes=1000,
        drop_rate=0.0,
        pooling="cls",
        pool_norm=False,
        **kwargs,
    ):
        super().__init__(image_shape, num_classes, drop_rate, **kwargs)
        if pooling not in POOLINGS:
            raise UserError(f"pooling {pooling!r}: not one of {', '.join(POOLINGS)}")
        if pooling != "mean" and not self.backbone.tokens.class_token:
            raise UserError(f"pooling {pooling!r}: there is no class token; take pooling='mean'")
        self.pooling = pooling
        self.num_heads = self.backbone.num_heads
        self.pool_norm = None
        if pool_norm:
            epsilon = kwargs.get("epsilon", EPSILON)
            self.pool_norm = keras.layers.LayerNormalization(epsilon=epsilon, name="pool_norm")

    def build(self, input_shape):
        self.backbone.build(input_shape)
        width = self.backbone.width * (1 + (self.pooling == "cls_mean"))
        build_chain((None, width), *filter(None, [self.pool_norm]), self.drop, self.head)

    def pool(self, features):
        if self.pooling == "all_mean":  # without the registers
            patches = math.prod(self.backbone.grid)
            x = (features["cls"] + patches * super().pool(features)) / (patches + 1)
            return self.pool_norm(x) if self.pool_norm else x
        parts = [features["cls"]] if "cls" in self.pooling else []
        parts += [super().pool(features)] if "mean" in self.pooling else []
        x = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
        return self.pool_norm(x) if self.pool_norm else x

    def attention_maps(self, x):
        """Where each token looks, as figure 6 shows it.

        Args:
            x: float `(B, H, W, C)`, images in [0, 1].

        Returns:
            float `(B, L, h, N, N)`: block, head, looking token, token looked at; the class token
            is token 0, and the last axis sums to 1.
        """
        return self.backbone.attention_maps(x)

    def adapt_weight(self, path, value, shape):
        """Interpolate the grid's positions of another image size; see `Model.adapt_weight`."""
        return self.backbone.adapt_weight(path, value, shape)


def check_patches(image_shape, patch_size):
    """Refuse an image that is not made of whole patches; name the nearest sizes that are."""
    height, width = image_shape[:2]
    if height % patch_size or width % patch_size:
        below = [side // patch_size * patch_size for side in (height, width)]
        above = [-(-side // patch_size) * patch_size for side in (height, width)]
        raise UserError(
            f"image_shape {tuple(image_shape)}: {patch_size}x{patch_size} patches do not divide "
            f"{height}x{width}; the nearest sizes that work are {below[0]}x{below[1]} and "
            f"{above[0]}x{above[1]}"
        )


# Table 1 of both papers: dim, depth, heads, units of the perceptron
SIZES = {
    "vit_ti16": (192, 12, 3, 768),
    "vit_s16": (384, 12, 6, 1536),
    "vit_b16": (768, 12, 12, 3072),
    "vit_l16": (1024, 24, 16, 4096),
}


def _imagenet(name, image_shape, num_classes, kwargs):
    sizes = dict(zip(("dim", "depth", "num_heads", "mlp_dim"), SIZES[name], strict=True))
    return make(ViT, name, image_shape, num_classes, sizes, kwargs)


def vit_ti16(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    """ViT-Ti/16, 3 heads of 64."""
    return _imagenet("vit_ti16", image_shape, num_classes, kwargs)


def vit_s16(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    """ViT-S/16, 6 heads of 64."""
    return _imagenet("vit_s16", image_shape, num_classes, kwargs)


def vit_b16(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    """ViT-B/16, 12 heads of 64."""
    return _imagenet("vit_b16", image_shape, num_classes, kwargs)


def vit_l16(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    """ViT-L/16, 24 blocks of 16 heads of 64."""
    return _imagenet("vit_l16", image_shape, num_classes, kwargs)


def dinov2_s14(image_shape=(224, 224, 3), num_classes=1000, **kwargs):
    """DINOv2's ViT-S/14 with layer scale; its linear classifier sees class token and patches."""
    sizes = {"patch_size": 14, "dim": 384, "depth": 12, "num_heads": 6, "mlp_dim": 1536}
    sizes |= {"layer_scale": 1e-5, "pooling": "cls_mean"}
    return make(ViT, "dinov2_s14", image_shape, num_classes, sizes, kwargs)


def vit_digits(image_shape=(8, 8, 1), num_classes=10, **kwargs):
    """A ViT for images of 8x8 pixels: 2x2 patches, 4 blocks of 64 channels."""
    sizes = {"patch_size": 2, "dim": 64, "depth": 4, "num_heads": 4, "mlp_dim": 128}
    return make(ViT, "vit_digits", image_shape, num_classes, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 1),
    "num_classes": 7,
    "patch_size": 4,
    "dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 24,
    "drop_rate": 0.05,
    "drop_path": 0.1,
    "input_mean": 0.4,
    "input_std": 0.3,
}
TINY = {name: _TINY for name in (*SIZES, "vit_digits")}
TINY["dinov2_s14"] = {
    **_TINY,
    "epsilon": 1e-5,
    "gated": True,
    "qkv_bias": False,
    "layer_scale": 0.5,
    "registers": 2,
    "pool_norm": True,
}
RECIPE = {
    "vit_digits": {
        "epochs": 60,
        "lr": 0.004,
        "warmup_epochs": 5.0,
        "weight_decay": 0.05,
        "drop_path": 0.1,
        "mixup": 0.5,
        "augment": ("shift",),
        "weights": "last",
    },
}
