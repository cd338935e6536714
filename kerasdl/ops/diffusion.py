"""Diffusion: noise schedules, what a network predicts, weights of the loss, and samplers.

At time `t` in [0, 1] an image `x_0`, scaled to [-1, 1], is `x_t = alpha_t x_0 + sigma_t eps`: data
at 0, noise at 1. The variance-preserving schedules are those of `T` = 1,000 steps, and `t = i / T`.

Source: Ho et al. 2020, https://arxiv.org/abs/2006.11239 (linear schedule, posterior,
        ancestral sampler);
        Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672 (cosine schedule);
        Song et al. 2020, https://arxiv.org/abs/2011.13456 (variance exploding);
        Liu et al. 2022, https://arxiv.org/abs/2209.03003 (rectified flow);
        Salimans and Ho 2022, https://arxiv.org/abs/2202.00512 (v);
        Song et al. 2020, https://arxiv.org/abs/2010.02502 (DDIM);
        Karras et al. 2022, https://arxiv.org/abs/2206.00364 (Heun);
        Hang et al. 2023, https://arxiv.org/abs/2303.09556 (min-SNR weights);
        Esser et al. 2024, https://arxiv.org/abs/2403.03206 (logit-normal times).
"""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.ops import noise

T = 1000
SCHEDULES = ("linear", "cosine", "ve", "flow")
PREDICTIONS = ("eps", "x", "v")
TIMES = ("uniform", "logit_normal")
WEIGHTS = ("simple", "min_snr", "vlb")
SAMPLERS = ("ddpm", "ddim", "euler", "heun")
SIGMA_MIN, SIGMA_MAX = 0.01, 50.0  # of the variance-exploding schedule
MIN_DIVISOR = 1e-6  # of alpha and sigma where something is divided by them
MIN_SNR = 5.0


def betas(schedule: str) -> np.ndarray:
    """`beta_1 ... beta_T` of "linear" or "cosine", float64 `(T,)`."""
    if schedule == "linear":
        return np.linspace(1e-4, 0.02, T)
    f = np.cos((np.arange(T + 1) / T + 0.008) / 1.008 * math.pi / 2) ** 2  # equation 17
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


