"""Stage and check, again and again, until every model has a target that stands or one has none left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from builder.assemble import Staged, stage_state
from builder.assemble_ensembles import StagedEnsemble, limit_finding, stage_ensembles
from builder.cache import Cache
from builder.compare import Gates
from builder.digests import digest_of, folder_digests
from builder.ensembles.members import Members
from builder.ensembles.states import EnsembleState
from builder.findings import Finding, has_errors
from builder.judge import ModelState, is_blocked, reject, served_gates, soften
from builder.kept import Kept
from builder.manifest import EnsembleRecord, Manifest, ServedRecord
from builder.offline import check_offline
from builder.progress import Progress
from builder.records import from_json
from builder.spec import RepoSpec
from builder.swap import Staging, remove
from builder.trees import link_tree
from builder.verify import LiveItem, LiveVerdict, verify

Check = Literal["live", "offline", "none"]


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


@dataclass(slots=True)
class Building:
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
    members: Members
    kept: Kept
    ensembles: list[EnsembleState] = field(default_factory=list)
    staged_ensembles: list[StagedEnsemble] = field(default_factory=list)


def settle(run: Building) -> bool:
    """Stage and check until every model has a target that stands, or one has none left; True when all have one.

    With `serve: best` a target that a later check shows to be wrong is rejected, and the next one is tried.
    """
    while True:
        if has_errors(run.findings) or any(is_blocked(state, strict=run.options.strict) for state in run.states):
            return False
        _stage(run)
        refused = _errors([finding for item in run.staged for finding in item.findings])
        if refused:
            run.findings += refused
            return False
        wrong = _check_staged(run)
        if not wrong:
            return not has_errors(run.findings)
        for item, findings in wrong:
            index = next(i for i, state in enumerate(run.states) if state.spec.name == item.model)
            rejected = reject(run.states[index], item.state.target, findings)
            run.states[index] = soften(rejected, strict=run.options.strict)


def lost_targets(states: Sequence[ModelState], staged: Sequence[Staged]) -> Iterator[Finding]:
    """Models that a tuning file serves from a target that did not stand, and what is served in its place."""
    served = {item.record.folder: str(item.state.target) for item in staged}
    for state in states:
        tuned, name = state.spec.tuned.target, state.spec.name
        now = served.get(name)
        if tuned and now and now != tuned:
            status = next((item.status for item in state.targets if str(item.target) == tuned), "gone")
            message = f"the tuned target {tuned} is {status}, so {now} is served, with the settings tuned for {tuned}"
            remedy = f"see what is said of {tuned}, or build-repo tune again"
            yield Finding("warning", "tuning.lost", message, remedy, model=name)


def _stage(run: Building) -> None:
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
    _stage_ensembles(run)


def _stage_ensembles(run: Building) -> None:
    """Ensembles come after the models; members that stand in the repository are there to be checked with them."""
    here = {item.record.folder: item for item in run.staged}
    affected = [record for record in run.kept.ensembles.values() if _touched(record.name, run, here)]
    needs = {name for state in run.ensembles for name in state.needs}
    needs |= {name for record in affected for name in (record.name, *_needs(record.name, run))}
    for name in sorted(needs - here.keys() - {state.name for state in run.ensembles}):
        if (run.place.output / name).is_dir():
            link_tree(run.place.output / name, run.place.staged / name)
    states = {state.spec.name: state for state in run.states}
    run.staged_ensembles = [
        *stage_ensembles(
            run.ensembles,
            [(states[item.model], item) for item in run.staged],
            run.members,
            release=run.spec.triton,
            cache=run.cache,
            staged=run.place.staged,
        ),
        *(_standing(record, _needs(record.name, run)) for record in affected),
    ]


def _touched(name: str, run: Building, here: Mapping[str, object]) -> bool:
    """Whether an ensemble of an earlier build has a member that this build makes anew."""
    ours = {state.name for state in run.ensembles}
    return any(member in here or member in ours for member in _needs(name, run))


def _needs(name: str, run: Building) -> tuple[str, ...]:
    found, todo = dict[str, None](), [name]
    while todo:
        ref = run.members.ensembles.get(todo.pop())
        new = [step.member for step in ref.steps if step.member not in found] if ref else []
        found |= dict.fromkeys(new)
        todo += new
    return tuple(found)


def _standing(record: EnsembleRecord, needs: tuple[str, ...]) -> StagedEnsemble:
    return StagedEnsemble(record.name, record.served[0], record.signature, from_json(Gates, record.gates), needs)


def _check_staged(run: Building) -> list[tuple[Staged, list[Finding]]]:
    """The staged folders that a check says no to, with what it said; other findings are kept for the report.

    What is wrong with an ensemble counts once its members are right.
    """
    if run.options.check == "none":
        run.findings += [finding for item in run.staged for finding in item.findings]
        run.findings += filter(None, map(limit_finding, run.staged_ensembles))
        return []
    records = _records(run)
    found = check_offline(run.place.staged, records, release=run.spec.triton, cache=run.cache)
    wrong = [(item, errors) for item in run.staged if (errors := _errors(found[item.record.folder]))]
    broken = any(_errors(found[item.name]) for item in run.staged_ensembles)
    if not wrong and not broken and live_wanted(run):
        run.live = _verify(run)
        found_live = {item.record.folder: _of_folder(run.live, item.record.folder) for item in run.staged}
        wrong = [(item, errors) for item in run.staged if (errors := _errors(found_live[item.record.folder]))]
    if not wrong:
        run.findings += [finding for item in run.staged for finding in (*item.findings, *found[item.record.folder])]
        run.findings += [
            finding for item in run.staged_ensembles for finding in _explained(item, found[item.name], run)
        ]
        run.findings += filter(None, map(limit_finding, run.staged_ensembles))
        for name, verdict in run.live.items():
            ensemble = next((item for item in run.staged_ensembles if item.name == name), None)
            run.findings += _explained(ensemble, verdict.findings, run) if ensemble else verdict.findings
    return wrong


def _records(run: Building) -> list[ServedRecord]:
    return [*(item.record for item in run.staged), *(item.record for item in run.staged_ensembles)]


def _verify(run: Building) -> dict[str, LiveVerdict]:
    digests = {record.folder: digest_of(record.files) for record in _records(run)}
    digests |= {folder: digest_of(record.files) for folder, (_, record) in run.members.stored.items()}
    items = [live for item in run.staged for live in _live_items(run, item)]
    for item in run.staged_ensembles:
        needs = tuple(
            (name, digests.get(name) or digest_of(folder_digests(run.place.staged / name))) for name in item.needs
        )
        items.append(LiveItem(item.record, item.name, item.signature, item.gates, needs=needs))
    return verify(run.place.staged, items, release=run.spec.triton, cache=run.cache, progress=run.progress)


def _explained(item: StagedEnsemble, findings: Sequence[Finding], run: Building) -> list[Finding]:
    """An ensemble that stands and no longer works says what changed."""
    if item.state is not None:
        return list(findings)
    changed = ", ".join(name for name in item.needs if name in {staged.record.folder for staged in run.staged})
    remedy = f"this ensemble of an earlier build no longer fits {changed}: build it again with its spec, or --prune"
    return [replace(found, remedy=remedy) if found.severity == "error" else found for found in findings]


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity == "error"]


def live_wanted(run: Building) -> bool:
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


def _of_folder(verdicts: Mapping[str, LiveVerdict], folder: str) -> list[Finding]:
    """What was said of every version of a folder; `:` is in no model's name."""
    keys = [key for key in verdicts if key.partition(":")[0] == folder]
    return [finding for key in keys for finding in verdicts[key].findings]


def _live_items(run: Building, item: Staged) -> Iterator[LiveItem]:
    """The version that this build made, and the others that are served beside it."""
    state = next(state for state in run.states if state.spec.name == item.model)
    if state.report is None:
        msg = f"{state.spec.name}: staged without an export"
        raise ValueError(msg)
    gates = served_gates(state, item.state.target)
    own = LiveItem(item.record, state.spec.name, state.report.recorded, gates, state.report.sequence)
    yield own
    built = {older.plan.version: older for older in state.older}
    for number, answers in item.record.others.items():
        if answers is not None:
            held = served_gates(built.get(int(number), state), item.state.target)
            yield replace(own, version=int(number), answers=answers, gates=held)
