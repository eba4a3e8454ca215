"""Stage and check, again and again, until every model has a target that stands or one has none left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.assemble import Staged, stage_state
from builder.cache import Cache
from builder.findings import Finding, has_errors
from builder.judge import ModelState, is_blocked, reject, served_gates, soften
from builder.manifest import Manifest
from builder.offline import check_offline
from builder.progress import Progress
from builder.spec import RepoSpec
from builder.swap import Staging, remove
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
            return True
        for item, findings in wrong:
            index = next(i for i, state in enumerate(run.states) if state.spec.name == item.model)
            rejected = reject(run.states[index], item.record.target, findings)
            run.states[index] = soften(rejected, strict=run.options.strict)


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


def _check_staged(run: Building) -> list[tuple[Staged, list[Finding]]]:
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


def _live_wanted(run: Building) -> bool:
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


def _live_item(run: Building, item: Staged) -> LiveItem:
    state = next(state for state in run.states if state.spec.name == item.model)
    if state.report is None:
        msg = f"{state.spec.name}: staged without an export"
        raise ValueError(msg)
    gates = served_gates(state, item.record.target)
    return LiveItem(item.record, state.spec.name, state.report.signature, gates, state.report.sequence)
