"""The main job: plan → works → verdicts → staged repository → checks → swap."""

from __future__ import annotations

import errno
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from builder.assemble import (
    Staged,
    make_manifest,
    model_record,
    possible_folders,
    stage_state,
    timings_of,
)
from builder.cache import Cache, default_cache, disk_error, open_cache
from builder.errors import EXIT_OK, BuildError, GateError
from builder.findings import Finding, has_errors
from builder.judge import (
    ModelState,
    deferral_finding,
    gates_of,
    is_blocked,
    judge_model,
    needed_targets,
    reject,
    soften,
)
from builder.manifest import Manifest, ModelRecord, TargetTimings, read_manifest, write_manifest
from builder.offline import check_offline
from builder.pipeline import Outcome, run_works
from builder.plan import Plan, make_plan
from builder.progress import Progress
from builder.records import to_json
from builder.repository import carry_over, check_output, signature_finding
from builder.spec import RepoSpec
from builder.swap import Staging, remove, staging, swap
from builder.verify import LiveItem, LiveVerdict, verify
from builder.work import Export, work_key

Check = Literal["live", "offline", "none"]
DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What the command line decides. `check` None: live where the runtime is installed, else offline with a word."""

    output: Path
    check: Check | None = None
    jobs: int = 2
    fail_fast: bool = False
    strict: bool = False
    prune: bool = False
    defer: bool = False
    command: str = "build-repo build"


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


@dataclass(slots=True)
class _Build:
    """One build on its way."""

    spec: RepoSpec
    options: BuildOptions
    cache: Cache
    place: Staging
    manifest: Manifest | None
    progress: Progress
    states: list[ModelState]
    staged: list[Staged]
    live: dict[str, LiveVerdict]
    findings: list[Finding]


def build(spec: RepoSpec, options: BuildOptions, progress: Progress) -> BuildResult:
    """Build a repository; it replaces the old one only when no check says no.

    Raises:
        SpecError: the request is impossible or the output is not ours; nothing was changed.
        MachineError: this machine lacks something, or another build holds the output.
    """
    started = time.monotonic()
    plan = make_plan(spec, defer=options.defer, strict=options.strict)
    folders = possible_folders(spec)
    cache = default_cache()
    open_cache(cache)
    with _disk_errors(options.output), staging(options.output) as place:
        manifest = read_manifest(place.output)
        check_output(place.output, manifest, folders)
        outcomes = _run(plan, cache, options, progress)
        states = [soften(judge_model(model, outcomes, cache), strict=options.strict) for model in plan.models]
        run = _Build(spec, options, cache, place, manifest, progress, states, [], {}, [])
        run.findings += _signature_findings(run)
        run.findings += filter(None, map(deferral_finding, states))
        swapped = _settle(run) and _finish(run)
    findings = _all_findings(run)
    return BuildResult(
        repository=place.output,
        models=tuple(run.states),
        staged=tuple(run.staged),
        live=run.live,
        findings=tuple(run.findings),
        swapped=swapped,
        exit_code=_exit_code(run, findings, outcomes),
        seconds=time.monotonic() - started,
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


def _run(plan: Plan, cache: Cache, options: BuildOptions, progress: Progress) -> dict[str, Outcome]:
    return run_works(
        plan.works(),
        work_labels(plan),
        cache,
        jobs=options.jobs,
        fail_fast=options.fail_fast,
        progress=progress,
    )


def work_labels(plan: Plan) -> dict[str, str]:
    """Key → what a person calls the work."""
    labels: dict[str, str] = {}
    for model in plan.models:
        for work in model.works:
            what = "export" if isinstance(work, Export) else f"{work.target} {work.kind}"
            labels.setdefault(work_key(work), f"{model.spec.name} {what}")
    return labels


def _signature_findings(run: _Build) -> Iterator[Finding]:
    before = run.manifest.models if run.manifest else {}
    for state in run.states:
        old = before.get(state.spec.name)
        if old is not None and state.report is not None:
            finding = signature_finding(state.spec.name, old.signature, state.report.signature)
            if finding is not None:
                yield finding


def _settle(run: _Build) -> bool:
    """Stage and check until every model has a target that stands, or one has none left; True when all have one.

    With `serve: best` a target that a later check shows to be wrong is rejected, and the next one is tried.
    """
    while True:
        if has_errors(run.findings) or any(is_blocked(state, strict=run.options.strict) for state in run.states):
            return False
        _stage(run)
        wrong = _check_staged(run)
        if not wrong:
            return True
        for item, findings in wrong:
            index = next(i for i, state in enumerate(run.states) if state.spec.name == item.model)
            rejected = reject(run.states[index], item.record.target, findings)
            run.states[index] = soften(rejected, strict=run.options.strict)


def _stage(run: _Build) -> None:
    if run.place.staged.exists():
        remove(run.place.staged)
    run.place.staged.mkdir()
    before = {}
    if run.manifest:
        before = {folder: served for folder, (_, served) in run.manifest.served_folders().items()}
    run.staged = [
        item
        for state in run.states
        for item in stage_state(
            state,
            release=run.spec.triton,
            cache=run.cache,
            staged=run.place.staged,
            current=run.place.output,
            before=before,
        )
    ]


def _check_staged(run: _Build) -> list[tuple[Staged, list[Finding]]]:
    """The staged folders that a check says no to, with what it said; other findings are kept for the report."""
    if run.options.check == "none":
        run.findings += [finding for item in run.staged for finding in item.findings]
        return []
    found = check_offline(run.place.staged, run.staged, release=run.spec.triton, cache=run.cache)
    wrong = [(item, errors) for item in run.staged if (errors := _errors(found[item.record.folder]))]
    if not wrong and _live_wanted(run):
        run.live = verify(
            run.place.staged,
            [_live_item(run, item) for item in run.staged],
            release=run.spec.triton,
            cache=run.cache,
            progress=run.progress,
        )
        verdicts = run.live
        wrong = [(item, errors) for item in run.staged if (errors := _errors(verdicts[item.record.folder].findings))]
    if not wrong:
        run.findings += [finding for item in run.staged for finding in (*item.findings, *found[item.record.folder])]
        run.findings += [finding for verdict in run.live.values() for finding in verdict.findings]
    return wrong


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def _live_wanted(run: _Build) -> bool:
    """Asked for, or possible; where it is only not possible, that is said and the build goes on offline."""
    if run.options.check is not None:
        return run.options.check == "live"
    from builder.runtime import find

    if find(run.spec.triton) is not None:
        return True
    offline = Finding(
        "warning",
        "live.unchecked",
        f"not checked on a real Triton: the embedded runtime for {run.spec.triton} is not installed",
        f"build-repo runtime install --triton {run.spec.triton}, then build again",
    )
    if offline not in run.findings:
        run.findings.append(offline)
    return False


def _live_item(run: _Build, item: Staged) -> LiveItem:
    state = next(state for state in run.states if state.spec.name == item.model)
    if state.report is None:
        msg = f"{state.spec.name}: staged without an export"
        raise ValueError(msg)
    return LiveItem(item.record, state.spec.name, state.report.signature, gates_of(state.spec))


def _finish(run: _Build) -> bool:
    """Carry over what this build does not touch, write the manifest, and swap; False when nothing changed."""
    kept_models, kept_timings = _kept(run)
    _carry_over(run, kept_models)
    manifest = make_manifest(
        run.spec,
        run.options.command,
        kept_models | {state.spec.name: _record(run, state) for state in run.states},
        kept_timings | {state.spec.name: timings_of(state) for state in run.states},
    )
    if run.manifest is not None and _same(run, manifest):
        return False
    write_manifest(run.place.staged, manifest)
    swap(run.place)
    return True


def _same(run: _Build, manifest: Manifest) -> bool:
    """True when the repository already is what was staged, so that nobody's server reloads for nothing."""
    before = run.manifest
    # Compared as JSON: two NaN of a measurement are not equal as numbers.
    if before is None or to_json(replace(manifest, run=before.run)) != to_json(before):
        return False
    from builder.repository import same_content

    return same_content(run.place.staged, run.place.output)


