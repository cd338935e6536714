"""Which of the eight neighbors of a tile another tile is.

Source: Doersch et al. 2015, https://arxiv.org/abs/1505.05192, section 3.
"""

import numpy as np
from keras import ops

from kerasdl.ops import noise, tiles
from kerasdl.tasks.representation import Pretext

# Streams of an example's key
PLACE, START, JITTER, CHANNEL, NOISE = range(5)


class PlaceTiles(Pretext):
    """A pair of tiles `(B, 2, h, w, C)`, the second one of the first one's eight neighbors.

    There is a gap of half a tile between them, the pair lies anywhere in the image, and both are
    moved at random, so that no line goes on from one to the other. With `color=drop` each tile of a
    color image keeps one channel; see `ops.tiles.one_channel`.
    """

    settings = {"color": "drop", **Pretext.settings}
    allowed = {"color": ("drop", "keep"), **Pretext.allowed}
    pretext = "place"

    def prepare(self, batch):
        """The `tiles`, and the `place` of the second: a number of `DIRECTIONS`."""
        if "tiles" in batch:
            return batch
        image, key = batch["image"], batch["key"]
        place = noise.randint(key, (), 0, len(tiles.DIRECTIONS), PLACE)
        start = noise.uniform(key, (2,), START, "float32")
        corners, size = [], []
        for axis, side in enumerate(image.shape[1:3]):
            tile, gap, jitter = tiles.pair_sides(side)
            step = np.array(tiles.DIRECTIONS, "int32")[:, axis] * (tile + gap)
            step = ops.take(ops.convert_to_tensor(step), place, axis=0)  # (B,)
            free = side - tile - 2 * jitter - ops.abs(step) + 1  # places of the pair
            first = ops.cast(ops.floor(start[:, axis] * ops.cast(free, "float32")), "int32")
            first = ops.minimum(first, free - 1) + jitter - ops.minimum(step, 0)
            moved = noise.randint(key, (2, 2), -jitter, jitter + 1, JITTER)[:, axis]
            corners.append(ops.stack([first, first + step], axis=1) + moved)
            size.append(tile)
        pair = tiles.cut(image, *corners, size)
        if self.settings["color"] == "drop" and image.shape[-1] > 1:
            mean = self.info.input_mean or 0.5
            pair = tiles.one_channel(pair, key, mean, (CHANNEL, NOISE))
        return {**batch, "tiles": pair, "place": place}

    def model_inputs(self, model, batch):
        return batch["tiles"]


TASK = PlaceTiles
