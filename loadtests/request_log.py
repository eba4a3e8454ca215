"""The raw log of requests: one row each, kept as numbers until the end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

COLUMNS = ("due_s", "queued_s", "sent_s", "ended_s", "model", "rows", "outcome", "phase")
"""Seconds count from the phase's start; `due` is the planned arrival, `queued` when it was ready to be sent."""
ANSWERED, FAILED, UNANSWERED, UNSENT = 0.0, 1.0, 2.0, 3.0
PERCENTILES = (50, 90, 95, 99)
GROWTH = 0.05
"""Share of the arrivals that may be left waiting, which is as near as the search looks."""
GROWTH_LEAST = 1


def table(parts: Sequence[bytes]) -> np.ndarray:
    """The rows of all parts."""
    return np.frombuffer(b"".join(parts), dtype=np.float64).reshape(-1, len(COLUMNS))


def level_figures(rows: np.ndarray) -> dict[str, float]:
    """Latencies in ms and the share of failures in per cent, as the SLO's terms name them."""
    outcome = rows[:, COLUMNS.index("outcome")]
    answered = rows[outcome == ANSWERED]
    figures = {"errors": 100.0 * (1 - len(answered) / len(rows)) if len(rows) else 100.0}
    if len(answered):
        taken = 1000 * (answered[:, COLUMNS.index("ended_s")] - answered[:, COLUMNS.index("due_s")])
        figures |= {f"p{rank}": float(percentile(taken, rank)) for rank in PERCENTILES}
        figures["max"] = float(taken.max())
    return figures


def percentile(values: np.ndarray, rank: float) -> float:
    """The smallest value that `rank` percent do not exceed."""
    return float(np.percentile(values, rank, method="inverted_cdf"))


def falls_behind(rows: np.ndarray, seconds: float) -> bool:
    """Whether more wait at the end than in the middle: a rate that is too high shows so long before its p99."""
    due, ended = rows[:, COLUMNS.index("due_s")], rows[:, COLUMNS.index("ended_s")]
    middle, end = (int(((due <= moment) & (ended > moment)).sum()) for moment in (seconds / 2, seconds))
    arrived = int(((due > seconds / 2) & (due <= seconds)).sum())
    return end - middle > max(GROWTH_LEAST, GROWTH * arrived)
