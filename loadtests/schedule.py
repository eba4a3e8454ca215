"""When requests arrive: shapes of a load over time, and traces that were recorded."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

SHAPES = ("constant", "ramp", "step", "spike")
GRID = 1000
SPIKE = (0.4, 0.6)
CALM = 0.2
CHUNK_S = 60.0
COLUMN = "arrival_s"

Arrivals = list[tuple[float, str]]
"""Seconds from the start, and the model; an empty name lets the mix decide."""


def share(shape: str, place: float) -> float:
    """The part of the full load that is on at `place` (0 to 1) of the time."""
    if shape == "ramp":
        return place
    if shape == "spike":
        return 1.0 if SPIKE[0] <= place < SPIKE[1] else CALM
    return 1.0


def arrival_times(shape: str, rate: float, seconds: float, *, poisson: bool = False, seed: int = 0) -> np.ndarray:
    """Planned arrivals of a load that reaches `rate` a second: evenly spaced, or at random as independent users do."""
    grid = np.linspace(0.0, seconds, GRID + 1)
    middles = (np.arange(GRID) + 0.5) / GRID
    rates = rate * np.asarray([share(shape, place) for place in middles])
    expected = np.concatenate([[0.0], np.cumsum(rates * seconds / GRID)])
    total = float(expected[-1])
    if poisson:
        draws = np.random.default_rng(seed).exponential(size=int(total + 10 * total**0.5 + 20))
        counts = np.cumsum(draws)
    else:
        counts = np.arange(0.5, total, 1.0)
    times: np.ndarray = np.interp(counts[counts < total], expected, grid)
    return times


def planned(phase: Mapping[str, Any], trace: Arrivals) -> Iterator[tuple[float, str]]:
    """One worker's part of a phase's arrivals; endless where the phase is."""
    index, of, seconds = int(phase["index"]), int(phase["of"]), float(phase["seconds"])
    if trace:
        yield from (item for item in trace[index::of] if not seconds or item[0] < seconds)
        return
    for chunk in count():
        span = seconds or CHUNK_S
        seed = int(phase["seed"]) + chunk
        times = arrival_times(phase["shape"], phase["rate"], span, poisson=phase["poisson"], seed=seed)
        yield from ((chunk * span + float(time), "") for time in times[index::of])
        if seconds:
            return


def read_trace(path: str) -> Arrivals:
    """A trace: numbers, or rows with `arrival_s` and perhaps `model`, as CSV or JSON; or a load test's result.json.

    Raises:
        ValueError: the file is no trace.
    """
    file = Path(path)
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        data = json.loads(text)
        beside = file.parent / "requests.csv"
        if isinstance(data, dict) and beside.is_file():
            return read_trace(str(beside))
        rows = data.get("arrivals") if isinstance(data, dict) else data
    else:
        rows = _table(text)
    found = [_arrival(row, path) for row in rows or ()]
    if not found:
        raise ValueError(f"{path} holds no arrivals: a column {COLUMN}, or a list of seconds, is needed")
    first = min(time for time, _ in found)
    return sorted((time - first, model) for time, model in found)


def _table(text: str) -> Sequence[Any]:
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and COLUMN in lines[0]:
        return list(csv.DictReader(lines))
    return [line.split(",")[0] for line in lines]


def _arrival(row: Any, path: str) -> tuple[float, str]:  # noqa: ANN401 - a number, or a mapping
    try:
        time, model = (row[COLUMN], str(row.get("model") or "")) if isinstance(row, Mapping) else (row, "")
        if math.isfinite(second := float(time)):
            return second, model
        problem = None
    except (KeyError, TypeError, ValueError) as error:
        problem = error
    raise ValueError(f"{path}: {row!r} is no arrival; a column {COLUMN}, or a list of seconds, is needed") from problem
