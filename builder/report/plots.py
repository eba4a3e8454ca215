"""The plots of a model whose targets were measured: what they show, and what they say in a sentence; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
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
    keys,
    layer,
    linear_axis,
    log_axis,
    ring,
    rule,
    shaped,
)
from builder.report.records import ModelFacts, TargetFacts
from builder.report.targets import badness, rows_per_s

NO_ERROR: Final = 1e-6
ERROR: Final = "largest error"
MOST_OUTPUTS: Final = 10
"""Outputs in one plot; the table beside it has all."""
TYPES: Final = {"int8": COLOURS[2], "fp16": COLOURS[4], "bf16": COLOURS[1], "fp32": COLOURS[7]}
OTHER_TYPE: Final = COLOURS[3]
BAND: Final = 26
"""Height of a row, in the plot's units."""
LABELLED_BAND: Final = 36
Part = tuple[str, str, str, float, str]
"""Target, what it does (`computes`, `stores`), type, share, and what that was read from."""


def measured_plots(model: ModelFacts) -> Iterator[Plot]:
    """Speed against accuracy, latency of batches, errors of outputs, precision: what there is to compare."""
    names = [target.target for target in model.targets]
    measured = [target for target in model.targets if target.latency_ms and target.error is not None]
    if sum(math.isfinite(target.error or 0) for target in measured) > 1:
        yield _speed_accuracy(measured, names)
    if model.tuning is None and any(len(target.latency) > 1 for target in measured):
        yield _batches_in_process([target for target in measured if target.status == "built"] or measured, names)
    if any(target.error for target in measured):
        yield _errors(model.targets, names)
    if any(target.precision and target.precision.compute for target in model.targets):
        yield _precision(model.targets)


def _speed_accuracy(targets: Sequence[TargetFacts], names: Sequence[str]) -> Plot:
    metric = next((target.metric.name for target in targets if target.metric), None)
    found = [target for target in targets if (target.metric if metric else math.isfinite(target.error or 0))]
    values = [_accuracy(target, metric) for target in found]
    limits = _limits(found, metric)
    zero = _zero([*values, *(value for value, _ in limits)])
    rows: list[Row] = [
        {
            "target": target.target,
            "ms": target.latency_ms,
            "accuracy": value if metric else value or zero,
            "chosen": target.chosen,
            "tip": ", ".join(_compared(target)),
        }
        for target, value in zip(found, values, strict=True)
    ]
    heights = [row["accuracy"] for row in rows] + [value for value, _ in limits]
    if metric:
        y = linear_axis("accuracy", f"{words.metric(metric)} (%)", heights, zero=False)
    else:
        y = log_axis("accuracy", ERROR, heights, "%", zero if not all(values) else None)
    x = log_axis("ms", "one request in process (ms)", [target.latency_ms or 0 for target in found])
    layers = [item for value, text in limits for item in rule("y", y, value, text)]
    layers.append(_points(rows, x, y, names))
    layers += ring([row for row in rows if row["chosen"]], x, y, "served")
    better = "Left is faster, up is more accurate" if metric else "Left is faster, down is more accurate"
    head = ("target", "one request", "accuracy", "verdict")
    return Plot(
        "speed-accuracy",
        "Speed against accuracy",
        _trade(found),
        f"{better}.",
        chart(layers),
        Table(head, tuple(map(_compared, found))),
        keys(names, (target.target for target in found)),
    )


def _trade(targets: Sequence[TargetFacts]) -> str:
    """What is faster than the served target, or that nothing is."""
    chosen = next((target for target in targets if target.chosen), None)
    if chosen is None or chosen.latency_ms is None:
        return ""
    mine = chosen.latency_ms
    faster = [target.target for target in targets if target.latency_ms and target.latency_ms < mine * (1 - words.SAME)]
    if not faster:
        return f"Nothing is faster than {chosen.target}, which is served."
    others = faster[0] if len(faster) == 1 else f"{len(faster)} others"
    return f"{chosen.target} is served; alone in process {others} {'is' if len(faster) == 1 else 'are'} faster."


def _compared(target: TargetFacts) -> tuple[str, str, str, str]:
    return target.target, words.milliseconds(target.latency_ms), _accuracy_words(target), target.status


def _zero(values: Iterable[float]) -> float:
    """Where an error of 0 stands on an axis of powers of ten: a good way below the others."""
    return min((value for value in values if 0 < value < math.inf), default=NO_ERROR) / 10


def _points(rows: Sequence[Row], x: Spec, y: Spec, names: Sequence[str]) -> Spec:
    mark = {"type": "point", "filled": True, "size": 90, "opacity": 1}
    return layer(mark, rows, x=x, y=y, color=coloured("target", names), shape=shaped("target", names))


def _accuracy(target: TargetFacts, metric: str | None) -> float:
    if metric and target.metric:
        return 100 * target.metric.target
    return target.error or 0.0


def _accuracy_words(target: TargetFacts) -> str:
    if target.metric:
        return f"{words.metric(target.metric.name)} {words.percent(target.metric.target)}"
    return f"largest error {words.percent(target.error)}"


def _limits(targets: Sequence[TargetFacts], metric: str | None) -> list[tuple[float, str]]:
    """The gates as lines; precisions may have different ones."""
    if metric:
        found = {
            100 * (target.metric.source - target.gates["max_drop"])
            for target in targets
            if target.metric and target.gates.get("max_drop") is not None
        }
        return [(value, "least that is allowed") for value in sorted(found)[:1]]
    gates = sorted({target.gates["max_relative_error"] for target in targets if target.gates.get("max_relative_error")})
    return [(value, f"allowed {words.percent(value)}") for value in gates]


