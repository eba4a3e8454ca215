"""Parts of Vega-Lite specifications that every plot of the report shares: axes, colours, marks; pure.

Colours are CSS variables, so that the page's theme colours plots that were drawn long before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

Spec = dict[str, Any]
Row = dict[str, Any]

WIDTH: Final = 360
"""Of a whole plot in its own units: about what it gets on a phone, so that text keeps its size there."""
HEIGHT: Final = 250
FONT: Final = 12.5
COLOURS: Final = tuple(f"var(--c{index})" for index in range(8))
SHAPES: Final = (
    "M0.9,0A0.9,0.9,0,1,1,-0.9,0A0.9,0.9,0,1,1,0.9,0Z",
    "M-0.8,-0.8H0.8V0.8H-0.8Z",
    "M0,-1L1,0.8H-1Z",
    "M0,-1.1L1,0L0,1.1L-1,0Z",
    "M-0.35,-1H0.35V-0.35H1V0.35H0.35V1H-0.35V0.35H-1V-0.35H-0.35Z",
    "M0,1L1,-0.8H-1Z",
    "M1,0L-0.8,1V-1Z",
    "M-1,0L0.8,1V-1Z",
)
"""Outlines that Vega and the legend of the page draw alike."""
TICKS: Final = 5
SHARE: Final = "format(100 * datum.value, '.3~g') + ' %'"
"""Labels of an axis of shares, whose format is `%`."""
STEPS: Final = ((1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0), (1.0, 2.0, 3.0, 5.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))
"""Places of ticks within a power of ten, the densest first."""
ROOM: Final = 1.5
"""By which factor a logarithmic axis goes beyond its values."""
LETTER: Final = 6.5
"""Mean width of a letter, in the plot's units."""
CLEAR: Final = 30.0
"""From this distance on a mark and the name of a line do not disturb each other."""
Ends = tuple[Literal["left", "right"], Literal["above", "below"]]
ENDS: Final[tuple[Ends, ...]] = (("left", "above"), ("right", "above"), ("left", "below"), ("right", "below"))
"""Where the name of a level line may stand, the usual place first."""
INK: Final = "var(--ink)"
SOFT: Final = "var(--soft)"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings; the first column names the row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend."""

    name: str
    colour: str
    shape: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure: what it says in a sentence, how to read it, how it is drawn, the same as a table, and its legend.

    The legend is the page's: there it wraps, and its words have the page's font.
    """

    key: str
    title: str
    says: str
    reads: str
    spec: Spec
    numbers: Table
    keys: tuple[Key, ...] = ()


def chart(layers: Sequence[Spec], height: int = HEIGHT) -> Spec:
    """A whole specification of layers that share their axes."""
    axis = {
        "labelColor": SOFT, "titleColor": SOFT, "labelFontSize": FONT, "titleFontSize": FONT,
        "titleFontWeight": "normal", "gridColor": "var(--line)", "domainColor": "var(--line)",
        "tickColor": "var(--line)", "labelOverlap": True, "labelLimit": 120, "tickCount": TICKS, "titlePadding": 10,
    }  # fmt: skip
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": WIDTH, "height": height, "background": None, "padding": 2,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": {"axis": axis, "view": {"stroke": None}, "font": "sans-serif"},
        "layer": list(layers),
    }  # fmt: skip


def layer(mark: str | Spec, rows: Iterable[Row], **encoding: Spec | None) -> Spec:
    """Marks of rows; `text` of a row named `tip` becomes what is shown above it."""
    found = list(rows)
    channels = {name: channel for name, channel in encoding.items() if channel is not None}
    if any("tip" in row for row in found):
        channels["description"] = {"field": "tip"}
    return {"mark": mark, "data": {"values": found}, "encoding": channels}


def log_axis(field: str, title: str, values: Iterable[float], form: str = ".4~g", zero: float | None = None) -> Spec:
    """A quantitative channel over powers of ten, with room around the values; at `zero` the axis says 0."""
    known = [value for value in values if 0 < value < math.inf] or [1.0]
    low, high = min(known) / ROOM, max(known) * ROOM
    ticks = log_ticks(low, high)
    label = SHARE if form == "%" else f"format(datum.value, '{form}')"
    if zero is not None:
        ticks = [zero, *(tick for tick in ticks if tick > 3 * zero)]
        label = f"datum.value < {1.01 * zero!r} ? '0' : {label}"
    return {
        "field": field, "type": "quantitative", "title": title,
        "axis": {"values": ticks, "labelExpr": label}, "scale": {"type": "log", "domain": [low, high], "nice": False},
    }  # fmt: skip