@dataclass(frozen=True)
class Diffusion:
    """A noise schedule, and what the network predicts of `x_0` and `eps`.

    `v` is the direction in which `x_t` moves: `alpha eps - sigma x_0` of the variance-preserving
    schedules, `eps - x_0` of the flow.

    Args:
        schedule: "linear" or "cosine" (variance preserving), "ve" (variance exploding), "flow"
            (rectified: `alpha = 1 - t`, `sigma = t`).
        prediction: "eps", "x" or "v".

    Raises:
        UserError: `v` with "ve", which has none, or `eps` with "flow", which does not determine
            the image at its start, where `alpha` is 0.
    """

    schedule: str = "cosine"
    prediction: str = "v"

    def __post_init__(self):
        if (self.schedule, self.prediction) == ("ve", "v"):
            raise UserError(
                "prediction=v applies to linear, cosine and flow only; with ve use eps or x"
            )
        if (self.schedule, self.prediction) == ("flow", "eps"):
            raise UserError(
                "prediction=eps applies to linear, cosine and ve only; with flow use v or x"
            )

    @property
    def discrete(self) -> bool:
        """Whether `t` is one of `1 / T ... 1`."""
        return self.schedule in ("linear", "cosine")

    def table(self) -> np.ndarray:
        """`alpha` and `sigma` at `0, 1 / T ... 1` of a discrete schedule, float64 `(T + 1, 2)`."""
        bar = np.concatenate([[1.0], np.cumprod(1 - betas(self.schedule))])
        return np.sqrt(np.stack([bar, 1 - bar], axis=-1))

    def levels(self, t):
        """`alpha_t` and `sigma_t` of times `(B,)`, in their dtype; of an array, in numpy."""
        xp = np if isinstance(t, np.ndarray) else ops
        if self.discrete:
            i = xp.round(t * T)
            if xp is np:
                return tuple(self.table()[i.astype(int)].T)
            rows = ops.take(ops.convert_to_tensor(self.table(), t.dtype), ops.cast(i, "int32"), 0)
            return rows[:, 0], rows[:, 1]
        if self.schedule == "flow":
            return 1.0 - t, t
        rise = math.log(SIGMA_MAX / SIGMA_MIN)
        return xp.ones_like(t), SIGMA_MIN * xp.exp(rise * t)

    def times(self, key, sampling="uniform", stream=0):
        """A time for every example.

        Args:
            key: uint32 `(B, 2)`.
            sampling: "uniform", or "logit_normal" with mean 0 and deviation 1.
            stream: Of the key.

        Returns:
            float `(B,)` in [0, 1]; of a discrete schedule a multiple of `1 / T`, from that on.
        """
        if sampling == "uniform":
            t = noise.uniform(key, (), stream)
        else:
            t = ops.sigmoid(noise.normal(key, (), stream))
        return (ops.minimum(ops.floor(t * T), T - 1) + 1) / T if self.discrete else t

    def noised(self, x0, eps, t):
        """`x_t`, of images and noise `(B, H, W, C)` and times `(B,)`."""
        alpha, sigma = map(_wide, self.levels(t))
        return alpha * x0 + sigma * eps

    def target(self, x0, eps, t):
        """What the network should predict, `(B, H, W, C)`."""
        if self.prediction == "v":
            if self.schedule == "flow":
                return eps - x0
            alpha, sigma = map(_wide, self.levels(t))
            return alpha * eps - sigma * x0
        return eps if self.prediction == "eps" else x0

    def clean(self, x, predicted, t):
        """The image that a prediction at `x_t` stands for, `(B, H, W, C)`."""
        p, q = self._to_clean(*self.levels(t), xp=ops)
        return _wide(p) * x + _wide(q) * predicted

    def scale(self, t):
        """What the network's input is multiplied by, so that its variance is about 1, `(B,)`."""
        alpha, sigma = self.levels(t)
        return ops.rsqrt(ops.square(alpha) + ops.square(sigma)) if self.schedule == "ve" else None

    def weight(self, t, kind="simple"):
        """Weights of the squared error of the prediction, `(B,)`.

        Args:
            t: float `(B,)`.
            kind: "simple", all 1; "min_snr", of the error of `x_0` `min(SNR, 5)`; "vlb", of the
                variational bound with the reverse variance `sigma^2_{t|s}`, `s = t - 1 / T`.
        """
        if kind == "simple":
            return ops.ones_like(t)
        alpha, sigma = self.levels(t)
        sigma = ops.maximum(sigma, MIN_DIVISOR)
        snr = ops.square(alpha / sigma)
        if kind == "min_snr":
            of_clean = ops.minimum(snr, MIN_SNR)
        else:
            before, less = self.levels(ops.maximum(t - 1.0 / T, 0.0))
            ratio = ops.square(alpha / before)
            step = ops.square(sigma) - ratio * ops.square(less)  # sigma^2_{t|s}
            of_clean = snr * step / (2.0 * ratio * ops.square(sigma))
        if self.prediction == "x":
            return of_clean
        if self.prediction == "eps":
            return of_clean / ops.maximum(snr, MIN_DIVISOR)
        return of_clean * ops.square(sigma)

    def _to_clean(self, alpha, sigma, xp=np):
        """`P` and `Q` of `x_0 = P x_t + Q prediction`."""
        if self.prediction == "x":
            return xp.zeros_like(alpha), xp.ones_like(alpha)
        if self.prediction == "v":
            return (xp.ones_like(alpha) if self.schedule == "flow" else alpha), -sigma
        alpha = xp.maximum(alpha, MIN_DIVISOR)
        return 1.0 / alpha, -sigma / alpha


def posterior(diffusion, t, s) -> tuple:
    """The distribution of `x_s` given `x_t` and `x_0`, `s < t`: equations 6 and 7 of Ho et al.

    Args:
        diffusion: A `Diffusion`.
        t: float64 numpy `(n,)`.
        s: float64 numpy `(n,)`.

    Returns:
        Factors of `x_t` and `x_0` in the mean, the variance, and that of `x_t` given `x_s`, each
        float64 `(n,)`.
    """
    (alpha, sigma), (alpha_s, sigma_s) = diffusion.levels(t), diffusion.levels(s)
    ratio = alpha / alpha_s
    step = sigma**2 - ratio**2 * sigma_s**2  # beta_t, where s is the step before t
    return (
        ratio * sigma_s**2 / sigma**2,
        alpha_s * step / sigma**2,
        step * sigma_s**2 / sigma**2,
        step,
    )


