"""How sure a measurement is: robust means of windows, ratios to an interleaved reference, intervals; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
    """One measurement: the natural logarithm of its value, its standard error (relative), and when it was taken."""

    log_value: float
    error: float
    at_s: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """One measurement over the reference: the logarithm and its standard error."""

    log_ratio: float
    error: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean of log ratios to the reference and its standard error, of `count` measurements."""

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


def sample_of(windows: Sequence[float], at_s: float) -> Sample:
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
    return Sample(math.log(mean), max(LEAST_ERROR, spread / math.sqrt(len(kept))), at_s)


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


def reference_at(reference: Sequence[Sample], at_s: float) -> Sample:
    """What the reference would have given at that moment: between its neighbours in proportion to the time."""
    ordered = sorted(reference, key=lambda sample: sample.at_s)
    if at_s <= ordered[0].at_s:
        return ordered[0]
    for before, after in pairwise(ordered):
        if at_s <= after.at_s:
            share = (at_s - before.at_s) / max(1e-9, after.at_s - before.at_s)
            value = before.log_value + share * (after.log_value - before.log_value)
            error = math.hypot((1 - share) * before.error, share * after.error)
            return Sample(value, error, at_s)
    return ordered[-1]


def ratio_of(sample: Sample, reference: Sequence[Sample]) -> Ratio:
    """Against the reference at that moment: the machine's drift is taken out."""
    other = reference_at(reference, sample.at_s)
    return Ratio(sample.log_value - other.log_value, math.hypot(sample.error, other.error))


def combine(ratios: Sequence[Ratio]) -> Estimate:
    """All measurements of a setting; those that disagree widen the interval."""
    values = [ratio.log_ratio for ratio in ratios]
    own = math.sqrt(sum(ratio.error**2 for ratio in ratios)) / len(ratios)
    # The median: one measurement that a neighbour disturbed must not decide.
    middle = _median(values)
    if len(values) == 1:
        return Estimate(middle, own, 1)
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    return Estimate(middle, max(own, spread), len(values))


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
