"""What `best` means by the measurement of an artefact in process: latency, throughput or memory."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final, Literal

from builder.measurement import Measurement

Objective = Literal["latency", "throughput", "memory"]
MEANS: Final[dict[Objective, str]] = {
    "latency": "the median of the smallest request",
    "throughput": "rows a second at the best batch size measured",
    "memory": "the peak of the measuring process",
}
UNITS: Final[dict[Objective, str]] = {"latency": "ms", "throughput": "rows/s", "memory": "bytes"}


def value_of(measurement: Measurement | None, objective: Objective) -> float | None:
    """In the unit of `UNITS`; None where it was not measured."""
    if measurement is None:
        return None
    if objective == "memory":
        return float(measurement.peak_memory_bytes) if measurement.peak_memory_bytes else None
    timed = [item for item in measurement.latency if item.median_ms > 0]
    if not timed:
        return None
    if objective == "latency":
        return min(timed, key=lambda item: item.batch_size).median_ms
    # Batch size 0 stands for a request as it is, which then counts as one row.
    return max(1e3 * max(item.batch_size, 1) / item.median_ms for item in timed)


def cost_of(measurement: Measurement | None, objective: Objective) -> float:
    """The same so that less is better, and costs of several versions add up; infinite where it was not measured."""
    value = value_of(measurement, objective)
    if not value:
        return math.inf
    return 1 / value if objective == "throughput" else value


def undisturbed(measurement: Measurement) -> Measurement:
    """With the fastest run at each size for its median: what other programs cannot have made slower."""
    latency = tuple(replace(item, median_ms=item.least_ms or item.median_ms) for item in measurement.latency)
    return replace(measurement, latency=latency)


def shown(value: float, objective: Objective) -> str:
    """For people: `1.95 ms`, `812 rows/s`, `210 MB`."""
    if objective == "memory":
        return f"{value / 1e6:.0f} MB"
    return f"{value:.2f} ms" if objective == "latency" else f"{value:.4g} rows/s"
