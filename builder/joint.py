"""Several versions of one model from one spec: one configuration serves them all, so they stand or fall together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from builder.findings import Finding
from builder.judge import ModelState, TargetState
from builder.tensors import Signature
from builder.versions import signature_changes


def joined(state: ModelState) -> ModelState:
    """A target stands where it stands in every version, and its artefacts take and give the same."""
    if not state.older:
        return state
    return replace(state, targets=tuple(_joined(state, target) for target in state.targets))


def _joined(state: ModelState, target: TargetState) -> TargetState:
    findings: list[Finding] = []
    failed = False
    for older in state.older:
        other = next(item for item in older.targets if item.target == target.target)
        findings += [_of_version(older, finding) for finding in other.findings]
        failed = failed or other.status == "failed"
        changes = _ports_differ(other, target)
        if changes:
            text = f"its artefacts differ between versions, and one configuration serves both: {changes}"
            remedy = "give one of the versions a model name of its own"
            findings.append(Finding("error", "repository.versions", text, remedy, state.spec.name, str(target.target)))
    if not target.passes:
        return replace(target, findings=(*target.findings, *findings))
    lost = any(finding.severity == "error" for finding in findings)
    waiting = any(_status(older, target) == "deferred" for older in state.older)
    status = "deferred" if waiting else "failed" if failed else "rejected" if lost else target.status
    return replace(target, status=status, findings=(*target.findings, *findings))


def _status(state: ModelState, target: TargetState) -> str:
    return next(item.status for item in state.targets if item.target == target.target)


def _of_version(state: ModelState, finding: Finding) -> Finding:
    return replace(finding, message=f"version {state.plan.version}: {finding.message}")


def _ports_differ(one: TargetState, other: TargetState) -> str:
    if one.converted is None or other.converted is None:
        return ""
    return "; ".join(signature_changes(_plain(one.converted.ports), _plain(other.converted.ports)))


def _plain(ports: Signature) -> Signature:
    """Without the names of axes, which no configuration has."""
    sides = (
        tuple(replace(port, shape=tuple("?" if size < 0 else size for size in port.wire_shape)) for port in side)
        for side in (ports.inputs, ports.outputs)
    )
    return Signature(*sides)


def version_name(state: ModelState) -> str:
    """`ranker:1`; `:` is in no model's name."""
    return f"{state.spec.name}:{state.plan.version}"


def signature_findings(state: ModelState) -> Iterator[Finding]:
    """Clients of one name see one signature, whichever version answers."""
    if state.report is None:
        return
    newest = state.report.served
    for older in state.older:
        if older.report is None:
            continue
        changes = signature_changes(older.report.served, newest)
        if changes:
            yield Finding(
                "error",
                "repository.signature",
                f"versions {older.plan.version} and {state.plan.version} have different signatures: "
                f"{'; '.join(changes)}",
                f"a changed signature needs a name of its own: make version {state.plan.version} a model of another "
                f"name (for example {state.spec.name}_v{state.plan.version})",
                model=state.spec.name,
            )


def batch_proven(state: ModelState, target: TargetState) -> bool:
    """In every version."""
    others = (item for older in state.older for item in older.targets if item.target == target.target)
    return target.batch_proven and all(item.batch_proven for item in others)
