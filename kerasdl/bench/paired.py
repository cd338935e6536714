"""Paired measurements: what is compared runs in turn, so that a busy machine slows all alike."""

import statistics
import time
from dataclasses import dataclass

ROUNDS = 7
LEAST = 0.4  # seconds of one measurement at least, or it is repeated within its round


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


def alternate(calls: dict, rounds: int = ROUNDS, clock=time.perf_counter, least=LEAST) -> dict:
    """Measure functions in turn, after one call of each that is not counted.

    Args:
        calls: `{name: function}`; a function returns when its work is done.
        rounds: How often each is measured.
        clock: Seconds now.
        least: How long one measurement lasts at least, in seconds; a fast function is called
            several times in a row.

    Returns:
        `{name: [seconds of one call, one per round]}`.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        start = clock()
        call()
        repeats[name] = max(1, round(least / max(clock() - start, 1e-9)))
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


def compare(case: str, steps: dict, rounds: int = ROUNDS, clock=time.perf_counter, least=LEAST):
    """Measure one case without and with XLA, and each side at its better.

    Args:
        case: What it is called.
        steps: `{(side, xla): function}` for the sides `ours` and `peer` and both values of `xla`,
            or False alone.
        rounds, clock, least: As of `alternate`.

    Returns:
        `{"case": ..., "off": Ratio, "on": Ratio, "better": Ratio}`, without the last two where
        XLA is not tried.
    """
    seconds = alternate(steps, rounds, clock, least)
    found = {"case": case}
    if ("ours", True) not in steps:
        return {**found, "off": ratio(seconds["ours", False], seconds["peer", False])}
    for key, xla in (("off", False), ("on", True)):
        found[key] = ratio(seconds["ours", xla], seconds["peer", xla])
    best = {
        side: min((seconds[side, xla] for xla in (False, True)), key=statistics.median)
        for side in ("ours", "peer")
    }
    return {**found, "better": ratio(best["ours"], best["peer"])}
