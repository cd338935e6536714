"""Representations from puzzles of nine tiles: the context-free network.

Paper:   Unsupervised Learning of Visual Representations by Solving Jigsaw Puzzles, Noroozi and
         Favaro 2016, https://arxiv.org/abs/1603.09246 (sections 3 and 4; figure 3).
Differs: `jigsaw` has a ResNet-50, whose maps are averaged before the dense layers of 512 and 4,096
         units, in the place of AlexNet; `jigsaw_small` is the project's own row. The 64
         permutations are as far apart as so many can be, not found by a random search.
"""

from keras import ops

from kerasdl.layers.core import construct_on_backbone, register
from kerasdl.models.selfsupervised.tiles import TileModel
from kerasdl.ops.tiles import GRID, cell_sides, distant_permutations

FLAT = 1e-5  # added to the variance of a tile, of pixels in [0, 1]


@register
class Jigsaw(TileModel):
    """Nine tiles of an image, and the order that they are in.

    Each tile's channels get mean 0 and deviation 1 (section 4.2), whatever the data's are, lest the
    network tell tiles by their brightness.

    Args:
        image_shape: `(H, W, C)` of the image.
        backbone: Name of a vision model of the catalogue.
        tile_dim: Units of the dense layer of a tile.
        hidden_dim: Units of the dense layer for all.
        input_mean, input_std: Of the data; not used.
        **backbone_args: Further arguments of the backbone's builder.

    Call arguments:
        x: float `(B, 9, h, w, C)`, of images in [0, 1]; `h` and `w` of `ops.tiles.cell_sides`.
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, 64)` of `ops.tiles.distant_permutations()`.
    """

    tiles = GRID**2
    classes = len(distant_permutations())
    spread = GRID

    def __init__(
        self,
        image_shape=(225, 225, 3),
        backbone="resnet50",
        tile_dim=512,
        hidden_dim=4096,
        input_mean=0.0,
        input_std=1.0,
        name=None,
        dtype=None,
        trainable=True,
        **backbone_args,
    ):
        super().__init__(image_shape, tile_dim, hidden_dim, name, dtype, trainable)
        self.set_backbone(backbone, self.tile_shape, **backbone_args)

    @staticmethod
    def tile_side(side):
        return cell_sides(side)[1]

    def look(self, x, training=False):
        mean = ops.mean(x, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=(1, 2), keepdims=True)
        return super().look((x - mean) * ops.rsqrt(variance + FLAT), training=training)


def jigsaw(image_shape=(225, 225, 3), **kwargs):
    return construct_on_backbone(Jigsaw, "jigsaw", image_shape, {}, kwargs)


def jigsaw_small(image_shape=(32, 32, 3), **kwargs):
    sizes = {"backbone": "resnet20", "depths": (1, 1, 1), "tile_dim": 64, "hidden_dim": 256}
    return construct_on_backbone(Jigsaw, "jigsaw_small", image_shape, sizes, kwargs)


_TINY = {
    "image_shape": (30, 28, 1),
    "backbone": "resnet32",
    "depths": (1,),
    "filters": 8,
    "tile_dim": 11,
    "hidden_dim": 12,
}
TINY = {"jigsaw": _TINY, "jigsaw_small": _TINY}
# Of two settings, by the linear probe on validation
RECIPE = {"jigsaw_small": {"epochs": 12, "batch_size": 64, "lr": 0.002}}
