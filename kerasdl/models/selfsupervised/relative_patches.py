"""Representations from where the tiles of an image are.

Paper:   Unsupervised Visual Representation Learning by Context Prediction, Doersch et al. 2015,
         https://arxiv.org/abs/1505.05192 (section 3; figure 3).
Differs: `relative_patches_small` has a small residual network for small images, whose maps are
         averaged before the dense layers; the paper's is an AlexNet with batch norm on tiles of
         96x96 pixels. All pairs lie within one image of the data, not anywhere in a large one.
"""

from kerasdl.layers.core import construct_on_backbone, register
from kerasdl.models.selfsupervised.tiles import TileModel
from kerasdl.ops.tiles import DIRECTIONS, pair_sides


@register
class RelativePatches(TileModel):
    """Two tiles of an image, and which neighbor of the first the second is.

    Args:
        image_shape: `(H, W, C)` of the image.
        backbone: Name of a vision model of the catalogue.
        tile_dim: Units of the dense layer of a tile.
        hidden_dim: Units of the dense layer for both.
        input_mean, input_std: Per channel, of images in [0, 1].
        **backbone_args: Further arguments of the backbone's builder.

    Call arguments:
        x: float `(B, 2, h, w, C)`, of images in [0, 1]; `h` and `w` of `ops.tiles.pair_sides`.
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, 8)` of `ops.tiles.DIRECTIONS`.
    """

    tiles = 2
    classes = len(DIRECTIONS)

    def __init__(
        self,
        image_shape=(64, 64, 3),
        backbone="resnet20",
        tile_dim=512,
        hidden_dim=512,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(image_shape, tile_dim, hidden_dim, name, dtype, trainable)
        statistics = {"input_mean": input_mean, "input_std": input_std}
        self.set_backbone(backbone, self.tile_shape, **statistics, **backbone_args)

    @staticmethod
    def tile_side(side):
        return pair_sides(side)[0]


def relative_patches_small(image_shape=(64, 64, 3), **kwargs):
    sizes = {"backbone": "resnet20", "depths": (1, 1, 1), "tile_dim": 128, "hidden_dim": 128}
    return construct_on_backbone(
        RelativePatches, "relative_patches_small", image_shape, sizes, kwargs
    )


TINY = {
    "relative_patches_small": {
        "image_shape": (24, 22, 1),
        "backbone": "resnet32",
        "depths": (1,),
        "filters": 8,
        "tile_dim": 11,
        "hidden_dim": 12,
    }
}
# Of three settings, by the linear probe on validation. Tiles of two photographs are learned by
# heart: pairs of other parts are told at chance, features are no better than a random start's.
RECIPE = {
    "relative_patches_small": {
        "epochs": 10,
        "batch_size": 64,
        "lr": 0.005,
        "task_kwargs": {"color": "keep"},
    }
}
