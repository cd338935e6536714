"""Log likelihoods of images, the divergence of normal distributions, averages in the log domain.

Everything is in nats and summed over all axes but the first; see each function.

Source: Kingma and Welling 2013, https://arxiv.org/abs/1312.6114 (appendices B and C); Burda et al.
        2015, https://arxiv.org/abs/1509.00519 (importance weights).
"""

import math

from keras import ops

LOG_2_PI = math.log(2.0 * math.pi)


def bernoulli_nll(x, logits):
    """Negative log likelihood of intensities under independent Bernoulli distributions.

    An intensity between 0 and 1 counts as that fraction of a one; the minimum is its entropy.

    Args:
        x: float `(B, ...)` in [0, 1].
        logits: float `(B, ...)`, of a one.

    Returns:
        float `(B,)`; `ln 2` per pixel at logits of 0.
    """
    return _sum(ops.softplus(logits) - ops.cast(x, logits.dtype) * logits)


def gaussian_nll(x, mean, log_variance):
    """Negative log density under independent normal distributions.

    Args:
        x, mean: float `(B, ...)`.
        log_variance: float, a number or a tensor; broadcasts against `x`.

    Returns:
        float `(B,)`.
    """
    log_variance = ops.cast(log_variance, mean.dtype)
    square = ops.square(ops.cast(x, mean.dtype) - mean)
    return _sum(0.5 * (LOG_2_PI + log_variance + square * ops.exp(-log_variance)))


def normal_kl(mean, log_variance):
    """`KL(N(mean, exp(log_variance)) || N(0, 1))` of independent normal distributions.

    Args:
        mean, log_variance: float `(B, ...)`.

    Returns:
        float `(B,)`, 0 or more.
    """
    return _sum(0.5 * (ops.square(mean) + ops.exp(log_variance) - 1.0 - log_variance))


def reparameterize(mean, log_variance, noise):
    """`mean + exp(log_variance / 2) noise`: a sample that gradients pass through.

    Args:
        mean, log_variance, noise: float `(B, ...)`; `noise` is standard normal.

    Returns:
        float `(B, ...)`.
    """
    return mean + ops.exp(0.5 * log_variance) * ops.cast(noise, mean.dtype)


def log_weight(nll, z, mean, log_variance):
    """Logarithm of one importance weight, `log p(x, z) - log q(z | x)` with the prior `N(0, 1)`.

    Args:
        nll: float `(B,)`, `-log p(x | z)`.
        z, mean, log_variance: float `(B, D)`: samples, and the distribution that they are of.

    Returns:
        float `(B,)`; its mean over samples of `z` is the evidence lower bound.
    """
    prior = gaussian_nll(z, ops.zeros_like(z), 0.0)
    return gaussian_nll(z, mean, log_variance) - prior - nll


def log_mean_exp(first, weight, count):
    """`log(sum_k exp(w_k) / count)` of log weights that come one at a time.

    Args:
        first: float `(B,)`, `w_0`.
        weight: int scalar tensor `k` -> float `(B,)`, `w_k`.
        count: An int, how many there are.

    Returns:
        float `(B,)`.
    """
    total = ops.fori_loop(1, count, lambda k, log: ops.logaddexp(log, weight(k)), first)
    return total - math.log(count)


def log_mean_softmax(logits):
    """The logarithms of the mean of several classifiers' probabilities.

    Args:
        logits: A list of float `(B, K)`.

    Returns:
        float `(B, K)`; of one alone its `log_softmax`.
    """
    logs = ops.stack([ops.log_softmax(one, axis=-1) for one in logits])
    return ops.logsumexp(logs, axis=0) - math.log(len(logits))


def bits_per_dim(nll, dims, levels=0):
    """Nats per image as bits per number.

    Args:
        nll: Nats of an image.
        dims: Numbers of an image.
        levels: Of a density over [0, 1]: into how many steps each number counts as divided, of
            which the density then gives `density / levels` each; 0 if `nll` is none of a density.

    Returns:
        A float; 8 of the uniform density and 256 levels.
    """
    return nll / (dims * math.log(2.0)) + (math.log2(levels) if levels else 0.0)


def _sum(x):
    return ops.sum(x, axis=tuple(range(1, len(x.shape))))
