"""The search for one model, from its targets to the answer."""

from __future__ import annotations

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final, Literal

from builder import defaults
from builder.cache import Cache
from builder.errors import ServeError
from builder.judge import ModelState, TargetState
from builder.libraries import all_code_digest
from builder.machine import machine_facts
from builder.progress import Event, Progress
from builder.records import canonical, to_json
from builder.tune.predict import behaviour, predict
from builder.tune.profiles import can_batch, profiles
from builder.tune.race import BETWEEN_S, OVERHEAD_S, ROUNDS, WAVE, Race
from builder.tune.search import Search, why_stopped
from builder.tune.serving import Slot, Tuned, measure, requests_for, served
from builder.tune.settings import describe
from builder.tune.space import Candidate, Load, default_setting, space
from builder.tuning_records import Objective, ObjectiveWord, Setting, Tried, TunedModel
from builder.work import work_key

SHARE: Final = 0.15
"""Of the space, at most so many measurements are spent, on the search and on the curves together."""
LEAST_MEASUREMENTS: Final = 10
FINALISTS: Final = 3
CURVES: Final = 3
"""Measurements that are left for the curves of the report."""
CURVE_S: Final = 1.5
LEAST_CURVE_S: Final = 0.5
OTHERS: Final = 0.15
"""Of the cores: what others may take before it is said."""
SEARCH_SHARE: Final = 0.8
"""Of the time: the rest is for the curves."""