def _batches_in_process(targets: Sequence[TargetFacts], names: Sequence[str]) -> Plot:
    rows: list[Row] = [
        {
            "target": target.target,
            "rows": rows_per_s(item),
            "ms": item.median_ms,
            "tip": f"{target.target}, {_batch(item.batch_size)}: {words.milliseconds(item.median_ms)}, "
            f"{words.rate(rows_per_s(item))}",
        }
        for target in targets
        for item in target.latency
        if item.median_ms > 0
    ]
    x = log_axis("rows", "rows/s in process", [row["rows"] for row in rows], ".3~s")
    y = log_axis("ms", "median of a run (ms)", [row["ms"] for row in rows])
    shown = [name for name in names if any(row["target"] == name for row in rows)]
    line = {"type": "line", "strokeWidth": 2}
    layers = [
        layer(line, rows, x=x, y=y, color=coloured("target", names)),
        _points(rows, x, y, names),
    ]
    best = max(targets, key=lambda target: target.rows_per_s or 0)
    says = f"Most rows a second in process: {words.rate(best.rows_per_s)} by {best.target}."
    reads = "Each point is a batch size."
    numbers = tuple(
        (target.target, _batch(item.batch_size), words.milliseconds(item.median_ms), words.milliseconds(item.p90_ms),
         words.rate(rows_per_s(item)), str(item.runs))
        for target in targets for item in target.latency if target.target in shown
    )  # fmt: skip
    head = ("target", "batch", "median", "p90", "rows/s", "runs")
    return Plot(
        "batches",
        "Throughput and latency in process",
        says,
        reads,
        chart(layers),
        Table(head, numbers),
        keys(names, shown),
    )


def _batch(size: int) -> str:
    return words.count(size, "row") if size else "one request"


def _errors(targets: Sequence[TargetFacts], names: Sequence[str]) -> Plot:
    every = [(target, output) for target in targets for output in target.outputs]
    worst: dict[str, float] = {}
    for _, output in every:
        worst[output.name] = max(worst.get(output.name, 0.0), output.max_relative, key=badness)
    shown = sorted(worst, key=lambda name: -badness(worst[name]))[:MOST_OUTPUTS]
    gates = sorted({target.gates["max_relative_error"] for target in targets if target.gates.get("max_relative_error")})
    zero = _zero([*gates, *(output.max_relative for _, output in every)])
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
    layers = [item for row, value in enumerate(gates) for item in rule("x", x, value, words.percent(value), row)]
    mark = {"type": "point", "filled": True, "size": 80, "opacity": 0.9}
    layers.append(layer(mark, rows, x=x, y=y, color=coloured("target", names), shape=shaped("target", names)))
    wild = sum(not math.isfinite(output.max_relative) for _, output in every)
    left = (
        f" {words.count(wild, 'error')} that {'is' if wild == 1 else 'are'} not finite cannot be drawn." if wild else ""
    )
    left += f" The {MOST_OUTPUTS} worst of {len(worst)} outputs are drawn." if len(worst) > MOST_OUTPUTS else ""
    says = "Each output of each target against the source's own answers."
    reads = f"{'The dashed line is the gate.' if len(gates) == 1 else 'Dashed lines are gates.'}{left}"
    head = ("output", "target", "largest error", "absolute", "cosine", "unequal", "same top class")
    numbers = tuple(
        (output.name, target.target, words.percent(output.max_relative), words.number(output.max_absolute),
         f"{output.cosine:.6f}", f"{output.mismatches:,} of {output.elements:,}", words.percent(output.top1_agreement))
        for target, output in sorted(every, key=lambda pair: (pair[1].name, names.index(pair[0].target)))
    )  # fmt: skip
    height = max(170, 90 + BAND * len(shown))
    legend = keys(names, (target.target for target, _ in every))
    return Plot("errors", "Errors of the outputs", says, reads, chart(layers, height), Table(head, numbers), legend)


def _precision(targets: Sequence[TargetFacts]) -> Plot:
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
    said = [{"label": label, "text": f"{label} {_shares(label, parts)}"} for label in labels]
    x = linear_axis("share", "share of the heavy work, of the weights (%)", [100.0])
    x |= {"scale": {"domain": [0, 100]}, "axis": {"values": [0, 25, 50, 75, 100]}}
    y: Spec = {"field": "label", "type": "nominal", "title": None, "sort": labels, "axis": None}
    mark = {"type": "bar", "height": 9, "yOffset": 7}
    text = {"type": "text", "fill": INK, "fontSize": FONT, "align": "left", "x": 0, "yOffset": -7}
    order: Spec = {"field": "order", "type": "quantitative"}
    layers = [
        layer(mark, rows, x=x, y=y, color=coloured("kind", kinds, colours), order=order),
        layer(text, said, y=y, text={"field": "text"}),
    ]
    numbers = tuple((target, does, kind, words.percent(share), source) for target, does, kind, share, source in parts)
    chosen = next((target for target in found if target.chosen and target.precision), None)
    says = f"{_computes(chosen)} It is read from the opened artefacts, not from what was asked for."
    height = 60 + LABELLED_BAND * len(labels)
    head = ("target", "does", "type", "share", "read from")
    legend = tuple(Key(kind, colour, SHAPES[1]) for kind, colour in zip(kinds, colours, strict=True))
    return Plot("precision", "Precision proof", says, "", chart(layers, height), Table(head, numbers), legend)


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
