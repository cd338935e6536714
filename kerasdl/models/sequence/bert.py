"""BERT, a Transformer encoder that fills in masked tokens.

Paper:   BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding,
         Devlin et al. 2018, https://arxiv.org/abs/1810.04805 (figure 2, sections 3 and 3.1,
         appendix A.2).
Differs: there is no prediction of the next sentence, so that examples are windows of running text
         without [CLS] and [SEP], and no pooler; kernels start normal, not truncated; `bert_small`
         is our size for characters.
"""

import keras
from keras import ops

from kerasdl.layers.activation import make_activation
from kerasdl.layers.attention import SelfAttention, check_heads
from kerasdl.layers.core import Model, build_chain, check_counts, construct, register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.mlp import MLP, dense
from kerasdl.layers.position import LearnedPosition, check_positions
from kerasdl.layers.transformer import ResidualBlock, TokenEmbedding, layer_norm
from kerasdl.ops.text import PAD

STDDEV = 0.02  # of every kernel and embedding at the start


class Block(ResidualBlock):
    """Self-attention and a perceptron, each followed by a sum and a norm.

    Args:
        num_heads: `A`; it divides the channels `H`.
        mlp_dim: Units inside the perceptron.
        activation: Of them.
        epsilon: Of the norms.
        drop_rate: Dropout of the attention weights and of both answers.

    Call arguments:
        x: float `(B, N, H)`.
        attention_mask: bool, broadcast to `(B, A, N, N)`; True where a token may look.
        training: Whether to drop.

    Returns:
        float `(B, N, H)`.
    """

    def __init__(self, num_heads, mlp_dim, activation, epsilon, drop_rate, **kwargs):
        super().__init__(False, drop_rate, **kwargs)
        stddevs = (STDDEV, STDDEV)
        self.attention = SelfAttention(num_heads, drop_rate, stddevs=stddevs, name="attention")
        self.norm1 = layer_norm("norm1", epsilon)
        self.mlp = MLP(mlp_dim, activation, stddevs=stddevs, name="mlp")
        self.norm2 = layer_norm("norm2", epsilon)

    def build(self, input_shape):
        for child in (self.attention, self.norm1, self.mlp, self.norm2, self.drop):
            child.build(input_shape)

    def call(self, x, attention_mask=None, training=False):
        y = self.attention(x, attention_mask=attention_mask, training=training)
        x = self.after(self.norm1, x, y, training)
        return self.after(self.norm2, x, self.mlp(x), training)


