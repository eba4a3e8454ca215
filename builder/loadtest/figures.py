"""From the raw log of requests to figures; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from builder.loadtest.records import LateStarts, Level, Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

COLUMNS: Final = ("due_s", "queued_s", "sent_s", "ended_s", "model", "rows", "outcome", "phase")
"""Of the log: seconds from the phase's start; `due` is the planned arrival, `queued` when it could be sent."""
OUTCOMES: Final = ("answered", "failed", "unanswered", "unsent")
WINDOWS: Final = 10
LATE_S: Final = 0.005
SILENT_S: Final = 1.0
SILENT_SHARE: Final = 0.1
RANKS: Final = (50, 90, 95, 99)


@dataclass(frozen=True, slots=True)
class Log:
    """Rows of one phase, `(n, columns)`, and how long it lasted."""

    rows: Floats
    elapsed_s: float

    def column(self, name: str) -> Floats:
        """One column."""
        return self.rows[:, COLUMNS.index(name)]

    @property
    def answered(self) -> Log:
        """Only what was answered."""
        return Log(self.rows[self.column("outcome") == 0], self.elapsed_s)

    def of_model(self, number: int) -> Log:
        """Only one model's."""
        return Log(self.rows[self.column("model") == number], self.elapsed_s)

    @property
    def latencies_ms(self) -> Floats:
        """From the planned arrival on."""
        return 1000 * (self.column("ended_s") - self.column("due_s"))

    @property
    def in_time(self) -> Log:
        """What ended before the phase did: throughput counts no request of the time after it."""
        return Log(self.rows[self.column("ended_s") <= self.elapsed_s], self.elapsed_s)


def silent_s(log: Log) -> float:
    """How long nothing was answered at the end while requests waited for it; 0.0 where something was."""
    outcome, ended = log.column("outcome"), log.column("ended_s")
    answered = outcome == OUTCOMES.index("answered")
    last = float(ended[answered].max(initial=0.0))
    waited = (outcome == OUTCOMES.index("failed")) & (ended - log.column("sent_s") >= SILENT_S) & (ended > last)
    waited |= outcome == OUTCOMES.index("unanswered")
    silent = log.elapsed_s - last
    return silent if waited.any() and silent >= max(SILENT_S, SILENT_SHARE * log.elapsed_s) else 0.0


def percentile(values: Floats, rank: float) -> float:
    """The smallest value that `rank` percent do not exceed."""
    import numpy as np

    return float(np.percentile(values, rank, method="inverted_cdf"))


def latency_fields(log: Log) -> dict[str, Any]:
    """Mean, percentiles and maximum as the result names them; zeros where nothing was answered."""
    taken = log.answered.latencies_ms
    if not len(taken):
        return dict.fromkeys(("mean_ms", "max_ms", *(f"p{rank}_ms" for rank in RANKS)), 0.0)
    found = {f"p{rank}_ms": percentile(taken, rank) for rank in RANKS}
    return {"mean_ms": float(taken.mean()), "max_ms": float(taken.max()), **found}


def throughput_fields(log: Log) -> dict[str, Any]:
    """Requests and rows a second."""
    done = log.answered.in_time
    elapsed = max(log.elapsed_s, 1e-9)
    return {"requests_per_s": len(done.rows) / elapsed, "rows_per_s": float(done.column("rows").sum()) / elapsed}


def windows_of(log: Log, count: int = WINDOWS) -> tuple[Window, ...]:
    """Equal parts of the time, by the planned arrival; throughput by the end of the request."""
    width = log.elapsed_s / count
    return tuple(_window(log, place * width, width) for place in range(count)) if width > 0 else ()


def _window(log: Log, start: float, width: float) -> Window:
    due = log.column("due_s")
    inside = Log(log.rows[(due >= start) & (due < start + width)], width)
    taken = inside.answered.latencies_ms
    ended = log.answered.column("ended_s")
    done = int(((ended >= start) & (ended < start + width)).sum())
    return Window(
        start_s=round(start, 3),
        requests=len(inside.rows),
        failures=len(inside.rows) - len(taken),
        requests_per_s=done / width,
        p50_ms=percentile(taken, 50) if len(taken) else None,
        p99_ms=percentile(taken, 99) if len(taken) else None,
    )


def late_starts(log: Log) -> LateStarts:
    """Requests that began more than 5 ms after their planned arrival; those the generator itself woke late for."""
    late, queued = log.column("sent_s") - log.column("due_s"), log.column("queued_s") - log.column("due_s")
    worst = float(late.max()) if len(late) else 0.0
    return LateStarts(len(log.rows), int((late > LATE_S).sum()), int((queued > LATE_S).sum()), 1000 * max(0.0, worst))


def levels_of(phases: Sequence[Mapping[str, Any]]) -> tuple[Level, ...]:
    """The rates that were tried, in their order."""
    return tuple(
        Level(
            float(phase["rate"]),
            bool(phase["held"]),
            bool(phase["behind"]),
            phase["figures"].get("p99"),
            float(phase["figures"]["errors"]),
        )
        for phase in phases
        if "held" in phase
    )
