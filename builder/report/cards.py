"""The few figures that a reader should see first; pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from builder.report import words
from builder.report.records import Card, TargetFacts, Tone
from builder.report.standing import Standing, tried_for
from builder.tuning_records import Objective, Tried, TunedModel

GAINED: Final = 1.05
"""From this factor on a gain is worth a colour."""


def cards(standing: Standing) -> tuple[Card, ...]:
    """Speed, gain, accuracy, size."""
    chosen = standing.chosen
    if chosen is None:
        return (Card("Served", "nothing", "no target passed", "bad"),)
    speed = _tuned_cards(standing.tuned) if standing.tuned else _speed_cards(chosen, standing)
    return (*speed, _accuracy_card(chosen), _size_card(chosen, standing))


def _speed_cards(chosen: TargetFacts, standing: Standing) -> Iterator[Card]:
    if chosen.latency_ms is None:
        yield Card("Speed", words.NOTHING, "not measured")
        return
    best = f"in process; {words.rate(chosen.rows_per_s)} at best"
    yield Card("One request", words.milliseconds(chosen.latency_ms), best)
    if (other := standing.rival) is not None:
        ratio = standing.cost(other) / standing.cost(chosen)
        held = f"{standing.against(chosen, other)} ({standing.said(other)})"
        yield Card("Compared", words.times(ratio), held.removeprefix(words.times(ratio)).strip(), _gained(ratio))


def _gained(ratio: float) -> Tone:
    return "good" if ratio >= GAINED else "plain"


def _tuned_cards(tuning: TunedModel) -> Iterator[Card]:
    found, before = tried_for(tuning.chosen, tuning), tried_for(tuning.default, tuning)
    objective = tuning.objective
    if found is not None:
        at = f"{words.load(objective, found.point.users, limits=False)}; {_p99(found, objective)}"
        yield Card(objective.word.capitalize(), words.objective_value(found.value, objective), at)
    more = "better than the default setting"
    if before is not None:
        more = f"the default setting's {words.objective_value(before.value, objective)}"
        more += _interval(found, before, objective) if found is not None and found.setting != before.setting else ""
    yield Card("Gain", words.times(tuning.gain), more, _gained(tuning.gain))


def _interval(found: Tried, before: Tried, objective: Objective) -> str:
    """Between which ratios the gain lies; nothing where they are shown alike."""
    low, high = sorted(
        value / before.value if objective.word == "throughput" else before.value / value
        for value in (found.low, found.high)
    )
    span = words.times(low), words.times(high)
    return f"; 95 %: {span[0]} to {span[1]}" if span[0] != span[1] else ""


def _p99(found: Tried, objective: Objective) -> str:
    limit = dict(objective.slo).get("p99")
    allowed = f" of {words.milliseconds(limit)} allowed" if limit else ""
    return f"p99 {words.milliseconds(found.point.p99_ms)}{allowed}"


def _accuracy_card(chosen: TargetFacts) -> Card:
    metric = chosen.metric
    if metric is not None:
        drop = metric.source - metric.target
        allowed = chosen.gates.get("max_drop")
        limit = f"; it may lose {words.count_of(100 * allowed, 'point')}" if allowed is not None else ""
        tone: Tone = "good" if allowed is None or drop <= allowed else "bad"
        held = f"source {words.percent(metric.source)} on {metric.rows:,} rows{limit}"
        return Card(words.metric(metric.name).capitalize(), words.percent(metric.target), held, tone)
    if chosen.error is None:
        return Card("Accuracy", words.NOTHING, "not measured")
    if chosen.error == 0 and not chosen.mismatches:
        return Card("Largest error", "0", "every answer is the source's own", "good")
    if chosen.error == 0:
        return Card("Unequal elements", f"{chosen.mismatches:,}", "of integer and string outputs")
    allowed = chosen.gates.get("max_relative_error")
    limit = f"; {words.percent(allowed)} is allowed" if allowed is not None else ""
    return Card("Largest error", words.percent(chosen.error), f"of the output's largest value{limit}", "good")


def _size_card(chosen: TargetFacts, standing: Standing) -> Card:
    memory = f"{words.size(chosen.memory_bytes)} of memory" if chosen.memory_bytes else ""
    other = standing.rival
    beside = ""
    if other is not None and other.size_bytes and chosen.size_bytes:
        beside = words.compared_size(chosen.size_bytes / other.size_bytes, other.target)
    return Card("Size", words.size(chosen.size_bytes), "; ".join(filter(None, (beside, memory))))
