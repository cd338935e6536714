"""Some tokens of each example.

Source: He et al. 2021, https://arxiv.org/abs/2111.06377, section 3 (a random subset of patches).
"""

from keras import ops


def take_tokens(x, index):
    """Each example's tokens of its own numbers.

    Args:
        x: float `(B, N, D)`.
        index: int `(B, M)`, each from 0 on and below `N`.

    Returns:
        float `(B, M, D)`.
    """
    b, n, dim = ops.shape(x)
    rows = n * ops.arange(b, dtype="int32")[:, None] + ops.cast(index, "int32")
    return ops.take(ops.reshape(x, (-1, dim)), rows, axis=0)
