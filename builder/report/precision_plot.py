"""What the artefacts of a model really compute and store in, drawn; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from builder.report import words
from builder.report.charts import (
    COLOURS,
    FONT,
    INK,
    SHAPES,
    Key,
    Plot,
    Row,
    Spec,
    Table,
    chart,
    coloured,
    layer,
    linear_axis,
)
from builder.report.records import TargetFacts

TYPES: Final = {"int8": COLOURS[2], "fp16": COLOURS[4], "bf16": COLOURS[1], "fp32": COLOURS[7]}
OTHER_TYPE: Final = COLOURS[3]
BAND: Final = 36
"""Height of a bar with its label, in the plot's units."""
Part = tuple[str, str, str, float, str]
"""Target, what it does (`computes`, `stores`), type, share, and what that was read from."""


def precision_plot(targets: Sequence[TargetFacts]) -> Plot:
    """Shares of the types in which each target computes and stores."""
    found = [target for target in targets if target.precision]
    parts = [
        (target.target, does, kind, share, target.precision.source)
        for target in found
        if target.precision
        for does, shares in (("computes", target.precision.compute), ("stores", target.precision.weights))
        for kind, share in shares
    ]
    labels = list(dict.fromkeys(f"{target} {does}" for target, does, *_ in parts))
    used = {kind for _, _, kind, _, _ in parts}
    kinds = [*(kind for kind in TYPES if kind in used), *sorted(used - set(TYPES))]
    colours = [TYPES.get(kind, OTHER_TYPE) for kind in kinds]
    rows = [
        {
            "label": f"{target} {does}",
            "kind": kind,
            "share": 100 * share,
            "order": kinds.index(kind),
            "tip": f"{target} {does} {words.percent(share)} in {kind}",
        }
        for target, does, kind, share, _ in parts
    ]
    chosen = next((target for target in found if target.chosen and target.precision), None)
    says = f"{_computes(chosen)} It is read from the opened artefacts, not from what was asked for."
    legend = tuple(Key(kind, colour, SHAPES[1]) for kind, colour in zip(kinds, colours, strict=True))
    said = [{"label": label, "text": f"{label} {_shares(label, parts)}"} for label in labels]
    spec = _bars(rows, said, coloured("kind", kinds, colours))
    return Plot("precision", "Precision proof", says, "", spec, _numbers(parts), legend)


def _bars(rows: Sequence[Row], said: Sequence[Row], colour: Spec) -> Spec:
    """A bar of shares below each label."""
    labels = [row["label"] for row in said]
    x = linear_axis("share", "share of the heavy work, of the weights (%)", [100.0])
    x |= {"scale": {"domain": [0, 100]}, "axis": {"values": [0, 25, 50, 75, 100]}}
    y: Spec = {"field": "label", "type": "nominal", "title": None, "sort": labels, "axis": None}
    mark = {"type": "bar", "height": 9, "yOffset": 7}
    text = {"type": "text", "fill": INK, "fontSize": FONT, "align": "left", "x": 0, "yOffset": -7}
    order: Spec = {"field": "order", "type": "quantitative"}
    layers = [layer(mark, rows, x=x, y=y, color=colour, order=order), layer(text, said, y=y, text={"field": "text"})]
    return chart(layers, 60 + BAND * len(labels))


def _numbers(parts: Sequence[Part]) -> Table:
    rows = tuple((target, does, kind, words.percent(share), source) for target, does, kind, share, source in parts)
    return Table(("target", "does", "type", "share", "read from"), rows)


def _shares(label: str, parts: Sequence[Part]) -> str:
    """`int8`, or `int8 93 %` where there is something else too."""
    mine = [(share, kind) for target, does, kind, share, _ in parts if f"{target} {does}" == label]
    share, kind = max(mine)
    return f"in {kind}" if share > 0.995 else f"{words.percent(share)} in {kind}"  # noqa: PLR2004 - would be shown as 100 %


def _computes(target: TargetFacts | None) -> str:
    if target is None or target.precision is None or not target.precision.compute:
        return "Types of weights and of the heavy work."
    kind, share = max(target.precision.compute, key=lambda pair: pair[1])
    return f"{target.target} computes {words.percent(share)} in {kind}."
