"""Diffusion: noise schedules, what a network predicts, weights of the loss, and samplers.

At time `t` in [0, 1] an image `x_0`, scaled to [-1, 1], is `x_t = alpha_t x_0 + sigma_t eps`: data
at 0, noise at 1. The variance-preserving schedules are discrete, of `N` steps, and `t = i / N`.

Source: Ho et al. 2020, https://arxiv.org/abs/2006.11239 (linear schedule, posterior,
        ancestral sampler);
        Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672 (cosine schedule);
        Song et al. 2020, https://arxiv.org/abs/2011.13456 (variance exploding);
        Liu et al. 2022, https://arxiv.org/abs/2209.03003 (rectified flow);
        Salimans and Ho 2022, https://arxiv.org/abs/2202.00512 (v);
        Song et al. 2020, https://arxiv.org/abs/2010.02502 (DDIM);
        Karras et al. 2022, https://arxiv.org/abs/2206.00364 (Heun, and levels of noise);
        Rombach et al. 2022, https://arxiv.org/abs/2112.10752 (scaled linear schedule);
        Hang et al. 2023, https://arxiv.org/abs/2303.09556 (min-SNR weights);
        Esser et al. 2024, https://arxiv.org/abs/2403.03206 (logit-normal times, shifted times);
        Lin et al. 2023, https://arxiv.org/abs/2305.08891 (spacings of the times).
"""

import math
from dataclasses import dataclass

import numpy as np
from keras import ops

from kerasdl.errors import UserError
from kerasdl.ops import noise, schedules
from kerasdl.ops.schedules import BETAS, DISCRETE, T, betas

SCHEDULES = (*DISCRETE, "ve", "flow")
PREDICTIONS = ("eps", "x", "v")
TIMES = ("uniform", "logit_normal")
WEIGHTS = ("simple", "min_snr", "vlb")
SAMPLERS = ("ddpm", "ddim", "euler", "heun")
VARIANCES = ("fixed_small", "fixed_large")
SIGMA_MIN, SIGMA_MAX = 0.01, 50.0  # of the variance-exploding schedule
RISE = math.log(SIGMA_MAX / SIGMA_MIN)
MIN_DIVISOR = 1e-6  # of alpha and sigma where something is divided by them
MIN_SNR = 5.0


def _check(settings, rows):
    """UserError where one of `(name, default, whether it applies, where)` does not apply."""
    for name, default, applies, where in rows:
        value = getattr(settings, name)
        if value != default and not applies:
            raise UserError(f"{name}={str(value).lower()} applies to {where}")


