"""Plots as numbers for the report's inline SVG: scales, ticks, points; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 520
HEIGHT: Final = 240
LEFT: Final = 62
RIGHT: Final = 508
TOP: Final = 24
BOTTOM: Final = 200
TICKS: Final = 4
ACROSS: Final = 6
MOST_BARS: Final = 40

Points = Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis and its label."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle, and what stands in its tooltip."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """A named polyline."""

    name: str
    points: str


@dataclass(frozen=True, slots=True)
class Plot:
    """All that the template draws."""

    title: str
    across: str
    rows: tuple[Tick, ...]
    columns: tuple[Tick, ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[Bar, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = RIGHT
    bottom: int = BOTTOM


def line_plot(title: str, across: str, lines: Sequence[tuple[str, Points]]) -> Plot:
    """Values over time; places without a value are skipped."""
    known = [(x, y) for _, points in lines for x, y in points if y is not None]
    top = nice_top(max((y for _, y in known), default=1.0))
    end = max((x for x, _ in known), default=1.0) or 1.0
    drawn = tuple(
        Line(name, " ".join(f"{_across(x, end):.1f},{_down(y, top):.1f}" for x, y in points if y is not None))
        for name, points in lines
    )
    step = nice_top(end / ACROSS)
    columns = tuple(
        Tick(_across(step * place, end), f"{step * place:g}") for place in range(int(end / step + 1e-9) + 1)
    )
    return Plot(title, across, _rows(top), columns, drawn)


def bar_plot(title: str, across: str, bars: Sequence[tuple[str, float]]) -> Plot:
    """One bar for each label; the smallest are left out where there are too many."""
    shown = _shown(bars)
    top = nice_top(max((value for _, value in shown), default=1.0))
    step = (RIGHT - LEFT) / max(1, len(shown))
    width = min(48.0, 0.8 * step)
    found, columns = [], []
    for place, (label, value) in enumerate(shown):
        middle = LEFT + (place + 0.5) * step
        y = _down(value, top)
        found.append(
            Bar(round(middle - width / 2, 1), round(y, 1), round(width, 1), round(BOTTOM - y, 1), f"{label}: {value:g}")
        )
        columns.append(Tick(round(middle, 1), label))
    return Plot(title, across, _rows(top), tuple(columns), bars=tuple(found))


def _shown(bars: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    if len(bars) <= MOST_BARS:
        return list(bars)
    least = sorted((value for _, value in bars), reverse=True)[MOST_BARS - 1]
    return [(label, value) for label, value in bars if value >= least][:MOST_BARS]


def nice_top(value: float) -> float:
    """The next of 1, 2, 2.5, 5 times a power of ten."""
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 2.5, 5.0, 10.0) if step * power >= value * (1 - 1e-9))


def _rows(top: float) -> tuple[Tick, ...]:
    return tuple(Tick(_down(top * place / TICKS, top), f"{top * place / TICKS:g}") for place in range(TICKS + 1))


def _across(x: float, end: float) -> float:
    return round(LEFT + (RIGHT - LEFT) * x / end, 1)


def _down(y: float, top: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * y / top, 1)
