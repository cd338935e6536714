"""Decoder-only Transformer language models.

Paper:   Language Models are Unsupervised Multitask Learners, Radford et al. 2019,
         https://cdn.openai.com/better-language-models/language-models.pdf (GPT-2; section 2.3,
         table 2). Options: rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864),
         RMSNorm and SwiGLU without biases (Touvron et al. 2023, https://arxiv.org/abs/2302.13971),
         grouped heads (Ainslie et al. 2023, https://arxiv.org/abs/2305.13245), a mixture of
         experts (Jiang et al. 2024, https://arxiv.org/abs/2401.04088).
Differs: the balance loss is taken over each sequence, not over the batch; `char_gpt` is our size
         for characters.
"""

import keras
from keras import ops

from kerasdl.errors import UserError
from kerasdl.layers.activation import check_activation
from kerasdl.layers.attention import SelfAttention, check_heads
from kerasdl.layers.core import Model, check_counts, construct, register
from kerasdl.layers.dropout import Dropout
from kerasdl.layers.mlp import MLP, SwiGLU, dense
from kerasdl.layers.moe import MixtureOfExperts
from kerasdl.layers.norm import RMSNorm
from kerasdl.layers.position import (
    THETA,
    LearnedPosition,
    SinusoidalPosition,
    check_positions,
    static_value,
)
from kerasdl.layers.transformer import ResidualBlock, TokenEmbedding, layer_norm

STDDEV = 0.02  # of every kernel and embedding at the start
CHOICES = {
    "positions": ("learned", "rotary", "sinusoidal"),
    "norm": ("layer", "rms"),
    "mlp": ("gelu", "swiglu"),
}


def make_norm(norm, name, epsilon):
    """Layer norm or RMSNorm."""
    return RMSNorm(epsilon, name=name) if norm == "rms" else layer_norm(name, epsilon)


class Block(ResidualBlock):
    """Causal attention and a feed-forward part, each added to its input.

    Args:
        attention: A causal `SelfAttention`.
        mlp: An `MLP`, `SwiGLU` or `MixtureOfExperts`.
        norm: "layer" or "rms".
        epsilon: Of the norms.
        prenorm: Whether the norms stand before the parts, not after the sums.
        drop_rate: Dropout of both answers.

    Call arguments:
        x: float `(B, N, D)`.
        cache, position: As of `SelfAttention`.
        training: Whether to drop.

    Returns:
        float `(B, N, D)`; the cache with `x` in it, or None; the balance loss `(B,)`, or None
        without experts.
    """

    def __init__(self, attention, mlp, norm, epsilon, prenorm, drop_rate, **kwargs):
        super().__init__(prenorm, drop_rate, **kwargs)
        self.norm1 = make_norm(norm, "norm1", epsilon)
        self.attention = attention
        self.norm2 = make_norm(norm, "norm2", epsilon)
        self.mlp = mlp

    def build(self, input_shape):
        for child in (self.norm1, self.attention, self.norm2, self.mlp, self.drop):
            child.build(input_shape)

    def call(self, x, cache=None, position=0, training=False):
        y = self.attention(
            self.before(self.norm1, x), cache=cache, position=position, training=training
        )
        y, cache = (y, None) if cache is None else y
        x = self.after(self.norm1, x, y, training)
        y, balance = self.before(self.norm2, x), None
        if isinstance(self.mlp, MixtureOfExperts):
            y, balance = self.mlp(y, return_balance=True)
        else:
            y = self.mlp(y)
        return self.after(self.norm2, x, y, training), cache, balance


