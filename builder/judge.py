"""From outcomes and numbers to verdicts: which targets stand, which one is served, and what must be said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from builder.cache import Cache
from builder.compare import Gates, accuracy_findings
from builder.errors import BuildError, BuildRepoError, SpecError
from builder.findings import Finding, has_errors
from builder.manifest import Status
from builder.measurement import (
    CONVERT_FILE,
    EXPORT_FILE,
    MEASUREMENT_FILE,
    ConvertReport,
    ExportReport,
    Measurement,
)
from builder.pipeline import Outcome
from builder.plan import ModelPlan, TargetPlan
from builder.records import read_record
from builder.spec import ModelSpec
from builder.work import Target, work_key


@dataclass(frozen=True, slots=True)
class TargetState:
    """One target after the pipeline: `findings` are as severe as the rules of `serve` make them."""

    plan: TargetPlan
    status: Status
    seconds: float = 0.0
    converted: ConvertReport | None = None
    measurement: Measurement | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def target(self) -> Target:
        """Which one."""
        return self.plan.target

    @property
    def passes(self) -> bool:
        """Built and not rejected."""
        return self.status in ("built", "cached")

    @property
    def batch_proven(self) -> bool:
        """Rows of a batch were shown to equal the same rows alone."""
        return self.measurement is not None and self.measurement.batch.proven

    @property
    def latency_ms(self) -> float:
        """Median time of the smallest request measured, in process."""
        if self.measurement is None or not self.measurement.latency:
            return float("inf")
        return min(self.measurement.latency, key=lambda item: item.batch_size).median_ms


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model after the pipeline; `report` is None when the export failed."""

    plan: ModelPlan
    report: ExportReport | None
    targets: tuple[TargetState, ...]

    @property
    def spec(self) -> ModelSpec:
        """As the user wrote it, completed."""
        return self.plan.spec


def judge_model(plan: ModelPlan, outcomes: Mapping[str, Outcome], cache: Cache) -> ModelState:
    """Read what the works left and apply the gates."""
    key = work_key(plan.export)
    report = None
    if outcomes[key].error is None:
        report = read_record(ExportReport, cache.folder("export", key) / EXPORT_FILE)
    targets = tuple(_judge_target(plan.spec, target, outcomes, cache) for target in plan.targets)
    return ModelState(plan, report, targets)


def gates_of(model: ModelSpec) -> Gates:
    """The spec's gates."""
    accuracy = model.accuracy
    return Gates(**accuracy.model_dump(exclude={"search_budget_s"})) if accuracy else Gates()


def _judge_target(model: ModelSpec, plan: TargetPlan, outcomes: Mapping[str, Outcome], cache: Cache) -> TargetState:
    if plan.deferred:
        what = plan.measure.machine.get("cpu", "this machine")
        note = f"deferred: {plan.target} cannot be built here ({what}); nothing of it is checked or served"
        finding = Finding(
            "info",
            "target.deferred",
            note,
            "run the same build on a machine with the GPU",
            model.name,
            str(plan.target),
        )
        return TargetState(plan, "deferred", findings=(finding,))
    if plan.missing:
        what, remedy = plan.missing
        return TargetState(plan, "failed", findings=(_failure(model, plan, BuildError(what, remedy=remedy)),))
    ended = [outcomes[work_key(work)] for work in plan.works]
    seconds = sum(outcome.seconds for outcome in ended)
    failed = next((outcome for outcome in ended if outcome.error), None)
    if failed is not None and failed.error is not None:
        return TargetState(plan, "failed", seconds, findings=(_failure(model, plan, failed.error, failed),))
    converted = read_record(ConvertReport, cache.folder("convert", work_key(plan.convert)) / CONVERT_FILE)
    measurement = read_record(Measurement, cache.folder("measure", work_key(plan.measure)) / MEASUREMENT_FILE)
    gate = accuracy_findings(
        measurement.outputs, gates_of(model), model=model.name, target=str(plan.target), metric=measurement.metric
    )
    said = (*gate, *_batch_findings(model, plan, measurement))
    fresh = any(outcome.status == "built" for outcome in ended)
    status: Status = "rejected" if has_errors(gate) else "built" if fresh else "cached"
    return TargetState(plan, status, seconds, converted, measurement, said)


