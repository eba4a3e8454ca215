"""`tune`: which target, batch, delay, instances and threads serve a model best, by measurement on the real server.

In-process profiles and a queueing model say what can be best (`predict`); only that is served (`serving`), in turns
with the default setting (`race`), until nothing that was not tried can be better by more than noise (`search`).
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from builder.backends import backend_module
from builder.cache import Cache, default_cache, open_cache
from builder.errors import EXIT_OK, BuildError, SpecError
from builder.findings import Finding
from builder.joint import batch_proven, joined
from builder.judge import ModelState, TargetState, candidates, judge_model, soften
from builder.libraries import all_code_digest
from builder.machine import machine_facts
from builder.pipeline import run_works
from builder.plan import make_plan
from builder.profiling import PROFILE_FILE, ProfiledRun, ProfileReport
from builder.progress import Event, Progress
from builder.records import canonical, read_record, to_json
from builder.running import work_labels
from builder.servers.backend_folder import BACKENDS
from builder.spec import RepoSpec
from builder.tune.predict import Overhead, Prediction, behaviour, predict
from builder.tune.race import OVERHEAD_S, ROUNDS, WAVE, Race
from builder.tune.search import Search, why_stopped
from builder.tune.serving import Slot, Tuned, measure, requests_for, served
from builder.tune.settings import way_of
from builder.tune.space import Candidate, Load, default_setting, space
from builder.tuning_records import Objective, ObjectiveWord, Setting, Tried, TunedModel
from builder.work import Profile, work_key

SHARE = 0.15
"""Of the space, at most so many measurements are spent on the search and the two curves together."""
LEAST_MEASUREMENTS = 10
LATENCY_USERS = 1
FINALISTS = 3

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


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What was found; `findings` say what could not be tuned, and why."""

    models: tuple[TunedModel, ...]
    findings: tuple[Finding, ...]
    exit_code: int


def tune(spec: RepoSpec, options: TuneOptions, progress: Progress, answer: Answer) -> TuneResult:
    """Build the targets, then search settings for one model after the other.

    Raises:
        SpecError: the request is impossible.
        MachineError: the embedded runtime is missing, or something else of this machine.
        KeyboardInterrupt: the user ended it; what was found so far was given to `answer`.
    """
    from builder.runtime import require

    runtime = require(spec.triton)
    cache = default_cache()
    open_cache(cache)
    states, findings = _built(spec, options, cache, progress)
    found = []
    for state in states:
        servable, said = _servable(state, spec.triton)
        findings += said
        if servable:
            found.append(
                tune_model(
                    state, servable, spec.triton, f"embedded, {runtime.record.server}", options, cache, progress, answer
                )
            )
    lost = any(finding.severity == "error" for finding in findings)
    return TuneResult(tuple(found), tuple(findings), BuildError.exit_code if lost else EXIT_OK)


def _built(
    spec: RepoSpec, options: TuneOptions, cache: Cache, progress: Progress
) -> tuple[list[ModelState], list[Finding]]:
    """Every target of the models, from the cache where it is there; what failed is said, the others go on."""
    models = tuple(model for model in spec.models if options.only in (None, model.name))
    if not models:
        names = ", ".join(model.name for model in spec.models)
        raise SpecError(f"there is no model {options.only!r}", remedy=f"the models are {names}")
    plan = make_plan(spec.model_copy(update={"models": models}), defer=True)
    labels = work_labels(plan)
    outcomes = run_works(plan.works(), labels, cache, jobs=options.jobs, fail_fast=False, progress=progress)
    states = [soften(joined(judge_model(model, outcomes, cache)), strict=False) for model in plan.models]
    findings = [finding for state in states for target in state.targets for finding in target.findings]
    return states, findings


def _servable(state: ModelState, release: str) -> tuple[tuple[TargetState, ...], list[Finding]]:
    """Targets that passed every gate and that the embedded server can run, the fastest in process first."""
    from builder.servers.embedded import lacking

    name = state.spec.name
    if state.spec.sequence is not None:
        said = "sequences are not tuned: their load is one request after the other"
        return (), [Finding("warning", "tune.sequence", said, "tune its instances by hand with loadtest", name)]
    if state.older:
        said = "a model of several versions is not tuned: the load test reaches the newest only"
        return (), [Finding("warning", "tune.versions", said, "tune a spec with the newest version alone", name)]
    missing = lacking(release)
    good, findings = [], []
    for target in candidates(state):
        word = target.target.backend
        reason = missing.get(word, "") if word in BACKENDS else "" if word == "python" else f"it has no {word} backend"
        if reason:
            text = f"the embedded server cannot serve {target.target}, so it was not measured: {reason}"
            findings.append(Finding("warning", "tune.unserved", text, "", name, str(target.target)))
        else:
            good.append(target)
    if not good and not findings:
        return (), [
            Finding("error", "tune.nothing", "no target of it passed its gates", "see the findings above", name)
        ]
    return tuple(good), findings


