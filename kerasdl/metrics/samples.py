"""How sampled images compare with real ones: distances of whole sets, of neighbors, and by class.

Every function takes arrays `(N, D)`, one row per image: its pixels, or features of it. Metrics of
sets of different sizes do not compare: the distances shrink as the sets grow.

Source: Frechet distance of two Gaussians: Dowson and Landau 1982; of features of images: Heusel et
        al. 2017, https://arxiv.org/abs/1706.08500. Precision and recall: Kynkaanniemi et al. 2019,
        https://arxiv.org/abs/1904.06991. Density and coverage: Naeem et al. 2020,
        https://arxiv.org/abs/2002.09797.
"""

import numpy as np

ENTRIES = 2**24  # of a table of distances at a time
ROUNDING = 1e-9  # of squared distances, relative


def frechet_distance(a, b) -> float:
    """Squared Frechet distance of the Gaussians with the means and covariances of two sets.

    `|m_a - m_b|^2 + tr(A) + tr(B) - 2 tr(sqrt(sqrt(A) B sqrt(A)))`. With `A = X'X` and `B = Y'Y`
    the last trace is the sum of the singular values of `X Y'`, so no root of a matrix is taken, and
    covariances may be singular.

    Args:
        a: `(N, D)`.
        b: `(M, D)`.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    x, y = _root(a), _root(b)
    common = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return float(max(0.0, shift + (x**2).sum() + (y**2).sum() - 2 * common))


def _root(x):
    """`X` with `X'X` the unbiased covariance of the rows, and as few rows as may be."""
    x = (x - x.mean(0)) / np.sqrt(max(1, len(x) - 1))
    return np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x


def nearest_distances(a, b, k=1) -> np.ndarray:
    """`(N,)`: how far each row of `a` is from its `k`-th nearest row of `b`.

    Args:
        a: `(N, D)`.
        b: `(M, D)`, `M >= k`.
        k: 1 is the nearest. Where `a` is `b`, that is the row itself.
    """
    result = [np.partition(d, k - 1, axis=1)[:, k - 1] for d in _squared_distances(a, b)]
    return np.sqrt(np.concatenate(result))


def _squared_distances(a, b):
    """Yield the rows of the table `(N, M)` of squared distances, some at a time."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    center = b.mean(0)  # differences of small numbers lose less
    a, b = a - center, b - center
    lengths = (b**2).sum(1)
    rows = max(1, ENTRIES // len(b))
    for start in range(0, len(a), rows):
        part = a[start : start + rows]
        yield np.maximum((part**2).sum(1)[:, None] + lengths - 2 * part @ b.T, 0.0)


def precision_recall(real, sampled, k=3) -> tuple[float, float]:
    """The fraction of sampled rows among the real ones, and of real rows among the sampled ones.

    A row is among a set where it is nearer to one of the set's rows than that row's `k`-th nearest
    neighbor in the set.

    Args:
        real: `(N, D)`, `N > k`.
        sampled: `(M, D)`, `M > k`.
        k: Neighbors.
    """
    precision = _inside(sampled, real, k)[0] > 0
    recall = _inside(real, sampled, k)[0] > 0
    return float(precision.mean()), float(recall.mean())


def density_coverage(real, sampled, k=5) -> tuple[float, float]:
    """How many real neighborhoods a sampled row lies in, over `k`; and how many hold a sampled row.

    A neighborhood reaches to a real row's `k`-th nearest real one. Density is 1 on average where
    both sets are of one distribution, and may be more; coverage is a fraction of the real rows.

    Args:
        real: `(N, D)`, `N > k`.
        sampled: `(M, D)`.
        k: Neighbors.
    """
    counts, held = _inside(sampled, real, k)
    return float(counts.mean() / k), float(held.mean())


def _inside(points, centers, k):
    """In how many balls each point lies `(N,)`, and whether each ball holds a point `(M,)`."""
    radii = nearest_distances(centers, centers, k + 1) ** 2 * (1 - ROUNDING)
    counts, held = [], np.zeros(len(centers), bool)
    for d in _squared_distances(points, centers):
        inside = d < radii
        counts.append(inside.sum(1))
        held |= inside.any(0)
    return np.concatenate(counts), held


def class_shares(classes, num_classes) -> np.ndarray:
    """`(K,)`: how much of `classes` `(N,)` each class is."""
    return np.bincount(classes, minlength=num_classes) / len(classes)


def class_spreads(x, classes, num_classes) -> np.ndarray:
    """`(K,)`: root of the mean squared distance of a class's rows to their mean.

    Args:
        x: `(N, D)`.
        classes: int `(N,)`.
        num_classes: `K`. A class of fewer than two rows has the spread NaN.
    """
    x, result = np.asarray(x, np.float64), np.full(num_classes, np.nan)
    for c in range(num_classes):
        rows = x[classes == c]
        if len(rows) > 1:
            result[c] = np.sqrt(((rows - rows.mean(0)) ** 2).sum(1).mean())
    return result
