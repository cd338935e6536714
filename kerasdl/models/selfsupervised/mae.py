"""Masked autoencoder: an image restored from a quarter of its patches.

Paper:   Masked Autoencoders Are Scalable Vision Learners, He et al. 2021,
         https://arxiv.org/abs/2111.06377 (section 3, appendix A.1).
Differs: `mae_small` is our size for small images; kernels start at Glorot's, that of the patches at
         LeCun's, and the class token at zeros, as in our ViT.
"""

import math

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.attention import check_heads
from kerasdl.layers.classifier import dense_head, pooled_last
from kerasdl.layers.core import Model, construct, register
from kerasdl.layers.mlp import dense
from kerasdl.layers.position import SinusoidalGridPosition, resize_grid
from kerasdl.models.vision_transformer.vit import EPSILON, EncoderBlock, ViTBackbone
from kerasdl.ops.tokens import take_tokens

POOLINGS = ("mean", "cls")


@register
class Decoder(keras.layers.Layer):
    """What restores patches: a Transformer on the encoder's tokens and mask tokens in their places.

    Args:
        grid: Patches in a column and in a row.
        numbers: That are predicted of each patch, `P^2 C`.
        dim: Channels of its tokens, `E`.
        depth: Blocks.
        num_heads, mlp_dim, epsilon, activation, qkv_bias: Of the blocks; see `EncoderBlock`.

    Call arguments:
        x: float `(B, 1 + M, D)`, the class token and those of the visible patches.
        ids_restore: int `(B, N)`, where each patch stands among the visible ones, in their order,
            and the others behind them.

    Returns:
        float32 (or float64) `(B, N, P^2 C)`.
    """

    def __init__(
        self,
        grid,
        numbers,
        dim,
        depth,
        num_heads,
        mlp_dim,
        epsilon=EPSILON,
        activation="gelu",
        qkv_bias=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_heads(num_heads, dim)
        self.grid = tuple(grid)
        self.dim = dim
        self.embed = dense(dim, "embed")
        self.positions = SinusoidalGridPosition(*self.grid, name="positions")
        options = {"epsilon": epsilon, "activation": activation, "qkv_bias": qkv_bias}
        self.blocks = [
            EncoderBlock(num_heads, mlp_dim, name=f"block{i + 1}", **options) for i in range(depth)
        ]
        self.norm = keras.layers.LayerNormalization(epsilon=epsilon, name="norm")
        self.predict = dense_head(numbers, name="predict")

    def build(self, input_shape):
        self.embed.build(input_shape)
        self.mask_token = self.add_weight(
            shape=(1, 1, self.dim),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="mask_token",
        )
        shape = (None, 1 + math.prod(self.grid), self.dim)
        for child in (self.positions, *self.blocks, self.norm, self.predict):
            child.build(shape)

    def call(self, x, ids_restore):
        x = self.embed(x)  # (B, 1 + M, E)
        hidden = ops.shape(ids_restore)[1] + 1 - ops.shape(x)[1]
        masks = ops.zeros_like(x[:, :1]) + ops.cast(self.mask_token, x.dtype)
        patches = ops.concatenate([x[:, 1:], ops.repeat(masks, hidden, axis=1)], axis=1)
        x = ops.concatenate([x[:, :1], take_tokens(patches, ids_restore)], axis=1)
        x = self.positions(x)
        for block in self.blocks:
            x = block(x)
        return self.predict(self.norm(x))[:, 1:]


@register
class MAE(Model):
    """A ViT that is given the visible patches alone, and a small decoder that restores the others.

    Args:
        image_shape: `(H, W, C)`; `patch_size` divides height and width.
        patch_size: Side of a patch, `P`; there are `N = H W / P^2`.
        dim, depth, num_heads, mlp_dim: Of the encoder; see `ViTBackbone`. `dim` is a multiple of 4.
        decoder_dim, decoder_depth, decoder_heads, decoder_mlp_dim: Of the decoder, likewise.
        mask_ratio: Fraction of the patches that are masked; `int(N (1 - mask_ratio))` stay visible.
        norm_pix_loss: Whether the pixels of each patch are predicted with mean 0 and variance 1.
        pooling: What the features are: "mean", that of the patches' tokens, or "cls", the class
            token.
        drop_rate, drop_path: Of the encoder.
        epsilon, activation, qkv_bias: Of encoder and decoder.
        input_mean, input_std: Per channel, of images in [0, 1].

    Attributes:
        classifier: `(row, arguments)` of the catalogue's classifier with the same encoder, besides
            those that the data decide.
        visible: How many patches are.

    Call arguments:
        x: `{"image": float (B, H, W, C) in [0, 1], "order": int (B, N)}`: the numbers of the
            patches in an order, row by row from 0 on, of which the first are visible. Of noise
            `(B, N)` it is `argsort(noise)`.
        training: Whether to drop.

    Returns:
        `{"prediction": float32 (or float64) (B, N, P^2 C), "mask": (B, N), "ids_restore": int32
        (B, N)}`: pixels of each patch, row by row, normalized as `input_mean` and `norm_pix_loss`
        say; 1 where a patch is masked; and where each patch stands in the order.

    Raises:
        UserError: Sizes that do not fit, or a ratio that leaves no patch visible.
    """

    def __init__(
        self,
        image_shape=(224, 224, 3),
        patch_size=16,
        dim=768,
        depth=12,
        num_heads=12,
        mlp_dim=3072,
        decoder_dim=512,
        decoder_depth=8,
        decoder_heads=16,
        decoder_mlp_dim=2048,
        mask_ratio=0.75,
        norm_pix_loss=True,
        pooling="mean",
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
        if pooling not in POOLINGS:
            raise UserError(f"pooling {pooling!r}: not one of {', '.join(POOLINGS)}")
        both = {"epsilon": epsilon, "activation": activation, "qkv_bias": qkv_bias}
        self.backbone = ViTBackbone(
            image_shape,
            patch_size,
            dim,
            depth,
            num_heads,
            mlp_dim,
            drop_rate,
            drop_path,
            fixed_positions=True,
            input_mean=input_mean,
            input_std=input_std,
            **both,
        )
        encoder = {"patch_size": patch_size, "dim": dim, "depth": depth, "num_heads": num_heads}
        encoder |= {"mlp_dim": mlp_dim, "fixed_positions": True, "pooling": pooling, **both}
        self.classifier = ("vit_b16" if dim >= 192 else "vit_digits", encoder)
        self.patch_size = patch_size
        self.pooling = pooling
        self.norm_pix_loss = norm_pix_loss
        self.num_patches = math.prod(self.backbone.grid)
        if not 0 <= mask_ratio < 1:
            raise UserError(f"mask_ratio {mask_ratio}: must be at least 0 and below 1")
        self.visible = int(self.num_patches * (1 - mask_ratio))
        if not self.visible:
            raise UserError(f"mask_ratio {mask_ratio}: leaves none of {self.num_patches} patches")
        self.decoder = Decoder(
            self.backbone.grid,
            patch_size**2 * self.backbone.image_shape[-1],
            decoder_dim,
            decoder_depth,
            decoder_heads,
            decoder_mlp_dim,
            name="decoder",
            **both,
        )

    def build(self, input_shape):
        self.backbone.build(input_shape["image"])
        self.decoder.build((None, 1 + self.visible, self.backbone.dim))

    def symbolic_inputs(self):
        order = keras.Input((self.num_patches,), dtype="int32")
        return {"image": keras.Input(self.backbone.image_shape), "order": order}

    def call(self, x, training=False):
        order = ops.cast(x["order"], "int32")
        ids_restore = ops.cast(ops.argsort(order, axis=-1), "int32")
        tokens = self.backbone.encode(x["image"], training, order[:, : self.visible])
        prediction = self.decoder(tokens, ids_restore)
        mask = ops.cast(ids_restore >= self.visible, prediction.dtype)
        return {"prediction": prediction, "mask": mask, "ids_restore": ids_restore}

    def features(self, image, training=False):
        """What stands for an image, all of it visible, float `(B, D)`; see `pooling`."""
        maps = self.backbone(image, training=training)
        if self.pooling == "cls":
            return maps["cls"]
        return pooled_last(maps)

    def patches(self, image):
        """The normalized pixels of each patch, `(B, N, P^2 C)`: row by row, channels last."""
        (h, w), p = self.backbone.grid, self.patch_size
        x = ops.reshape(self.backbone.normalize(image), (-1, h, p, w, p, image.shape[-1]))
        return ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, h * w, p * p * x.shape[-1]))

    def images(self, patches):
        """The images `(B, H, W, C)` of which `patches` are made, the inverse of it."""
        (h, w), p = self.backbone.grid, self.patch_size
        height, width, channels = self.backbone.image_shape
        x = ops.reshape(patches, (-1, h, w, p, p, channels))
        x = ops.reshape(ops.transpose(x, (0, 1, 3, 2, 4, 5)), (-1, height, width, channels))
        mean, std = (
            ops.cast(ops.convert_to_tensor(value), x.dtype)
            for value in (self.backbone.normalize.mean, self.backbone.normalize.std)
        )
        return x * std + mean

    def mask_of_pixels(self, mask):
        """`(B, H, W, 1)` of a mask of patches `(B, N)`."""
        mask = ops.reshape(mask, (-1, *self.backbone.grid, 1))
        return ops.repeat(ops.repeat(mask, self.patch_size, axis=1), self.patch_size, axis=2)

    def errors(self, image, prediction):
        """The mean squared error of each patch, `(B, N)`, of what `call` predicts."""
        target = ops.cast(self.patches(image), prediction.dtype)
        mean, std = self._statistics(target)
        return ops.mean(ops.square(prediction - (target - mean) / std), axis=-1)

    def restored(self, image, outputs):
        """Images `(B, H, W, C)` in [0, 1] whose masked patches are what `call` predicts.

        With `norm_pix_loss` they have the mean and the deviation of the true patches, of which
        nothing is predicted.

        Args:
            image: float `(B, H, W, C)`, the true ones.
            outputs: Of `call`.
        """
        prediction, mask = outputs["prediction"], outputs["mask"][..., None]
        target = ops.cast(self.patches(image), prediction.dtype)
        mean, std = self._statistics(target)
        x = self.images(ops.where(mask > 0, prediction * std + mean, target))
        return ops.clip(x, 0.0, 1.0)

    def _statistics(self, patches):
        """Mean and deviation of each patch `(B, N, 1)`; 0 and 1 without `norm_pix_loss`."""
        if not self.norm_pix_loss:
            return 0.0, 1.0
        mean = ops.mean(patches, axis=-1, keepdims=True)
        squares = ops.sum(ops.square(patches - mean), axis=-1, keepdims=True)
        return mean, ops.sqrt(squares / (patches.shape[-1] - 1) + 1e-6)

    def adapt_weight(self, path, value, shape):
        """Interpolate the grids' positions of another image size; see `Model.adapt_weight`."""
        if path.startswith("decoder/positions/grid") and value.shape[-1] == shape[-1]:
            return resize_grid(value, *shape[:2])
        return self.backbone.adapt_weight(path, value, shape)


