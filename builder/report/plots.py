"""The plots of a model whose targets were measured: what they show, and what they say in a sentence; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from builder.report import words
from builder.report.charts import Plot, Row, Table, chart, coloured, keys, layer, log_axis, points
from builder.report.deviation_plot import counted, deviations_plot
from builder.report.output_plot import errors_plot
from builder.report.precision_plot import precision_plot
from builder.report.records import ModelFacts, TargetFacts
from builder.report.speed_plot import served_tuning, speed_plot
from builder.report.targets import rows_per_s


def measured_plots(model: ModelFacts) -> Iterator[Plot]:
    """Speed against accuracy, latency of batches, errors of outputs, precision: what there is to compare.

    Where the only output's errors are drawn one by one, a plot of the largest would say nothing more.
    """
    names = [target.target for target in model.targets]
    measured = [target for target in model.targets if target.latency_ms and target.error is not None]
    if sum(math.isfinite(target.error or 0) for target in measured) > 1:
        yield speed_plot(measured, names, served_tuning(model))
    if model.tuning is None and any(len(target.latency) > 1 for target in measured):
        yield _batches_in_process([target for target in measured if target.status == "built"] or measured, names)
    if any(target.error for target in measured):
        drawn = bool(counted(model.targets))
        if drawn:
            yield deviations_plot(model.targets, names)
        outputs = [output for target in model.targets for output in target.outputs]
        finite = all(math.isfinite(output.max_relative) for output in outputs)
        if not drawn or not finite or len({output.name for output in outputs}) > 1:
            yield errors_plot(model.targets, names)
    if any(target.precision and target.precision.compute for target in model.targets):
        yield precision_plot(model.targets)


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
        points(rows, x, y, names),
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
