"""Images as tokens: those of their patches, and those before them."""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import register
from kerasdl.layers.position import GridPosition, SinusoidalGridPosition


@register
class Tokens(keras.layers.Layer):
    """An image as a class token and one token per patch, with positions (equation 1).

    Args:
        dim: Channels of a token, `D`.
        patch_size: Side of a square patch, `P`; it divides the image.
        class_token: Whether there is one.
        registers: Learned tokens behind the class token, before the patches, `R`.
        positions_before: How many of the tokens before the patches have positions, the first ones;
            if None the class token alone.
        patch_bias: Whether the patches are embedded with a bias.
        fixed_positions: Whether the positions are sinusoids that are not trained, none before the
            patches.

    Call arguments:
        x: float `(B, H, W, C)`; for images of another size than it was built for positions are
            interpolated.

    Returns:
        float `(B, 1 + R + H W / P^2, D)`, the class token first.
    """

    def __init__(
        self,
        dim,
        patch_size,
        class_token=True,
        registers=0,
        positions_before=None,
        patch_bias=True,
        fixed_positions=False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.dim = dim
        self.patch_size = patch_size
        self.class_token = class_token
        self.before = int(class_token) + registers  # tokens before the patches
        self.positions_before = int(class_token) if positions_before is None else positions_before
        if self.positions_before not in range(self.before + 1):
            raise UserError(
                f"positions_before {positions_before}: must be at least 0 and at most "
                f"{self.before}, the tokens before the patches"
            )
        self.patches = keras.layers.Conv2D(
            dim,
            patch_size,
            patch_size,
            use_bias=patch_bias,
            kernel_initializer="lecun_normal",
            name="patches",
        )
        self.fixed_positions = fixed_positions
        self.positions = None  # made in build(), once the grid is given

    def build(self, input_shape):
        _, height, width, _ = input_shape
        self.cls = self.registers = None
        if self.class_token:
            self.cls = self.add_weight(shape=(1, 1, self.dim), initializer="zeros", name="cls")
        if registers := self.before - int(self.class_token):
            self.registers = self.add_weight(
                shape=(1, registers, self.dim),
                initializer=keras.initializers.RandomNormal(stddev=0.02),
                name="registers",
            )
        kind = SinusoidalGridPosition if self.fixed_positions else GridPosition
        self.positions = kind(
            height // self.patch_size,
            width // self.patch_size,
            self.positions_before,
            name="positions",
        )
        self.patches.build(input_shape)
        self.positions.build((None, None, self.dim))

    def compute_output_shape(self, input_shape):
        patches = self.positions.height * self.positions.width
        return (input_shape[0], self.before + patches, self.dim)

    def call(self, x):
        x = self.patches(x)  # (B, H/P, W/P, D)
        grid = tuple(x.shape[1:3])
        x = ops.reshape(x, (-1, x.shape[1] * x.shape[2], self.dim))
        zeros = ops.zeros_like(x[:, :1])  # one per example
        before = [zeros + ops.cast(t, x.dtype) for t in (self.cls, self.registers) if t is not None]
        p = self.positions_before
        if p == self.before:
            return self.positions(ops.concatenate([*before, x], axis=1), grid=grid)
        before = ops.concatenate(before, axis=1)
        x = self.positions(ops.concatenate([before[:, :p], x], axis=1), grid=grid)
        return ops.concatenate([x[:, :p], before[:, p:], x[:, p:]], axis=1)
