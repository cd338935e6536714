"""Where a token stands: sinusoids, learned vectors, rotations, and grids of image patches.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.5 (sinusoids, learned
        vectors); Su et al. 2021, https://arxiv.org/abs/2104.09864, equation 34 (rotations);
        Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, sections 3.1 and 3.2 (grids);
        He et al. 2021, https://arxiv.org/abs/2111.06377, appendix A.1 and the authors' code (fixed
        grids).
"""

import keras
import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import register


def positions_of(x, position=0, axis=1):
    """int32 `(N,)`: where the tokens along `axis` of `x` stand if the first stands at `position`.

    `N` may be unknown, and `position` an int scalar tensor.
    """
    return position + ops.arange(ops.shape(x)[axis], dtype="int32")


THETA = 10000.0  # base of the angles of sinusoids and rotations


def angles(positions, dim, dtype, theta=THETA):
    """`positions[n] / theta^(2i / dim)`, float `(N, dim / 2)`; `dim` is even."""
    rates = theta ** (-np.arange(0, dim, 2) / dim)
    return ops.cast(positions, dtype)[:, None] * ops.convert_to_tensor(rates, dtype)


def sinusoids(positions, dim, dtype="float32", halves=False):
    """`PE[n, 2i] = sin`, `PE[n, 2i + 1] = cos` of `positions[n] / 10000^(2i / dim)`.

    Args:
        positions: Numbers `(N,)`.
        dim: `D`, even.
        dtype: Of the answer, and of the computation.
        halves: Whether all sines come first, `PE[n, i]` and `PE[n, D / 2 + i]`, as in
            Marian.

    Returns:
        float `(N, D)`.
    """
    a = angles(positions, dim, dtype)
    if halves:
        return ops.concatenate([ops.sin(a), ops.cos(a)], axis=-1)
    return ops.reshape(ops.stack([ops.sin(a), ops.cos(a)], axis=-1), (-1, dim))


