"""Recurrent language models, of characters by default.

Paper:   Recurrent neural network based language model, Mikolov et al. 2010 (`char_rnn`); Generating
         Sequences With Recurrent Neural Networks, Graves 2013, https://arxiv.org/abs/1308.0850
         (`char_lstm`, section 3); Learning Phrase Representations using RNN Encoder-Decoder,
         Cho et al. 2014, https://arxiv.org/abs/1406.1078 (`char_gru`).
Differs: tokens are embedded; no connections skip layers, and no peepholes; dropout between layers
         (Zaremba et al. 2014, https://arxiv.org/abs/1409.2329); every window starts from a state of
         zeros. On a GPU the layers are not compared with cuDNN's.
"""

import keras
from keras import ops

from kerasdl.layers.classifier import dense_head
from kerasdl.layers.core import Model, check_counts, construct, register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.recurrent import RecurrentStack


@register
class RecurrentLanguageModel(Model):
    """Embedded tokens, recurrent layers with dropout between, and a dense layer.

    Args:
        kind: `rnn`, `lstm` or `gru`.
        vocab_size: Tokens, `V`.
        max_length: Tokens of a training window. It reads on without limit.
        dim: Of a token's embedding.
        units: Of each layer, `U`.
        num_layers: Layers.
        drop_rate: Dropout between layers, and before the dense one.

    Attributes:
        context: How many tokens it can read; None, as there is no limit.

    Call arguments:
        x: int `(B, N)`.
        training: Whether to drop.

    Returns:
        Logits of each next token, float32 (or float64) `(B, N, V)`.
    """

    context = None

    def __init__(
        self,
        kind,
        vocab_size=128,
        max_length=128,
        dim=64,
        units=256,
        num_layers=2,
        drop_rate=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_counts(vocab_size=vocab_size, max_length=max_length, dim=dim)
        self.dim = dim
        self.embedding = keras.layers.Embedding(vocab_size, dim, name="embedding")
        self.stack = RecurrentStack(kind, units, num_layers, drop_rate, name="stack")
        self.drop = Dropout(drop_rate, name="drop")
        self.head = dense_head(vocab_size)

    def symbolic_inputs(self):
        return keras.Input((None,), dtype="int32")

    def build(self, input_shape):
        self.embedding.build(input_shape)
        self.stack.build((*input_shape, self.dim))
        self.drop.build((*input_shape, self.stack.width))
        self.head.build((*input_shape, self.stack.width))

    def call(self, x, training=False):
        y, _ = self.stack(self.embedding(x), training=training)
        return self.head(self.drop(y, training=training))

    def init_cache(self, batch_size, length=None):
        """The state before the first token.

        Args:
            batch_size: int or int scalar.
            length: Not used: the state does not grow with the text.

        Returns:
            A flat list of zeros `(B, U)`.
        """
        return self.stack.zero_state(batch_size)

    def decode_step(self, token_ids, state, position=None):
        """Read on.

        Args:
            token_ids: int `(B, n)`; `n` may be 0 where it is dynamic.
            state: As `init_cache` or this method gave it.
            position: Not used: that of the first token.

        Returns:
            Logits `(B, n, V)` and the new state.
        """
        if token_ids.shape[1] is not None:
            y, state = self.stack(self.embedding(token_ids), initial_state=state)
            return self.head(y), state
        # A loop over no step has no shape: one that does not count goes before.
        token_ids = ops.pad(token_ids, ((0, 0), (1, 0)))
        counts = ops.zeros_like(token_ids, "bool")
        counts = counts | (ops.arange(ops.shape(token_ids)[1]) > 0)
        y, state = self.stack(self.embedding(token_ids), initial_state=state, mask=counts)
        return self.head(y[:, 1:]), state


def _make(name, kind, vocab_size, max_length, kwargs):
    given = {"vocab_size": vocab_size, "max_length": max_length}
    return construct(RecurrentLanguageModel, name, given, {"kind": kind}, kwargs)


def char_rnn(vocab_size=128, max_length=128, **kwargs):
    """Two simple recurrent layers of 256 units."""
    return _make("char_rnn", "rnn", vocab_size, max_length, kwargs)


def char_lstm(vocab_size=128, max_length=128, **kwargs):
    """Two LSTM layers of 256 units."""
    return _make("char_lstm", "lstm", vocab_size, max_length, kwargs)


def char_gru(vocab_size=128, max_length=128, **kwargs):
    """Two GRU layers of 256 units."""
    return _make("char_gru", "gru", vocab_size, max_length, kwargs)


_TINY = {"vocab_size": 11, "max_length": 12, "dim": 7, "drop_rate": 0.1}
TINY = {
    "char_rnn": {**_TINY, "units": 12, "num_layers": 3},
    "char_lstm": {**_TINY, "units": 32, "num_layers": 1},
    "char_gru": {**_TINY, "units": 28, "num_layers": 1},
}
_RECIPE = {
    "epochs": 3,
    "batch_size": 32,
    "lr": 0.004,
    "warmup_epochs": 0.2,
    "clip_grad": 1.0,
    "max_length": 128,
    "drop_rate": 0.1,
}
RECIPE = {name: _RECIPE for name in TINY}
