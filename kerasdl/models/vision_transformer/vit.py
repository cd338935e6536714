"""Vision Transformer.

Paper:   An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale,
         Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929 (section 3.1, equations 1 to 4,
         table 1); the sizes Ti and S are of Touvron et al. 2020, https://arxiv.org/abs/2012.12877
         (table 1).
Differs: stochastic depth is offered (Touvron et al., table 9); `vit_digits` is our size for small
         images; the head is one dense layer, the paper's for fine-tuning, and starts at Glorot's
         kernel.
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.attention import SelfAttention
from kerasdl.layers.classifier import Backbone, Classifier, check_size, make
from kerasdl.layers.core import build_chain, register
from kerasdl.layers.dropout import Dropout, DropPath
from kerasdl.layers.mlp import MLP
from kerasdl.layers.position import GridPosition, resize_grid
from kerasdl.layers.remat import Block

EPSILON = 1e-6  # of layer norm, in the paper's code


@register
class EncoderBlock(Block):
    """Pre-norm attention and perceptron, each added to its input (equations 2 and 3).

    Args:
        num_heads: Heads of the attention.
        mlp_dim: Units inside the perceptron.
        drop_rate: Dropout after every dense layer but the one of query, key and value.
        drop_path: Stochastic depth of both branches.

    Call arguments:
        x: float `(B, N, D)`.
        training: Whether to drop.
        return_weights: Whether to give the attention weights as well.

    Returns:
        float `(B, N, D)`; with `return_weights` also `(B, h, N, N)`.
    """

    def __init__(self, num_heads, mlp_dim, drop_rate=0.0, drop_path=0.0, **kwargs):
        super().__init__(**kwargs)
        self.norm1 = keras.layers.LayerNormalization(epsilon=EPSILON, name="norm1")
        self.attention = SelfAttention(num_heads, name="attention")
        self.drop = Dropout(drop_rate, name="drop")
        self.norm2 = keras.layers.LayerNormalization(epsilon=EPSILON, name="norm2")
        self.mlp = MLP(mlp_dim, "gelu", drop_rate, name="mlp")
        self.drop_path1 = DropPath(drop_path, name="drop_path1")
        self.drop_path2 = DropPath(drop_path, name="drop_path2")

    def build(self, input_shape):
        branches = (self.norm1, self.attention, self.drop, self.norm2, self.mlp)
        for child in (*branches, self.drop_path1, self.drop_path2):
            child.build(input_shape)

    def call(self, x, training=False, return_weights=False):
        y, weights = self.attention(self.norm1(x), training=training, return_weights=True)
        x = x + self.drop_path1(self.drop(y, training=training), training=training)
        y = self.mlp(self.norm2(x), training=training)
        x = x + self.drop_path2(y, training=training)
        return (x, weights) if return_weights else x


@register
class Tokens(keras.layers.Layer):
    """An image as a class token and one token per patch, with positions (equation 1).

    Args:
        dim: Channels of a token, `D`.
        patch_size: Side of a square patch, `P`; it divides the image.

    Call arguments:
        x: float `(B, H, W, C)`.

    Returns:
        float `(B, 1 + H W / P^2, D)`, the class token first.
    """

    def __init__(self, dim, patch_size, **kwargs):
        super().__init__(**kwargs)
        self.dim = dim
        self.patch_size = patch_size
        self.patches = keras.layers.Conv2D(
            dim, patch_size, patch_size, kernel_initializer="lecun_normal", name="patches"
        )
        self.positions = None  # made in build(), once the grid is given

    def build(self, input_shape):
        _, height, width, _ = input_shape
        self.cls = self.add_weight(shape=(1, 1, self.dim), initializer="zeros", name="cls")
        self.positions = GridPosition(
            height // self.patch_size, width // self.patch_size, name="positions"
        )
        self.patches.build(input_shape)
        self.positions.build((None, None, self.dim))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], 1 + self.positions.height * self.positions.width, self.dim)

    def call(self, x):
        x = self.patches(x)  # (B, H/P, W/P, D)
        x = ops.reshape(x, (-1, x.shape[1] * x.shape[2], self.dim))
        cls = ops.zeros_like(x[:, :1]) + ops.cast(self.cls, x.dtype)  # one per example
        return self.positions(ops.concatenate([cls, x], axis=1))


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
        input_mean, input_std: Per channel, of images in [0, 1].

    Call arguments:
        x: float `(B, H, W, C)`, images in [0, 1].
        training: Whether to drop.

    Returns:
        `{"cls": (B, D), "stage1": (B, H/P, W/P, D), ...}`: the patches' tokens after each quarter
        of the blocks, the last of them after layer norm as the class token is.
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
        input_mean=0.0,
        input_std=1.0,
        **kwargs,
    ):
        super().__init__(image_shape, input_mean, input_std, **kwargs)
        check_size(self.image_shape, patch_size, f"a ViT of {patch_size}x{patch_size} patches")
        check_patches(self.image_shape, patch_size)
        if dim % num_heads:
            raise UserError(f"num_heads {num_heads}: must divide dim {dim}")
        self.dim = dim
        self.grid = tuple(side // patch_size for side in self.image_shape[:2])
        self.tokens = Tokens(dim, patch_size, name="tokens")
        self.drop = Dropout(drop_rate, name="drop")
        self.blocks = [
            EncoderBlock(
                num_heads,
                mlp_dim,
                drop_rate,
                drop_path * i / max(1, depth - 1),
                name=f"block{i + 1}",
            )
            for i in range(depth)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=EPSILON, name="norm")
        quarters = min(4, depth)
        self.ends = {depth * (i + 1) // quarters: f"stage{i + 1}" for i in range(quarters)}
        self.strides = dict.fromkeys(self.ends.values(), patch_size)
        self.channels = dict.fromkeys(self.ends.values(), dim)

    def build(self, input_shape):
        build_chain(input_shape, self.normalize, self.tokens)
        for child in (self.drop, *self.blocks, self.norm):
            child.build((None, 1 + self.grid[0] * self.grid[1], self.dim))

    def call(self, x, training=False):
        x = self.drop(self.tokens(self.normalize(x)), training=training)  # (B, N, D)
        stages = {}
        for i, block in enumerate(self.blocks):
            x = block(x, training=training)
            if i + 1 == len(self.blocks):
                x = self.norm(x)
            if i + 1 in self.ends:
                stages[self.ends[i + 1]] = ops.reshape(x[:, 1:], (-1, *self.grid, self.dim))
        return {"cls": x[:, 0], **stages}

    def attention_maps(self, x):
        """The attention weights of every block; see `ViT.attention_maps`."""
        x = self.tokens(self.normalize(x))
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
    """A `ViTBackbone`, which has the dropout, and a dense layer on the class token (equation 4)."""

    backbone_class = ViTBackbone
    drops = ("backbone",)

    def pool(self, features):
        return features["cls"]

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
