"""`serve: best` by the live server: targets that are near each other in process, served and measured side by side.

Each is served as the build serves it. What is far behind in process is left out: no server makes that up.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

from builder import defaults
from builder.cache import Cache
from builder.errors import ServeError
from builder.judge import ModelState, TargetState, cost_of_target, least_cost_of_target
from builder.libraries import all_code_digest
from builder.machine import machine_facts
from builder.objectives import value_of
from builder.progress import Event, Progress
from builder.records import canonical, read_record, to_json, write_record
from builder.tune.belief import Belief, Turn, compare
from builder.tune.estimate import CONFIDENT
from builder.tune.profiles import can_batch
from builder.tune.race import missed_terms, sample_for
from builder.tune.servable import servable_targets
from builder.tune.serving import Measured, Slot, Tuned, measure, merged, requests_for, served, there_and_back
from builder.tune.space import Candidate, default_setting
from builder.tuning_records import Objective, Raced, Setting
from builder.work import Target, work_key

NEAR: Final = 2.0
"""Of what is so many times slower in process, by medians and by fastest runs, nothing is measured on the server.

Other programs that ran beside a measurement of some milliseconds move its median, but seldom each of its runs.
"""
LEAST_MS: Final = 0.1
"""Where each run is shorter, a request costs the server several times as much, and it tells no target apart."""
ROUNDS: Final = 3
TURN_S: Final = 0.8
USERS: Final = {
    "throughput": defaults.LOAD_USERS,
    "latency": defaults.LATENCY_USERS,
    "memory": defaults.LOAD_USERS,
}
"""Objective → clients that each wait for their answer."""
ROWS: Final = 1


def race_targets(state: ModelState, release: str, cache: Cache, progress: Progress) -> ModelState:
    """The state with what the live server said of its targets; as it was where there is nothing to decide.

    Raises:
        KeyboardInterrupt: the user ended it.
    """
    near = near_targets(state, release) if find_spec("locust") else ()
    if len(near) < (1 if state.spec.slo else 2):
        return state
    objective = Objective(state.objective, USERS[state.objective], slo=state.spec.slo.terms if state.spec.slo else ())
    requests, rows = requests_for(state, cache, ROWS)
    tuned = Tuned(state, release, requests, rows)
    settings = [default_setting(state.spec, Candidate(str(item.target), can_batch(state, item))) for item in near]
    file = cache.root / "raced" / f"{_identity(tuned, settings, objective)}.json"
    if file.is_file():
        return replace(state, raced=read_record(Raced, file))
    label = f"{state.spec.name} {', '.join(item.target for item in settings)} on the live server"
    progress(Event("start", label))
    begun = time.monotonic()
    try:
        raced = _race(tuned, settings, objective, cache)
    except ServeError as error:
        # The live check says what is wrong with the one that is served.
        progress(Event("failed", label, f"not compared: {error.message.splitlines()[0]}"))
        return state
    file.parent.mkdir(parents=True, exist_ok=True)
    write_record(file, raced)
    progress(Event("done", label, seconds=time.monotonic() - begun))
    return replace(state, raced=raced)


def near_targets(state: ModelState, release: str) -> tuple[TargetState, ...]:
    """What the live server is asked about, the best in process first: where there is a choice, or an SLO to hold."""
    if state.spec.tuned.target or state.report is None:
        return ()
    if state.spec.serve != "best" and not state.spec.slo:
        return ()
    servable, _ = servable_targets(state, release)
    if state.spec.serve != "best":
        return servable[:1]
    near = near_in_process(state, servable)
    longest_ms = max((value_of(item.measurement, "latency") or 0.0 for item in near), default=0.0)
    told_apart = longest_ms >= LEAST_MS or state.objective == "memory" or state.spec.slo
    return near if told_apart else ()


def near_in_process(state: ModelState, targets: Sequence[TargetState]) -> tuple[TargetState, ...]:
    """Those that may be the best on the server."""
    near: set[Target] = set()
    for cost in (cost_of_target, least_cost_of_target):
        costs = {item.target: cost(state, item.target) for item in targets}
        limit = NEAR * min(costs.values(), default=math.inf)
        near |= {target for target, own in costs.items() if own <= limit < math.inf}
    return tuple(item for item in targets if item.target in near)


def _race(tuned: Tuned, settings: Sequence[Setting], objective: Objective, cache: Cache) -> Raced:
    found = [one for group in _groups(settings, objective) for one in _taken(tuned, group, objective, cache)]
    wrong = {item.target: reason for (_, item), one in found if (reason := _wrong(one))}
    turns = [
        Turn(item, 0, number, sample.log_value, sample.error)
        for (number, item), one in found
        if one is not None and item.target not in wrong
        for sample in [sample_for(objective, one)]
    ]
    missed = {item.target: _missed(objective, [one for (_, own), one in found if own == item]) for item in settings}
    return _raced(settings, objective, compare(turns) if turns else None, wrong, missed)


def _groups(settings: Sequence[Setting], objective: Objective) -> list[Sequence[Setting]]:
    """Those that share a server: each has one of its own where the memory of all of it counts."""
    return [[setting] for setting in settings] if objective.word == "memory" else [settings]


def _taken(
    tuned: Tuned, settings: Sequence[Setting], objective: Objective, cache: Cache
) -> Iterator[tuple[tuple[int, Setting], Measured | None]]:
    """Number of the round and setting, what was measured."""
    variants = [(tuned, setting) for setting in settings]
    order = there_and_back(settings, ROUNDS)
    with served(variants, cache) as (endpoint, names):
        slots = [Slot((settings.index(item),), objective.users, TURN_S) for _, item in order]
        yield from zip(order, measure(endpoint, names, variants, slots, objective.protocol), strict=True)


def _wrong(measured: Measured | None) -> str:
    return "it answered nothing" if measured is None else measured.wrong


def _missed(objective: Objective, taken: Sequence[Measured | None]) -> str:
    points = [one.point for one in taken if one is not None]
    return missed_terms(objective, merged(points)) if points else ""


def _raced(
    settings: Sequence[Setting],
    objective: Objective,
    belief: Belief[Setting] | None,
    wrong: Mapping[str, str],
    missed: Mapping[str, str] = MappingProxyType({}),
) -> Raced:
    """Of those that hold the SLO, and that the server does not tell apart from their best, the best in process."""
    right = [setting for setting in settings if setting.target not in wrong]
    if belief is None or not right:
        return Raced(objective, (), surely=False, wrong=tuple(wrong.items()))
    scores = {setting: float(belief.means[belief.places[setting]]) for setting in right}
    # Where none holds it, the fastest comes nearest: users that wait for their answers are a latency.
    holding = [setting for setting in right if not missed.get(setting.target)] or right
    top = max(holding, key=lambda setting: scores[setting])
    alike = [setting for setting in holding if setting == top or not _apart(belief, top, setting)]
    others = sorted((item for item in right if item != alike[0]), key=lambda item: (item not in holding, -scores[item]))
    sign = 1 if objective.rises else -1
    return Raced(
        objective,
        tuple((item.target, math.exp(sign * scores[item])) for item in (alike[0], *others)),
        surely=len(alike) == 1,
        wrong=tuple(wrong.items()),
        missed=tuple((item.target, missed[item.target]) for item in right if missed.get(item.target)),
    )


def _apart(belief: Belief[Setting], one: Setting, other: Setting) -> bool:
    estimate = belief.ahead(one, other)
    return abs(estimate.log_ratio) > CONFIDENT * estimate.error


def _identity(tuned: Tuned, settings: Sequence[Setting], objective: Objective) -> str:
    """What the comparison holds for."""
    from builder.runtime import require

    parts = {
        "targets": [work_key(tuned.target(setting).plan.convert) for setting in settings],
        "settings": [to_json(setting) for setting in settings],
        "spec": tuned.state.spec.model_dump(mode="json", exclude={"targets", "source", "sources"}),
        "objective": to_json(objective),
        "machine": machine_facts(),
        "runtime": to_json(require(tuned.release).record),
        "code": all_code_digest(),
    }
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]
