"""Where the pixels of a picture come to lie at the size of a model, in numpy: for boxes and masks
that stand in files, as `kerasdl.data.images.Fit` says for the pixels."""

import functools

import numpy as np


@functools.lru_cache(4096)
class Placed:
    """A picture at the size of a model.

    Args:
        size: `(height, width)` of the picture.
        image_size: `(height, width)` of the model's images.
        fit: A `kerasdl.data.images.Fit`.
    """

    def __init__(self, size, image_size, fit):
        self.size, self.image_size = size, image_size
        corner, sides = fit.box(np.array(size, np.float32), image_size)
        self._corner, self._sides = np.asarray(corner, np.float64), np.asarray(sides, np.float64)

    def boxes(self, boxes):
        """Boxes `(n, 4)`, `ymin xmin ymax xmax` in pixels of the picture, in fractions of the
        model's image; they may reach beyond it."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        return (boxes - np.tile(self._corner, 2)) / np.tile(self._sides, 2)

    def points(self, points):
        """Points `x y` `(n, 2)` in pixels of the picture, in pixels of the model's image."""
        scale = np.array(self.image_size) / self._sides
        return (np.asarray(points, np.float64) - self._corner[::-1]) * scale[::-1]

    def sampled(self, mask, outside=0):
        """A mask `(height, width)` of the picture at the model's size: the nearest pixels, and
        `outside` beside the picture."""
        places, inside = [], []
        for axis in range(2):
            number = np.arange(self.image_size[axis]) + 0.5
            place = self._corner[axis] + number * self._sides[axis] / self.image_size[axis]
            place = np.floor(place).astype(int)
            inside.append((place >= 0) & (place < self.size[axis]))
            places.append(np.clip(place, 0, self.size[axis] - 1))
        return np.where(np.logical_and.outer(*inside), mask[np.ix_(*places)], outside)
