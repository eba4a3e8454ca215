"""The main job: plan → works → verdicts → staged repository → checks → swap."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from builder.assemble import (
    Staged,
    make_manifest,
    model_record,
    portable_finding,
    possible_folders,
    timings_of,
)
from builder.assemble_ensembles import StagedEnsemble, ensemble_record
from builder.cache import DISK_ERRORS, default_cache, disk_error, open_cache
from builder.choice import choice_findings
from builder.ensemble_result import EnsembleResult, ensemble_results
from builder.ensembles.members import find_members
from builder.ensembles.planning import plan_ensembles
from builder.ensembles.states import ensemble_findings
from builder.errors import EXIT_OK, BuildError, GateError, SpecError
from builder.export import CODE_RAN
from builder.findings import Finding, has_errors
from builder.joint import joined, signature_findings, version_name
from builder.judge import (
    ModelState,
    deferral_finding,
    every_version,
    is_blocked,
    judge_model,
    needed_targets,
    soften,
)
from builder.kept import find_kept, kept_findings
from builder.manifest import EnsembleRecord, Manifest, ModelRecord, RunRecord, read_manifest, write_manifest
from builder.measurement import served_signature
from builder.pipeline import Outcome
from builder.plan import make_plan
from builder.plan_packages import other_versions
from builder.progress import Progress
from builder.records import to_json
from builder.repository import carry_over, check_output
from builder.running import answered_ensembles, run_plan, wire_first
from builder.settle import Building, BuildOptions, live_wanted, lost_targets, settle
from builder.spec import RepoSpec
from builder.swap import staging, swap
from builder.tune.choose import race_targets
from builder.tuning_file import Applied, changed_models
from builder.tuning_records import Raced, TunedModel
from builder.unproven import PROVES_NOTHING
from builder.verify import LiveVerdict
from builder.versions import signature_finding
from builder.work import work_key


@dataclass(frozen=True, slots=True)
class BuildResult:
    """`swapped` is False when the old repository stands, whether because nothing changed or because a check said no."""

    repository: Path
    models: tuple[ModelState, ...]
    staged: tuple[Staged, ...]
    live: Mapping[str, LiveVerdict]
    findings: tuple[Finding, ...]
    swapped: bool
    exit_code: int
    seconds: float
    ensembles: tuple[EnsembleResult, ...] = ()
    tuning: Mapping[str, TunedModel] = field(default_factory=dict)


def build(spec: RepoSpec, options: BuildOptions, progress: Progress, tuning: Applied | None = None) -> BuildResult:
    """Build a repository; it replaces the old one only when no check says no.

    `tuning` is what the spec took of a tuning file.

    Raises:
        SpecError: the request is impossible or the output is not ours; nothing was changed.
        MachineError: this machine lacks something, or another build holds the output.
    """
    started = time.monotonic()
    plan = make_plan(spec, defer=options.defer, strict=options.strict)
    folders = possible_folders(spec)
    cache = default_cache()
    if options.output.resolve().is_relative_to(cache.root):
        raise SpecError(
            f"{options.output} lies in the cache {cache.root}, which may be removed at any time",
            remedy="give another output with -o DIR",
        )
    open_cache(cache)
    with _disk_errors(options.output), staging(options.output) as place:
        manifest = read_manifest(place.output)
        check_output(place.output, manifest, folders)
        members = find_members(plan, spec.ensembles, place.output, manifest)
        plan = plan_ensembles(spec, plan, members, place.output)
        exports, ensembles = wire_first(spec, plan, members, cache, options, progress)
        outcomes = run_plan(plan.works(), plan, cache, options, progress, exports)
        states = [soften(joined(judge_model(model, outcomes, cache)), strict=options.strict) for model in plan.models]
        kept = find_kept(manifest, plan, members, prune=options.prune)
        run = Building(spec, options, cache, place, manifest, progress, states, [], {}, [], members, kept)
        run.ensembles = answered_ensembles(ensembles, states, outcomes, cache)
        run.findings += _tuning_findings(run, tuning)
        run.findings += [finding for state in run.ensembles for finding in ensemble_findings(state)]
        run.findings += _export_findings(states, outcomes)
        run.findings += _signature_findings(run)
        run.findings += [finding for state in states for finding in signature_findings(state)]
        run.findings += filter(None, map(deferral_finding, states))
        run.findings += kept_findings(kept, manifest, spec.triton)
        run.findings += _note_findings(run)
        _race(run)
        settled = settle(run)
        lost = tuple(lost_targets(run.states, run.staged)) if settled else ()
        run.findings += lost
        evidence = _evidence(run, tuning, lost)
        if settled:
            run.findings += [finding for state in run.states for finding in choice_findings(state, evidence)]
        swapped = settled and _finish(run, evidence)
    findings = _all_findings(run)
    return BuildResult(
        repository=place.output,
        models=tuple(run.states),
        staged=tuple(run.staged),
        live=run.live,
        ensembles=tuple(ensemble_results(run.ensembles, run.staged_ensembles, run.live, findings)),
        findings=tuple(run.findings),
        swapped=swapped,
        exit_code=_exit_code(run, findings, outcomes),
        seconds=time.monotonic() - started,
        tuning=evidence,
    )


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    """A full or read-only disk while the repository is put together is the machine's fault, not ours."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise disk_error(error, Path(error.filename or output)) from error


