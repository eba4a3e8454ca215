"""The plots of a model whose targets were measured: what they show, and what they say in a sentence; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

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
    ring,
    rule,
    shaped,
)
from builder.report.output_plot import ERROR, errors_plot, place_of_zero
from builder.report.precision_plot import precision_plot
from builder.report.records import ModelFacts, TargetFacts
from builder.report.targets import rows_per_s


def measured_plots(model: ModelFacts) -> Iterator[Plot]:
    """Speed against accuracy, latency of batches, errors of outputs, precision: what there is to compare."""
    names = [target.target for target in model.targets]
    measured = [target for target in model.targets if target.latency_ms and target.error is not None]
    if sum(math.isfinite(target.error or 0) for target in measured) > 1:
        yield _speed_accuracy(measured, names)
    if model.tuning is None and any(len(target.latency) > 1 for target in measured):
        yield _batches_in_process([target for target in measured if target.status == "built"] or measured, names)
    if any(target.error for target in measured):
        yield errors_plot(model.targets, names)
    if any(target.precision and target.precision.compute for target in model.targets):
        yield precision_plot(model.targets)


def _speed_accuracy(targets: Sequence[TargetFacts], names: Sequence[str]) -> Plot:
    metric = next((target.metric.name for target in targets if target.metric), None)
    found = [target for target in targets if (target.metric if metric else math.isfinite(target.error or 0))]
    values = [_accuracy(target, metric) for target in found]
    limits = _limits(found, metric)
    zero = place_of_zero([*values, *(value for value, _ in limits)])
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