def tune_model(  # noqa: PLR0913, PLR0917 - what a search is about
    state: ModelState,
    targets: Sequence[TargetState],
    release: str,
    server: str,
    options: TuneOptions,
    cache: Cache,
    progress: Progress,
    answer: Answer,
) -> TunedModel:
    """The search for one model."""
    begun = time.monotonic()
    users = options.users or (LATENCY_USERS if options.objective == "latency" else 8)
    objective = Objective(options.objective, users, options.protocol, options.slo)
    requests, rows = requests_for(state, cache, options.rows)
    tuned = Tuned(state, release, requests, rows)
    load = Load(users, rows)
    cores = int(machine_facts()["cores"])
    found = [Candidate(str(target.target), _can_batch(state, target)) for target in targets]
    settings = space(state.spec, found, load, objective, cores)
    reference = default_setting(state.spec, found[0])
    runs = _profiles(tuned, targets, settings, load, cache, progress)
    predictions = {item: predict(item, runs[item], load, cores, Overhead()) for item in settings}
    search = Search(
        {item: _score(objective, prediction, tuned, item) for item, prediction in predictions.items()},
        {item: behaviour(item, load) for item in settings},
        reference,
    )
    race = Race(
        tuned, objective, search, cache, progress,
        deadline=begun + options.budget_s,
        cap=max(LEAST_MEASUREMENTS, int(SHARE * len(settings)) - CURVES),
        speeds={item: prediction.requests_per_s for item, prediction in predictions.items()},
        start_users=lambda item: _start_users(item, runs[item], load, cores, objective),
        identity=_identity(tuned, objective),
    )  # fmt: skip
    race.recall()

    def told(stopped: str) -> TunedModel:
        return _tuned_model(race, settings, server, time.monotonic() - begun, stopped)

    try:
        stopped = _search(race, lambda: answer(told("still searching")))
    except KeyboardInterrupt:
        answer(told("interrupted"))
        raise
    result = told(stopped)
    answer(result)
    result = _with_curves(result, race)
    answer(result)
    return result


CURVES = 4
"""Measurements that are left for the curves of the report."""
CURVE_S = 1.0


def _search(race: Race, so_far: Callable[[], None]) -> str:
    """Waves until it is decided, then the best ones again until they are told apart."""
    search = race.search
    race.cap -= FINALISTS
    while (wave := search.wave(WAVE)) and not race.out_of_time and not race.out_of_measurements:
        race.run_wave(wave[: max(1, race.cap - race.measurements - 1)])
        so_far()
    left = search.wave(len(search.predicted))
    stopped = why_stopped(left, out_of_time=race.out_of_time, out_of_measurements=bool(left))
    if not race.references and not race.out_of_time:
        race.run_wave([])
    race.cap += FINALISTS
    while (again := search.finalists(FINALISTS)) and not race.out_of_time and not race.out_of_measurements:
        race.run_wave(again[: max(1, race.cap - race.measurements - 1)])
        so_far()
    return stopped


def _can_batch(state: ModelState, target: TargetState) -> bool:
    return backend_module(target.target.backend).CAN_BATCH and batch_proven(state, target)


def _profiles(  # noqa: PLR0913, PLR0917 - what is profiled
    tuned: Tuned,
    targets: Sequence[TargetState],
    settings: Sequence[Setting],
    load: Load,
    cache: Cache,
    progress: Progress,
) -> dict[Setting, Sequence[ProfiledRun]]:
    """Setting → the runs of its target in its way; one process for each target.

    Raises:
        BuildError: a target could not be profiled.
    """
    spec = tuned.state.spec
    ways = {setting: way_of(setting, spec) for setting in settings}
    works: dict[str, Profile] = {}
    keys: dict[str, str] = {}
    for target in targets:
        word = str(target.target)
        mine = tuple(dict.fromkeys(ways[setting] for setting in settings if setting.target == word))
        measured = target.plan.measure
        largest = load.largest if _can_batch(tuned.state, target) else max(1, load.rows)
        work = Profile(
            measured.export, measured.convert, target.target, mine, load.rows, largest, measured.machine,
            measured.libraries, measured.code, measured.packages,
        )  # fmt: skip
        keys[word] = work_key(work)
        works[keys[word]] = work
    labels = {key: f"{tuned.name} {work.target} profile" for key, work in works.items()}
    outcomes = run_works(works, labels, cache, jobs=1, fail_fast=False, progress=progress)
    for outcome in outcomes.values():
        if outcome.error is not None:
            raise outcome.error
    reports = {
        word: read_record(ProfileReport, cache.folder("profile", key) / PROFILE_FILE) for word, key in keys.items()
    }
    table = {(word, way.way): way.runs for word, report in reports.items() for way in report.ways}
    return {setting: table[setting.target, ways[setting]] for setting in settings}


