"""Why a model is served as it is, in sentences; pure."""

from __future__ import annotations

import math
from typing import Final

from builder.objectives import MEANS
from builder.report import words
from builder.report.records import TargetFacts
from builder.report.standing import Standing, tried_for
from builder.tuning_records import BETTER, Raced, TunedModel

MEASURED: Final = ("best", "all")
"""Words of `serve:` that leave the choice to measurements."""
NOTED: Final = 1e-5
"""Errors below it are not told apart in a sentence."""
IN_WORDS: Final[dict[str, str]] = {str(word): said for word, said in MEANS.items()}


def headline(standing: Standing) -> str:
    """What is served, how fast, how much better than the alternative, and how accurate; one sentence."""
    chosen, tuned = standing.chosen, standing.tuned
    if chosen is None:
        return f"Nothing is served as {standing.name}: no target passed."
    speed = _tuned_speed(tuned) if tuned else _speed(chosen, standing)
    return f"Served as {chosen.target}: {', '.join(filter(None, (speed, _accuracy(chosen))))}."


def _speed(chosen: TargetFacts, standing: Standing) -> str:
    if chosen.latency_ms is None:
        return ""
    said, rival = f"{standing.said(chosen)} in process", standing.rival
    return f"{said}, {standing.against(chosen, rival)}" if rival else said


def _tuned_speed(tuning: TunedModel) -> str:
    found, before = tried_for(tuning.chosen, tuning), tried_for(tuning.default, tuning)
    objective = tuning.objective
    value = words.objective_value(found.value, objective) if found else ""
    was = f" ({words.objective_value(before.value, objective)})" if before else ""
    reached = f"{value} with {words.load(objective, found.point.users if found else None)}".strip()
    if abs(tuning.gain - 1) < words.SAME:
        return f"{reached}, as good as the default setting{was}"
    return f"{reached}, {words.times(tuning.gain)} {BETTER[objective.word]} the default setting{was}"


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
    return f"answers within {words.percent(max(chosen.error, NOTED))} of the source's"


def why(standing: Standing) -> str:
    """How it was chosen, and what would choose better."""
    chosen, tuning = standing.chosen, standing.tuning
    if chosen is None:
        return "Every target failed, was rejected or is deferred: see the findings."
    if tuning is not None:
        return _by_tuning(tuning, chosen, standing)
    if standing.stale:
        return (
            "Its settings are of a tuning of another model, of other samples, or with other versions of build-repo or "
            f"its libraries, so the figures there are not shown; next: {standing.tune}, then build again."
        )
    if standing.raced is not None and standing.raced.decides(chosen.target):
        next_step = f"next: {standing.tune}, which searches settings too"
        return f"No tuning: {_on_the_server(standing.raced)}; {next_step}.{_later(standing)}"
    next_step = f"next: {standing.tune}, which measures on the live server"
    return f"No tuning: {_in_process(chosen, standing)}; {next_step}.{_later(standing)}"


def _by_tuning(tuning: TunedModel, chosen: TargetFacts, standing: Standing) -> str:
    tried = f"{words.count(len(tuning.tried), 'setting')} of {tuning.space:,} served and measured"
    when = f" on {tuning.measured_on}" if tuning.measured_on else ""
    told = f"Tuned{when} for {tuning.objective.word} with {words.load(tuning.objective)}: {tried}; {tuning.stopped}."
    if tuning.together:
        told += f" Of several models {tuning.together}."
    if standing.tuned:
        return f"{_setting(tuning)} {told}"
    reason = "the spec names it" if standing.serve not in MEASURED else "the other one did not stand"
    return f"{told} It chose {tuning.chosen.target}, but {chosen.target} is served: {reason}."


def _setting(tuning: TunedModel) -> str:
    """What a person asks first: backend, precision, batch, delay, instances, threads."""
    if tuning.chosen == tuning.default:
        return f"Setting: {words.setting(tuning.chosen)}, which is the default."
    return f"Setting: {words.setting(tuning.chosen)}; by default: {words.setting(tuning.default)}."


def _on_the_server(raced: Raced) -> str:
    """`best on the live server with 8 clients: 812 rows/s, openvino:fp32 640 rows/s`."""
    (first, value), *others = [(name, words.objective_value(value, raced.objective)) for name, value in raced.values]
    told = f"on the live server with {words.load(raced.objective)}: {first} {value}"
    told += "".join(f", {name} {other}" for name, other in others)
    return f"best {told}" if raced.surely else f"{told}; of what is too near to be told apart, the best in process"


def _in_process(chosen: TargetFacts, standing: Standing) -> str:
    passing = standing.passing
    if standing.serve not in MEASURED:
        best = min(passing, key=standing.cost)
        known = standing.cost(chosen) < math.inf and best.target != chosen.target
        better = f"; {standing.against(chosen, best)}" if known else ""
        return f"the spec names {chosen.target} (serve:){better}"
    if len(passing) == 1:
        return f"{chosen.target} is the only target that passed"
    objective = standing.objective
    return f"best of {len(passing)} passing targets by in-process {objective} ({IN_WORDS.get(objective, objective)})"


def _later(standing: Standing) -> str:
    waiting = words.listed(standing.deferred)
    return f" {waiting}: deferred, nothing of it was measured." if waiting else ""