@register
class GPT(Model):
    """Token embeddings and positions, causal blocks, scores of the next token.

    Args:
        vocab_size: `V`.
        max_length: The context: maximum number of tokens that are attended to.
        dim: Channels of a token, `D`.
        depth: Blocks, `L`.
        num_heads: Heads of each block; divides `dim` unless there is a `head_dim`.
        mlp_dim: Units inside a perceptron or an expert.
        positions: "learned", "rotary" or "sinusoidal".
        norm: "layer" or "rms".
        mlp: "gelu", two dense layers, or "swiglu".
        prenorm: Whether norms stand before the parts of a block, and one after the last block;
            else after each sum.
        num_kv_heads: Heads of key and value, divides `num_heads`; as many if None.
        num_experts: Experts in place of each perceptron, 0 for none; they are SwiGLUs.
        top_k: Experts per token.
        drop_rate: Dropout of the parts of a block, and where nothing else is said of the tokens and
            the attention weights.
        tied: Whether the scores are made with the token embeddings.
        use_bias: Whether the projections of attention have biases.
        epsilon: Of every norm.
        head_dim: Channels of a head; `dim / num_heads` if None.
        theta: Base of the rotary angles.
        activation: Inside the perceptrons, a name of `kerasdl.layers.activation.ACTIVATIONS`;
            "gelu_tanh" or, in SwiGLUs, "silu" if None.
        mlp_bias: Whether the layers of the perceptrons have biases; those of SwiGLUs have none if
            None. Experts have none.
        token_drop_rate: Dropout of the tokens; `drop_rate` if None.
        attention_drop_rate: Dropout of the attention weights; `drop_rate` if None.

    Call arguments:
        token_ids: int32 `(B, N)`; position `i` is scored from tokens up to `i`.
        training: Whether to drop.

    Returns:
        float32 (or float64) logits `(B, N, V)` of the token that follows. In training, with
        experts: `{"logits": ..., "balance_loss": (B,)}`, the mean over the blocks.

    Raises:
        ValueError: An unknown choice, heads that do not divide, more tokens than `max_length`.
    """

    def __init__(
        self,
        vocab_size=50257,
        max_length=1024,
        dim=768,
        depth=12,
        num_heads=12,
        mlp_dim=3072,
        positions="learned",
        norm="layer",
        mlp="gelu",
        prenorm=True,
        num_kv_heads=None,
        num_experts=0,
        top_k=2,
        drop_rate=0.1,
        tied=True,
        use_bias=True,
        epsilon=1e-5,
        head_dim=None,
        theta=THETA,
        activation=None,
        mlp_bias=None,
        token_drop_rate=None,
        attention_drop_rate=None,
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
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            top_k=top_k,
        )
        for key, value in {"positions": positions, "norm": norm, "mlp": mlp}.items():
            if value not in CHOICES[key]:
                raise UserError(f"{key} {value!r}: not one of {', '.join(CHOICES[key])}")
        if num_experts and mlp != "swiglu":
            raise UserError(f"num_experts {num_experts} needs mlp='swiglu': experts are SwiGLUs")
        if num_experts and mlp_bias:
            raise UserError("mlp_bias True: experts have no biases")
        rotary = positions == "rotary"
        check_heads(num_heads, dim, num_kv_heads, rotary, head_dim)
        if theta <= 0:
            raise UserError(f"theta {theta}: must be above 0")
        gated = mlp == "swiglu"
        activation = activation or ("silu" if gated else "gelu_tanh")
        check_activation(activation)
        mlp_bias = not gated if mlp_bias is None else mlp_bias
        self.max_length = self.context = max_length
        self.dim = dim
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads or num_heads
        self.num_experts = num_experts
        self.cache_shape = (self.num_kv_heads, head_dim or dim // num_heads)
        stddevs = (STDDEV, STDDEV / (2 * depth) ** 0.5)  # what is added to x starts smaller

        def make_mlp():
            if num_experts:
                return MixtureOfExperts(
                    num_experts, mlp_dim, top_k, stddevs, activation, name="experts"
                )
            if gated:
                return SwiGLU(mlp_dim, stddevs, mlp_bias, activation, name="mlp")
            return MLP(mlp_dim, activation, stddevs=stddevs, use_bias=mlp_bias, name="mlp")

        def make_attention():
            return SelfAttention(
                num_heads,
                drop_rate if attention_drop_rate is None else attention_drop_rate,
                num_kv_heads,
                causal=True,
                rotary=rotary,
                use_bias=use_bias,
                stddevs=stddevs,
                head_dim=head_dim,
                theta=theta,
                name="attention",
            )

        self.embedding = TokenEmbedding(vocab_size, dim, STDDEV, name="embedding")
        self.positions = None
        if positions == "learned":
            self.positions = LearnedPosition(max_length, name="positions")
        elif positions == "sinusoidal":
            self.positions = SinusoidalPosition(name="positions")
        self.drop = Dropout(drop_rate if token_drop_rate is None else token_drop_rate, name="drop")
        parts = (norm, epsilon, prenorm, drop_rate)
        self.blocks = [
            Block(make_attention(), make_mlp(), *parts, name=f"block{i + 1}") for i in range(depth)
        ]
        self.norm = make_norm(norm, "norm", epsilon) if prenorm else None
        self.head = None if tied else dense(vocab_size, "head", STDDEV, False, self.variable_dtype)

    def build(self, input_shape):
        self.embedding.build(input_shape)
        for child in (self.positions, self.drop, *self.blocks, self.norm, self.head):
            if child is not None:
                child.build((None, None, self.dim))

    def symbolic_inputs(self):
        return keras.Input((None,), dtype="int32")

    def call(self, token_ids, training=False):
        x, losses = self._encode(token_ids, training)
        logits = self.score(x)
        if training and losses[0] is not None:
            return {"logits": logits, "balance_loss": sum(losses) / len(losses)}
        return logits

    def encode(self, token_ids, training=False):
        """What the scores are made of: the last block's answer, normed.

        Args:
            token_ids: int32 `(B, N)`.
            training: Whether to drop.

        Returns:
            float `(B, N, D)`.
        """
        return self._encode(token_ids, training)[0]

    def score(self, encoded):
        """Logits `(B, N, V)` of what `encode` gives, or of some positions of it."""
        return self.head(encoded) if self.head is not None else self.embedding.logits(encoded)

    def _encode(self, token_ids, training=False):
        check_positions(0, token_ids.shape[1], self.max_length)
        x = self._embed(token_ids, 0, training)
        losses = []
        for block in self.blocks:
            x, _, balance = block(x, training=training)
            losses.append(balance)
        return self._normed(x), losses

    def init_cache(self, batch_size, length):
        """The empty state of decoding.

        Args:
            batch_size: int, or int scalar tensor.
            length: Maximum number of positions that will be used, likewise; at most `max_length`.

        Returns:
            A list of float `(B, k, length, d)`: keys and values of each block in turn.
        """
        check_positions(0, static_value(length), self.max_length)
        heads, channels = self.cache_shape
        shape = (batch_size, heads, length, channels)
        return [ops.zeros(shape, self.compute_dtype) for _ in range(2 * len(self.blocks))]

    def decode_step(self, token_ids, state, position):
        """Score what follows each of some more tokens.

        Args:
            token_ids: int32 `(B, n)`.
            state: That of `init_cache`, or of the tokens before.
            position: int, or int scalar tensor; that of the first of the `n` tokens.

        Returns:
            Logits `(B, n, V)`, those of `call` on the whole, and the new state.
        """
        x, after = self._embed(token_ids, position), []
        for block, *cache in zip(self.blocks, state[::2], state[1::2], strict=True):
            x, cache, _ = block(x, cache=cache, position=position)
            after += cache
        return self.score(self._normed(x)), after

    def _embed(self, token_ids, position, training=False):
        x = self.embedding(token_ids)  # (B, N, D)
        if self.positions is not None:
            x = self.positions(x, position=position)
        return self.drop(x, training=training)

    def _normed(self, x):
        return self.norm(x) if self.norm is not None else x


def gpt2_small(vocab_size=50257, max_length=1024, **kwargs):
    """GPT-2 of 12 blocks, with its tied head and tanh GELU."""
    given = {"vocab_size": vocab_size, "max_length": max_length}
    return construct(GPT, "gpt2_small", given, {}, kwargs)


def char_gpt(vocab_size=128, max_length=128, **kwargs):
    """A small model of characters: rotary positions, RMSNorm and SwiGLU learn it much sooner."""
    given = {"vocab_size": vocab_size, "max_length": max_length}
    sizes = {"dim": 128, "depth": 4, "num_heads": 4, "mlp_dim": 344, "drop_rate": 0.0}
    options = {"positions": "rotary", "norm": "rms", "mlp": "swiglu", "use_bias": False}
    return construct(GPT, "char_gpt", given, sizes | options, kwargs)


_SIZES = {
    "vocab_size": 13,
    "max_length": 12,
    "dim": 16,
    "depth": 2,
    "num_heads": 4,
    "mlp_dim": 24,
    "drop_rate": 0.05,
}
TINY = {
    "gpt2_small": {**_SIZES, "prenorm": False},
    "char_gpt": {  # of Llama's rows too
        **_SIZES,
        "positions": "rotary",
        "norm": "rms",
        "mlp": "swiglu",
        "num_kv_heads": 2,
        "num_experts": 4,
        "top_k": 3,
        "tied": False,
        "use_bias": False,
        "epsilon": 1e-4,
        "head_dim": 6,
        "theta": 500.0,
        "activation": "gelu",
        "token_drop_rate": 0.05,
        "attention_drop_rate": 0.1,
    },
}
_TEXT = {"weight_decay": 0.1, "clip_grad": 1.0}
RECIPE = {
    "gpt2_small": {**_TEXT, "batch_size": 8, "lr": 0.0006, "warmup_epochs": 1.0},
    "char_gpt": {**_TEXT, "batch_size": 32, "lr": 0.003, "warmup_epochs": 0.5, "epochs": 4},
}
