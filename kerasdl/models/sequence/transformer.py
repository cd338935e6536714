"""The Transformer, an encoder and a decoder.

Paper:   Attention Is All You Need, Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
         (figure 1, section 3, table 3).
Differs: pre-norm is offered (Xiong et al. 2020, https://arxiv.org/abs/2002.04745), with a norm
         after the last block of either half; `transformer_small` is our size for short texts, and
         pre-norm, which needs no warm-up to start learning.
"""

import keras
from keras import ops

from kerasdl.layers.attention import check_heads
from kerasdl.layers.core import Model, check_counts, construct, register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.position import SinusoidalPosition, check_positions, static_value
from kerasdl.layers.transformer import (
    DecoderBlock,
    EncoderBlock,
    TokenEmbedding,
    layer_norm,
    padding_mask,
)


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

    Call arguments:
        x: `{"source_ids": int32 (B, S), "target_ids": int32 (B, T)}`. `PAD` in the source is not
            looked at; target position `i` is scored from target tokens up to `i`. `PAD` after the
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
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_heads(num_heads, dim)
        check_counts(
            vocab_size=vocab_size,
            max_length=max_length,
            dim=dim,
            depth=depth,
            num_heads=num_heads,
            mlp_dim=mlp_dim,
        )
        self.max_length = max_length
        self.dim = dim
        self.num_heads = num_heads
        self.embedding = TokenEmbedding(vocab_size, dim, dim**-0.5, name="embedding")
        self.positions = SinusoidalPosition(name="positions")
        self.drop = Dropout(drop_rate, name="drop")
        sizes = (num_heads, mlp_dim, drop_rate, prenorm)
        self.encoder = [EncoderBlock(*sizes, name=f"encoder{i + 1}") for i in range(depth)]
        self.decoder = [DecoderBlock(*sizes, name=f"decoder{i + 1}") for i in range(depth)]
        self.encoder_norm = layer_norm("encoder_norm") if prenorm else None
        self.decoder_norm = layer_norm("decoder_norm") if prenorm else None

    def build(self, input_shape):
        self.embedding.build((None, None))
        tokens = (None, None, self.dim)
        norms = (self.encoder_norm, self.decoder_norm)
        for child in (self.positions, self.drop, *self.encoder, *norms):
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
            and values of the source `(B, h, S, D / h)` and of the target `(B, h, length, D / h)`.
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
        mask = padding_mask(source_ids)
        x = self._embed(source_ids, training=training)
        for block in self.encoder:
            x = block(x, attention_mask=mask, training=training)
        return (self.encoder_norm(x) if self.encoder_norm else x), mask

    def _embed(self, token_ids, position=0, training=False):
        x = self.embedding(token_ids) * self.dim**0.5
        return self.drop(self.positions(x, position=position), training=training)

    def _logits(self, y):
        return self.embedding.logits(self.decoder_norm(y) if self.decoder_norm else y)


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
    "transformer_small": {**_TINY, "depth": 1, "prenorm": True},
}
_PAPER = {"opt": "adam", "sched": "invsqrt", "lr": 0.0007, "label_smoothing": 0.1}
RECIPE = {
    "transformer_base": {**_PAPER, "warmup_epochs": 1.0},
    "transformer_big": {**_PAPER, "warmup_epochs": 1.0},
    "transformer_small": {"epochs": 6, "lr": 0.002, "warmup_epochs": 1.0, "clip_grad": 1.0},
}
