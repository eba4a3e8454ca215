"""How far single numbers of the answers are from the source's, drawn; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from builder.deviations import EDGES, Counts, spans, summed, within
from builder.measurement import OutputError
from builder.report import words
from builder.report.charts import (
    Plot,
    Row,
    Spec,
    Table,
    chart,
    coloured,
    keys,
    layer,
    linear_axis,
    log_axis,
    shaped,
    upright,
)
from builder.report.records import TargetFacts
from builder.report.targets import badness

HALF: Final = 10.0**0.5
"""Width of a class, as a factor."""


def counted(targets: Sequence[TargetFacts]) -> dict[str, Counts]:
    """The classes of all outputs of each target together; without those of which nothing was counted."""
    found = {target.target: summed(output.deviations for output in target.outputs) for target in targets}
    return {name: counts for name, counts in found.items() if sum(counts)}


def deviations_plot(targets: Sequence[TargetFacts], names: Sequence[str]) -> Plot:
    """Bars of the served target, or of the first one, and a line for each other."""
    every = counted(targets)
    chosen = next((target for target in targets if target.chosen and target.target in every), None)
    main = chosen.target if chosen else next(iter(every))
    gate = chosen.gates.get("max_relative_error") if chosen else None
    first = next((low for low, _, counts in _classes(every) if any(counts)), EDGES[-1])
    zero = first / HALF if any(counts[0] for counts in every.values()) else None
    rows = [row for name, counts in every.items() for row in _rows(name, counts, zero)]
    shown = [row[end] for row in rows if row["share"] for end in ("low", "high")] + ([gate] if gate else [])
    x = log_axis("low", "error, as a share of the largest value", shown, "%", zero and zero / HALF**0.5)
    x["scale"] = {**x["scale"], "domain": [min(shown) / HALF, max(shown) * HALF]}
    y = linear_axis("share", "share of the numbers (%)", [row["share"] for row in rows])
    drawn = [row for row in rows if min(shown) <= row["middle"] <= max(shown)]
    colour = coloured("target", names)
    mark = {"type": "rect", "opacity": 0.75}
    layers = [layer(mark, [row for row in drawn if row["target"] == main and row["share"]],
                    x=x, x2={"field": "high"}, y=y, y2={"datum": 0}, color=colour)]  # fmt: skip
    others = [row for row in drawn if row["target"] != main]
    middle: Spec = {**x, "field": "middle"}
    layers += [
        layer({"type": "line", "strokeWidth": 2}, others, x=middle, y=y, color=colour),
        layer({"type": "point", "filled": True, "size": 45, "opacity": 1}, [row for row in others if row["share"]],
              x=middle, y=y, color=colour, shape=shaped("target", names)),
    ] if others else []  # fmt: skip
    layers += upright(x, gate, f"gate {words.percent(gate)}") if gate else []
    reads = f"Bars: {main}; lines: the others." if others else ""
    return Plot(
        "deviations",
        "Distribution of the errors",
        _says(main, every[main]),
        reads,
        chart(layers),
        _numbers(targets, every),
        keys(names, every),
    )


def _classes(every: dict[str, Counts]) -> Iterator[tuple[float, float, list[int]]]:
    """Edges of each class but the first, and how many elements of each target it has."""
    for index, (low, high) in enumerate(spans(), 1):
        yield low, high, [counts[index] for counts in every.values()]


def _rows(name: str, counts: Counts, zero: float | None) -> Iterator[Row]:
    total = sum(counts)
    parts = [(low, high, number, "") for (low, high), number in zip(spans(), counts[1:], strict=True)]
    if zero is not None:
        parts.insert(0, (zero / HALF, zero, counts[0], "equal to the source"))
    for low, high, number, said in parts:
        where = said or f"{words.percent(low)} to {words.percent(high)} away"
        yield {
            "target": name,
            "low": low,
            "high": high,
            "middle": (low * high) ** 0.5,
            "share": 100 * number / total,
            "tip": f"{name}: {number:,} of {total:,} numbers {where}",
        }


def _says(name: str, counts: Counts) -> str:
    total = sum(counts)
    if counts[0] == total:
        return f"All {total:,} numbers of {name} are the source's own."
    half, most = within(counts, 0.5), within(counts, 0.99)
    return f"Of {total:,} numbers of {name}, half {_near(half)} and 99 % {_near(most)}."


def _near(edge: float) -> str:
    if edge == 0:
        return "are the source's own"
    return f"are off by less than {words.percent(edge)}" if edge <= 1 else "are off by any amount"


def _summary(targets: Sequence[TargetFacts], names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The worst of all outputs, below the classes."""
    mine = {target.target: target.outputs for target in targets}
    lines: dict[str, Callable[[Sequence[OutputError]], str]] = {
        "largest error": lambda outputs: words.percent(max((item.max_relative for item in outputs), key=badness)),
        "absolute": lambda outputs: words.number(max((item.max_absolute for item in outputs), key=badness)),
        "cosine": lambda outputs: f"{min(item.cosine for item in outputs):.6f}",
        "same top class": lambda outputs: words.percent(
            min((item.top1_agreement for item in outputs if item.top1_agreement is not None), default=None)
        ),
    }
    for head, said in lines.items():
        yield head, *(said(mine[name]) for name in names)


def _numbers(targets: Sequence[TargetFacts], every: dict[str, Counts]) -> Table:
    head = ("error, of the largest value", *every)
    rows = [("equal", *(f"{counts[0]:,}" for counts in every.values()))]
    for index, (low, high, counts) in enumerate(_classes(every)):
        if any(counts):
            name = f"{words.percent(low)} to {words.percent(high)}"
            name = f"below {words.percent(high)}" if index == 0 else f"from {words.percent(low)}" if low >= 1 else name
            rows.append((name, *(f"{number:,}" for number in counts)))
    return Table(head, (*rows, *_summary(targets, tuple(every))))
