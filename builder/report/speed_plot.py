"""Speed against accuracy: what the choice was between, drawn; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from builder.report import words
from builder.report.charts import Plot, Row, Table, chart, keys, level, linear_axis, log_axis, points, ring, roomiest
from builder.report.output_plot import ERROR, place_of_zero
from builder.report.records import ModelFacts, TargetFacts
from builder.report.targets import best_tried
from builder.tuning_records import TunedModel


@dataclass(frozen=True, slots=True)
class _Speed:
    """A target's speed: `value` as drawn and `said` with its unit; `refused` by the search."""

    value: float
    said: str
    refused: bool = False


def served_tuning(model: ModelFacts) -> TunedModel | None:
    """The tuning whose figures of the live server compare targets: one that measured speed, of several targets."""
    tuning = model.tuning
    if tuning is None or tuning.objective.word == "memory" or tuning.chosen.target != model.served:
        return None
    tried = [best_tried(target.target, tuning) for target in model.targets if target.error is not None]
    return tuning if sum(item is not None and item.value > 0 for item in tried) > 1 else None


def speed_plot(targets: Sequence[TargetFacts], names: Sequence[str], tuning: TunedModel | None) -> Plot:
    """With a tuning by what each target reached on the live server, else by a request in process."""
    metric = next((target.metric.name for target in targets if target.metric), None)
    comparable = [target for target in targets if (target.metric if metric else math.isfinite(target.error or 0))]
    speeds = {target.target: speed for target in comparable if (speed := _speed(target, tuning))}
    found = [target for target in comparable if target.target in speeds]
    values = [_accuracy(target, metric) for target in found]
    limits = _limits(found, metric)
    zero = place_of_zero([*values, *(value for value, _ in limits)])
    rows: list[Row] = [
        {
            "target": target.target,
            "speed": speeds[target.target].value,
            "accuracy": value if metric else value or zero,
            "chosen": target.chosen,
            "tip": ", ".join(_compared(target, speeds[target.target])),
        }
        for target, value in zip(found, values, strict=True)
    ]
    heights = [row["accuracy"] for row in rows] + [value for value, _ in limits]
    if metric:
        y = linear_axis("accuracy", f"{words.metric(metric)} (%)", heights, zero=False)
    else:
        y = log_axis("accuracy", ERROR, heights, "%", zero if not all(values) else None)
    rises = tuning is not None and tuning.objective.rises
    served = "best rows/s on the live server" if rises else "best p50 on the live server (ms)"
    title = served if tuning else "one request in process (ms)"
    x = log_axis("speed", title, [speed.value for speed in speeds.values()], ".3~s" if rises else ".4~g")
    layers = [item for value, text in limits for item in level(y, value, text, roomiest(x, y, value, text, rows))]
    layers.append(points(rows, x, y, names))
    layers += ring([row for row in rows if row["chosen"]], x, y, "served")
    better = f"{'Right' if rises else 'Left'} is faster, {'up' if metric else 'down'} is more accurate."
    missing = [target.target for target in comparable if target.target not in speeds]
    unseen = f" The search did not serve {words.listed(missing)}." if missing else ""
    return Plot(
        "speed-accuracy",
        "Speed against accuracy",
        _trade(found, speeds, "on the live server" if tuning else "in process", rises=rises),
        f"{better}{unseen}",
        chart(layers),
        Table(
            ("target", "best served" if tuning else "one request", "accuracy", "verdict"),
            tuple(_compared(target, speeds[target.target]) for target in found),
        ),
        keys(names, speeds),
    )


def _speed(target: TargetFacts, tuning: TunedModel | None) -> _Speed | None:
    if tuning is None:
        return _Speed(target.latency_ms, words.milliseconds(target.latency_ms)) if target.latency_ms else None
    best = best_tried(target.target, tuning)
    if best is None or best.value <= 0:
        return None
    said = words.objective_value(best.value, tuning.objective) + (" (refused)" if best.refused else "")
    return _Speed(best.value, said, bool(best.refused))


def _trade(targets: Sequence[TargetFacts], speeds: dict[str, _Speed], where: str, *, rises: bool) -> str:
    """What is faster than the served target, or that nothing is."""
    chosen = next((target.target for target in targets if target.chosen), None)
    if chosen is None:
        return ""
    mine = speeds[chosen].value
    gains = {name: speed.value / mine if rises else mine / speed.value for name, speed in speeds.items()}
    faster = [name for name, gain in gains.items() if gain > 1 / (1 - words.SAME) and not speeds[name].refused]
    if not faster:
        return f"Nothing is faster {where} than {chosen}, which is served."
    rejected = {target.target for target in targets if target.status == "rejected"}
    others = faster[0] if len(faster) == 1 else f"{len(faster)} others"
    are, were = ("is", "was") if len(faster) == 1 else ("are", "were")
    why = f", and {were} rejected" if rejected.issuperset(faster) else ""
    return f"{chosen} is served; {where} {others} {are} faster{why}."


def _compared(target: TargetFacts, speed: _Speed) -> tuple[str, str, str, str]:
    return target.target, speed.said, _accuracy_words(target), target.status


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
