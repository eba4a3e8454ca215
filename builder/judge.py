"""From outcomes and numbers to verdicts: which targets stand, which one is served, and what must be said."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from builder import defaults
from builder.cache import Cache
from builder.compare import Gates, accuracy_findings, live_gates
from builder.errors import BuildError, BuildRepoError, SpecError
from builder.findings import Finding, Severity, has_errors
from builder.manifest import Status
from builder.measurement import (
    CONVERT_FILE,
    EXPORT_FILE,
    MEASUREMENT_FILE,
    PREFLIGHT_FILE,
    PREPARE_FILE,
    ConvertReport,
    ExportReport,
    Measurement,
    PreflightReport,
    PrepareReport,
)
from builder.objectives import Objective, cost_of, undisturbed
from builder.pipeline import Outcome
from builder.plan import ModelPlan, TargetPlan, model_gates
from builder.precision_findings import (
    is_mostly,
    judged_precision,
    prepare_findings,
    share_findings,
    target_findings,
    told_of_bf16,
)
from builder.records import read_record
from builder.spec import ModelSpec
from builder.tuning_records import Raced
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
    prepared: PrepareReport | None = None

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
        return cost_of(self.measurement, "latency")


@dataclass(frozen=True, slots=True)
class ModelState:
    """One model after the pipeline; `report` is None when the export failed, `older` are other versions of the spec.

    `raced` is what the live server said of targets that are near each other in process; None where it was not asked.
    """

    plan: ModelPlan
    report: ExportReport | None
    targets: tuple[TargetState, ...]
    older: tuple[ModelState, ...] = ()
    raced: Raced | None = None

    @property
    def every(self) -> tuple[ModelState, ...]:
        """Each version of the spec, the newest first."""
        return (self, *reversed(self.older))

    @property
    def spec(self) -> ModelSpec:
        """As the user wrote it, completed."""
        return self.plan.spec

    @property
    def objective(self) -> Objective:
        """What the best target has most of, or least."""
        return self.spec.objective or defaults.OBJECTIVE


def every_version(states: Iterable[ModelState]) -> Iterator[ModelState]:
    """Of each model, where the spec has several; the newest first."""
    for state in states:
        yield from state.every


def judge_model(plan: ModelPlan, outcomes: Mapping[str, Outcome], cache: Cache) -> ModelState:
    """Read what the works left and apply the gates."""
    key = work_key(plan.export)
    report = None
    if outcomes[key].error is None:
        report = read_record(ExportReport, cache.folder("export", key) / EXPORT_FILE)
    targets = tuple(_judge_target(plan.spec, target, outcomes, cache) for target in plan.targets)
    return ModelState(plan, report, targets, tuple(judge_model(older, outcomes, cache) for older in plan.older))


def served_gates(state: ModelState, target: Target) -> Gates:
    """What every served answer of a target must reach."""
    measured = next((item.measurement for item in state.targets if item.target == target), None)
    if measured is None:
        return model_gates(state.spec, target.precision)
    gates = model_gates(state.spec, judged_precision(target, measured))
    return live_gates(gates, measured.outputs, measured.metric)


def _judge_target(model: ModelSpec, plan: TargetPlan, outcomes: Mapping[str, Outcome], cache: Cache) -> TargetState:
    prepared = _prepared(plan, outcomes, cache)
    if plan.deferred:
        said = (
            _deferral(model, plan),
            *_preflight(model, plan, outcomes, cache),
            *prepare_findings(model.name, plan.target, prepared, None),
        )
        return TargetState(plan, "deferred", findings=said, prepared=prepared)
    if plan.missing:
        what, remedy = plan.missing
        return TargetState(plan, "failed", findings=(_failure(model, plan, BuildError(what, remedy=remedy)),))
    ended = [outcomes[work_key(work)] for work in plan.works]
    seconds = sum(outcome.seconds for outcome in ended)
    failed = next((outcome for outcome in ended if outcome.error), None)
    if failed is not None and failed.error is not None:
        failure = _failure(model, plan, failed.error, failed)
        return TargetState(plan, "failed", seconds, findings=(failure,), prepared=prepared)
    converted = read_record(ConvertReport, cache.folder("convert", work_key(plan.convert)) / CONVERT_FILE)
    measurement = read_record(Measurement, cache.folder("measure", work_key(plan.measure)) / MEASUREMENT_FILE)
    gate = accuracy_findings(
        measurement.outputs,
        model_gates(model, judged_precision(plan.target, measurement)),
        model=model.name,
        target=str(plan.target),
        metric=measurement.metric,
    )
    gate = told_of_bf16(gate, plan.target, measurement)
    gate += share_findings(model.name, plan.target, measurement, prepared)
    said = (
        *gate,
        *_batch_findings(model, plan, measurement, prepared),
        *target_findings(model, plan, measurement, prepared),
    )
    fresh = any(outcome.status == "built" for outcome in ended)
    status: Status = "rejected" if has_errors(gate) else "built" if fresh else "cached"
    return TargetState(plan, status, seconds, converted, measurement, said, prepared)


def _prepared(plan: TargetPlan, outcomes: Mapping[str, Outcome], cache: Cache) -> PrepareReport | None:
    """What became of the graph; None for a target that is not made of ONNX, or where none was made."""
    key = work_key(plan.prepare) if plan.prepare else ""
    outcome = outcomes.get(key)
    if outcome is None or outcome.error is not None:
        return None
    return read_record(PrepareReport, cache.folder("prepare", key) / PREPARE_FILE)


def _deferral(model: ModelSpec, plan: TargetPlan) -> Finding:
    what = plan.measure.machine.get("cpu", "this machine")
    note = f"deferred: {plan.target} cannot be built here ({what}); nothing of it is checked or served"
    remedy = "run the same build on a machine with the GPU"
    return Finding("info", "target.deferred", note, remedy, model.name, str(plan.target))


def _preflight(
    model: ModelSpec, plan: TargetPlan, outcomes: Mapping[str, Outcome], cache: Cache
) -> tuple[Finding, ...]:
    """What trying a deferred conversion without its device showed."""
    if plan.preflight is None:
        return ()
    check, where = f"{plan.target.backend}.preflight", (model.name, str(plan.target))
    ended = [outcomes[work_key(work)] for work in plan.works]
    failed = next((outcome for outcome in ended if outcome.error), None)
    if failed is not None and failed.error is not None:
        message = f"the pre-flight failed, so the build on the GPU machine very likely will: {failed.error.message}"
        return (Finding("warning", check, message, _remedy(failed.error, failed), *where),)
    report = read_record(PreflightReport, cache.folder("convert", work_key(plan.preflight)) / PREFLIGHT_FILE)
    types = ", ".join(f"{share:.0%} {word}" for word, share in report.precision.compute) or "no heavy layers"
    message = (
        f"pre-flight with {report.library}, which is not the engine that will be served: {report.layers} layers parsed "
        f"and built ({types}), {_profiles(report.profiles)}"
    )
    if is_mostly(plan.target, report.precision.compute):
        return (Finding("info", check, message, "", *where),)
    message = f"{message}; {plan.target.precision} was asked, and the graph is mostly something else"
    remedy = "look at what kept the nodes out of it, or remove the target: the engine would be rejected"
    return (Finding("warning", check, message, remedy, *where),)


def _profiles(count: int) -> str:
    return f"{count} optimisation profile{'' if count == 1 else 's'}" if count else "fixed sizes"


def _failure(model: ModelSpec, plan: TargetPlan, error: BuildRepoError, outcome: Outcome | None = None) -> Finding:
    return Finding("error", "target.failed", error.message, _remedy(error, outcome), model.name, str(plan.target))


def _remedy(error: BuildRepoError, outcome: Outcome | None) -> str:
    parts = [error.remedy] if error.remedy else []
    if outcome and outcome.log and not isinstance(error, SpecError):
        parts.append(f"log: {outcome.log}; replay: {outcome.replay}")
    return "; ".join(parts)


def _batch_findings(
    model: ModelSpec, plan: TargetPlan, measurement: Measurement, prepared: PrepareReport | None
) -> tuple[Finding, ...]:
    batch = measurement.batch
    if batch.proven or not batch.reason:
        return ()
    where = f"; the first node at which they part: {batch.node}" if batch.node else ""
    remedy = "nothing to do if the model is meant so; else export it with a batch axis that keeps rows apart"
    if prepared and prepared.quantization and prepared.quantization.mode == "dynamic":
        where = "; dynamic int8 takes its ranges from the whole batch"
        remedy = "nothing to do if requests of one row are enough; else say quantization: {mode: static}, with samples"
    severity: Severity = "warning" if batch.node or batch.refused else "info"
    said = f"served without batching, with full dims: {batch.reason}{where}"
    return (Finding(severity, "batch.unproven", said, remedy, model.name, str(plan.target)),)


def candidates(state: ModelState) -> tuple[TargetState, ...]:
    """The targets that may be served under the model's own name: the tuned one, then the best.

    What the live server compared goes by its word, all else by the measurement in process.
    """
    passing = [target for target in state.targets if target.passes]
    serve = state.spec.serve
    if serve not in ("best", "all"):
        passing = [target for target in passing if str(target.target) == serve]
    return tuple(sorted(passing, key=lambda item: (_rank(state, str(item.target)), cost_of_target(state, item.target))))


def _rank(state: ModelState, target: str) -> int:
    raced = state.raced
    first = [state.spec.tuned.target, *(name for name, _ in raced.values)] if raced else [state.spec.tuned.target]
    if target in first:
        return first.index(target)
    return len(first) + any(name == target for name, _ in (raced.wrong if raced else ()))


def cost_of_target(state: ModelState, target: Target) -> float:
    """In process, by the objective, so that less is better. Of all versions together: one configuration serves them."""
    return sum(cost_of(item, state.objective) for item in _measurements(state, target))


def least_cost_of_target(state: ModelState, target: Target) -> float:
    """The same by the fastest runs."""
    every = _measurements(state, target)
    return sum(cost_of(item and undisturbed(item), state.objective) for item in every)


def _measurements(state: ModelState, target: Target) -> Iterator[Measurement | None]:
    """Of each version."""
    return (item.measurement for version in state.every for item in version.targets if item.target == target)


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
