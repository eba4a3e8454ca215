"""Why a model is served as it is, in sentences and in the few figures that a reader should see first; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from builder.report import words
from builder.report.records import Card, TargetFacts, Tone
from builder.tuning_records import Objective, Setting, Tried, TunedModel

PLAIN: Final = "onnxruntime:fp32"
"""What others are held against: the model as Triton runs it without anything done to it."""
GAINED: Final = 1.05
"""From this factor on a gain is worth a colour."""


def headline(name: str, targets: Sequence[TargetFacts], tuning: TunedModel | None) -> str:
    """What is served, how fast, how much better than the alternative, and how accurate; one sentence."""
    chosen = _chosen(targets)
    if chosen is None:
        return f"Nothing is served as {name}: no target passed."
    speed = f"{words.milliseconds(chosen.latency_ms)} a request in process" if chosen.latency_ms is not None else ""
    if tuning is not None and chosen.target == tuning.chosen.target:
        speed = _tuned_speed(tuning)
    elif speed and (other := _rival(chosen, targets)) is not None:
        speed += f", {words.compared(_ratio(other, chosen), 'fast', 'slow', other.target)}"
    return f"Served as {chosen.target}: {', '.join(filter(None, (speed, _accuracy(chosen))))}."


def why(targets: Sequence[TargetFacts], tuning: TunedModel | None, stale: str, tune: str) -> str:
    """How it was chosen, and what would choose better: `tune` is its command, `stale` why a tuning does not count."""
    chosen = _chosen(targets)
    if chosen is None:
        return "Every target failed, was rejected or is deferred: see the findings."
    if tuning is not None:
        tried = f"{words.count(len(tuning.tried), 'setting')} of {tuning.space:,} served and measured"
        told = f"Tuned for {tuning.objective.word} with {words.load(tuning.objective)}: {tried}; {tuning.stopped}."
        if chosen.target == tuning.chosen.target:
            return told
        return f"{told} It chose {tuning.chosen.target}, but {chosen.target} is served: the spec names it."
    return " ".join(filter(None, (stale or "No tuning:", _in_process(chosen, targets, tune))))


def _in_process(chosen: TargetFacts, targets: Sequence[TargetFacts], tune: str) -> str:
    passing = [item for item in targets if item.status == "built"]
    waiting = [item.target for item in targets if item.status == "deferred"]
    later = f" {words.listed(waiting)}: deferred, nothing of it was measured." if waiting else ""
    more = f"next: {tune}, which measures on the live server.{later}"
    if len(passing) == 1:
        return f"{chosen.target} is the only target that passed; {more}"
    fastest = min(passing, key=_latency)
    if fastest.target == chosen.target or _latency(fastest) >= _latency(chosen):
        return f"best of {len(passing)} passing targets by in-process latency; {more}"
    ratio = _latency(chosen) / _latency(fastest)
    slower = f"{words.times(ratio)} as slow as {fastest.target}"
    return f"not the fastest in process ({slower}): the spec names it; {more}"


def cards(targets: Sequence[TargetFacts], tuning: TunedModel | None) -> tuple[Card, ...]:
    """Speed, gain, accuracy, size."""
    chosen = _chosen(targets)
    if chosen is None:
        return (Card("Served", "nothing", "no target passed", "bad"),)
    return (*_speed_cards(chosen, targets, tuning), _accuracy_card(chosen), _size_card(chosen, targets))


def _speed_cards(chosen: TargetFacts, targets: Sequence[TargetFacts], tuning: TunedModel | None) -> Iterator[Card]:
    if tuning is not None and chosen.target == tuning.chosen.target:
        yield from _tuned_cards(tuning)
        return
    if chosen.latency_ms is None:
        yield Card("Speed", words.NOTHING, "not measured")
        return
    best = f"in process; {words.rate(chosen.rows_per_s)} at best"
    yield Card("One request", words.milliseconds(chosen.latency_ms), best)
    if (other := _rival(chosen, targets)) is not None:
        ratio = _ratio(other, chosen)
        held = f"{other.target}, {words.milliseconds(other.latency_ms)}"
        yield Card("Against", words.times(ratio), f"as fast as {held}", "good" if ratio >= GAINED else "plain")


def _tuned_cards(tuning: TunedModel) -> Iterator[Card]:
    found, before = _tried(tuning.chosen, tuning), _tried(tuning.default, tuning)
    objective = tuning.objective
    if found is not None:
        at = f"{words.load(objective, limits=False)}; {_p99(found, objective)}"
        yield Card(objective.word.capitalize(), words.objective_value(found.value, objective), at)
    more = "better than the default setting"
    if before is not None:
        more = f"the default setting's {words.objective_value(before.value, objective)}"
    yield Card("Gain", words.times(tuning.gain), more, "good" if tuning.gain >= GAINED else "plain")


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


def _size_card(chosen: TargetFacts, targets: Sequence[TargetFacts]) -> Card:
    memory = f"{words.size(chosen.memory_bytes)} of memory" if chosen.memory_bytes else ""
    other = _rival(chosen, targets)
    beside = ""
    if other is not None and other.size_bytes and chosen.size_bytes:
        beside = words.compared_size(chosen.size_bytes / other.size_bytes, other.target)
    return Card("Size", words.size(chosen.size_bytes), "; ".join(filter(None, (beside, memory))))


def _tuned_speed(tuning: TunedModel) -> str:
    found, before = _tried(tuning.chosen, tuning), _tried(tuning.default, tuning)
    objective = tuning.objective
    value = words.objective_value(found.value, objective) if found else ""
    was = f" ({words.objective_value(before.value, objective)})" if before else ""
    reached = f"{value} with {words.load(objective)}".strip()
    if tuning.gain < 1 + words.SAME:
        return f"{reached}, as good as the default setting{was}"
    return f"{reached}, {words.times(tuning.gain)} {_better(tuning)} the default setting{was}"


def _better(tuning: TunedModel) -> str:
    return {"throughput": "the throughput of", "latency": "as quick as", "memory": "as small as"}[tuning.objective.word]


def _accuracy(chosen: TargetFacts) -> str:
    metric = chosen.metric
    if metric is not None:
        same = abs(metric.source - metric.target) * metric.rows < 1 / 2
        source = "as its source" if same else f"where the source has {words.percent(metric.source)}"
        return f"{words.metric(metric.name)} {words.percent(metric.target)}, {source}"
    if chosen.error is None:
        return "accuracy not measured"
    if chosen.error == 0 and not chosen.mismatches:
        return "with the source's own answers"
    if chosen.error == 0:
        return f"{words.count(chosen.mismatches, 'element')} unlike the source's"
    return f"answers within {words.percent(chosen.error)} of the source's"


def tried_for(setting: Setting, tuning: TunedModel) -> Tried | None:
    """What was measured of a setting; the last time counts."""
    return next((item for item in reversed(tuning.tried) if item.setting == setting), None)


_tried = tried_for


def _chosen(targets: Sequence[TargetFacts]) -> TargetFacts | None:
    return next((item for item in targets if item.chosen), None)


def _rival(chosen: TargetFacts, targets: Sequence[TargetFacts]) -> TargetFacts | None:
    """What the chosen one is held against: the plain model, else the fastest other one that passed."""
    others = [
        item for item in targets if item.status == "built" and not item.chosen and item.latency_ms and chosen.latency_ms
    ]
    plain = next((item for item in others if item.target == PLAIN), None)
    return plain or min(others, key=_latency, default=None)


def _ratio(other: TargetFacts, chosen: TargetFacts) -> float:
    return _latency(other) / _latency(chosen)


def _latency(item: TargetFacts) -> float:
    return item.latency_ms or float("inf")