def _export_findings(states: Sequence[ModelState], outcomes: Mapping[str, Outcome]) -> Iterator[Finding]:
    """A failed export once for the model; each of its targets has it too, since it keeps them from being built."""
    for state in every_version(states):
        error = outcomes[work_key(state.plan.export)].error
        found = (item for target in state.targets for item in target.findings)
        same = next((item for item in found if error is not None and item.message == error.message), None)
        if same is not None:
            yield replace(same, target=None)


def _signature_findings(run: Building) -> Iterator[Finding]:
    """A name that is served already keeps what its clients see, a model's and an ensemble's."""
    now = {state.spec.name: state.report.served for state in run.states if state.report is not None}
    now |= {state.name: state.wiring.signature for state in run.ensembles}
    served = run.manifest.served_folders() if run.manifest else {}
    before = {record.name: record for record, _ in served.values()}
    for name, signature in now.items():
        if name in before:
            old = before[name]
            finding = signature_finding(name, served_signature(old.signature, old.sequence), signature)
            if finding is not None:
                yield finding


def _tuning_findings(run: Building, tuning: Applied | None) -> Iterator[Finding]:
    if tuning is not None:
        yield from tuning.findings
        yield from changed_models(tuning, {state.spec.name: work_key(state.plan.export) for state in run.states})


def _race(run: Building) -> None:
    """Let the live server say which of near targets is best, where it will be asked about the repository anyway."""
    blocked = any(is_blocked(state, strict=run.options.strict) for state in run.states)
    if not blocked and not has_errors(run.findings) and live_wanted(run):
        run.states = [race_targets(state, run.spec.triton, run.cache, run.progress) for state in run.states]


def _raced(run: Building) -> dict[str, Raced]:
    """What the choices of this build and of what stays were made by."""
    return {**run.kept.raced, **{state.spec.name: state.raced for state in run.states if state.raced}}


def _evidence(run: Building, tuning: Applied | None, lost: Sequence[Finding]) -> dict[str, TunedModel]:
    """What was measured of the settings that are served now, and of those that stay."""
    taken = tuning.taken if tuning else {}
    gone = {finding.model for finding in lost}
    return {**run.kept.tuning, **{name: model for name, model in taken.items() if name not in gone}}


def _finish(run: Building, tuning: Mapping[str, TunedModel]) -> bool:
    """Carry over what this build does not touch, write the manifest, and swap; False when nothing changed."""
    before = run.manifest.run.timings if run.manifest else {}
    _carry_over(run)
    ensembles = {item.name: _ensemble_record(run, item) for item in run.staged_ensembles if item.state is not None}
    timings = {
        name: timings_of(version, before.get(name, {}))
        for state in run.states
        for version in state.every
        for name in [version_name(version) if version is not state else state.spec.name]
    }
    manifest = make_manifest(
        run.spec,
        {**run.kept.models, **{state.spec.name: _record(run, state) for state in run.states}},
        {**run.kept.ensembles, **ensembles},
        RunRecord(
            run.options.command,
            dict(sorted({**run.kept.timings, **timings}.items())),
            dict(sorted(tuning.items())),
            tuple(dict.fromkeys((*run.kept.findings, *map(portable_finding, run.findings)))),
            dict(sorted(_raced(run).items())),
        ),
    )
    if run.manifest is not None and _same(run, manifest):
        return False
    write_manifest(run.place.staged, manifest)
    swap(run.place)
    return True


