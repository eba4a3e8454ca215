"""The highest rate that holds the SLO: which rate to try next, decided from what was tried."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

RESOLUTION = 0.05
GROWTH = 1.5
LEAST_SHARE = 0.002
"""Of the first rate: below it the search gives up."""
PERCENTILES = {"p50": 50, "p90": 90, "p95": 95, "p99": 99}


@dataclass(frozen=True)
class Level:
    """One rate, tried. `clear`: the server fell behind, so that trying again would change nothing."""

    rate: float
    held: bool
    clear: bool = False


def holds(limits: Mapping[str, float], figures: Mapping[str, float]) -> bool:
    """Whether a level's figures (`p50` … `max` in ms, `errors` in %) keep the limits; no errors where none is named."""
    wanted = {"errors": 0.0, **limits}
    return all(figures[name] <= limit for name, limit in wanted.items() if name in figures)


def held_rate(levels: Sequence[Level]) -> float:
    """The highest rate that was held and not refuted afterwards; 0.0 for none."""
    missed = missed_rate(levels)
    return max((level.rate for level in levels if level.held and level.rate < missed), default=0.0)


def missed_rate(levels: Sequence[Level]) -> float:
    """The lowest rate that is taken for missed: clearly, or at least twice and more often than held."""
    rates = {level.rate for level in levels}
    return min((rate for rate in rates if _missed([item for item in levels if item.rate == rate])), default=math.inf)


def _missed(tries: Sequence[Level]) -> bool:
    held = sum(level.held for level in tries)
    missed = len(tries) - held
    return any(level.clear and not level.held for level in tries) or (missed > 1 and missed > held)


def next_rate(levels: Sequence[Level], first: float) -> float | None:
    """The next rate to try; None when the highest one is known to within the resolution."""
    if not levels:
        return first
    held, missed = held_rate(levels), missed_rate(levels)
    last = levels[-1]
    if not last.held and held < last.rate < missed:
        return last.rate
    if missed == math.inf:
        return held * GROWTH
    if not held:
        return missed / GROWTH if missed > first * LEAST_SHARE else None
    return None if missed / held <= 1 + RESOLUTION else math.sqrt(held * missed)