@dataclass(frozen=True)
class Diffusion:
    """A noise schedule, and what the network predicts of `x_0` and `eps`.

    `v` is the direction in which `x_t` moves: `alpha eps - sigma x_0` of the variance-preserving
    schedules, `eps - x_0` of the flow.

    Args:
        schedule: "linear", "scaled_linear" or "cosine" (discrete, variance preserving), "ve"
            (variance exploding), "flow" (rectified: `alpha = 1 - t`, `sigma = t`).
        prediction: "eps", "x" or "v".
        beta_start, beta_end: Of "linear" and "scaled_linear".
        train_steps: `N` of a discrete schedule, and of "flow" where it is counted in steps.
        first_time: From which a network counts the steps of a discrete schedule: 1 as in the
            papers, 0 as in published networks.

    Raises:
        UserError: `v` with "ve", which has none, `eps` with "flow", which does not determine
            the image at its start, where `alpha` is 0, or what the schedule does not have.
    """

    schedule: str = "cosine"
    prediction: str = "v"
    beta_start: float = BETAS[0]
    beta_end: float = BETAS[1]
    train_steps: int = T
    first_time: int = 1

    def __post_init__(self):
        schedule, prediction = self.schedule, self.prediction
        some, linear = f"{', '.join(DISCRETE)} and", ("linear", "scaled_linear")
        if (schedule, prediction) == ("ve", "v"):
            raise UserError(f"prediction=v applies to {some} flow only; with ve use eps or x")
        if (schedule, prediction) == ("flow", "eps"):
            raise UserError(f"prediction=eps applies to {some} ve only; with flow use v or x")
        where = f"the schedules {' and '.join(linear)} only"
        _check(
            self,
            (
                ("beta_start", BETAS[0], schedule in linear, where),
                ("beta_end", BETAS[1], schedule in linear, where),
                ("train_steps", T, schedule != "ve", f"the schedules {some} flow only"),
                ("first_time", 1, self.discrete, f"the schedules {', '.join(DISCRETE)} only"),
            ),
        )

    @property
    def discrete(self) -> bool:
        """Whether `t` is one of `1 / N ... 1`."""
        return self.schedule in DISCRETE

    def table(self) -> np.ndarray:
        """`alpha` and `sigma` at `0, 1 / N ... 1` of a discrete schedule, float64 `(N + 1, 2)`."""
        beta = betas(self.schedule, self.beta_start, self.beta_end, self.train_steps)
        bar = np.concatenate([[1.0], np.cumprod(1 - beta)])
        return np.sqrt(np.stack([bar, 1 - bar], axis=-1))

    def network_time(self, t):
        """What the network is told of times `(B,)`: steps from `first_time` on, in thousands."""
        if (self.train_steps, self.first_time) == (T, 1):
            return t
        return (t * self.train_steps + (self.first_time - 1)) / T

    def levels(self, t):
        """`alpha_t` and `sigma_t` of times `(B,)`, in their dtype; of an array, in numpy."""
        xp = np if isinstance(t, np.ndarray) else ops
        if self.discrete:
            i = xp.round(t * self.train_steps)
            if xp is np:
                return tuple(self.table()[i.astype(int)].T)
            rows = ops.take(ops.convert_to_tensor(self.table(), t.dtype), ops.cast(i, "int32"), 0)
            return rows[:, 0], rows[:, 1]
        if self.schedule == "flow":
            return 1.0 - t, t
        return xp.ones_like(t), SIGMA_MIN * xp.exp(RISE * t)

    def time_of(self, sigma):
        """Of "ve" and "flow": when there is so much noise, float64 numpy `(n,)`."""
        return sigma if self.schedule == "flow" else np.log(sigma / SIGMA_MIN) / RISE

    def times(self, key, sampling="uniform", stream=0):
        """A time for every example.

        Args:
            key: uint32 `(B, 2)`.
            sampling: "uniform", or "logit_normal" with mean 0 and deviation 1.
            stream: Of the key.

        Returns:
            float `(B,)` in [0, 1]; of a discrete schedule a multiple of `1 / N`, from that on.
        """
        if sampling == "uniform":
            t = noise.uniform(key, (), stream)
        else:
            t = ops.sigmoid(noise.normal(key, (), stream))
        count = self.train_steps
        return (ops.minimum(ops.floor(t * count), count - 1) + 1) / count if self.discrete else t

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
                variational bound with the reverse variance `sigma^2_{t|s}`, `s = t - 1 / N`.
        """
        if kind == "simple":
            return ops.ones_like(t)
        alpha, sigma = self.levels(t)
        sigma = ops.maximum(sigma, MIN_DIVISOR)
        snr = ops.square(alpha / sigma)
        if kind == "min_snr":
            of_clean = ops.minimum(snr, MIN_SNR)
        else:
            before, less = self.levels(ops.maximum(t - 1.0 / self.train_steps, 0.0))
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
    return _posterior(*diffusion.levels(t), *diffusion.levels(s))


def _posterior(alpha, sigma, alpha_s, sigma_s):
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

    Its states are `x_t`, but of "euler" and "heun" on a discrete schedule `x_t / alpha_t`, noise
    of an exploding variance.

    Args:
        diffusion: The `Diffusion` that the network was trained with.
        name: "ddpm" (ancestral), "ddim", "euler" or "heun" (twice the work per step, but for the
            last one).
        steps: At most `N` of a discrete schedule.
        eta: Of "ddim": 0 adds no noise on the way, 1 as much as "ddpm".
        clip: Whether the image that is expected is kept in [-`clip_range`, `clip_range`].
        spacing: Of `kerasdl.ops.schedules.SPACINGS`, which times are visited.
        steps_offset: Of "leading": how much later they are.
        shift: Of "flow": more than 1 takes more of the steps where there is more noise.
        karras: Of "euler" and "heun": the sizes of the noise are those of Karras et al.
        variance: Of "ddpm" on a discrete schedule: "fixed_small", that of the posterior, or
            "fixed_large", `beta`.
        clip_range: float.
        clip_noise: Of "ddim": whether the noise that stays is that beside the clipped image.
        ends_clean: Of "ddim" and "euler" on a discrete schedule: whether the last step takes away
            all noise, or leaves that of the first step of the training.

    Raises:
        UserError: A setting that does not fit the others, or more steps than there are.
    """

    diffusion: Diffusion
    name: str = "ddim"
    steps: int = 50
    eta: float = 0.0
    clip: bool = True
    spacing: str = "even"
    steps_offset: int = 0
    shift: float = 1.0
    karras: bool = False
    variance: str = "fixed_small"
    clip_range: float = 1.0
    clip_noise: bool = True
    ends_clean: bool = True

    def __post_init__(self):
        process, name = self.diffusion, self.name
        discrete, whole = process.discrete, process.train_steps
        on = f"the schedules {', '.join(DISCRETE)} only"
        paths = ("euler", "heun")
        ends = discrete and name in ("ddim", "euler")
        _check(
            self,
            (
                ("eta", 0, name == "ddim", "the sampler ddim only"),
                ("variance", "fixed_small", discrete and name == "ddpm", f"ddpm on {on}"),
                ("karras", False, name in paths, "the samplers euler and heun only"),
                ("shift", 1, process.schedule == "flow", "the schedule flow only"),
                ("steps_offset", 0, self.spacing == "leading", "spacing=leading only"),
                ("clip_range", 1, self.clip, "clip=true only"),
                ("clip_noise", True, self.clip and name == "ddim", "ddim with clip=true only"),
                ("ends_clean", True, ends, f"ddim and euler on {on}"),
            ),
        )
        if self.spacing == "leading" and not discrete:
            raise UserError(f"spacing=leading applies to {on}; else use even or linspace")
        for setting, most in (
            ("steps", whole),
            ("steps_offset", whole - 1 - whole // self.steps * (self.steps - 1)),
        ):
            if discrete and getattr(self, setting) > most:
                raise UserError(f"{setting}={getattr(self, setting)}: must be at most {most}")

    @property
    def adds_noise(self) -> bool:
        """Whether noise is added on the way."""
        return self.name == "ddpm" or self.eta > 0

    @property
    def explodes(self) -> bool:
        """Whether the states are `x_t / alpha_t` of a variance that is preserved."""
        return self.diffusion.discrete and self.name in ("euler", "heun")

    def times(self) -> np.ndarray:
        """The times that it visits, the first where there is most noise, float64 `(steps + 1,)`."""
        return self._grid()[0]

    def sigmas(self) -> np.ndarray:
        """How much noise there is in its states at these times, float64 `(steps + 1,)`."""
        return self._grid()[2]

    def _grid(self):
        """Times, and the factors of image and noise in the states there, `(steps + 1,)` each."""
        process, count, whole = self.diffusion, self.steps, self.diffusion.train_steps
        if process.discrete:
            rounded = not self.explodes
            i = schedules.steps(self.spacing, count, whole, self.steps_offset, rounded)
            times = np.append(i, 0.0 if self.ends_clean else 1.0) / whole
        else:
            # A published flow ends at its first step's time, which it has shifted once before.
            first = 1.0 / whole if process.schedule == "flow" else 0.0
            times = schedules.times(self.spacing, count, schedules.shifted(first, self.shift))
            times = schedules.shifted(np.append(times, 0.0), self.shift)
        if self.explodes:
            table = process.table()
            sizes, places = table[:, 1] / table[:, 0], np.arange(whole + 1)
            sigma = np.interp(times * whole, places, sizes)
            if self.karras:
                sigma[:-1] = schedules.karras(sigma[0], sigma[-2], count)
                times[:-1] = np.interp(np.log(sigma[:-1]), np.log(sizes[1:]), places[1:]) / whole
            return times, np.ones_like(sigma), sigma
        alpha, sigma = process.levels(times)
        if self.karras:
            sigma[:-1] = schedules.karras(sigma[0], sigma[-2], count)
            times[:-1] = process.time_of(sigma[:-1])
            alpha, sigma = process.levels(times)
        if process.schedule == "ve":
            sigma[-1] = 0.0  # the last step takes away all noise
        return times, alpha, sigma

    def table(self) -> np.ndarray:
        """`t, P, Q, A, B, C, D, K` of each step, float64 `(steps, 8)`.

        With the network's prediction at `K x`, `x_0 = P x + Q prediction`, and the next state is
        `A x + B clipped(x_0) + C z + D x_0`.
        """
        times, alphas, sigmas = self._grid()
        t, alpha, sigma = times[:-1], alphas[:-1], sigmas[:-1]
        alpha_s, sigma_s = alphas[1:], sigmas[1:]
        published, whole = self.spacing != "even", self.diffusion.train_steps
        if published and self.name == "ddim" and self.diffusion.discrete:
            # DDIM's go as many steps on each time, wherever the next time is.
            i = np.round(t * whole) - whole // self.steps
            alpha_s, sigma_s = self.diffusion.levels(np.where(i < 1, times[-1], i / whole))
        of_x, of_clean, variance, step = _posterior(alpha, sigma, alpha_s, sigma_s)
        spread = np.sqrt(np.maximum(variance, 0.0))
        last = sigma_s == 0.0
        spread[last] = 0.0
        if self.variance == "fixed_large":
            # Published ones add noise at their last step too, unless it is the schedule's first.
            none = np.round(t * whole) == 1 if published else last
            spread = np.where(none, 0.0, np.sqrt(np.maximum(step, 0.0)))
        if self.name != "ddpm":
            spread = self.eta * spread
            of_x = np.sqrt(np.maximum(sigma_s**2 - spread**2, 0.0)) / sigma
            of_clean = alpha_s - of_x * alpha
        of_x[last], of_clean[last] = 0.0, 1.0  # ends in the image that is expected
        scale = 1.0 / np.hypot(alpha, sigma) if self.explodes else np.ones_like(t)
        p, q = self.diffusion._to_clean(scale * alpha, scale * sigma)
        of_raw = np.zeros_like(t)
        if not self.clip_noise:
            of_clean, of_raw = alpha_s, of_clean - alpha_s
        return np.stack([t, p * scale, q, of_x, of_clean, spread, of_raw, scale], axis=-1)

    def first(self, eps):
        """The first state, of noise `(B, H, W, C)`."""
        if not (self.explodes or self.diffusion.schedule == "ve"):
            return eps
        size = float(self.sigmas()[0])
        return eps * (math.hypot(1.0, size) if self.spacing == "leading" else size)

    def run(self, predict, x, key=None, start=0, stop=None, stream=0, noises=None):
        """Take the steps from `start` up to, without, `stop`.

        Args:
            predict: `(x, t) -> prediction`, of `(B, H, W, C)` and `(B,)`.
            x: float `(B, H, W, C)`.
            key: uint32 `(B, 2)`; needed where noise is added.
            start: int.
            stop: int; all that remain if None.
            stream: Of the key; a stream per step, from this one on.
            noises: float `(steps, B, H, W, C)`, of each step, in place of that of the key.

        Returns:
            float `(B, H, W, C)`.
        """
        stop = self.steps if stop is None else stop
        step, both = self._stepping(predict, x, key, stream, noises)
        if self.name != "heun":
            return ops.fori_loop(start, stop, step, x)
        x = ops.fori_loop(start, min(stop, self.steps - 1), lambda i, x: both(i, x)[1], x)
        return step(self.steps - 1, x) if stop == self.steps else x

    def states(self, predict, x, key=None, stream=0, noises=None):
        """Take all steps, and keep every state.

        Args:
            predict, x, key, stream, noises: As of `run`.

        Returns:
            float `(1 + calls, B, H, W, C)`: `x`, and the state after every call of the network;
            of "heun" a step's first is that of "euler", its second the corrected one.
        """
        step, both = self._stepping(predict, x, key, stream, noises)
        result = [x]
        for i in range(self.steps):
            twice = self.name == "heun" and i < self.steps - 1
            result += both(i, result[-1]) if twice else [step(i, result[-1])]
        return ops.stack(result)

    def _stepping(self, predict, x, key, stream, noises):
        """`(i, x) -> x` of a step, and `(i, x) -> (Euler's, corrected)` of one of Heun's."""
        table = ops.convert_to_tensor(self.table(), x.dtype)
        sigmas = ops.convert_to_tensor(self.sigmas(), x.dtype)
        noises = None if noises is None else ops.convert_to_tensor(noises, x.dtype)
        shape = tuple(x.shape[1:])

        def clean_at(x, row):
            t = ops.zeros_like(x[:, 0, 0, 0]) + row[0]
            raw = row[1] * x + row[2] * predict(row[7] * x if self.explodes else x, t)
            return (ops.clip(raw, -self.clip_range, self.clip_range) if self.clip else raw), raw

        def step(i, x):
            row = table[i]
            clean, raw = clean_at(x, row)
            y = row[3] * x + row[4] * clean
            if not self.clip_noise:
                y = y + row[6] * raw
            if self.adds_noise:
                z = noise.normal(key, shape, stream + i, x.dtype) if noises is None else noises[i]
                y = y + row[5] * z
            return y

        def both(i, x):
            row, after = table[i], table[i + 1]
            now, then = sigmas[i], sigmas[i + 1]
            clean, _ = clean_at(x, row)
            if self.explodes:  # the same, without differences of states, which are large here
                y = row[3] * x + row[4] * clean
                return y, y + (now / then - 1.0) / 2.0 * (clean_at(y, after)[0] - clean)
            slope = (x - clean) / now
            y = x + (then - now) * slope
            other = (y - clean_at(y, after)[0]) / then
            return y, x + (then - now) * (slope + other) / 2.0

        return step, both


def guided(conditional, unconditional, guidance):
    """`u + w (c - u)`: 0 is unconditional, 1 conditional, more exaggerates the condition.

    Source: Ho and Salimans 2022, https://arxiv.org/abs/2207.12598; their weight is one less.
    """
    return unconditional + guidance * (conditional - unconditional)


def _wide(values):
    """`(B,)` as `(B, 1, 1, 1)`."""
    return values[:, None, None, None]