def log_ticks(low: float, high: float) -> list[float]:
    """At most `TICKS` round values from `low` to `high`."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for steps in STEPS:
        found = [tick for decade in decades for step in steps if low <= (tick := float(f"{step}e{decade}")) <= high]
        if len(found) <= TICKS:
            return found
    return found[:: math.ceil(len(found) / TICKS)]


def linear_axis(field: str, title: str, values: Iterable[float], *, zero: bool = True, form: str = ".4~g") -> Spec:
    """A quantitative channel; without `zero` it goes from a little below the values to a little above."""
    known = list(values) or [0.0]
    low, high = (min(0.0, *known) if zero else min(known)), max(known)
    room = 0.12 * (high - low) or abs(high) * 0.01 or 1.0
    domain = [low if zero else low - room, high + room]
    return {
        "field": field, "type": "quantitative", "title": title,
        "axis": {"labelExpr": f"format(datum.value, '{form}')"},
        "scale": {"domain": domain, "nice": False, "zero": False},
    }  # fmt: skip


def coloured(field: str, names: Sequence[str], colours: Sequence[str] = COLOURS) -> Spec:
    """One colour for each name, the same in every plot that lists the names in the same order."""
    found = [colours[index % len(colours)] for index in range(len(names))]
    return {"field": field, "type": "nominal", "scale": {"domain": list(names), "range": found}, "legend": None}


def shaped(field: str, names: Sequence[str]) -> Spec:
    """One shape for each name, for eyes that colours say little to."""
    shapes = [SHAPES[index % len(SHAPES)] for index in range(len(names))]
    return {"field": field, "type": "nominal", "scale": {"domain": list(names), "range": shapes}, "legend": None}


def points(rows: Iterable[Row], x: Spec, y: Spec, names: Sequence[str]) -> Spec:
    """A filled mark for each row's `target`."""
    mark = {"type": "point", "filled": True, "size": 90, "opacity": 1}
    return layer(mark, rows, x=x, y=y, color=coloured("target", names), shape=shaped("target", names))


def keys(names: Sequence[str], shown: Iterable[str]) -> tuple[Key, ...]:
    """The legend of those names that are shown, coloured and shaped as all of them are; none for a single one."""
    used = set(shown)
    found = tuple(
        Key(name, COLOURS[index % len(COLOURS)], SHAPES[index % len(SHAPES)])
        for index, name in enumerate(names)
        if name in used
    )
    return found if len(found) > 1 else ()


def upright(axis: Spec, value: float, text: str, row: int = 0) -> list[Spec]:
    """A dashed line from top to bottom at a value, and its name; `row` keeps the names of several apart."""
    return _rule("x", axis, value, text, {"align": "right", "baseline": "top", "dx": -5, "y": 2 + 15 * row})


def level(axis: Spec, value: float, text: str, beside: Ends) -> list[Spec]:
    """A dashed line from left to right at a value, and its name at an end of it."""
    side, height = beside
    place: Spec = {"align": side, "x": 3 if side == "left" else {"expr": "width - 3"}}
    place |= {"baseline": "bottom", "dy": -4} if height == "above" else {"baseline": "top", "dy": 5}
    return _rule("y", axis, value, text, place)


def _rule(channel: str, axis: Spec, value: float, text: str, place: Spec) -> list[Spec]:
    data = [{axis["field"]: value, "name": text}]
    line = {"type": "rule", "stroke": "var(--bad)", "strokeDash": [5, 4], "strokeWidth": 1.5}
    label: Spec = {"type": "text", "fill": "var(--bad)", "fontSize": FONT, **place}
    return [
        layer(line, data, **{channel: axis}),
        layer(label, data, **{channel: axis}, text={"field": "name"}),
    ]


def roomiest(x: Spec, y: Spec, value: float, text: str, rows: Sequence[Row]) -> Ends:
    """Where the name of a level line is farthest from the points of `rows`."""
    half, level = LETTER * len(text) / WIDTH / 2, along(y, value)
    points = [(along(x, row[x["field"]]), along(y, row[y["field"]])) for row in rows]

    def room(ends: Ends) -> float:
        across = half if ends[0] == "left" else 1 - half
        up = level + (1 if ends[1] == "above" else -1) * FONT / HEIGHT
        return min(
            (math.hypot(max(0.0, abs(at - across) - half) * WIDTH, (height - up) * HEIGHT) for at, height in points),
            default=math.inf,
        )

    return max(ENDS, key=lambda ends: min(room(ends), CLEAR))


def along(axis: Spec, value: float) -> float:
    """How far along an axis a value lies, from 0 to 1."""
    scale = axis["scale"]
    low, high = scale["domain"]
    if scale.get("type") == "log":
        low, high, value = math.log(low), math.log(high), math.log(value)
    return float((value - low) / (high - low))


def ring(rows: Iterable[Row], x: Spec, y: Spec, text: str) -> list[Spec]:
    """A circle around the chosen point, and its name."""
    found = list(rows)
    mark = {"type": "point", "shape": "circle", "size": 330, "stroke": INK, "strokeWidth": 2, "filled": False}
    label = {"type": "text", "fill": INK, "fontSize": FONT, "fontWeight": "bold", "dy": -18}
    named = [{**row, "name": text} for row in found]
    return [layer(mark, found, x=x, y=y), layer(label, named, x=x, y=y, text={"field": "name"})]