Answer = Callable[[TunedModel], None]
"""Called with the best answer so far, after every wave."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """`budget_s` is for each model, once its targets are built. `users` None: as many as the objective asks for."""

    objective: ObjectiveWord = "throughput"
    budget_s: float = 300.0
    slo: tuple[tuple[str, float], ...] = ()
    users: int | None = None
    rows: int = 1
    protocol: Literal["grpc", "http"] = "grpc"
    jobs: int = 2
    only: str | None = None

    @property
    def wanted(self) -> Objective:
        """With the number of users that the objective asks for."""
        users = self.users or (defaults.LATENCY_USERS if self.objective == "latency" else defaults.LOAD_USERS)
        return Objective(self.objective, users, self.protocol, self.slo, self.rows)


def tune_model(  # noqa: PLR0913, PLR0917 - what a search is about
    state: ModelState,
    targets: Sequence[TargetState],
    release: str,
    options: TuneOptions,
    cache: Cache,
    progress: Progress,
    answer: Answer,
) -> tuple[TunedModel, Race]:
    """The answer, and the race that it came out of."""
    begun = time.monotonic()
    race = prepare_race(state, targets, release, options, cache, progress)

    def told(stopped: str) -> TunedModel:
        return _tuned_model(race, time.monotonic() - begun, stopped)

    try:
        stopped = _search(race, lambda: answer(told("still searching")))
    except KeyboardInterrupt:
        if race.points:
            answer(told("interrupted"))
        raise
    result = told(stopped)
    answer(result)
    result = _with_curves(result, race, begun + options.budget_s)
    answer(result)
    return result, race


def with_chosen(result: TunedModel, race: Race, chosen: Setting, deadline: float) -> TunedModel:
    """The answer with another setting, which something else than this search decided for; its figures are its own.

    Its curves need time before `deadline`; one measurement of it is taken in any case.

    Raises:
        ServeError: alone it cannot be served, answers wrongly, or misses the SLO.
    """
    if chosen not in race.points:
        race.add(chosen)
    why = race.search.refused.get(chosen, "" if chosen in race.points else "it was not measured")
    if why:
        raise ServeError(f"{describe(chosen)}: {why}")
    changed = _tuned_model(race, result.seconds, result.stopped, chosen)
    return _with_curves(changed, race, deadline) if result.chosen_curve else changed


def prepare_race(  # noqa: PLR0913, PLR0917 - what a search is about
    state: ModelState,
    targets: Sequence[TargetState],
    release: str,
    options: TuneOptions,
    cache: Cache,
    progress: Progress,
) -> Race:
    """The space, profiled and predicted; what an earlier search measured is taken."""
    begun, objective = time.monotonic(), options.wanted
    requests, rows = requests_for(state, cache, options.rows)
    load, cores = Load(objective.users, rows), int(machine_facts()["cores"])
    found = [Candidate(str(target.target), can_batch(state, target)) for target in targets]
    settings = space(state.spec, found, load, objective, cores)
    runs = profiles(state, targets, settings, load, cache, progress)
    tuned = Tuned(state, release, requests, rows)
    race = Race(
        tuned=tuned,
        objective=objective,
        search=Search({}, {item: behaviour(item, load) for item in settings}, default_setting(state.spec, found[0])),
        cache=cache,
        progress=progress,
        deadline=begun + SEARCH_SHARE * options.budget_s,
        cap=max(LEAST_MEASUREMENTS, int(SHARE * len(settings)) - CURVES),
        forecast=lambda overhead: {item: predict(item, runs[item], load, cores, overhead) for item in settings},
        runs=runs,
        identity=_identity(tuned, objective),
    )
    race.foresee()
    if race.recall():
        race.foresee()
    return race


def _search(race: Race, so_far: Callable[[], None]) -> str:
    """Waves until it is decided, then the best ones again until they are told apart."""
    search = race.search
    race.cap -= FINALISTS
    while (wave := search.wave(WAVE)) and race.room > 0:
        race.run_wave(wave[: race.room])
        race.foresee()
        so_far()
    left = search.hopeful()
    stopped = why_stopped(left, out_of_time=race.out_of_time, out_of_measurements=bool(left))
    race.cap += FINALISTS
    if not race.points:
        race.run_wave([])
    while (again := search.finalists(FINALISTS)) and race.room > 0:
        race.run_wave([*again, search.reference][: race.room])
        so_far()
    return stopped


def _identity(tuned: Tuned, objective: Objective) -> str:
    """What a measurement holds for, beside its setting."""
    from builder.runtime import require

    parts = {
        "export": work_key(tuned.state.plan.export),
        "targets": {str(item.target): work_key(item.plan.convert) for item in tuned.state.targets},
        "spec": tuned.state.spec.model_dump(mode="json", exclude={"targets", "serve", "source", "sources"}),
        "rows": tuned.rows,
        "requests": len(tuned.requests),
        "objective": to_json(objective),
        "machine": machine_facts(),
        "release": tuned.release,
        "runtime": to_json(require(tuned.release).record),
        "code": all_code_digest(),
    }
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]


def _tuned_model(race: Race, seconds: float, stopped: str, decided: Setting | None = None) -> TunedModel:
    from builder.runtime import require

    search, tuned = race.search, race.tuned
    chosen = decided or search.best()
    tried = [
        item for item in dict.fromkeys([search.reference, *search.belief.waves, *search.refused]) if item in race.points
    ]
    return TunedModel(
        name=tuned.name,
        export_key=work_key(tuned.state.plan.export),
        objective=race.objective,
        machine=machine_facts(),
        triton=tuned.release,
        server=f"embedded, Triton {require(tuned.release).record.server}",
        default=search.reference,
        chosen=chosen,
        gain=search.estimate(chosen).ratio,
        tried=tuple(sorted((_tried(race, item) for item in tried), key=lambda row: _order(race, row))),
        space=len(search.predicted),
        measurements=race.measurements,
        seconds=round(seconds, 1),
        stopped=stopped,
        notes=tuple(_notes(race, chosen)),
        measured_on=datetime.now(UTC).date().isoformat(),
    )


def _order(race: Race, row: Tried) -> tuple[bool, float]:
    """The best first, what cannot be chosen last."""
    return bool(row.refused), -race.search.estimate(row.setting).log_ratio


def _tried(race: Race, setting: Setting) -> Tried:
    estimate, sign = race.search.estimate(setting), 1 if race.objective.rises else -1
    ends = sorted((race.value * estimate.low**sign, race.value * estimate.high**sign))
    return Tried(
        setting=setting,
        value=race.value * estimate.ratio**sign,
        low=ends[0],
        high=ends[1],
        predicted=math.exp(sign * race.search.predicted[setting]),
        measurements=max(estimate.count, 1),
        point=race.points[setting],
        refused=race.search.refused.get(setting, ""),
    )


def _notes(race: Race, chosen: Setting) -> list[str]:
    """What must be known of the figures."""
    point, notes, cores = race.points.get(chosen), [], int(machine_facts()["cores"])
    if point is not None:
        share = point.generator_cores / cores
        notes.append(f"the load generator ran on the same cores and took {share:.0%} of them")
    others = [item.other_cores for item in race.points.values() if item.other_cores is not None]
    if others and (taken := statistics.median(others)) >= OTHERS * cores:
        notes.append(
            f"other programs took {taken:.1f} of {cores} cores meanwhile: the ratios hold, but figures are too low and "
            "less sure; tune again on a quiet machine"
        )
    if chosen in race.search.refused:
        notes.append(f"even the chosen setting {race.search.refused[chosen]}")
    return notes


def _with_curves(result: TunedModel, race: Race, deadline: float) -> TunedModel:
    """Throughput against latency of the default and the chosen setting, as far as there is time."""
    if race.objective.word == "memory" or result.chosen == result.default:
        return result
    settings = (result.default, result.chosen)
    variants = [(race.tuned, setting) for setting in settings]
    turns = [(place, count) for count in _users(race.objective.users) for place in (0, 1)]
    seconds = min(CURVE_S, (deadline - time.monotonic() - OVERHEAD_S) / len(turns) - BETWEEN_S)
    if seconds < LEAST_CURVE_S:
        return replace(result, notes=(*result.notes, "no time was left for the curves: a larger --budget has some"))
    slots = [Slot((place,), count, seconds) for place, count in turns]
    label = f"{result.name} throughput against latency"
    race.progress(Event("start", label))
    begun = time.monotonic()
    with served(variants, race.cache) as (endpoint, names):
        taken = partial(measure, endpoint, names, variants)(slots, race.objective.protocol)
    race.progress(Event("done", label, seconds=time.monotonic() - begun))
    default, chosen = (
        tuple(one.point for slot, one in zip(slots, taken, strict=True) if slot.places == (place,) and one is not None)
        for place in (0, 1)
    )
    # A turn is a part of a measurement.
    spent = result.measurements + math.ceil(len(slots) / ROUNDS)
    return replace(result, default_curve=default, chosen_curve=chosen, measurements=spent)


def _users(own: int) -> tuple[int, ...]:
    """One, twice as many as the load of the search, and between."""
    return tuple(sorted({1, max(1, own // 4), max(1, own // 2), own, 2 * own}))
