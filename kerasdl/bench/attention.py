"""Our self-attention against Keras' multi-head attention, one training step."""

import keras

from kerasdl.bench.steps import noise, paired_steps
from kerasdl.layers.attention import SelfAttention

SIZE = {"batch": 32, "tokens": 128, "dim": 256, "num_heads": 8}


def cases(size=None):
    """Yield `(name, steps)` for `paired.compare`.

    Args:
        size: `{"batch", "tokens", "dim", "num_heads"}`; `SIZE` if None.
    """
    batch, tokens, dim, num_heads = (size or SIZE).values()
    steps = paired_steps(
        lambda: SelfAttention(num_heads),
        lambda: keras.layers.MultiHeadAttention(num_heads, dim // num_heads),
        noise((batch, tokens, dim)),
        lambda layer, x: layer(x, x, training=True),
    )
    yield f"{title(size)} / keras.layers.MultiHeadAttention", steps


def title(size=None) -> str:
    """The name of the case, without its peer."""
    batch, tokens, dim, num_heads = (size or SIZE).values()
    return f"SelfAttention (batch {batch}, {tokens} tokens, {dim} channels, {num_heads} heads)"