class MaskedTokenHead(keras.layers.Layer):
    """What comes before the scores of all tokens: dense layer, activation, norm; and their biases.

    Args:
        vocab_size: `V`.
        activation: Of the dense layer.
        epsilon: Of the norm.
        tied: Whether the scores are made with the token embeddings.

    Call arguments:
        x: float `(B, N, H)`.
        embedding: The `TokenEmbedding`.

    Returns:
        Logits `(B, N, V)`, in at least float32.
    """

    def __init__(self, vocab_size, activation, epsilon, tied, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.activation = make_activation(activation)
        self.norm = layer_norm("norm", epsilon)
        self.project = self.scores = None  # made in build(), once H is given
        self.tied = tied

    def build(self, input_shape):
        self.project = dense(input_shape[-1], "project", STDDEV)
        build_chain(input_shape, self.project, self.activation, self.norm)
        if not self.tied:
            self.scores = dense(self.vocab_size, "scores", STDDEV, False, self.variable_dtype)
            self.scores.build(input_shape)
        self.bias = self.add_weight(
            shape=(self.vocab_size,), initializer="zeros", name="bias", autocast=False
        )

    def call(self, x, embedding):
        x = self.norm(self.activation(self.project(x)))
        return (embedding.logits(x) if self.tied else self.scores(x)) + self.bias


@register
class BERT(Model):
    """Embeddings of tokens, positions and segments; blocks; scores of what each token should be.

    Args:
        vocab_size: `V`.
        max_length: Maximum number of tokens.
        dim: Channels of a token, `H`.
        depth: Blocks, `L`.
        num_heads: Heads of each block, `A`; divides `dim`.
        mlp_dim: Units inside a perceptron.
        num_segments: Segments that a token may belong to.
        activation: Of perceptrons and head, a name of `kerasdl.layers.activation.ACTIVATIONS`.
        epsilon: Of every norm.
        drop_rate: Dropout of the tokens, the attention weights and the parts of a block.
        pad_id: The token that fills up a text: it is not looked at.
        tied: Whether the scores are made with the token embeddings.

    Call arguments:
        x: int32 token ids `(B, N)`; or `{"token_ids": int32 (B, N)}` and any of `"segment_ids"`,
            int32 `(B, N)`, else 0, and `"attention_mask"`, `(B, N)`, 1 or True where a token may be
            looked at, else wherever it is not `pad_id`.
        training: Whether to drop.

    Returns:
        float32 (or float64) logits `(B, N, V)` of the token at each place.

    Raises:
        ValueError: Heads that do not divide `dim`, more tokens than `max_length`.
    """

    def __init__(
        self,
        vocab_size=30522,
        max_length=512,
        dim=768,
        depth=12,
        num_heads=12,
        mlp_dim=3072,
        num_segments=2,
        activation="gelu",
        epsilon=1e-12,
        drop_rate=0.1,
        pad_id=PAD,
        tied=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(
            vocab_size=vocab_size,
            max_length=max_length,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            num_segments=num_segments,
        )
        check_heads(num_heads, dim)
        self.max_length = self.context = max_length
        self.dim = dim
        self.num_heads = num_heads
        self.pad_id = pad_id
        self.embedding = TokenEmbedding(vocab_size, dim, STDDEV, name="embedding")
        self.positions = LearnedPosition(max_length, name="positions")
        self.segments = TokenEmbedding(num_segments, dim, STDDEV, name="segments")
        self.norm = layer_norm("norm", epsilon)
        self.drop = Dropout(drop_rate, name="drop")
        sizes = (num_heads, mlp_dim, activation, epsilon, drop_rate)
        self.blocks = [Block(*sizes, name=f"block{i + 1}") for i in range(depth)]
        self.head = MaskedTokenHead(vocab_size, activation, epsilon, tied, name="head")

    def build(self, input_shape):
        self.embedding.build((None, None))
        self.segments.build((None, None))
        for child in (self.positions, self.norm, self.drop, *self.blocks, self.head):
            child.build((None, None, self.dim))

    def symbolic_inputs(self):
        return keras.Input((None,), dtype="int32")

    def call(self, x, training=False):
        return self.head(self._encode(x, training), embedding=self.embedding)

    def encode(self, x):
        """What the last block makes of each token.

        Args:
            x: As of `call`.

        Returns:
            float `(B, N, H)`.
        """
        return self._encode(x)

    def _encode(self, x, training=False):
        x = x if isinstance(x, dict) else {"token_ids": x}
        token_ids, mask = x["token_ids"], x.get("attention_mask")
        check_positions(0, token_ids.shape[1], self.max_length)
        mask = ops.not_equal(token_ids, self.pad_id) if mask is None else ops.cast(mask, "bool")
        mask = ops.expand_dims(mask, (1, 2))  # (B, 1, 1, N)
        segment_ids = x.get("segment_ids")
        y = self.positions(self.embedding(token_ids))
        y = y + self.segments(ops.zeros((1, 1), "int32") if segment_ids is None else segment_ids)
        y = self.drop(self.norm(y), training=training)
        for block in self.blocks:
            y = block(y, attention_mask=mask, training=training)
        return y


def bert_base(vocab_size=30522, max_length=512, **kwargs):
    """The base model: 12 blocks of 768 channels (section 3)."""
    given = {"vocab_size": vocab_size, "max_length": max_length}
    return construct(BERT, "bert_base", given, {}, kwargs)


def bert_small(vocab_size=128, max_length=128, **kwargs):
    """Four blocks of 128 channels, without dropout.

    Of characters it first learns how frequent each is; where to look it learns after some 3,000
    steps, which its recipe has room for.
    """
    given = {"vocab_size": vocab_size, "max_length": max_length}
    sizes = {"dim": 128, "depth": 4, "num_heads": 4, "mlp_dim": 512, "drop_rate": 0.0}
    return construct(BERT, "bert_small", given, sizes, kwargs)


_SIZES = {
    "vocab_size": 13,
    "max_length": 12,
    "dim": 16,
    "depth": 2,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_segments": 3,
    "activation": "relu",
    "epsilon": 1e-6,
    "drop_rate": 0.05,
}
TINY = {
    "bert_base": _SIZES,
    "bert_small": {**_SIZES, "activation": "gelu_tanh", "tied": False},
}
_PAPER = {"weight_decay": 0.01, "clip_grad": 1.0, "sched": "linear"}
RECIPE = {
    "bert_base": {**_PAPER, "batch_size": 8, "lr": 0.0001, "warmup_epochs": 0.5},
    "bert_small": {
        **_PAPER,
        "batch_size": 32,
        "lr": 0.002,
        "warmup_epochs": 0.5,
        "epochs": 12,
        "max_length": 64,
    },
}
