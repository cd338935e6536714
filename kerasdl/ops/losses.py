"""Per-example losses."""

from keras import ops

EXCLUDED = -1e9  # a score that no softmax counts
TINY_LENGTH = 1e-12  # squared, of a vector that has no direction
CERTAIN = 1e-12  # of 1 - p, below which a prediction is right for certain


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


def focal(log_p, gamma=2.0):
    """Focal loss `-(1 - p)^gamma log p`: what is predicted well counts less.

    Args:
        log_p: float, the logarithm of the probability `p` of the true class.
        gamma: How much less; 0 is cross entropy.

    Returns:
        float, in nats, the shape of `log_p`.

    Source: Lin et al. 2017, https://arxiv.org/abs/1708.02002, equation 4.
    """
    if gamma == 0:
        return -log_p
    return -ops.power(ops.maximum(-ops.expm1(log_p), CERTAIN), gamma) * log_p


def dice(label, p):
    """`1 - 2 sum(y p) / (sum(y) + sum(p))` of each class: 1 less the overlap of two sets of pixels.

    Args:
        label: float `y` `(B, N, K)`, 1 where a pixel is of a class, else 0.
        p: float `(B, N, K)`, probabilities; 0 where a pixel does not count.

    Returns:
        float `(B, K)` in [0, 1].

    Source: Sudre et al. 2017, https://arxiv.org/abs/1707.03237, equation 3, for each class.
    """
    both = ops.sum(label * p, axis=1)
    total = ops.sum(label, axis=1) + ops.sum(p, axis=1)
    return 1.0 - 2.0 * both / ops.maximum(total, CERTAIN)


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


def distillation(teacher, logits, temperature=1.0):
    """`T^2` times the divergence of softened answers from a teacher's, in nats.

    Both are softened by the temperature, `softmax(logits / T)`, and the gradient of the divergence
    falls as `1 / T^2`: the factor lets it weigh the same beside the loss of the labels.

    Args:
        teacher: float `(B, K)`, the teacher's logits.
        logits: float `(B, K)`.
        temperature: `T`.

    Returns:
        float `(B,)`; 0 where both answer the same, and at large `T` half the squared distance of
        the logits, each less its mean, over `K` (equation 4).

    Source: Hinton et al. 2015, https://arxiv.org/abs/1503.02531, section 2.
    """
    log_p = ops.log_softmax(teacher / temperature, axis=-1)
    log_q = ops.log_softmax(logits / temperature, axis=-1)
    return temperature**2 * ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def nt_xent(z, all_z, offset=0, temperature=0.5, weight=None):
    """Normalized temperature-scaled cross entropy: which of all views shows the same example.

    With `s(u, v)` the cosine of two projections over the temperature, view `i` of an example, whose
    other view is `j`, costs `-log(exp s(i, j) / sum_{k != i} exp s(i, k))`: the sum runs over both
    views of all examples but itself. An example costs the mean of its two views (equation 1).

    Args:
        z: float `(B, 2, D)`, the projections of two views of each example.
        all_z: float `(N, 2, D)`, those of all replicas (`kerasdl.ops.gather`).
        offset: The row of `all_z` that is the first of `z`.
        temperature: `tau`.
        weight: float `(N,)`, 0 where an example is no negative of others; None for none.

    Returns:
        Loss `(B,)` in nats, `ln(2 N - 1)` where all projections are equal; and how many of an
        example's two views `(B,)`, in [0, 1], are nearer to each other than to all other views.

    Source: Chen et al. 2020, https://arxiv.org/abs/2002.05709, equation 1.
    """
    rows = ops.reshape(unit(z), (-1, z.shape[-1]))  # (2 B, D)
    columns = ops.reshape(unit(all_z), (-1, z.shape[-1]))  # (2 N, D)
    scores = ops.matmul(rows, ops.transpose(columns)) / temperature  # (2 B, 2 N)
    own = ops.arange(ops.shape(rows)[0], dtype="int32") + 2 * offset
    other = own + 1 - 2 * (own % 2)  # views 2 i and 2 i + 1 show one example
    place = ops.arange(ops.shape(columns)[0], dtype="int32")
    positive = place[None] == other[:, None]
    negative = (place[None] != own[:, None]) & ~positive
    if weight is not None:
        negative = negative & (ops.repeat(weight, 2) > 0)[None]
    right = ops.sum(ops.where(positive, scores, 0.0), axis=-1)
    wrong = ops.where(negative, scores, EXCLUDED)
    loss = ops.logsumexp(ops.where(positive, scores, wrong), axis=-1) - right
    nearest = ops.cast(right > ops.max(wrong, axis=-1), loss.dtype)
    return tuple(ops.mean(ops.reshape(x, (-1, 2)), axis=-1) for x in (loss, nearest))


def contrast_with_queue(query, key, queue, temperature=0.07):
    """InfoNCE of one key that is right and many that are wrong: `-log softmax(q.k / tau)`.

    Args:
        query: float `(B, D)`.
        key: float `(B, D)`, of length 1: the key of each query.
        queue: float `(K, D)`, of length 1: keys of none of them.
        temperature: `tau`.

    Returns:
        Loss `(B,)` in nats, `ln(K + 1)` where all keys are as near; and whether its own key is
        nearest, 0 or 1, `(B,)`.

    Source: He et al. 2019, https://arxiv.org/abs/1911.05722, equation 1.
    """
    query = unit(query)
    right = ops.sum(query * key, axis=-1, keepdims=True) / temperature
    wrong = ops.matmul(query, ops.transpose(queue)) / temperature
    loss = ops.logsumexp(ops.concatenate([right, wrong], axis=-1), axis=-1) - right[:, 0]
    return loss, ops.cast(right[:, 0] > ops.max(wrong, axis=-1), loss.dtype)


