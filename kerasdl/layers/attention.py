"""Multi-head attention.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.
"""

import keras
from keras import ops

from kerasdl.layers.core import register
from kerasdl.layers.dropout import Dropout


def attend(query, key, value, attention_mask=None, drop=None):
    """Scaled dot-product attention, equation 1.

    Args:
        query: float `(B, h, N, d)`.
        key: float `(B, h, M, d)`.
        value: float `(B, h, M, e)`.
        attention_mask: bool, broadcast to `(B, h, N, M)`; True where a query may look. A query that
            may look nowhere looks everywhere alike.
        drop: What is applied to the weights before they are used, such as dropout.

    Returns:
        float `(B, h, N, e)`, and the weights `(B, h, N, M)` before `drop`; rows sum to 1.
    """
    scale = query.shape[-1] ** -0.5
    scores = ops.matmul(query * scale, ops.transpose(key, (0, 1, 3, 2)))  # (B, h, N, M)
    if attention_mask is not None:
        # Finite, and in range of float16 too, so that a row without any True gives no NaN.
        scores = ops.where(attention_mask, scores, ops.cast(-3e4, scores.dtype))
    weights = ops.softmax(scores, axis=-1)
    return ops.matmul(drop(weights) if drop else weights, value), weights


def split_heads(x, num_heads):
    """`(B, N, h d)` to `(B, h, N, d)`; `N` may be unknown."""
    x = ops.reshape(x, (-1, ops.shape(x)[1], num_heads, x.shape[-1] // num_heads))
    return ops.transpose(x, (0, 2, 1, 3))


def merge_heads(x):
    """`(B, h, N, d)` to `(B, N, h d)`, the inverse of `split_heads`."""
    _, h, _, d = x.shape
    x = ops.transpose(x, (0, 2, 1, 3))
    return ops.reshape(x, (-1, ops.shape(x)[1], h * d))


@register
class SelfAttention(keras.layers.Layer):
    """Multi-head attention of a sequence to itself; one projection makes query, key and value.

    Args:
        num_heads: `h`; it divides the channels `D`.
        drop_rate: Dropout of the attention weights.

    Call arguments:
        x: float `(B, N, D)`.
        attention_mask: bool, broadcast to `(B, h, N, N)`; True where a token may look, or None.
        training: Whether to drop.
        return_weights: Whether to give the weights as well.

    Returns:
        float `(B, N, D)`; with `return_weights` also the weights `(B, h, N, N)`.

    Raises:
        ValueError: `num_heads` does not divide `D`.
    """

    def __init__(self, num_heads, drop_rate=0.0, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.drop = Dropout(drop_rate, name="drop")
        self.qkv = self.project = None  # made in build(), once D is known

    def build(self, input_shape):
        dim = input_shape[-1]
        if dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads}: it must divide the {dim} channels")
        self.qkv = keras.layers.Dense(3 * dim, name="qkv")
        self.project = keras.layers.Dense(dim, name="project")
        self.qkv.build(input_shape)
        self.project.build(input_shape)

    def call(self, x, attention_mask=None, training=False, return_weights=False):
        query, key, value = (
            split_heads(part, self.num_heads) for part in ops.split(self.qkv(x), 3, axis=-1)
        )
        y, weights = attend(
            query, key, value, attention_mask, lambda w: self.drop(w, training=training)
        )
        y = self.project(merge_heads(y))
        return (y, weights) if return_weights else y
