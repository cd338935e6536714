"""Noise of diffusion in numbers: betas, the times that a sampler visits, and levels of noise.

Source: Ho et al. 2020, https://arxiv.org/abs/2006.11239 (linear schedule);
        Nichol and Dhariwal 2021, https://arxiv.org/abs/2102.09672 (cosine schedule);
        Rombach et al. 2022, https://arxiv.org/abs/2112.10752 (scaled linear schedule);
        Lin et al. 2023, https://arxiv.org/abs/2305.08891 (table 2: leading, linspace, trailing);
        Karras et al. 2022, https://arxiv.org/abs/2206.00364 (equation 5: levels of noise);
        Esser et al. 2024, https://arxiv.org/abs/2403.03206 (equation 23: shifted times).
"""

import math

import numpy as np

T = 1000  # steps of a schedule, unless told otherwise, and the times of networks are in thousands
DISCRETE = ("scaled_linear", "linear", "cosine")
BETAS = (1e-4, 0.02)  # the first and the last of the linear schedules
SPACINGS = ("even", "leading", "linspace", "trailing")
RHO = 7.0  # of Karras et al.


def betas(schedule: str, start=BETAS[0], end=BETAS[1], count=T) -> np.ndarray:
    """`beta_1 ... beta_N` of a discrete schedule, float64 `(count,)`.

    Args:
        schedule: "linear", from `start` to `end`; "scaled_linear", whose roots are; "cosine".
        start: float.
        end: float.
        count: `N`.
    """
    if schedule == "linear":
        return np.linspace(start, end, count)
    if schedule == "scaled_linear":
        return np.linspace(start**0.5, end**0.5, count) ** 2
    f = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * math.pi / 2) ** 2  # equation 17
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


def steps(spacing, count, whole, offset=0, rounded=True) -> np.ndarray:
    """The steps of a discrete schedule that are visited, of 1 to `whole`, the last first.

    Args:
        spacing: "even" and "trailing" count from the last step down, "leading" from the first up,
            "linspace" takes both; "even" is rounded as a fraction, "trailing" as a step.
        count: At most `whole`.
        whole: Steps of the schedule.
        offset: Of "leading", how much later they are.
        rounded: Whether those of "linspace" are whole.

    Returns:
        float64 `(count,)`.
    """
    if spacing == "even":
        return np.round((1.0 - np.arange(count) / count) * whole)
    if spacing == "leading":
        return 1.0 + offset + (np.arange(count) * (whole // count))[::-1]
    if spacing == "trailing":
        return np.round(np.arange(whole, 0, -whole / count))[:count]
    result = np.linspace(0, whole - 1, count)[::-1]
    return 1.0 + (np.round(result) if rounded else result)


def times(spacing, count, first=0.0) -> np.ndarray:
    """The times above 0 of a schedule without steps, from 1 down, float64 `(count,)`.

    Args:
        spacing: "even" or "trailing", down to `1 / count`; "linspace", down to `first`.
        count: int.
        first: float.
    """
    if spacing == "linspace":
        return np.linspace(1.0, first, count)
    return 1.0 - np.arange(count) / count


def shifted(t, shift):
    """Times `t` moved towards 1, of which `shift` is the factor of `t / (1 - t)`."""
    return t if shift == 1 else shift * t / (1.0 + (shift - 1.0) * t)


def karras(largest, smallest, count) -> np.ndarray:
    """Sizes of noise from `largest` to `smallest`, even in their seventh roots, `(count,)`."""
    ends = largest ** (1 / RHO), smallest ** (1 / RHO)
    return np.linspace(*ends, count) ** RHO