def _score(objective: Objective, prediction: Prediction, tuned: Tuned, setting: Setting) -> float:
    """The logarithm of what is expected of the objective, higher is better."""
    if objective.word == "latency":
        return -math.log(prediction.latency_s)
    if objective.word == "memory":
        measured = tuned.target(setting).measurement
        return -math.log(setting.instances * (measured.peak_memory_bytes if measured else 1))
    return math.log(prediction.requests_per_s * max(1, tuned.rows))


def _start_users(setting: Setting, runs: Sequence[ProfiledRun], load: Load, cores: int, objective: Objective) -> int:
    """With an SLO: the most users whose latency is not already expected to miss it."""
    limits = [limit for name, limit in objective.slo if name.startswith(("p", "max"))]
    users = load.users
    while limits and users > 1:
        expected = predict(setting, runs, replace(load, users=users), cores, Overhead()).latency_s
        if 1e3 * expected <= min(limits):
            break
        users = max(1, users // 2)
    return users


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


def _tuned_model(race: Race, settings: Sequence[Setting], server: str, seconds: float, stopped: str) -> TunedModel:
    search, tuned = race.search, race.tuned
    chosen = search.best()
    tried = [item for item in dict.fromkeys([search.reference, *search.ratios, *search.refused]) if item in race.points]
    rows = tuple(_tried(race, item) for item in tried)
    return TunedModel(
        name=tuned.name,
        export_key=work_key(tuned.state.plan.export),
        objective=race.objective,
        machine=machine_facts(),
        triton=tuned.release,
        server=server,
        default=search.reference,
        chosen=chosen,
        gain=search.estimate(chosen).ratio,
        tried=tuple(sorted(rows, key=lambda row: (bool(row.refused), -search.estimate(row.setting).log_ratio))),
        space=len(settings),
        measurements=race.measurements,
        seconds=round(seconds, 1),
        stopped=stopped,
        notes=tuple(_notes(race, chosen)),
    )


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
    point = race.points.get(chosen)
    notes = []
    if point is not None:
        share = point.generator_cores / int(machine_facts()["cores"])
        notes.append(f"the load generator ran on the same cores and took {share:.0%} of them")
    if chosen in race.search.refused:
        notes.append(f"even the chosen setting {race.search.refused[chosen]}")
    return notes


def _with_curves(result: TunedModel, race: Race) -> TunedModel:
    """Throughput against latency of the default and the chosen setting, as far as there is time."""
    if race.objective.word == "memory" or result.chosen == result.default:
        return result
    users = _users(race.objective.users)
    settings = (result.default, result.chosen)
    slots = [Slot(setting, count, CURVE_S) for count in users for setting in settings]
    if time.monotonic() + len(slots) * 2 * CURVE_S + OVERHEAD_S > race.deadline:
        return replace(result, notes=(*result.notes, "no time was left for the curves"))
    label = f"{result.name} throughput against latency"
    race.progress(Event("start", label))
    begun = time.monotonic()
    with served(race.tuned, settings, race.cache) as (endpoint, names):
        taken = measure(endpoint, names, race.tuned, slots, race.objective.protocol)
    race.progress(Event("done", label, seconds=time.monotonic() - begun))
    default, chosen = (
        tuple(one.point for slot, one in zip(slots, taken, strict=True) if slot.setting == setting and one is not None)
        for setting in settings
    )
    # A turn is a third of a measurement.
    spent = result.measurements + math.ceil(len(slots) / ROUNDS)
    return replace(result, default_curve=default, chosen_curve=chosen, measurements=spent)


def _users(own: int) -> tuple[int, ...]:
    """One, twice as many as the load of the search, and between."""
    return tuple(sorted({1, max(1, own // 4), max(1, own // 2), own, 2 * own}))