def _failure(model: ModelSpec, plan: TargetPlan, error: BuildRepoError, outcome: Outcome | None = None) -> Finding:
    parts = [error.remedy] if error.remedy else []
    if outcome and outcome.log and not isinstance(error, SpecError):
        parts.append(f"log: {outcome.log}; replay: {outcome.replay}")
    return Finding("error", "target.failed", error.message, "; ".join(parts), model.name, str(plan.target))


def _batch_findings(model: ModelSpec, plan: TargetPlan, measurement: Measurement) -> tuple[Finding, ...]:
    batch = measurement.batch
    if batch.proven or not batch.reason:
        return ()
    where = f"; the first node at which they part: {batch.node}" if batch.node else ""
    return (
        Finding(
            "warning" if batch.node or batch.refused else "info",
            "batch.unproven",
            f"served without batching, with full dims: {batch.reason}{where}",
            "nothing to do if the model is meant so; else export it with a batch axis that keeps rows apart",
            model.name,
            str(plan.target),
        ),
    )


def candidates(state: ModelState) -> tuple[TargetState, ...]:
    """The targets that may be served under the model's own name, the fastest first."""
    passing = [target for target in state.targets if target.passes]
    serve = state.spec.serve
    if serve not in ("best", "all"):
        passing = [target for target in passing if str(target.target) == serve]
    return tuple(sorted(passing, key=lambda target: target.latency_ms))


def needed_targets(state: ModelState, *, strict: bool) -> frozenset[Target]:
    """Targets without which the build must not replace anything."""
    serve = state.spec.serve
    every = frozenset(target.target for target in state.targets if target.status != "deferred")
    if strict or serve == "all":
        return every
    return frozenset(target for target in every if str(target) == serve)


def soften(state: ModelState, *, strict: bool) -> ModelState:
    """With `serve: best` a lost target is a warning while another one stands."""
    needed = needed_targets(state, strict=strict)
    keep_severe = not candidates(state)
    targets = tuple(
        target if keep_severe or target.target in needed else replace(target, findings=_as_warnings(target.findings))
        for target in state.targets
    )
    return replace(state, targets=targets)


def _as_warnings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(replace(item, severity="warning") if item.severity == "error" else item for item in findings)


def is_blocked(state: ModelState, *, strict: bool) -> bool:
    """True when this model keeps the whole repository from being replaced."""
    needed = needed_targets(state, strict=strict)
    lost = any(not target.passes for target in state.targets if target.target in needed)
    return lost or not candidates(state)


def deferral_finding(state: ModelState) -> Finding | None:
    """Why nothing is served although nothing failed: what the model would be served from is deferred."""
    waiting = [str(target.target) for target in state.targets if target.status == "deferred"]
    if candidates(state) or not waiting or any(has_errors(target.findings) for target in state.targets):
        return None
    asked = state.spec.serve in waiting
    what = (
        f"serve asks for {state.spec.serve}, which is deferred"
        if asked
        else f"only {', '.join(waiting)} is left, deferred"
    )
    return Finding(
        "error",
        "serve.deferred",
        f"nothing to serve: {what}",
        "add a target that is built here, and serve it until then",
        state.spec.name,
    )


def reject(state: ModelState, target: Target, findings: Sequence[Finding]) -> ModelState:
    """A target that only a later check showed to be wrong."""
    targets = tuple(
        replace(item, status="rejected", findings=(*item.findings, *findings)) if item.target == target else item
        for item in state.targets
    )
    return replace(state, targets=targets)
