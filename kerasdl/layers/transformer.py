"""What Transformers are made of: token embeddings, encoder and decoder blocks.

Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, sections 3 and 5.4 (post-norm);
        Xiong et al. 2020, https://arxiv.org/abs/2002.04745, figure 1 (pre-norm).
"""

import keras
from keras import ops

from kerasdl.layers.attention import CrossAttention, SelfAttention
from kerasdl.layers.core import register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.mlp import MLP
from kerasdl.layers.remat import Block
from kerasdl.ops.text import PAD

EPSILON = 1e-6  # of norms, in the authors' code


@register
class TokenEmbedding(keras.layers.Layer):
    """A learned vector per token id, which also scores every token for a vector (tied weights).

    Args:
        vocab_size: `V`.
        dim: `D`.
        stddev: Of the normal distribution that the vectors start from.

    Call arguments:
        token_ids: int `(B, N)`, 0 or more and below `V`.

    Returns:
        float `(B, N, D)`.
    """

    def __init__(self, vocab_size, dim, stddev=0.02, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.dim = dim
        self.stddev = stddev

    def build(self, input_shape):
        self.table = self.add_weight(
            shape=(self.vocab_size, self.dim),
            initializer=keras.initializers.RandomNormal(stddev=self.stddev),
            name="table",
            autocast=False,  # logits are made in full precision
        )

    def compute_output_shape(self, input_shape):
        return (*input_shape, self.dim)

    def call(self, token_ids):
        return ops.cast(ops.take(self.table, token_ids, axis=0), self.compute_dtype)

    def logits(self, x):
        """`(B, N, V)`, in at least float32: the product of `x` `(B, N, D)` and every vector."""
        return ops.matmul(ops.cast(x, self.variable_dtype), ops.transpose(self.table))


class ResidualBlock(Block):
    """Base of blocks whose parts are added to their input, with a norm before or after.

    Pre-norm is `x + drop(f(norm(x)))`, post-norm `norm(x + drop(f(x)))`.

    Args:
        prenorm: Which of the two.
        drop_rate: Dropout of every part's answer.
    """

    def __init__(self, prenorm, drop_rate, **kwargs):
        super().__init__(**kwargs)
        self.prenorm = prenorm
        self.drop = Dropout(drop_rate, name="drop")

    def before(self, norm, x):
        """What the part `f` is given."""
        return norm(x) if self.prenorm else x

    def after(self, norm, x, y, training):
        """The sum of the block's `x` and the part's answer `y`."""
        x = x + self.drop(y, training=training)
        return x if self.prenorm else norm(x)


@register
class EncoderBlock(ResidualBlock):
    """Self-attention, then a perceptron.

    Args:
        num_heads: `h`; it divides `D`.
        mlp_dim: Units inside the perceptron.
        drop_rate: Dropout of both answers.
        prenorm: Whether layer norm stands before attention and perceptron, not after the sums.
        activation: Of the perceptron.
        epsilon: Of the norms.

    Call arguments:
        x: float `(B, N, D)`.
        attention_mask: bool, broadcast to `(B, h, N, N)`; True where a token may look, or None.
        training: Whether to drop.

    Returns:
        float `(B, N, D)`.
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        drop_rate=0.0,
        prenorm=False,
        activation="relu",
        epsilon=EPSILON,
        **kwargs,
    ):
        super().__init__(prenorm, drop_rate, **kwargs)
        self.attention = SelfAttention(num_heads, name="attention")
        self.norm1 = layer_norm("norm1", epsilon)
        self.mlp = MLP(mlp_dim, activation, name="mlp")
        self.norm2 = layer_norm("norm2", epsilon)

    def build(self, input_shape):
        for child in (self.attention, self.norm1, self.mlp, self.norm2, self.drop):
            child.build(input_shape)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, x, attention_mask=None, training=False):
        y = self.attention(self.before(self.norm1, x), attention_mask=attention_mask)
        x = self.after(self.norm1, x, y, training)
        y = self.mlp(self.before(self.norm2, x))
        return self.after(self.norm2, x, y, training)


@register
class DecoderBlock(ResidualBlock):
    """Causal self-attention, attention to the encoder's answer, then a perceptron.

    Args:
        num_heads: `h`; it divides `D`.
        mlp_dim: Units inside the perceptron.
        drop_rate: Dropout of the three answers.
        prenorm: Whether layer norm stands before the three parts, not after the sums.
        activation: Of the perceptron.
        epsilon: Of the norms.

    Call arguments:
        x: float `(B, N, D)`.
        memory: float `(B, M, C)`, the encoder's answer; or what `cross.remember(memory)` made
            of it.
        memory_mask: bool, broadcast to `(B, h, N, M)`; True where a token may look, or None.
        cache: As that of `SelfAttention`, or None.
        position: int, or int scalar tensor; that of the first token of `x`.
        training: Whether to drop.
        return_weights: Whether to give the weights of the attention to the encoder as well.

    Returns:
        float `(B, N, D)`; with `return_weights` also `(B, h, N, M)`; with `cache` also the cache
        with `x` in it.
    """

    def __init__(
        self,
        num_heads,
        mlp_dim,
        drop_rate=0.0,
        prenorm=False,
        activation="relu",
        epsilon=EPSILON,
        **kwargs,
    ):
        super().__init__(prenorm, drop_rate, **kwargs)
        self.attention = SelfAttention(num_heads, causal=True, name="attention")
        self.norm1 = layer_norm("norm1", epsilon)
        self.cross = CrossAttention(num_heads, name="cross")
        self.norm2 = layer_norm("norm2", epsilon)
        self.mlp = MLP(mlp_dim, activation, name="mlp")
        self.norm3 = layer_norm("norm3", epsilon)

    def build(self, x_shape, memory_shape):
        self.cross.build(x_shape, memory_shape)
        for child in (self.attention, self.norm1, self.norm2, self.mlp, self.norm3, self.drop):
            child.build(x_shape)

    def call(
        self,
        x,
        memory,
        memory_mask=None,
        cache=None,
        position=0,
        training=False,
        return_weights=False,
    ):
        y = self.attention(self.before(self.norm1, x), cache=cache, position=position)
        y, cache = (y, None) if cache is None else y
        x = self.after(self.norm1, x, y, training)
        y, weights = self.cross(
            self.before(self.norm2, x), memory, attention_mask=memory_mask, return_weights=True
        )
        x = self.after(self.norm2, x, y, training)
        y = self.mlp(self.before(self.norm3, x))
        answer = [self.after(self.norm3, x, y, training)]
        answer += [weights] if return_weights else []
        answer += [cache] if cache is not None else []
        return tuple(answer) if len(answer) > 1 else answer[0]


def layer_norm(name, epsilon=EPSILON):
    """Keras' layer norm, with the epsilon of the authors' code."""
    return keras.layers.LayerNormalization(epsilon=epsilon, name=name)


def padding_mask(token_ids, pad_id=PAD):
    """bool `(B, 1, 1, M)`: True where `token_ids` `(B, M)` are not `pad_id`; for attention."""
    return ops.expand_dims(ops.not_equal(token_ids, pad_id), (1, 2))
