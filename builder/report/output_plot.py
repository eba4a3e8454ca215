"""The errors of a model's outputs, drawn; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final

from builder.measurement import OutputError
from builder.report import words
from builder.report.charts import Plot, Row, Spec, Table, chart, coloured, keys, layer, log_axis, shaped, upright
from builder.report.records import TargetFacts
from builder.report.targets import badness

NO_ERROR: Final = 1e-6
"""What is taken for small where no error is anything but 0."""
ERROR: Final = "largest error"
MOST_OUTPUTS: Final = 10
"""Outputs in one plot; the table beside it has all."""
BAND: Final = 26
"""Height of an output, in the plot's units."""
Pair = tuple[TargetFacts, OutputError]


def errors_plot(targets: Sequence[TargetFacts], names: Sequence[str]) -> Plot:
    """Each output of each target, with the gates; the worst outputs where there are many."""
    every = [(target, output) for target in targets for output in target.outputs]
    worst: dict[str, float] = {}
    for _, output in every:
        worst[output.name] = max(worst.get(output.name, 0.0), output.max_relative, key=badness)
    shown = sorted(worst, key=lambda name: -badness(worst[name]))[:MOST_OUTPUTS]
    gates = sorted({target.gates["max_relative_error"] for target in targets if target.gates.get("max_relative_error")})
    zero = place_of_zero([*gates, *(output.max_relative for _, output in every)])
    rows: list[Row] = [
        {
            "target": target.target,
            "output": output.name,
            "error": output.max_relative or zero,
            "tip": f"{target.target}, {output.name}: {words.percent(output.max_relative)} of the largest value, "
            f"cosine {output.cosine:.6f}",
        }
        for target, output in every
        if output.name in shown and math.isfinite(output.max_relative)
    ]
    exact = not all(output.max_relative for _, output in every)
    x = log_axis("error", ERROR, [row["error"] for row in rows] + gates, "%", zero if exact else None)
    y: Spec = {"field": "output", "type": "nominal", "title": None, "sort": shown}
    layers = [item for row, value in enumerate(gates) for item in upright(x, value, words.percent(value), row)]
    mark = {"type": "point", "filled": True, "size": 80, "opacity": 0.9}
    layers.append(layer(mark, rows, x=x, y=y, color=coloured("target", names), shape=shaped("target", names)))
    height = max(170, 90 + BAND * len(shown))
    legend = keys(names, (target.target for target, _ in every))
    says = "Each output of each target against the source's own answers."
    numbers = _numbers(sorted(every, key=lambda pair: (pair[1].name, names.index(pair[0].target))))
    reads = _reads(gates, every, len(worst))
    return Plot("errors", "Errors of the outputs", says, reads, chart(layers, height), numbers, legend)


def _reads(gates: Sequence[float], every: Sequence[Pair], outputs: int) -> str:
    wild = sum(not math.isfinite(output.max_relative) for _, output in every)
    parts = [
        "The dashed line is the gate." if len(gates) == 1 else "Dashed lines are gates." if gates else "",
        f"{words.count(wild, 'error')} that {'is' if wild == 1 else 'are'} not finite cannot be drawn." if wild else "",
        f"The {MOST_OUTPUTS} worst of {outputs} outputs are drawn." if outputs > MOST_OUTPUTS else "",
    ]
    return " ".join(filter(None, parts))


def _numbers(every: Sequence[Pair]) -> Table:
    head = ("output", "target", "largest error", "absolute", "cosine", "unequal", "same top class")
    rows = tuple(
        (output.name, target.target, words.percent(output.max_relative), words.number(output.max_absolute),
         f"{output.cosine:.6f}", f"{output.mismatches:,} of {output.elements:,}", words.percent(output.top1_agreement))
        for target, output in every
    )  # fmt: skip
    return Table(head, rows)


def place_of_zero(values: Iterable[float]) -> float:
    """Where an error of 0 stands on an axis of powers of ten: a good way below the others."""
    return min((value for value in values if 0 < value < math.inf), default=NO_ERROR) / 10