def cosine_distance(x, y):
    """`2 - 2 cos(x, y)`: the squared distance of two vectors once both have length 1.

    Args:
        x, y: float `(..., D)`.

    Returns:
        float `(...)` in [0, 4].

    Source: Grill et al. 2020, https://arxiv.org/abs/2006.07733, equation 2.
    """
    return 2.0 - 2.0 * ops.sum(unit(x) * unit(y), axis=-1)


def info_nce(prediction, all_targets, place, offset=0, weight=None):
    """InfoNCE: which target of all examples a prediction is of.

    With scores `f(t, p) = t . p`, a prediction `p` of the target `t` costs
    `-log(exp f(t, p) / sum_s exp f(s, p))`: the sum runs over all targets of all examples.

    Args:
        prediction: float `(B, M, D)`.
        all_targets: float `(N, L, D)`, of the examples of all replicas (`kerasdl.ops.gather`).
        place: int `(M,)`, which of the `L` targets of its own example each prediction is of.
        offset: The row of `all_targets` that is the first of `prediction`.
        weight: float `(N,)`, 0 where an example is no negative of others; None for none.

    Returns:
        Means over an example's predictions: of the loss `(B,)` in nats, `ln(N L)` where all targets
        are equal, and of how many `(B,)`, in [0, 1], score highest for their own target; and how
        many targets they are told from, their own among them, a scalar.

    Source: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, equation 4.
    """
    examples, each, dim = ops.shape(prediction)[0], prediction.shape[1], prediction.shape[2]
    per_example = all_targets.shape[1]
    targets = ops.reshape(all_targets, (-1, dim))  # (N L, D)
    scores = ops.matmul(ops.reshape(prediction, (-1, dim)), ops.transpose(targets))
    own = (ops.arange(examples, dtype="int32") + offset)[:, None] * per_example
    own = ops.reshape(own + ops.cast(place, "int32"), (-1, 1))  # (B M, 1)
    positive = ops.arange(ops.shape(targets)[0], dtype="int32")[None] == own
    wrong = ops.where(positive, EXCLUDED, scores)
    counted = ops.ones_like(targets[:, 0])
    if weight is not None:
        counted = ops.repeat(ops.cast(weight > 0, counted.dtype), per_example)
        wrong = ops.where((counted > 0)[None], wrong, EXCLUDED)
    right = ops.sum(ops.where(positive, scores, 0.0), axis=-1)
    loss = ops.logsumexp(ops.where(positive, scores, wrong), axis=-1) - right
    highest = ops.cast(right > ops.max(wrong, axis=-1), loss.dtype)
    means = [ops.mean(ops.reshape(x, (-1, each)), axis=-1) for x in (loss, highest)]
    return *means, ops.sum(counted)


def image_text(image, text, all_image, all_text, scale, offset=0, weight=None, same=None):
    """Symmetric cross entropy of images and texts: which of all texts is an image's, and back.

    With `s(u, v)` the scaled cosine, pair `i` costs the mean of `-log(exp s(u_i, v_i) / sum_k exp
    s(u_i, v_k))` and of the same with images and texts exchanged. A text that several examples
    share counts as another one in each of them, as in the paper: of their sum, that is the cross
    entropy with equal targets, whose least value is not 0 but the logarithm of their number.

    Args:
        image: float `(B, P)` of length 1.
        text: float `(B, P)`, likewise.
        all_image: float `(N, P)`, those of all replicas (`kerasdl.ops.gather`).
        all_text: float `(N, P)`, likewise.
        scale: What cosines are multiplied by, a scalar.
        offset: The row of `all_image` that is the first of `image`.
        weight: float `(N,)`, 0 where an example is no negative of others; None for none.
        same: bool `(B, N)`, which texts are equal to a pair's own; it alone if None.

    Returns:
        Loss `(B,)` in nats, `ln N` where all are equally near; and in how many of both directions
        `(B,)`, in [0, 1], what is nearest is right: a pair's own, or one that is the `same`.

    Source: Radford et al. 2021, https://arxiv.org/abs/2103.00020, figure 3.
    """
    place = ops.arange(ops.shape(all_image)[0], dtype="int32")
    own = ops.arange(ops.shape(image)[0], dtype="int32") + offset
    positive = place[None] == own[:, None]  # (B, N)
    right = positive if same is None else positive | same
    losses, nearest = [], []
    for rows, columns in ((image, all_text), (text, all_image)):
        scores = scale * ops.matmul(rows, ops.transpose(columns))  # (B, N)
        if weight is not None:
            scores = ops.where(positive | (weight > 0)[None], scores, EXCLUDED)
        own_score = ops.sum(ops.where(positive, scores, 0.0), axis=-1)
        losses.append(ops.logsumexp(scores, axis=-1) - own_score)
        best, other = (
            ops.max(ops.where(chosen, scores, EXCLUDED), axis=-1) for chosen in (right, ~right)
        )
        nearest.append(ops.cast(best > other, scores.dtype))
    return sum(losses) / 2, sum(nearest) / 2


def unit(z):
    """Vectors `(..., D)` of length 1; zeros stay zeros."""
    return z * ops.rsqrt(ops.maximum(ops.sum(ops.square(z), axis=-1, keepdims=True), TINY_LENGTH))