def rotate(x, positions, theta=THETA):
    """Turn each pair of channels `(2i, 2i + 1)` by `position / theta^(2i / d)`.

    The product of a query turned at `m` and a key turned at `n` depends on `m - n` alone.

    Args:
        x: float `(B, h, N, d)`, `d` even.
        positions: int `(N,)`.
        theta: Base of the angles.

    Returns:
        float, the shape of `x`.
    """
    d = x.shape[-1]
    a = angles(positions, d, keras.backend.result_type(x.dtype, "float32"), theta)
    cos = ops.cast(ops.repeat(ops.cos(a), 2, axis=-1), x.dtype)  # (N, d)
    sin = ops.cast(ops.repeat(ops.sin(a), 2, axis=-1), x.dtype)
    # (a, b) -> (-b, a) for every pair; as a product, it is faster than taking x apart
    turn = np.kron(np.eye(d // 2), [[0, 1], [-1, 0]])
    return x * cos + ops.matmul(x, ops.convert_to_tensor(turn, x.dtype)) * sin


def grid_sinusoids(rows, columns, dim, dtype="float32"):
    """Half of the channels are the `sinusoids` of the row, the others those of the column.

    Args:
        rows, columns: Numbers `(N,)`.
        dim: `D`, a multiple of 4.
        dtype: Of the answer.

    Returns:
        float `(N, D)`.

    Source: Parmar et al. 2018, https://arxiv.org/abs/1802.05751, section 3.
    """
    halves = [sinusoids(positions, dim // 2, dtype) for positions in (rows, columns)]
    return ops.concatenate(halves, axis=-1)


@register
class SinusoidalPosition(keras.layers.Layer):
    """Add the sinusoids of the positions to tokens; see `sinusoids`.

    Args:
        halves: Whether all sines come before all cosines, instead of by turns.

    Call arguments:
        x: float `(B, N, D)`, `D` even.
        position: int, or int scalar tensor; that of the first token.

    Returns:
        float, the shape of `x`.

    Raises:
        ValueError: `D` is odd.
    """

    def __init__(self, halves=False, **kwargs):
        super().__init__(**kwargs)
        self.halves = halves

    def build(self, input_shape):
        if input_shape[-1] % 2:
            raise UserError(
                f"sinusoidal positions need an even number of channels, got {input_shape[-1]}"
            )

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, position=0):
        positions = positions_of(x, position)
        table = sinusoids(positions, x.shape[-1], self.variable_dtype, self.halves)
        return x + ops.cast(table, x.dtype)


@register
class LearnedPosition(keras.layers.Layer):
    """Add a learned vector for each position to tokens.

    Args:
        max_length: Number of positions.

    Call arguments:
        x: float `(B, N, D)`.
        position: int, or int scalar tensor; that of the first token.

    Returns:
        float, the shape of `x`.

    Raises:
        ValueError: A position lies beyond `max_length`.
    """

    def __init__(self, max_length, **kwargs):
        super().__init__(**kwargs)
        self.max_length = max_length

    def build(self, input_shape):
        self.table = self.add_weight(
            shape=(self.max_length, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="table",
        )

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, position=0):
        check_positions(position, x.shape[1], self.max_length)
        return x + ops.take(self.table, positions_of(x, position), axis=0)


def check_positions(position, count, length):
    """Refuse `count` tokens from `position` on that do not fit into `length`, where all are given.

    Args:
        position: int or int scalar tensor.
        count: int, or None where it is dynamic.
        length: Likewise.

    Raises:
        ValueError: They do not fit.
    """
    first = static_value(position) or 0
    if count is not None and length is not None and (first < 0 or first + count > length):
        raise UserError(
            f"{count} tokens from position {first} on: there are only {length} positions"
        )


def static_value(number):
    """The int that an int or an int scalar tensor is, or None where it is dynamic."""
    try:
        return int(number)
    except TypeError:
        return None


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


def resizing(grid, other):
    """The matrix `(H W, h w)` that does to a grid's vectors, row by row, what `resize_grid` does.

    For use inside a graph: it is a constant, and has a gradient and a TFLite builtin.

    Args:
        grid: `(h, w)`.
        other: `(H, W)`.

    Returns:
        numpy float64.
    """
    return np.kron(*(_resizing(*sides) for sides in zip(grid, other, strict=True)))


def _resizing(before, after):
    """`(after, before)`: bicubic weights of each place, of a wider kernel where there are fewer.

    Source: Keys 1981, Cubic convolution interpolation for digital image processing, equation 15.
    """
    ratio = before / after
    place = (np.arange(after)[:, None] + 0.5) * ratio - 0.5
    x = np.abs(np.arange(before) - place) / max(ratio, 1.0)
    near = (1.5 * x - 2.5) * x**2 + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    return weights / weights.sum(1, keepdims=True)


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
        x: float `(B, prefix + H * W, D)`.
        grid: `(H, W)`, to whose size the vectors are interpolated; its own if None.

    Returns:
        float, the shape of `x`.
    """

    fixed = False  # whether the vectors stay as they start

    def __init__(self, height, width, prefix=1, **kwargs):
        super().__init__(**kwargs)
        self.height = height
        self.width = width
        self.prefix = prefix

    def starts(self):
        """Initializers of the grid's vectors, and of those before it."""
        start = keras.initializers.RandomNormal(stddev=0.02)
        return start, start.clone()

    def build(self, input_shape):
        dim, (of_grid, of_before) = input_shape[-1], self.starts()
        self.grid = self.add_weight(
            shape=(self.height, self.width, dim),
            initializer=of_grid,
            trainable=not self.fixed,
            name="grid",
        )
        self.before = None
        if self.prefix:
            self.before = self.add_weight(
                shape=(self.prefix, dim),
                initializer=of_before,
                trainable=not self.fixed,
                name="before",
            )

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, grid=None):
        own = (self.height, self.width)
        positions = ops.reshape(self.grid, (self.height * self.width, -1))
        if grid not in (None, own):
            matrix = ops.convert_to_tensor(resizing(own, grid), positions.dtype)
            positions = ops.matmul(matrix, positions)
        if self.before is not None:
            positions = ops.concatenate([self.before, positions], axis=0)  # (N, D)
        return x + positions


def sinusoid_grid(height, width, dim):
    """Half of the channels are of the column, half of the row: in each half sines, then cosines.

    The `i`-th of `dim / 4` is that of `position / 10000^(4i / dim)`.

    Args:
        height, width: `H` and `W` of the grid.
        dim: `D`, a multiple of 4.

    Returns:
        numpy float32 `(H, W, D)`, computed in float64.

    Raises:
        UserError: `dim` is no multiple of 4.
    """
    if dim % 4:
        raise UserError(f"fixed positions of a grid need a multiple of 4 channels, got {dim}")
    rates = THETA ** -(np.arange(dim // 4) / (dim / 4))
    halves = [np.outer(np.arange(side), rates) for side in (width, height)]
    column, row = (np.concatenate([np.sin(a), np.cos(a)], axis=-1) for a in halves)
    grid = [np.broadcast_to(column, (height, width, dim // 2))]
    grid.append(np.broadcast_to(row[:, None], (height, width, dim // 2)))
    return np.concatenate(grid, axis=-1).astype("float32")


@register
class SinusoidalGridPosition(GridPosition):
    """Add the fixed vector of `sinusoid_grid` to each token of a grid, none to those before it.

    The vectors are weights that are not trained, so that files hold them as other libraries' do.

    Raises:
        UserError: The channels are no multiple of 4.
    """

    fixed = True

    def starts(self):
        def of_grid(shape, dtype=None):
            return ops.convert_to_tensor(sinusoid_grid(*shape), dtype)

        return of_grid, "zeros"