def _make(name, image_shape, sizes, kwargs):
    features = kwargs.pop("features", False)
    given = {"image_shape": tuple(image_shape)}
    return construct(
        MAE, name, given, sizes, kwargs, lambda model: model.backbone if features else model
    )


def mae_b16(image_shape=(224, 224, 3), **kwargs):
    """ViT-B/16, and a decoder of 8 blocks of 512 channels, 16 heads."""
    return _make("mae_b16", image_shape, {}, kwargs)


def mae_small(image_shape=(8, 8, 1), **kwargs):
    """The encoder of `vit_digits`, with 2x2 patches, and a decoder of 2 blocks of 48 channels."""
    sizes = {"patch_size": 2, "dim": 64, "depth": 4, "num_heads": 4, "mlp_dim": 128}
    sizes |= {"decoder_dim": 48, "decoder_depth": 2, "decoder_heads": 4, "decoder_mlp_dim": 96}
    return _make("mae_small", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (8, 12, 1),
    "patch_size": 2,
    "dim": 16,
    "depth": 1,
    "num_heads": 2,
    "mlp_dim": 24,
    "decoder_dim": 12,
    "decoder_depth": 1,
    "decoder_heads": 3,
    "decoder_mlp_dim": 20,
    "mask_ratio": 0.6,
    "drop_rate": 0.05,
    "input_mean": 0.4,
    "input_std": 0.3,
}
TINY = {"mae_b16": _TINY, "mae_small": _TINY}
RECIPE = {
    "mae_small": {
        "epochs": 300,
        "batch_size": 128,
        "lr": 0.004,
        "warmup_epochs": 10.0,
        "weight_decay": 0.05,
        "augment": ("shift",),
        "weights": "last",  # features gain long after the loss of the validation part is least
    },
}
