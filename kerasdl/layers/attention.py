"""Multi-head attention.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2;
        Ainslie et al. 2023, https://arxiv.org/abs/2305.13245 (grouped heads).
"""

import contextvars

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.core import having, register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.mlp import dense
from kerasdl.layers.position import THETA, check_positions, positions_of, rotate

_hidden = contextvars.ContextVar("hidden", default=-3e4)


def hide_by(score):
    """Within it, what a query may not look at has its score lowered by no more than this.

    For 8-bit activations: their one scale has to hold the scores, and the lowest.
    """
    return having(_hidden, -score)


def attend(query, key, value, attention_mask=None, drop=None):
    """Scaled dot-product attention, equation 1.

    Args:
        query: float `(B, h, N, d)`.
        key: float `(B, k, M, d)`; `k` divides `h`, and each key serves `h / k` queries in a row.
        value: float `(B, k, M, e)`.
        attention_mask: bool, broadcast to `(B, h, N, M)`; True where a query may look. A query that
            may look nowhere looks about as if there were no mask.
        drop: What is applied to the weights before they are used, such as dropout.

    Returns:
        float `(B, h, N, e)`, and the weights `(B, h, N, M)` before `drop`; rows sum to 1.
    """
    h, k = query.shape[1], key.shape[1]
    b, _, n, d = ops.shape(query)
    m, grouped = ops.shape(key)[2], (b, k, h // k * n)
    query = query * d**-0.5
    if k < h:
        query = ops.reshape(query, (*grouped, d))
    scores = ops.matmul(query, ops.transpose(key, (0, 1, 3, 2)))
    if k < h:
        scores = ops.reshape(scores, (b, h, n, m))
    if attention_mask is not None:
        # Finite, and in range of float16 too, so that a row without any True gives no NaN. Added,
        # because to select among all scores takes longer than to do so among the mask's.
        hidden = ops.where(attention_mask, 0.0, _hidden.get())
        scores = scores + ops.cast(hidden, scores.dtype)
    weights = ops.softmax(scores, axis=-1)  # (B, h, N, M)
    used = drop(weights) if drop else weights
    if k < h:
        used = ops.reshape(used, (*grouped, m))
    y = ops.matmul(used, value)
    return (ops.reshape(y, (b, h, n, value.shape[-1])) if k < h else y), weights


def split_heads(x, num_heads):
    """`(B, N, h d)` to `(B, h, N, d)`; `B` and `N` may be unknown."""
    _, n, dim = ops.shape(x)
    return ops.transpose(ops.reshape(x, (-1, n, num_heads, dim // num_heads)), (0, 2, 1, 3))


def merge_heads(x):
    """`(B, h, N, d)` to `(B, N, h d)`, the inverse of `split_heads`."""
    _, h, n, d = ops.shape(x)
    return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (-1, n, h * d))


def causal_mask(queries, keys):
    """bool `(N, M)`: True where the key does not stand behind the query.

    Made by comparison, which has a TFLite builtin at any length.

    Args:
        queries: int `(N,)`, positions.
        keys: int `(M,)`, positions.
    """
    return keys[None, :] <= queries[:, None]


def check_heads(num_heads, dim, num_kv_heads=None, rotary=False, head_dim=None):
    """Refuse numbers of heads that do not divide what they should; ValueError."""
    if not head_dim and dim % num_heads:
        raise UserError(f"num_heads {num_heads}: must divide the {dim} channels")
    if num_kv_heads and num_heads % num_kv_heads:
        raise UserError(f"num_kv_heads {num_kv_heads}: must divide num_heads {num_heads}")
    each = head_dim or dim // num_heads
    if rotary and each % 2:
        sizes = f"{dim} channels in {num_heads} heads are {each} each"
        raise UserError(
            "rotary positions need an even number of channels per head: "
            + (f"head_dim is {head_dim}" if head_dim else sizes)
        )


@register
class SelfAttention(keras.layers.Layer):
    """Multi-head attention of a sequence to itself; one projection makes query, key and value.

    Args:
        num_heads: `h`; it divides the channels `D` unless there is a `head_dim`.
        drop_rate: Dropout of the attention weights.
        num_kv_heads: `k`, heads of key and value, each of which serves `h / k` heads of the query;
            `h` if None.
        causal: Whether a token looks only at itself and what stands before it.
        rotary: Whether query and key are turned by their positions.
        use_bias: Whether the projections have biases.
        stddevs: Of the two kernels at the start; Glorot's if None.
        project_bias: Whether the last projection has one; as `use_bias` says if None.
        head_dim: Channels of a head, `d`; `D / h` if None.
        theta: Base of the rotary angles.

    Call arguments:
        x: float `(B, N, D)`.
        attention_mask: bool, broadcast to `(B, h, N, M)`; True where a token may look, or None.
        training: Whether to drop.
        return_weights: Whether to give the weights as well.
        cache: None, or keys and values `(B, k, L, d)` of the tokens so far: those of `x` are
            put in at `position`, and `M` is `L`, else `N`. For causal attention only.
        position: int, or int scalar tensor; that of the first token of `x`.

    Returns:
        float `(B, N, D)`; with `return_weights` also the weights `(B, h, N, M)`; with `cache` also
        `[keys, values]` with those of `x` in them.

    Raises:
        ValueError: `num_heads` does not divide `D`, or `num_kv_heads` does not divide `num_heads`,
            or more tokens than fit into the cache.
    """

    def __init__(
        self,
        num_heads,
        drop_rate=0.0,
        num_kv_heads=None,
        causal=False,
        rotary=False,
        use_bias=True,
        stddevs=None,
        project_bias=None,
        head_dim=None,
        theta=THETA,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.causal = causal
        self.rotary = rotary
        self.use_bias = use_bias
        self.project_bias = use_bias if project_bias is None else project_bias
        self.stddevs = stddevs or (None, None)
        self.head_dim = head_dim
        self.theta = theta
        self.drop = Dropout(drop_rate, name="drop")
        self.qkv = self.project = None  # made in build(), once D is given

    def build(self, input_shape):
        dim = input_shape[-1]
        check_heads(self.num_heads, dim, self.num_kv_heads, self.rotary, self.head_dim)
        each = self.head_dim or dim // self.num_heads
        units = (self.num_heads + 2 * self.num_kv_heads) * each
        self.qkv = dense(units, "qkv", self.stddevs[0], self.use_bias)
        self.project = dense(dim, "project", self.stddevs[1], self.project_bias)
        self.qkv.build(input_shape)
        self.project.build((*input_shape[:-1], self.num_heads * each))
        self.drop.build(input_shape)

    def call(
        self,
        x,
        attention_mask=None,
        training=False,
        return_weights=False,
        cache=None,
        position=0,
    ):
        h, k = self.num_heads, self.num_kv_heads
        heads = split_heads(self.qkv(x), h + 2 * k)  # (B, h + 2 k, N, d)
        query, key, value = ops.split(heads, [h, h + k], axis=1)
        positions = positions_of(x, position)
        if self.rotary:
            query, key = (rotate(z, positions, self.theta) for z in (query, key))
        if cache is not None:
            key, value = self._write(cache, key, value, position)
        if self.causal:
            keys = positions if cache is None else positions_of(key, axis=2)
            earlier = causal_mask(positions, keys)
            attention_mask = earlier if attention_mask is None else earlier & attention_mask
        y, weights = attend(
            query, key, value, attention_mask, lambda w: self.drop(w, training=training)
        )
        answer = [self.project(merge_heads(y))]
        answer += [weights] if return_weights else []
        answer += [[key, value]] if cache is not None else []
        return tuple(answer) if len(answer) > 1 else answer[0]

    def _write(self, cache, key, value, position):
        if not self.causal:
            raise UserError("a cache needs causal=True: earlier tokens must not see later ones")
        check_positions(position, key.shape[2], cache[0].shape[2])
        start = (0, 0, position, 0)
        return [
            ops.slice_update(c, start, part) for c, part in zip(cache, (key, value), strict=True)
        ]


@register
class CrossAttention(keras.layers.Layer):
    """Multi-head attention of a sequence to another one, the memory.

    Args:
        num_heads: `h`; it divides the channels `D`.
        drop_rate: Dropout of the attention weights.

    Call arguments:
        x: float `(B, N, D)`; who looks.
        memory: float `(B, M, C)`, what is looked at; or what `remember(memory)` made of it, which
            saves its projection in every step of a decoder.
        attention_mask: bool, broadcast to `(B, h, N, M)`; True where a token may look, or None.
        training: Whether to drop.
        return_weights: Whether to give the weights as well.

    Returns:
        float `(B, N, D)`; with `return_weights` also the weights `(B, h, N, M)`.

    Raises:
        ValueError: `num_heads` does not divide `D`.
    """

    def __init__(self, num_heads, drop_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.drop = Dropout(drop_rate, name="drop")
        self.query = self.key = self.value = self.project = None  # made in build()

    def build(self, x_shape, memory_shape):
        dim = x_shape[-1]
        check_heads(self.num_heads, dim)
        for name in ("query", "key", "value", "project"):
            setattr(self, name, dense(dim, name))
        for child in (self.query, self.project, self.drop):
            child.build(x_shape)
        for child in (self.key, self.value):
            child.build(memory_shape)

    def remember(self, memory, positions=None):
        """The keys and values of a memory `(B, M, C)`: a list of two `(B, h, M, D / h)`.

        Positions, of the memory's shape or broadcast to it, are added for the keys alone.
        """
        looked_at = memory if positions is None else memory + positions
        parts = self.key(looked_at), self.value(memory)
        return [split_heads(part, self.num_heads) for part in parts]

    def call(self, x, memory, attention_mask=None, training=False, return_weights=False):
        remembered = memory if isinstance(memory, list | tuple) else self.remember(memory)
        query = split_heads(self.query(x), self.num_heads)
        y, weights = attend(
            query, *remembered, attention_mask, lambda w: self.drop(w, training=training)
        )
        y = self.project(merge_heads(y))
        return (y, weights) if return_weights else y
