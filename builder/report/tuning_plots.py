"""The plots of a model that was tuned: load curves, merged batches, settings that were tried; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final

from builder.report import words
from builder.report.charts import (
    FONT,
    SOFT,
    Plot,
    Row,
    Spec,
    Table,
    chart,
    coloured,
    keys,
    layer,
    level,
    linear_axis,
    log_axis,
    ring,
    roomiest,
    shaped,
)
from builder.report.standing import tried_for
from builder.tuning_records import LoadPoint, Tried, TunedModel

NAMES: Final = ("tuned", "default")
FAR: Final = 10.0
"""An interval that is wider than this many times its value is cut: it says that nothing is known."""
STEADY: Final = 0.1
"""Measurements of one load that differ by more are said to: the machine was busy during one of them."""
ROLES: Final = ("tried", "default", "refused")


def tuning_plots(tuning: TunedModel) -> Iterator[Plot]:
    """Those that there are figures for."""
    if tuning.chosen_curve or tuning.default_curve:
        yield _curves(tuning)
    batches = _batches(tuning)
    if any(point.batches for _, point in batches):
        yield _histogram(batches)
    if tuning.tried:
        yield _settings(tuning)


def _curves(tuning: TunedModel) -> Plot:
    named = [(NAMES[0], tuning.chosen_curve), (NAMES[1], tuning.default_curve)]
    rows: list[Row] = [
        {
            "setting": name,
            "rows": point.rows_per_s,
            "ms": point.p99_ms,
            "users": point.users,
            "tip": f"{name}, {words.count(point.users, 'user')}: {words.rate(point.rows_per_s)}, "
            f"p50 {words.milliseconds(point.p50_ms)}, p99 {words.milliseconds(point.p99_ms)}",
        }
        for name, curve in named
        for point in curve
        if point.p99_ms > 0
    ]
    slo = dict(tuning.objective.slo).get("p99")
    x = linear_axis("rows", "rows/s on the live server", [row["rows"] for row in rows], form=".3~s")
    y = log_axis("ms", "p99 (ms)", [row["ms"] for row in rows] + ([slo] if slo else []))
    order: Spec = {"field": "users", "type": "quantitative"}
    mark = {"type": "point", "filled": True, "size": 70, "opacity": 1}
    text = {"type": "text", "fill": SOFT, "fontSize": FONT, "dy": -11}
    limit = f"SLO {words.milliseconds(slo)}"
    layers = level(y, slo, limit, roomiest(x, y, slo, limit, rows)) if slo else []
    layers += [
        layer({"type": "line", "strokeWidth": 2}, rows, x=x, y=y, color=coloured("setting", NAMES), order=order),
        layer(mark, rows, x=x, y=y, color=coloured("setting", NAMES), shape=shaped("setting", NAMES)),
        layer(text, rows, x=x, y=y, text={"field": "users"}),
    ]
    numbers = tuple((name, *_point_cells(point)) for name, curve in named for point in curve)
    head = ("setting", "users", "rows/s", "p50", "p99", "queue", "compute", "failed", "generator", "server")
    reads = f"Right is more, down is quicker; the numbers are users.{_otherwise(tuning)}"
    return Plot(
        "load",
        "Throughput and latency under load",
        _peak(named),
        reads,
        chart(layers),
        Table(head, numbers),
        keys(NAMES, NAMES),
    )


def _peak(named: Sequence[tuple[str, Sequence[LoadPoint]]]) -> str:
    tops = [max((point.rows_per_s for point in curve), default=0.0) for _, curve in named]
    if not all(tops):
        return ""
    return f"At most {words.rate(tops[0])} tuned, {words.rate(tops[1])} by default."


def _otherwise(tuning: TunedModel) -> str:
    """A word where the curve and the search say different things of the same load: other things ran beside one."""
    found = tried_for(tuning.chosen, tuning)
    at = next((item for item in tuning.chosen_curve if found and item.users == found.point.users), None)
    if found is None or at is None:
        return ""
    pair = found.point.rows_per_s, at.rows_per_s
    if tuning.objective.word == "throughput":
        pair = found.value, at.rows_per_s
    if abs(pair[1] / pair[0] - 1) <= STEADY:
        return ""
    return (
        f" Of tuned with {words.count(at.users, 'user')} the search measured {words.rate(pair[0])}, the curve, later "
        f"and for a shorter time, {words.rate(pair[1])}: the machine was not steady."
    )


def _point_cells(point: LoadPoint) -> tuple[str, ...]:
    cores = [
        words.NOTHING if value is None else f"{value:.2f} cores"
        for value in (point.generator_cores, point.server_cores)
    ]
    times = (point.p50_ms, point.p99_ms, point.queue_ms, point.compute_ms)
    failed = f"{point.failures:,} of {point.requests + point.failures:,}"
    return (str(point.users), words.rate(point.rows_per_s), *map(words.milliseconds, times), failed, *cores)


def _batches(tuning: TunedModel) -> list[tuple[str, LoadPoint]]:
    """The load of the objective, for the chosen and the default setting."""
    pairs = ((NAMES[0], tuning.chosen), (NAMES[1], tuning.default))
    found = [(name, tried_for(setting, tuning)) for name, setting in pairs]
    return [(name, tried.point) for name, tried in found if tried is not None]


def _histogram(batches: Sequence[tuple[str, LoadPoint]]) -> Plot:
    rows: list[Row] = []
    for name, point in batches:
        total = sum(runs for _, runs in point.batches) or 1
        rows += [
            {
                "setting": name,
                "size": size,
                "share": 100 * runs / total,
                "tip": f"{name}: {words.count(size, 'row')} in {runs:,} of {total:,} runs",
            }
            for size, runs in point.batches
        ]
    sizes = sorted({row["size"] for row in rows})
    x: Spec = {
        "field": "size", "type": "ordinal", "title": "rows that the server computed at once",
        "axis": {"labelAngle": 0}, "sort": sizes,
    }  # fmt: skip
    y = linear_axis("share", "share of runs (%)", [row["share"] for row in rows])
    names = [name for name, _ in batches]
    bars = layer("bar", rows, x=x, y=y, color=coloured("setting", NAMES), xOffset={"field": "setting", "sort": names})
    means = [f"{_mean(point.batches):.2f} {name}" for name, point in batches if point.batches]
    says = f"Rows a run in the mean: {words.listed(means)}."
    numbers = tuple((name, str(size), f"{runs:,}") for name, point in batches for size, runs in point.batches)
    head = ("setting", "rows", "runs")
    return Plot(
        "merged", "Batches that the server made", says, "", chart([bars]), Table(head, numbers), keys(NAMES, names)
    )


def _mean(batches: Sequence[tuple[int, int]]) -> float:
    return sum(size * runs for size, runs in batches) / (sum(runs for _, runs in batches) or 1)


def _settings(tuning: TunedModel) -> Plot:
    """Predicted against measured; what lies on the line was foreseen."""
    scale = 1e-6 if tuning.objective.word == "memory" else 1.0
    unit = "MB" if tuning.objective.word == "memory" else tuning.objective.unit
    rows = [_row(item, tuning, scale) for item in _foretold(tuning)]
    common = _common(tuning)
    edges = [pick((row["predicted"] for row in rows), default=1.0) for pick in (min, max)]
    ends = [{"predicted": edge, "value": edge * common} for edge in edges]
    every = [row[name] for row in rows for name in ("predicted", "value", "low", "high")]
    every += [end["value"] for end in ends]
    x = log_axis("predicted", f"predicted ({unit})", every, ".3~s")
    y = log_axis("value", f"measured ({unit})", every, ".3~s")
    line = {"type": "line", "stroke": SOFT, "strokeDash": [4, 4], "strokeWidth": 1}
    bar = {"type": "rule", "strokeWidth": 2}
    mark = {"type": "point", "filled": True, "size": 70, "opacity": 1}
    span = {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}}
    layers = [
        layer(line, ends, x=x, y=y),
        layer(bar, rows, **span, color=coloured("role", ROLES)),
        layer(mark, rows, x=x, y=y, color=coloured("role", ROLES), shape=shaped("role", ROLES)),
        *ring([row for row in rows if row["chosen"]][:1], x, y, "chosen"),
    ]
    return Plot(
        "settings",
        "Settings tried",
        _foreseen(tuning),
        "The nearer to the dashed line, the better was foreseen how a setting compares with the others.",
        chart(layers),
        settings_table(tuning),
        keys(ROLES, (row["role"] for row in rows)),
    )


def _row(item: Tried, tuning: TunedModel, scale: float) -> Row:
    role = "refused" if item.refused else "default" if item.setting == tuning.default else "tried"
    return {
        "predicted": item.predicted * scale,
        "value": item.value * scale,
        "low": max(item.low, item.value / FAR) * scale,
        "high": min(item.high, item.value * FAR) * scale,
        "role": role,
        "chosen": item.setting == tuning.chosen,
        "tip": f"{words.setting(item.setting)}: {_interval(item, tuning)}"
        + (f"; refused: {item.refused}" if item.refused else ""),
    }


def _interval(item: Tried, tuning: TunedModel) -> str:
    value, low, high = (words.objective_value(number, tuning.objective) for number in (item.value, item.low, item.high))
    return f"{value} ({low} to {high})"


def _foretold(tuning: TunedModel) -> list[Tried]:
    """Settings with both, a prediction and a value."""
    return [item for item in tuning.tried if item.predicted > 0 and item.value > 0]


def _common(tuning: TunedModel) -> float:
    """What all settings were measured at, of what was predicted: the machine did other things, or is slower as such."""
    return math.exp(median([math.log(item.value / item.predicted) for item in _foretold(tuning)] or [0.0]))


def _foreseen(tuning: TunedModel) -> str:
    """What was spent, and how well it was foreseen how settings compare: a search decides by that alone."""
    spent = f"{words.count(tuning.measurements, 'measurement')} in {tuning.seconds:,.0f} s"
    served = f"{len(tuning.tried)} of {words.count(tuning.space, 'setting')} were served: {spent}."
    foretold, common = _foretold(tuning), _common(tuning)
    if len(foretold) < 2:  # noqa: PLR2004 - one compares with nothing
        return served
    off = [math.expm1(abs(math.log(item.value / item.predicted / common))) for item in foretold]
    told = f"How they compare was predicted within {words.number(round(100 * median(off)))} % in the median"
    if abs(common - 1) > STEADY:
        told += f"; all together were measured at {words.times(common)} of what was predicted, which changes no choice"
    return f"{served} {told}."


def settings_table(tuning: TunedModel) -> Table:
    """Every setting that was tried, the best first."""
    sign = -1 if tuning.objective.rises else 1
    tried = sorted(tuning.tried, key=lambda item: (bool(item.refused), sign * item.value))

    def users(item: Tried) -> tuple[str, ...]:
        return (str(item.point.users),) if tuning.fewer_users else ()

    rows = tuple(
        (words.setting(item.setting), words.objective_value(item.value, tuning.objective),
         " to ".join(words.objective_value(edge, tuning.objective) for edge in (item.low, item.high)),
         words.objective_value(item.predicted, tuning.objective), *users(item), words.milliseconds(item.point.p99_ms),
         str(item.measurements), _verdict(item, tuning))
        for item in tried
    )  # fmt: skip
    named = ("users",) if tuning.fewer_users else ()
    return Table(("setting", "measured", "95 % interval", "predicted", *named, "p99", "times", "verdict"), rows)


def _verdict(item: Tried, tuning: TunedModel) -> str:
    if item.refused:
        return f"refused: {item.refused}"
    if item.setting == tuning.chosen:
        return "chosen"
    return "default" if item.setting == tuning.default else "can be chosen"
