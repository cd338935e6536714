"""A mixture of experts.

Source: Jiang et al. 2024, https://arxiv.org/abs/2401.04088, section 2.1 (Mixtral: the experts, and
        the softmax over the chosen ones); Fedus et al. 2021, https://arxiv.org/abs/2101.03961,
        equations 4 to 6 (the balance loss, here with `k` choices per token).
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.activation import ELEMENTWISE, activate, check_activation
from kerasdl.layers.core import register


@register
class MixtureOfExperts(keras.layers.Layer):
    """Several `SwiGLU`s, of which a router chooses `k` for each token and weighs their answers.

    A token's weights are the softmax over its `k` largest router scores, and 0 for the others.
    With `top_k=1` that softmax is 1, so that only the balance loss trains the router.

    Every expert computes every token: exact, without a capacity or dropped tokens, at `E / k` times
    the multiplications that a sparse computation would need. The experts stand side by side in
    one wide `SwiGLU` of `E * hidden` units, each unit times the weight of its expert, so that the
    sum over the experts is the last matrix product.

    Args:
        num_experts: `E`.
        hidden_dim: Units inside an expert.
        top_k: `k`, experts per token; at most `E`.
        stddevs: Of the kernels at the start, those of `D -> hidden` and the router, and that of
            `hidden -> D`; Glorot's of one expert if None.
        activation: Of the experts, as of `SwiGLU`.

    Call arguments:
        x: float `(B, N, D)`.
        return_balance: Whether to give the balance loss as well.

    Returns:
        float `(B, N, D)`; with `return_balance` also `(B,)`: `E sum_e f_e P_e`, with `f_e` the
        fraction of choices that fell on expert `e` and `P_e` the mean of its probability over all
        experts, both over the tokens of one sequence. It is 1 where choices or probabilities are
        uniform. Fedus et al. take both over the batch; over a sequence, the loss of an example
        does not depend on the others.

    Raises:
        ValueError: `top_k` is not between 1 and `num_experts`.
    """

    def __init__(self, num_experts, hidden_dim, top_k=2, stddevs=None, activation="silu", **kwargs):
        super().__init__(**kwargs)
        check_activation(activation, ELEMENTWISE)
        if not 1 <= top_k <= num_experts:
            raise UserError(
                f"top_k {top_k}: must be at least 1 and at most num_experts={num_experts}"
            )
        self.num_experts = num_experts
        self.hidden_dim = hidden_dim
        self.top_k = top_k
        self.activation = activation
        self.stddevs = stddevs or (None, None)

    def build(self, input_shape):
        dim, e, hidden = input_shape[-1], self.num_experts, self.hidden_dim
        self.router = self._kernel("router", (dim, e), dim + e, 0)
        self.gate = self._kernel("gate", (dim, e * hidden), dim + hidden, 0)
        self.up = self._kernel("up", (dim, e * hidden), dim + hidden, 0)
        self.down = self._kernel("down", (e * hidden, dim), dim + hidden, 1)

    def _kernel(self, name, shape, fans, which):
        stddev, limit = self.stddevs[which], (6 / fans) ** 0.5
        if stddev is None:
            start = keras.initializers.RandomUniform(-limit, limit)
        else:
            start = keras.initializers.RandomNormal(0.0, stddev)
        # The choice of experts is made in full precision.
        return self.add_weight(shape=shape, initializer=start, name=name, autocast=name != "router")

    def call(self, x, return_balance=False):
        e = self.num_experts
        scores = ops.matmul(ops.cast(x, self.variable_dtype), self.router)  # (B, N, E)
        best, chosen = ops.top_k(scores, self.top_k)  # (B, N, k)
        chosen = ops.one_hot(chosen, e, dtype=scores.dtype)  # (B, N, k, E)
        best = ops.softmax(best) if self.top_k > 1 else ops.ones_like(best)
        weights = ops.sum(ops.expand_dims(best, -1) * chosen, axis=-2)  # (B, N, E)
        hidden = activate(self.activation, ops.matmul(x, self.gate)) * ops.matmul(x, self.up)
        b, n, units = ops.shape(hidden)
        each = ops.expand_dims(ops.cast(weights, x.dtype), -1)  # (B, N, E, 1)
        hidden = ops.reshape(hidden, (b, n, e, self.hidden_dim)) * each
        y = ops.matmul(ops.reshape(hidden, (b, n, units)), self.down)
        if not return_balance:
            return y
        fraction = ops.mean(ops.sum(chosen, axis=-2), axis=1) / self.top_k  # (B, E), no gradient
        probability = ops.mean(ops.softmax(scores), axis=1)
        return y, e * ops.sum(fraction * probability, axis=-1)