@dataclass(frozen=True)
class Sampler:
    """From noise to images in `steps` steps.

    Args:
        diffusion: The `Diffusion` that the network was trained with.
        name: "ddpm" (ancestral, with the variance of the posterior), "ddim", and of "ve" and
            "flow" "euler" or "heun" (twice the work per step, but for the last one).
        steps: At most `T` of a discrete schedule.
        eta: Of "ddim": 0 adds no noise on the way, 1 as much as "ddpm".
        clip: Whether the image that is expected is kept in [-1, 1].

    Raises:
        ValueError: The sampler does not fit the schedule, or more steps than there are.
    """

    diffusion: Diffusion
    name: str = "ddim"
    steps: int = 50
    eta: float = 0.0
    clip: bool = True

    def __post_init__(self):
        if self.name in ("euler", "heun") and self.diffusion.discrete:
            raise UserError(
                f"sampler={self.name} applies to the schedules ve and flow only; with "
                f"{self.diffusion.schedule} use ddim or ddpm"
            )
        if self.diffusion.discrete and self.steps > T:
            raise UserError(f"steps={self.steps}: must be at most {T}")
        if self.eta and self.name != "ddim":
            raise UserError(f"eta={self.eta} applies to the sampler ddim only")

    @property
    def adds_noise(self) -> bool:
        """Whether noise is added on the way."""
        return self.name == "ddpm" or self.eta > 0

    def times(self) -> np.ndarray:
        """The times that it visits, from 1 to 0, float64 `(steps + 1,)`."""
        t = 1.0 - np.arange(self.steps + 1) / self.steps
        return np.round(t * T) / T if self.diffusion.discrete else t

    def table(self) -> np.ndarray:
        """`t, P, Q, A, B, C` of each step: `x_0 = P x + Q prediction`, then `A x + B x_0 + C z`."""
        times = self.times()
        t, s = times[:-1], times[1:]
        (alpha, sigma), (alpha_s, sigma_s) = self.diffusion.levels(t), self.diffusion.levels(s)
        if self.diffusion.schedule == "ve":
            sigma_s[-1] = 0.0  # the last step takes away all noise
        of_x, of_clean, variance, _ = posterior(self.diffusion, t, s)
        spread = np.sqrt(np.maximum(variance, 0.0))
        spread[-1] = 0.0
        if self.name != "ddpm":
            spread = self.eta * spread
            of_x = np.sqrt(np.maximum(sigma_s**2 - spread**2, 0.0)) / sigma
            of_clean = alpha_s - of_x * alpha
        of_x[-1], of_clean[-1] = 0.0, 1.0  # ends in the image that is expected
        p, q = self.diffusion._to_clean(alpha, sigma)
        return np.stack([t, p, q, of_x, of_clean, spread], axis=-1)

    def first(self, eps):
        """`x_1` of noise `(B, H, W, C)`."""
        _, sigma = self.diffusion.levels(np.ones(1))
        return eps * float(sigma[0]) if self.diffusion.schedule == "ve" else eps

    def run(self, predict, x, key=None, start=0, stop=None, stream=0):
        """Take the steps from `start` up to, without, `stop`.

        Args:
            predict: `(x, t) -> prediction`, of `(B, H, W, C)` and `(B,)`.
            x: float `(B, H, W, C)`.
            key: uint32 `(B, 2)`; needed where noise is added.
            start: int.
            stop: int; all that remain if None.
            stream: Of the key; a stream per step, from this one on.

        Returns:
            float `(B, H, W, C)`.
        """
        stop = self.steps if stop is None else stop
        table = ops.convert_to_tensor(self.table(), x.dtype)
        sigmas = ops.convert_to_tensor(self.diffusion.levels(self.times())[1], x.dtype)
        shape = tuple(x.shape[1:])

        def clean_at(x, row):
            t = ops.zeros_like(x[:, 0, 0, 0]) + row[0]
            result = row[1] * x + row[2] * predict(x, t)
            return ops.clip(result, -1.0, 1.0) if self.clip else result

        def step(i, x):
            row = table[i]
            clean = clean_at(x, row)
            y = row[3] * x + row[4] * clean
            if self.adds_noise:
                y = y + row[5] * noise.normal(key, shape, stream + i, x.dtype)
            return y

        def heun(i, x):
            row, after = table[i], table[i + 1]
            now, then = sigmas[i], sigmas[i + 1]
            slope = (x - clean_at(x, row)) / now
            y = x + (then - now) * slope
            other = (y - clean_at(y, after)) / then
            return x + (then - now) * (slope + other) / 2.0

        if self.name != "heun":
            return ops.fori_loop(start, stop, step, x)
        x = ops.fori_loop(start, min(stop, self.steps - 1), heun, x)
        return step(self.steps - 1, x) if stop == self.steps else x


def guided(conditional, unconditional, guidance):
    """`u + w (c - u)`: 0 is unconditional, 1 conditional, more exaggerates the condition.

    Source: Ho and Salimans 2022, https://arxiv.org/abs/2207.12598; their weight is one less.
    """
    return unconditional + guidance * (conditional - unconditional)


def _wide(values):
    """`(B,)` as `(B, 1, 1, 1)`."""
    return values[:, None, None, None]