def _kept(run: _Build) -> tuple[dict[str, ModelRecord], dict[str, dict[str, TargetTimings]]]:
    """Models of earlier builds that stay: all that this spec does not name, none with --prune."""
    if run.manifest is None or run.options.prune:
        return {}, {}
    names = {state.spec.name for state in run.states}
    models = {name: record for name, record in run.manifest.models.items() if name not in names}
    return models, {name: value for name, value in run.manifest.run.timings.items() if name in models}


def _carry_over(run: _Build, kept: Mapping[str, ModelRecord]) -> None:
    gone: set[str] = set()
    if run.manifest:
        stay = {served.folder for record in kept.values() for served in record.served}
        gone = set(run.manifest.served_folders()) - stay
    carry_over(run.place.staged, run.place.output, drop=frozenset(gone))


def _record(run: _Build, state: ModelState) -> ModelRecord:
    mine = [item for item in run.staged if item.model == state.spec.name]
    live = {
        item.record.folder: verdict_summary(run.live[item.record.folder])
        for item in mine
        if item.record.folder in run.live
    }
    return model_record(state, mine, live)


def verdict_summary(verdict: LiveVerdict) -> dict[str, object]:
    """What the manifest keeps of a live check: what was checked and how far it was off, no timings."""
    if verdict.result is None:
        return {"checked": False, "unchecked": list(verdict.unchecked)}
    return {"checked": True, "protocols": list(verdict.result.protocols), "unchecked": list(verdict.unchecked)}


def _all_findings(run: _Build) -> list[Finding]:
    return [
        *run.findings,
        *(finding for state in run.states for target in state.targets for finding in target.findings),
    ]


def _exit_code(run: _Build, findings: Sequence[Finding], outcomes: Mapping[str, Outcome]) -> int:
    """0, 1 when a needed model or target could not be built, 3 when a check said no."""
    for state in run.states:
        error = outcomes[work_key(state.plan.export)].error
        if error is not None:
            return error.exit_code
    blocked = [state for state in run.states if is_blocked(state, strict=run.options.strict)]
    for state in blocked:
        needed = needed_targets(state, strict=run.options.strict)
        lost = [target for target in state.targets if not target.passes and (not needed or target.target in needed)]
        if lost and all(target.status in ("failed", "deferred") for target in lost):
            return BuildError.exit_code
    if blocked or has_errors(findings):
        return GateError.exit_code
    return EXIT_OK
