"""In which of 64 orders the nine tiles of an image are.

Source: Noroozi and Favaro 2016, https://arxiv.org/abs/1603.09246, sections 3 and 4.2.
"""

from keras import ops

from kerasdl.ops import noise, tiles
from kerasdl.tasks.representation import Pretext

# Streams of an example's key
ORDER, TOP, LEFT = range(3)
CELLS = tiles.GRID**2


class Jigsaw(Pretext):
    """Nine tiles `(B, 9, h, w, C)` of an image in one of 64 orders, which is to be predicted.

    The image is a grid of 3x3 cells, and each tile lies anywhere in its cell, so that no line goes
    on from one to the next. Place `i` holds the tile of cell `distant_permutations()[order][i]`.
    """

    pretext = "order"

    def prepare(self, batch):
        """The `tiles`, and their `order`."""
        if "tiles" in batch:
            return batch
        image, key = batch["image"], batch["key"]
        order = noise.randint(key, (), 0, len(tiles.distant_permutations()), ORDER)
        cells = ops.take(ops.convert_to_tensor(tiles.distant_permutations()), order, axis=0)
        corners, size = [], []
        for side, number, stream in zip(
            image.shape[1:3], (cells // tiles.GRID, cells % tiles.GRID), (TOP, LEFT), strict=True
        ):
            cell, tile = tiles.cell_sides(side)
            within = noise.randint(key, (CELLS,), 0, cell - tile + 1, stream)
            corners.append(number * cell + within)
            size.append(tile)
        return {**batch, "tiles": tiles.cut(image, *corners, size), "order": order}

    def model_inputs(self, model, batch):
        return batch["tiles"]


TASK = Jigsaw
