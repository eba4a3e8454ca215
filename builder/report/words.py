"""Figures in words: three digits, a unit, and nothing where nothing is known."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

from builder.tuning_records import Objective, Setting

NOTHING: Final = "-"
TIMES: Final = "\u00d7"
SAME: Final = 0.03
"""Ratios nearer to 1 than this are said to be equal: a measurement in process repeats no better."""
UNITS: Final = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def number(value: float) -> str:
    """Three digits that count: `0.0227`, `1.38`, `412`, `13,200`."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1000:  # noqa: PLR2004 - from here on digits are grouped
        return f"{round(value, 2 - math.floor(math.log10(size))):,.0f}"
    if size == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(size)))
    rounded = f"{value:.{digits}f}"
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def milliseconds(value: float | None) -> str:
    """`0.0227 ms`, `1.20 s`."""
    if value is None:
        return NOTHING
    return f"{number(value / 1000)} s" if value >= 1000 else f"{number(value)} ms"  # noqa: PLR2004 - a second


def rate(value: float | None, unit: str = "rows/s") -> str:
    """`1,320 rows/s`."""
    return NOTHING if value is None else f"{number(value)} {unit}"


def size(value: float | None) -> str:
    """`299 kB`, `1.20 MB`."""
    if value is None:
        return NOTHING
    for least, unit in UNITS:
        if value >= least:
            return f"{number(value / least)} {unit}"
    return f"{value:.0f} B"


def percent(share: float | None) -> str:
    """`98.3 %`, `0.46 %`, `1.7e-5 %`; small shares have two digits."""
    if share is None:
        return NOTHING
    value = 100 * share
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    if abs(value) >= 10:  # noqa: PLR2004
        return f"{value:.1f} %".replace(".0 %", " %")
    if abs(value) < 1e-3:  # noqa: PLR2004 - shorter as a power of ten
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{digits}e{int(power)} %"
    return f"{value:.2g} %"


def metric(name: str) -> str:
    """`top-1` for `top1`."""
    return re.sub(r"^top(\d+)$", r"top-\1", name)


def count(amount: int, noun: str) -> str:
    """`1 target`, `5 targets`."""
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def count_of(amount: float, noun: str) -> str:
    """`1 point`, `0.5 points`."""
    return f"{number(amount)} {noun}{'' if amount == 1 else 's'}"


def listed(items: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(items[:-1]), *items[-1:])))


def times(ratio: float) -> str:
    """`3.2x` with the sign for it."""
    return (number(ratio) if ratio >= 100 else f"{ratio:.2g}") + TIMES  # noqa: PLR2004 - no 3e+02


def compared(ratio: float, better: str, worse: str, other: str) -> str:
    """1.4 times as fast as another: `ratio` over 1 is better."""
    if abs(ratio - 1) < SAME:
        return f"as {better} as {other}"
    return f"{times(ratio)} as {better} as {other}" if ratio > 1 else f"{times(1 / ratio)} as {worse} as {other}"


def compared_size(ratio: float, other: str) -> str:
    """3.9 times smaller than another: `ratio` over 1 is larger."""
    if abs(ratio - 1) < SAME:
        return f"as large as {other}"
    return f"{times(ratio)} larger than {other}" if ratio > 1 else f"{times(1 / ratio)} smaller than {other}"


def setting(value: Setting) -> str:
    """`openvino:int8, batches up to 8, 2 instances, 1 thread each`."""
    parts = [value.target]
    if value.max_batch_size:
        wait = f", waiting {number(value.max_queue_delay_us)} µs" if value.max_queue_delay_us else ""
        sizes = f" (preferred {', '.join(map(str, value.preferred))})" if value.preferred else ""
        parts.append(f"batches up to {value.max_batch_size}{sizes}{wait}")
    else:
        parts.append("no batching")
    parts.append(count(value.instances, "instance"))
    if value.threads is not None:
        parts.append(f"{count(value.threads, 'thread')} each")
    if value.hint:
        parts.append(f"hint {value.hint}")
    return ", ".join(parts)


def load(objective: Objective, users: int | None = None, *, limits: bool = True) -> str:
    """`8 users over gRPC, p99 ≤ 50 ms`; `users` where an SLO held only with fewer."""
    protocol = {"grpc": "gRPC", "http": "HTTP"}.get(objective.protocol, objective.protocol)
    held = [f"{name} ≤ {milliseconds(value)}" for name, value in objective.slo] if limits else []
    sizes = [f"{count(objective.rows, 'row')} a request"] if objective.rows > 1 else []
    return ", ".join((f"{count(users or objective.users, 'user')} over {protocol}", *sizes, *held))


def objective_value(value: float, objective: Objective) -> str:
    """A value of the objective with its unit."""
    if objective.word == "memory":
        return size(value)
    return milliseconds(value) if objective.word == "latency" else rate(value)


def machine(facts: Mapping[str, str]) -> str:
    """`AMD EPYC, 2 cores, with AVX2, AVX-512`."""
    forms = {
        "cpu": "{}",
        "gpu": "{}",
        "cores": "{} cores",
        "vector_instructions": "with {}",
        "cpu_limit": "limited by {}",
    }
    return ", ".join(form.format(facts[name]) for name, form in forms.items() if name in facts)
