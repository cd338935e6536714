"""The Transformer, an encoder and a decoder.

Paper:   Attention Is All You Need, Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
         (figure 1, section 3, table 3).
Differs: pre-norm is offered (Xiong et al. 2020, https://arxiv.org/abs/2002.04745), with a norm
         after the last block of either half; `transformer_small` is our size for short texts, and
         pre-norm, which needs no warm-up to start learning. Other options are those of Marian
         (Junczys-Dowmunt et al. 2018, https://arxiv.org/abs/1804.00344).
"""

import keras
from keras import ops

from kerasdl.layers.attention import check_heads
from kerasdl.layers.core import Model, check_counts, construct, register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.position import SinusoidalPosition, check_positions, static_value
from kerasdl.layers.transformer import (
    EPSILON,
    DecoderBlock,
    EncoderBlock,
    TokenEmbedding,
    layer_norm,
    padding_mask,
)
from kerasdl.ops.text import PAD


class TokenScores(keras.layers.Layer):
    """Scores of every token for a vector: its products with all embeddings, or with a kernel.

    Args:
        vocab_size: `V`.
        tied: Whether they are products with the embeddings.
        use_bias: Whether each token has a bias.

    Call arguments:
        x: float `(B, N, D)`.
        embedding: The `TokenEmbedding`.

    Returns:
        Logits `(B, N, V)`, in at least float32.
    """

    def __init__(self, vocab_size, tied, use_bias, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.tied = tied
        self.use_bias = use_bias

    def build(self, input_shape):
        dim, self.kernel, self.bias = input_shape[-1], None, None
        if not self.tied:
            self.kernel = self.add_weight(
                shape=(dim, self.vocab_size),
                initializer=keras.initializers.RandomNormal(stddev=dim**-0.5),
                name="kernel",
                autocast=False,
            )
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(self.vocab_size,), initializer="zeros", name="bias", autocast=False
            )

    def call(self, x, embedding):
        if self.tied:
            logits = embedding.logits(x)
        else:
            logits = ops.matmul(ops.cast(x, self.variable_dtype), self.kernel)
        return logits if self.bias is None else logits + self.bias