def _same(run: Building, manifest: Manifest) -> bool:
    """True when the repository already is what was staged, so that nobody's server reloads for nothing."""
    before = run.manifest
    # Compared as JSON: two NaN of a measurement are not equal as numbers.
    if before is None:
        return False
    # What a tuning file says is an input, though it holds times; all else of the run is not compared.
    run_record = replace(before.run, tuning=manifest.run.tuning)
    if to_json(replace(manifest, run=run_record)) != to_json(before):
        return False
    from builder.trees import same_content

    return same_content(run.place.staged, run.place.output)


def _note_findings(run: Building) -> Iterator[Finding]:
    """What the export has to say: the route taken, what was stripped, whether a file's own code ran."""
    for state in every_version(run.states):
        for note in state.report.notes if state.report else ():
            grave = CODE_RAN in note or PROVES_NOTHING in note
            yield Finding("warning" if grave else "info", "export.note", note, model=state.spec.name)
        yield from _package_findings(state)


def _package_findings(state: ModelState) -> Iterator[Finding]:
    """What was measured is what is served: where that is not so, it is said."""
    here = state.plan.packages
    served = [target.plan.packages for target in state.targets if target.plan.packages]
    differing = other_versions(here, served[0]) if here and served else ()
    if differing:
        message = f"this Python has no wheels of the versions that are served: {'; '.join(differing)}"
        remedy = "pin versions that have wheels for both"
        yield Finding("warning", "packages.versions", message, remedy, model=state.spec.name)


def _carry_over(run: Building) -> None:
    gone = set(run.manifest.served_folders()) - run.kept.folders if run.manifest else set()
    carry_over(run.place.staged, run.place.output, drop=frozenset(gone))


def _record(run: Building, state: ModelState) -> ModelRecord:
    mine = [item for item in run.staged if item.model == state.spec.name]
    folders = {item.record.folder for item in mine}
    live = {key: verdict_summary(verdict) for key, verdict in run.live.items() if key.partition(":")[0] in folders}
    return model_record(state, mine, live)


def _ensemble_record(run: Building, item: StagedEnsemble) -> EnsembleRecord:
    live = {item.name: verdict_summary(run.live[item.name])} if item.name in run.live else {}
    return ensemble_record(item, run.members, live)


def verdict_summary(verdict: LiveVerdict) -> dict[str, object]:
    """What the manifest keeps of a live check: what was checked and how far it was off, no timings."""
    if verdict.result is None:
        return {"checked": False, "unchecked": list(verdict.unchecked)}
    return {"checked": True, "protocols": list(verdict.result.protocols), "unchecked": list(verdict.unchecked)}


def _all_findings(run: Building) -> list[Finding]:
    return [
        *run.findings,
        *(finding for state in run.states for target in state.targets for finding in target.findings),
    ]


def _exit_code(run: Building, findings: Sequence[Finding], outcomes: Mapping[str, Outcome]) -> int:
    """0, 1 when a needed model or target could not be built, 3 when a check said no."""
    for state in every_version(run.states):
        error = outcomes[work_key(state.plan.export)].error
        if error is not None:
            return error.exit_code
    for ensemble in run.ensembles:
        if ensemble.error is not None:
            return ensemble.error.exit_code
    blocked = [state for state in run.states if is_blocked(state, strict=run.options.strict)]
    for state in blocked:
        needed = needed_targets(state, strict=run.options.strict)
        lost = [target for target in state.targets if not target.passes and (not needed or target.target in needed)]
        if lost and all(target.status in ("failed", "deferred") for target in lost):
            return BuildError.exit_code
    if blocked or has_errors(findings):
        return GateError.exit_code
    return EXIT_OK
