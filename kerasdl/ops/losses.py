"""Per-example losses."""

from keras import ops


def cross_entropy(label, logits, label_smoothing=0.0):
    """Softmax cross entropy in nats.

    Args:
        label: float `(B, K)`, rows sum to 1.
        logits: float `(B, K)`.
        label_smoothing: `eps`; labels become `(1 - eps) label + eps / K`.

    Returns:
        float `(B,)`; `ln K` at equal logits.

    Source: Szegedy et al. 2015, https://arxiv.org/abs/1512.00567, section 7 (smoothing).
    """
    if label_smoothing:
        label = label * (1.0 - label_smoothing) + label_smoothing / label.shape[-1]
    return -ops.sum(label * ops.log_softmax(logits, axis=-1), axis=-1)


def token_cross_entropy(label, logits, label_smoothing=0.0):
    """`cross_entropy` of sparse labels along a sequence.

    Args:
        label: int `(B, N)`.
        logits: float `(B, N, V)`.
        label_smoothing: See `cross_entropy`.

    Returns:
        float `(B, N)`, in nats; `ln V` at equal logits.
    """
    loss = ops.sparse_categorical_crossentropy(label, logits, from_logits=True)
    if label_smoothing:
        log_p = ops.log_softmax(logits, axis=-1)
        loss = (1.0 - label_smoothing) * loss - label_smoothing * ops.mean(log_p, axis=-1)
    return loss


def multiclass_hinge(label, logits):
    """Weston and Watkins' multiclass hinge loss, `sum_{j != y} max(0, s_j - s_y + 1)`.

    Args:
        label: float `(B, K)`, rows sum to 1; a mixed label gives the mixed loss.
        logits: float scores `s`, `(B, K)`.

    Returns:
        float `(B,)`; `K - 1` at equal scores.

    Source: Weston and Watkins 1999, Support vector machines for multi-class pattern recognition.
    """
    # margins[b, y, j] of every class as the true one, weighted by the label
    margins = ops.relu(logits[:, None, :] - logits[:, :, None] + 1.0)  # (B, K, K)
    per_class = ops.sum(margins, axis=-1) - 1.0  # j = y contributes 1
    return ops.sum(label * per_class, axis=-1)
