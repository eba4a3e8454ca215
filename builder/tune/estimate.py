"""How sure a measurement is: robust means of the windows of a turn, and intervals; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TRIM: Final = 0.2
"""Of the windows at each end: a neighbour who burns a core now and then is in some of them only."""
BURSTS: Final = 0.35
"""Windows that vary by more (standard deviation over mean) are too short for the answers in them."""
CONFIDENT: Final = 2.0
"""Standard errors on each side of a 95 % interval."""
LEAST_ERROR: Final = 0.004
"""No measurement of some seconds is surer than this."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One turn: the natural logarithm of its value, and its standard error (relative)."""

    log_value: float
    error: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """The logarithm of a ratio and its standard error; `count` says in how many waves it was measured."""

    log_ratio: float
    error: float
    count: int

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval, as a ratio."""
        return math.exp(self.log_ratio - CONFIDENT * self.error)

    @property
    def high(self) -> float:
        """Upper end."""
        return math.exp(self.log_ratio + CONFIDENT * self.error)

    @property
    def ratio(self) -> float:
        """The middle."""
        return math.exp(self.log_ratio)


def sample_of(windows: Sequence[float]) -> Sample:
    """From values of equal parts of the time; zeros where nothing was answered.

    Raises:
        ValueError: none is above zero.
    """
    even = _evened(windows)
    ordered = sorted(even)
    cut = int(TRIM * len(ordered))
    kept = ordered[cut : len(ordered) - cut]
    mean = sum(kept) / len(kept) if kept else 0.0
    if mean <= 0:
        msg = "nothing was answered"
        raise ValueError(msg)
    spread = math.sqrt(sum((value - mean) ** 2 for value in kept) / max(1, len(kept) - 1)) / mean
    return Sample(math.log(mean), max(LEAST_ERROR, spread / math.sqrt(len(kept))))


def _evened(windows: Sequence[float]) -> list[float]:
    """Answers of a slow model come in bursts, a batch at a time: windows are joined until that no longer shows."""
    values = list(windows)
    while len(values) > 1 and _variation(values) > BURSTS:
        half = len(values) // 2
        # With an odd number the last part has three.
        parts = [values[2 * place : 2 * place + 2 if place < half - 1 else None] for place in range(half)]
        values = [sum(part) / len(part) for part in parts]
    return values


def _variation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) / mean if mean > 0 else 0.0
