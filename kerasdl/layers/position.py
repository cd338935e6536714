"""Where a token stands.

Source: Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, sections 3.1 and 3.2.
"""

import keras
from keras import ops

from kerasdl.layers.core import register


def resize_grid(value, height, width):
    """Bicubic interpolation of learned positions to another grid.

    It is done to weights, never inside a model's graph: bicubic resizing has no TFLite builtin.

    Args:
        value: `(h, w, D)` array.
        height: `H` of the new grid.
        width: `W` of the new grid.

    Returns:
        numpy `(H, W, D)`; `value` itself where the grid is the same.
    """
    value = ops.convert_to_tensor(value)
    if tuple(value.shape[:2]) != (height, width):
        value = ops.image.resize(
            value,
            (height, width),
            interpolation="bicubic",
            antialias=True,
            data_format="channels_last",
        )
    return ops.convert_to_numpy(value)


@register
class GridPosition(keras.layers.Layer):
    """Add a learned vector to each token of a grid, and to each that stands before the grid.

    The vectors of the grid are one weight `(height, width, D)`, so that its shape alone says how
    to interpolate it to another image size; together with those of the prefix they are the
    paper's 1D positions, in raster order.

    Args:
        height: Rows of the grid.
        width: Columns of the grid.
        prefix: Tokens before the grid, such as the class token.

    Call arguments:
        x: float `(B, prefix + height * width, D)`.

    Returns:
        float, the shape of `x`.
    """

    def __init__(self, height, width, prefix=1, **kwargs):
        super().__init__(**kwargs)
        self.height = height
        self.width = width
        self.prefix = prefix

    def build(self, input_shape):
        dim = input_shape[-1]
        start = keras.initializers.RandomNormal(stddev=0.02)
        self.grid = self.add_weight(
            shape=(self.height, self.width, dim), initializer=start, name="grid"
        )
        self.before = None
        if self.prefix:
            self.before = self.add_weight(
                shape=(self.prefix, dim), initializer=start.clone(), name="before"
            )

    def call(self, x):
        positions = ops.reshape(self.grid, (self.height * self.width, -1))
        if self.before is not None:
            positions = ops.concatenate([self.before, positions], axis=0)  # (N, D)
        return x + positions
