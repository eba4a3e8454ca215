"""Is this test slower than an earlier one, beyond what both vary by themselves?"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from builder.errors import SpecError
from builder.findings import Finding
from builder.loadtest.records import LoadResult, Verdict
from builder.records import RecordError, read_record

SIGMAS: Final = 4.0
"""A difference of so many standard errors is no chance: the windows of one run are more alike than two runs."""
LEAST: Final = 0.03
"""Differences below this share are never called one."""
STEP_ROOM: Final = 0.05
"""The resolution to which shape `step` knows a rate."""
WINDOWS_NEEDED: Final = 4


@dataclass(frozen=True, slots=True)
class Change:
    """A quantity's mean in both tests, and the standard error of the difference."""

    quantity: Literal["p50", "p99", "rps"]
    now: float
    before: float
    error: float

    @property
    def worse_by(self) -> float:
        """Positive where it grew worse."""
        return self.before - self.now if self.quantity == "rps" else self.now - self.before

    @property
    def room(self) -> float:
        """How much worse may be chance."""
        return max(SIGMAS * self.error, LEAST * self.before)


def read_baseline(file: Path) -> LoadResult:
    """The result of an earlier test.

    Raises:
        SpecError: the file is no load test result.
    """
    try:
        return read_record(LoadResult, file)
    except (OSError, RecordError) as error:
        msg = f"the baseline {file} cannot be used: {error}"
        raise SpecError(msg, remedy="give the result.json of an earlier load test's report folder") from error


def compare_baseline(result: LoadResult, baseline: LoadResult) -> tuple[Finding, ...]:
    """Errors where median, p99 or throughput is worse than in a result kept earlier, beyond the noise of both."""
    findings = [] if _setting(result) == _setting(baseline) else [_other_setting(result, baseline)]
    if result.shape == "step":
        return (*findings, *_lower_rate(result, baseline))
    changes = changes_of(result, baseline)
    if not changes:
        findings.append(_too_short(result))
    findings += [_regression(result, change) for change in changes if change.worse_by > change.room]
    if result.error_percent > baseline.error_percent and result.failures > baseline.failures:
        findings.append(_more_failures(result, baseline))
    return tuple(findings)


def baseline_verdicts(result: LoadResult, baseline: LoadResult) -> tuple[Verdict, ...]:
    """The same comparison quantity by quantity, what held too; none where too little was answered to tell."""
    if result.shape == "step":
        now, before = result.held_rate or 0.0, baseline.held_rate or 0.0
        room = 2 * STEP_ROOM * before
        held = not _lower_rate(result, baseline)
        return (Verdict("baseline", "rate", held, now, before - room, "requests/s", room),)
    found = [_verdict(change) for change in changes_of(result, baseline)]
    failed = result.error_percent > baseline.error_percent and result.failures > baseline.failures
    found.append(Verdict("baseline", "errors", not failed, result.error_percent, baseline.error_percent, "%"))
    return tuple(found)


def _verdict(change: Change) -> Verdict:
    unit, room = ("requests/s", -change.room) if change.quantity == "rps" else ("ms", change.room)
    held = change.worse_by <= change.room
    return Verdict("baseline", change.quantity, held, change.now, change.before + room, unit, change.room)


def changes_of(result: LoadResult, baseline: LoadResult) -> tuple[Change, ...]:
    """Median, p99 and throughput, each window beside the same one of the baseline; none where windows are too few."""
    columns: tuple[tuple[Literal["p50", "p99", "rps"], str], ...] = (
        ("p50", "p50_ms"),
        ("p99", "p99_ms"),
        ("rps", "requests_per_s"),
    )
    found = []
    for quantity, name in columns:
        now, before = (
            [getattr(window, name) for window in test.windows if getattr(window, name) is not None]
            for test in (result, baseline)
        )
        if min(len(now), len(before)) >= WINDOWS_NEEDED:
            found.append(Change(quantity, statistics.mean(now), statistics.mean(before), _error(now, before)))
    return tuple(found)


def _error(now: Sequence[float], before: Sequence[float]) -> float:
    """Of the difference of the means: from pairs of windows, since a shape's load is the same only in these."""
    if len(now) == len(before):
        differences = [one - other for one, other in zip(now, before, strict=True)]
        return statistics.stdev(differences) / math.sqrt(len(differences))
    return math.sqrt(sum(statistics.variance(values) / len(values) for values in (now, before)))


def _setting(result: LoadResult) -> dict[str, object]:
    """What decides how a server is loaded, in the user's words."""
    return {
        "models": ", ".join(result.models),
        "protocol": result.protocol,
        "users": result.users,
        "rate": None if result.shape == "step" else result.rate,
        "arrivals": result.arrivals,
        "shape": result.shape,
        "workers": result.workers,
    }


def _other_setting(result: LoadResult, baseline: LoadResult) -> Finding:
    before, now = _setting(baseline), _setting(result)
    words = [f"{word} {before[word] or 'none'}, now {now[word] or 'none'}" for word in now if before[word] != now[word]]
    text = f"the baseline was measured under another load: {'; '.join(words)}"
    remedy = "measure both with the same models, protocol, users, rate, shape and workers"
    return Finding("warning", "baseline.setting", text, remedy=remedy, model=",".join(result.models))


def _too_short(result: LoadResult) -> Finding:
    text = "nothing was compared with the baseline: too little was answered to tell a change from noise"
    return Finding("error", "baseline.short", text, remedy="a longer --duration", model=",".join(result.models))


def _lower_rate(result: LoadResult, baseline: LoadResult) -> tuple[Finding, ...]:
    now, before = result.held_rate or 0.0, baseline.held_rate or 0.0
    if now >= before * (1 - 2 * STEP_ROOM):
        return ()
    text = f"the highest rate that holds is {now:.1f} requests/s, the baseline has {before:.1f}"
    return (Finding("error", "baseline.rate", text, remedy=REMEDY, model=",".join(result.models)),)


REMEDY: Final = "find what changed, or keep this result as the new baseline"


def _regression(result: LoadResult, change: Change) -> Finding:
    unit = "requests/s" if change.quantity == "rps" else "ms"
    share = change.worse_by / change.before if change.before else math.inf
    noise = change.room / change.before if change.before else 0.0
    text = (
        f"{change.quantity} {change.now:.2f} {unit}, the baseline has {change.before:.2f}: {share:.0%} worse, "
        f"where {noise:.0%} may be noise (means of {len(result.windows)} windows)"
    )
    return Finding("error", f"baseline.{change.quantity}", text, remedy=REMEDY, model=",".join(result.models))


def _more_failures(result: LoadResult, baseline: LoadResult) -> Finding:
    text = f"{result.error_percent:.2f} % of the requests failed, the baseline has {baseline.error_percent:.2f} %"
    return Finding("error", "baseline.errors", text, remedy=REMEDY, model=",".join(result.models))
