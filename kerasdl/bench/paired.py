"""Paired measurements: what is compared runs in turn, so that a busy machine slows all alike."""

import ctypes
import re
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

SIDES = ("ours", "peer")
ROUNDS = 7
MIN_SECONDS = 0.4  # of one measurement; a faster call is repeated within its round


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one side is as another.

    Attributes:
        ours, peer: Median seconds of a call.
        median, low, high: Of the peer's seconds divided by ours, round by round.
    """

    ours: float
    peer: float
    median: float
    low: float
    high: float


def alternate(
    calls: dict, rounds: int = ROUNDS, clock=time.perf_counter, minimum=MIN_SECONDS
) -> dict:
    """Measure functions in turn, after one call of each that is not counted.

    Args:
        calls: `{name: function}`; a function returns when its work is done.
        rounds: How often each is measured.
        clock: Seconds now.
        minimum: Minimum length of one measurement in seconds; a fast function is called several
            times in a row.

    Returns:
        `{name: [seconds of one call, one per round]}`.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        start = clock()
        call()
        repeats[name] = max(1, round(minimum / max(clock() - start, 1e-9)))
    seconds = {name: [] for name in calls}
    for number in range(rounds):
        # Every other round runs backwards: none always follows the same one.
        for name in list(calls) if number % 2 == 0 else reversed(list(calls)):
            start = clock()
            for _ in range(repeats[name]):
                calls[name]()
            seconds[name].append((clock() - start) / repeats[name])
    return seconds


def ratio(ours: list, peer: list) -> Ratio:
    """Compare two lists of seconds, measured in the same rounds."""
    ratios = [p / o for o, p in zip(ours, peer, strict=True)]
    return Ratio(
        statistics.median(ours),
        statistics.median(peer),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
    )


def extra_memory(call) -> float | None:
    """Peak MiB of a call beyond those the process held before; None where not Linux."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or it reuses what earlier calls left
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        before = _status("VmRSS")
    except (OSError, AttributeError):
        return None
    call()
    return max(_status("VmHWM") - before, 0.0)


def _status(name):
    """MiB of a line of this process' status."""
    return int(re.search(rf"{name}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def compare(
    case: str, steps: dict, rounds: int = ROUNDS, clock=time.perf_counter, minimum=MIN_SECONDS
):
    """Measure one case without and with XLA, and each side at its faster; then its memory.

    Args:
        case: Its name.
        steps: `{(side, xla): function}` for the sides `ours` and `peer` and the values of `xla`;
            both are there with False.
        rounds, clock, minimum: As of `alternate`.

    Returns:
        `{"case": ..., "off": Ratio, "on": Ratio, "better": Ratio, "memory": {side: MiB}}`: "on"
        where both sides have it, "better" where one has; the memory of a call is its minimum.
    """
    seconds = alternate(steps, rounds, clock, minimum)
    result = {"case": case}
    for key, xla in (("off", False), ("on", True)):
        if all((side, xla) in steps for side in SIDES):
            result[key] = ratio(seconds["ours", xla], seconds["peer", xla])
    keys = {side: [key for key in steps if key[0] == side] for side in SIDES}
    if any(xla for _, xla in steps):
        best = (min((seconds[k] for k in keys[s]), key=statistics.median) for s in SIDES)
        result["better"] = ratio(*best)
    memory = {side: [extra_memory(steps[k]) for k in keys[side]] for side in SIDES}
    result["memory"] = {s: None if None in values else min(values) for s, values in memory.items()}
    return result
