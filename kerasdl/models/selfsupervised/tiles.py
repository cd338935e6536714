"""What models of several tiles of an image have in common.

Source: Doersch et al. 2015, https://arxiv.org/abs/1505.05192, figure 3 (late fusion);
        Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246, figure 3.
"""

import keras
from keras import ops

from kerasdl.layers.classifier import dense_head, pooled_last
from kerasdl.models.selfsupervised.on_backbone import OnBackbone
from kerasdl.ops.tiles import spread


class TileModel(OnBackbone):
    """The same backbone for each tile, average pooling, a dense layer, and two more for all tiles.

    Subclasses set their backbone for a tile.

    Args:
        image_shape: `(H, W, C)` of the image.
        tile_dim: Units of the dense layer of a tile.
        hidden_dim: Units of the first one for all tiles.

    Attributes:
        tiles: `N`, how many the model is given.
        classes: `K`.
        spread: The features of an image are those of so many tiles in each direction.

    Call arguments:
        x: float `(B, N, h, w, C)`, of images in [0, 1].
        training: Whether dropout and batch statistics are on.

    Returns:
        float32 (or float64) logits `(B, K)`.
    """

    tiles = 1
    classes = 1
    spread = 3

    def __init__(self, image_shape, tile_dim, hidden_dim, name=None, dtype=None, trainable=True):
        super().__init__(name=name, dtype=dtype, trainable=trainable)
        height, width, channels = image_shape
        self.tile_shape = (self.tile_side(height), self.tile_side(width), channels)
        self.tile = keras.layers.Dense(tile_dim, activation="relu", name="tile")
        self.hidden = keras.layers.Dense(hidden_dim, activation="relu", name="hidden")
        self.head = dense_head(self.classes)

    @staticmethod
    def tile_side(side):
        """Height or width of a tile of an image of this height or width."""
        raise NotImplementedError

    def build(self, input_shape):
        self.tile.build((None, self.backbone.width))
        self.hidden.build((None, self.tiles * self.tile.units))
        self.head.build((None, self.hidden.units))

    def symbolic_inputs(self):
        return keras.Input((self.tiles, *self.tile_shape))

    def look(self, x, training=False):
        """What the backbone makes of tiles `(M, h, w, C)`, pooled: `(M, D)`."""
        return pooled_last(self.backbone(x, training=training))

    def features(self, x, training=False):
        """The representation of images `(B, H, W, C)`, float `(B, D)`: the mean over tiles that are
        spread over each."""
        tiles = spread(x, self.tile_shape[:2], self.spread)
        seen = self.look(ops.concatenate(tiles), training=training)
        return ops.mean(ops.stack(ops.split(seen, len(tiles))), axis=0)

    def call(self, x, training=False):
        seen = self.look(ops.reshape(x, (-1, *self.tile_shape)), training=training)
        each = ops.reshape(self.tile(seen), (-1, self.tiles * self.tile.units))
        return self.head(self.hidden(each))