@register
class Transformer(Model):
    """Encoder blocks read the source, decoder blocks write the target, one embedding serves both.

    Source, target and the scores of the next token have one embedding; tokens are scaled by
    `sqrt(D)` before the sinusoids are added (section 3.4).

    Args:
        vocab_size: `V`, of source and target together.
        max_length: Maximum number of positions of a decoding; no weight depends on it.
        dim: Channels of a token, `D`.
        depth: Blocks of the encoder, and of the decoder.
        num_heads: Heads of each attention; divides `dim`.
        mlp_dim: Units inside each perceptron.
        drop_rate: Dropout of the tokens and of every part of a block (section 5.4).
        prenorm: Whether norms stand before the parts of a block, not after the sums.
        decoder_depth, decoder_heads, decoder_mlp_dim: Those of the decoder, if they are others.
        activation: Of the perceptrons, a name of `kerasdl.layers.activation.ACTIVATIONS`.
        epsilon: Of every norm.
        halves: Whether the sines of a position come before its cosines, instead of by turns.
        scale_embedding: Whether tokens are scaled by `sqrt(D)`.
        source_vocab_size: Tokens of the source, if it has an embedding of its own.
        tied: Whether the scores are made with the token embeddings.
        logits_bias: Whether each token's score has a bias.
        pad_id: The token that fills up a text.

    Call arguments:
        x: `{"source_ids": int32 (B, S), "target_ids": int32 (B, T)}`. `pad_id` in the source is not
            looked at; target position `i` is scored from target tokens up to `i`. Padding after the
            target changes nothing before it, so it needs no mask.
        training: Whether to drop.

    Returns:
        float32 (or float64) logits `(B, T, V)` of the token that follows.

    Raises:
        ValueError: `num_heads` does not divide `dim`; a decoding longer than `max_length`.
    """

    def __init__(
        self,
        vocab_size=37000,
        max_length=512,
        dim=512,
        depth=6,
        num_heads=8,
        mlp_dim=2048,
        drop_rate=0.1,
        prenorm=False,
        decoder_depth=None,
        decoder_heads=None,
        decoder_mlp_dim=None,
        activation="relu",
        epsilon=EPSILON,
        halves=False,
        scale_embedding=True,
        source_vocab_size=None,
        tied=True,
        logits_bias=False,
        pad_id=PAD,
        **kwargs,
    ):
        super().__init__(**kwargs)
        decoder_depth = depth if decoder_depth is None else decoder_depth
        decoder_heads = num_heads if decoder_heads is None else decoder_heads
        decoder_mlp_dim = mlp_dim if decoder_mlp_dim is None else decoder_mlp_dim
        check_counts(
            vocab_size=vocab_size,
            max_length=max_length,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
            decoder_depth=decoder_depth,
            decoder_heads=decoder_heads,
            decoder_mlp_dim=decoder_mlp_dim,
            source_vocab_size=source_vocab_size,
        )
        check_heads(num_heads, dim)
        check_heads(decoder_heads, dim)
        self.max_length = max_length
        self.dim = dim
        self.num_heads = decoder_heads  # of the attention to the source
        self.halves = halves
        self.epsilon = epsilon
        self.tied = tied
        self.prenorm = prenorm
        self.scale = dim**0.5 if scale_embedding else 1.0
        self.pad_id = pad_id
        self.embedding = TokenEmbedding(vocab_size, dim, dim**-0.5, name="embedding")
        self.source_embedding = None
        if source_vocab_size:
            self.source_embedding = TokenEmbedding(
                source_vocab_size, dim, dim**-0.5, name="source_embedding"
            )
        self.positions = SinusoidalPosition(halves, name="positions")
        self.drop = Dropout(drop_rate, name="drop")
        more = (drop_rate, prenorm, activation, epsilon)
        sizes, decoder_sizes = (num_heads, mlp_dim, *more), (decoder_heads, decoder_mlp_dim, *more)
        self.encoder = [EncoderBlock(*sizes, name=f"encoder{i + 1}") for i in range(depth)]
        self.decoder = [
            DecoderBlock(*decoder_sizes, name=f"decoder{i + 1}") for i in range(decoder_depth)
        ]
        self.encoder_norm = layer_norm("encoder_norm", epsilon) if prenorm else None
        self.decoder_norm = layer_norm("decoder_norm", epsilon) if prenorm else None
        self.head = None
        if logits_bias or not tied:
            self.head = TokenScores(vocab_size, tied, logits_bias, name="head")

    def build(self, input_shape):
        for child in (self.embedding, self.source_embedding):
            if child is not None:
                child.build((None, None))
        tokens = (None, None, self.dim)
        ends = (self.encoder_norm, self.decoder_norm, self.head)
        for child in (self.positions, self.drop, *self.encoder, *ends):
            if child is not None:
                child.build(tokens)
        for block in self.decoder:
            block.build(tokens, tokens)

    def symbolic_inputs(self):
        return {
            name: keras.Input((None,), dtype="int32", name=name)
            for name in ("source_ids", "target_ids")
        }

    def call(self, x, training=False):
        memory, mask = self._encode(x["source_ids"], training)
        y = self._embed(x["target_ids"], training=training)
        for block in self.decoder:
            y = block(y, memory, memory_mask=mask, training=training)
        return self._logits(y)

    def encode(self, source_ids):
        """What the encoder makes of each token of sources.

        Args:
            source_ids: int32 `(B, S)`.

        Returns:
            float `(B, S, D)`.
        """
        return self._encode(source_ids)[0]

    def attention_maps(self, x):
        """Where each token of the target looks in the source.

        Args:
            x: As of `call`.

        Returns:
            float `(B, L, h, T, S)`: block, head, looking token, token looked at; the last axis sums
            to 1.
        """
        memory, mask = self._encode(x["source_ids"])
        y, maps = self._embed(x["target_ids"]), []
        for block in self.decoder:
            y, weights = block(y, memory, memory_mask=mask, return_weights=True)
            maps.append(weights)
        return ops.stack(maps, axis=1)

    def init_cache(self, source_ids, length):
        """Read the source, and make the empty state of decoding.

        Args:
            source_ids: int32 `(B, S)`.
            length: Maximum number of target positions that will be used, at most `max_length`; int
                or int scalar tensor.

        Returns:
            A list: bool `(B, 1, 1, S)`, where the source is no padding; then for each block keys
            and values of the source `(B, h, S, D / h)` and of the target `(B, h, length, D / h)`,
            with the `h` heads of the decoder.
        """
        check_positions(0, static_value(length), self.max_length)
        memory, mask = self._encode(source_ids)
        shape = (ops.shape(memory)[0], self.num_heads, length, self.dim // self.num_heads)
        state = [mask]
        for block in self.decoder:
            state += block.cross.remember(memory)
            state += [ops.zeros(shape, self.compute_dtype) for _ in range(2)]
        return state

    def decode_step(self, token_ids, state, position):
        """Score what follows each of some more tokens of the target.

        Args:
            token_ids: int32 `(B, n)`.
            state: That of `init_cache`, or of the tokens before.
            position: int, or int scalar tensor; that of the first of the `n` tokens.

        Returns:
            Logits `(B, n, V)`, those of `call` on the whole, and the new state.
        """
        mask, *parts = state
        y, after = self._embed(token_ids, position), [mask]
        for i, block in enumerate(self.decoder):
            memory, cache = parts[4 * i : 4 * i + 2], parts[4 * i + 2 : 4 * i + 4]
            y, cache = block(y, memory, memory_mask=mask, cache=cache, position=position)
            after += [*memory, *cache]
        return self._logits(y), after

    def _encode(self, source_ids, training=False):
        mask = padding_mask(source_ids, self.pad_id)
        x = self._embed(source_ids, training=training, embedding=self.source_embedding)
        for block in self.encoder:
            x = block(x, attention_mask=mask, training=training)
        return (self.encoder_norm(x) if self.encoder_norm else x), mask

    def _embed(self, token_ids, position=0, training=False, embedding=None):
        x = (embedding or self.embedding)(token_ids) * self.scale
        return self.drop(self.positions(x, position=position), training=training)

    def _logits(self, y):
        y = self.decoder_norm(y) if self.decoder_norm else y
        return self.head(y, embedding=self.embedding) if self.head else self.embedding.logits(y)


# Table 3: dim, units of the perceptron, heads, dropout
SIZES = {"transformer_base": (512, 2048, 8, 0.1), "transformer_big": (1024, 4096, 16, 0.3)}


def _paper(name, vocab_size, max_length, kwargs):
    names = ("dim", "mlp_dim", "num_heads", "drop_rate")
    sizes = dict(zip(names, SIZES[name], strict=True))
    given = {"vocab_size": vocab_size, "max_length": max_length}
    return construct(Transformer, name, given, sizes, kwargs)


def transformer_base(vocab_size=37000, max_length=512, **kwargs):
    """The base model of table 3."""
    return _paper("transformer_base", vocab_size, max_length, kwargs)


def transformer_big(vocab_size=37000, max_length=512, **kwargs):
    """The big model of table 3, with the dropout that it has for English to German."""
    return _paper("transformer_big", vocab_size, max_length, kwargs)


def transformer_small(vocab_size=128, max_length=64, **kwargs):
    """Two blocks of 128 channels on each side, pre-norm."""
    given = {"vocab_size": vocab_size, "max_length": max_length}
    sizes = {"dim": 128, "depth": 2, "num_heads": 4, "mlp_dim": 512, "prenorm": True}
    return construct(Transformer, "transformer_small", given, sizes, kwargs)


_TINY = {
    "vocab_size": 13,
    "max_length": 12,
    "dim": 16,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 24,
    "drop_rate": 0.05,
}
TINY = {
    "transformer_base": _TINY,
    "transformer_big": _TINY,
    "transformer_small": {
        **_TINY,
        "depth": 1,
        "prenorm": True,
        "decoder_depth": 2,
        "decoder_heads": 2,
        "decoder_mlp_dim": 20,
        "activation": "silu",
        "epsilon": 1e-5,
        "halves": True,
        "scale_embedding": False,
        "tied": False,
        "logits_bias": True,
    },
}
_PAPER = {"opt": "adam", "sched": "invsqrt", "lr": 0.0007, "label_smoothing": 0.1}
RECIPE = {
    "transformer_base": {**_PAPER, "warmup_epochs": 1.0},
    "transformer_big": {**_PAPER, "warmup_epochs": 1.0},
    "transformer_small": {"epochs": 6, "lr": 0.002, "warmup_epochs": 1.0, "clip_grad": 1.0},
}
