"""What is to be said of a target's precision: what it computes in, what rounding broke, what stayed in fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from builder.findings import Finding
from builder.measurement import Measurement, PrepareReport
from builder.plan import TargetPlan
from builder.spec import ModelSpec
from builder.work import Target

MIN_SHARE: Final = 0.5
"""Of the work, or of the weights: less than this in the asked precision is another precision."""
SHOWN_NODES: Final = 8
IMPRECISE: Final = ("accuracy.error", "accuracy.cosine", "accuracy.equal", "accuracy.metric")
"""What rounding can break."""
NO_BF16: Final = "ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI"
"""The one way to keep OpenVINO's CPU plugin from bf16 that needs no word of Triton's backend."""


def judged_precision(target: Target, measurement: Measurement) -> str:
    """Whose gates hold: what is named fp32 and computed in bf16 is off by as much as bf16 is."""
    return "bf16" if target.precision == "fp32" and "bf16" in measurement.compute else target.precision


def told_of_bf16(gate: Sequence[Finding], target: Target, measurement: Measurement) -> tuple[Finding, ...]:
    """A CPU with bf16 units, not the model, made these errors: the backend has no higher precision."""
    if target.backend != "openvino" or target.precision == "int8" or "bf16" not in measurement.compute:
        return tuple(gate)
    why = (
        "OpenVINO computes in bf16 on this CPU, and Triton's backend has no word against it: use onnxruntime:fp32, or "
    )
    if target.precision == "bf16":
        why = "OpenVINO computes its fp32 in bf16 too on this CPU: use onnxruntime:fp32, or openvino:fp32 and "
    remedy = f"{why}set {NO_BF16} for this build and for Triton, which makes OpenVINO compute in fp32"
    return tuple(
        replace(item, remedy=_with_allowance(remedy, item.remedy)) if item.check in IMPRECISE else item for item in gate
    )


def _with_allowance(remedy: str, before: str) -> str:
    """A remedy instead of the general one, with what that says of the spec."""
    word = before.partition("allow it in the spec: ")[2]
    return f"{remedy}, or allow it in the spec: {word}" if word else remedy


def target_findings(
    model: ModelSpec, plan: TargetPlan, measurement: Measurement, prepared: PrepareReport | None
) -> tuple[Finding, ...]:
    """What is to be known of a target that was measured, beside its gates."""
    return (
        *metric_finding(model, plan.target, measurement),
        *limit_finding(model.name, plan),
        *prepare_findings(model.name, plan.target, prepared, measurement),
    )


def metric_finding(model: ModelSpec, target: Target, measurement: Measurement) -> tuple[Finding, ...]:
    """A drop that the spec bounds and that nothing measured is not kept, whatever the other gates say."""
    asked = model.accuracy.max_drop if model.accuracy else None
    if asked is None or measurement.metric is not None:
        return ()
    if model.samples is not None and model.samples.labels is not None:
        return ()  # the export has said that no output goes with them
    message = f"max_drop {asked:g} was not checked: the samples have no labels; the bounds on tensors decided"
    remedy = "name their array: samples: {path: samples.npz, labels: label}; or leave max_drop out of accuracy:"
    return (Finding("warning", "accuracy.unmeasured", message, remedy, model=model.name, target=str(target)),)


def limit_finding(model: str, plan: TargetPlan) -> tuple[Finding, ...]:
    """What was measured is what is served only where the server's environment is the same."""
    limit = plan.measure.machine.get("cpu_limit")
    if not limit or plan.target.backend != "openvino":
        return ()
    note = f"measured with {limit} in the environment: a Triton without it may compute in another precision"
    return (Finding("info", "openvino.environment", note, f"start Triton with {limit}", model, str(plan.target)),)


def share_findings(
    model: str, target: Target, measurement: Measurement, prepared: PrepareReport | None
) -> tuple[Finding, ...]:
    """A target that is mostly not in its precision is not what its name says, however good its answers are.

    On a CPU fp16 is a storage precision: there the weights count, and `compute` says what the work is done in.
    """
    proof = measurement.precision
    if proof is None or target.precision == "fp32":
        return ()
    stored = target.precision == "fp16" and "CPU" in measurement.compute
    what, shares = ("weights' elements", proof.weights) if stored else ("multiply-adds", proof.compute)
    if is_mostly(target, shares):
        return ()
    got = ", ".join(f"{share:.0%} {word}" for word, share in shares) or "nothing: it has no heavy operator"
    kept = prepared is not None and prepared.kept_fp32
    return (
        Finding(
            "error",
            "precision.share",
            f"{target.precision} was asked, and the model is mostly something else: of its {what} {got} "
            f"({proof.source}); expected at least {MIN_SHARE:.0%} {target.precision}",
            f"remove {target} from the targets"
            + (
                "; or let fewer nodes stay in fp32 with looser gates (accuracy:), or give more telling samples"
                if kept
                else ""
            ),
            model,
            str(target),
        ),
    )


def is_mostly(target: Target, shares: Sequence[tuple[str, float]]) -> bool:
    """Without heavy operators there is nothing to be in a precision, except that int8 is then an empty word."""
    if target.precision == "fp32" or (not shares and target.precision != "int8"):
        return True
    return dict(shares).get(target.precision, 0.0) >= MIN_SHARE


def prepare_findings(
    model: str, target: Target, prepared: PrepareReport | None, measurement: Measurement | None
) -> tuple[Finding, ...]:
    """Which nodes a lower precision left in fp32, and what else making the graph had to say.

    A deferred target has a graph too, and no measurement.
    """
    if prepared is None:
        return ()
    said = [Finding("info", "precision.note", note, model=model, target=str(target)) for note in prepared.notes]
    kept = prepared.kept_fp32
    if kept:
        names = ", ".join(f"{node.name} ({node.operator})" for node in kept[:SHOWN_NODES])
        more = f" and {len(kept) - SHOWN_NODES} more" if len(kept) > SHOWN_NODES else ""
        count = "1 node stays" if len(kept) == 1 else f"{len(kept)} nodes stay"
        bf16 = measurement is not None and measurement.compute.startswith("bf16")
        lower = "; OpenVINO computes that in bf16 on this CPU" if bf16 else ""
        note = f"{count} in fp32 within the {prepared.precision} graph: {names}{more}{lower}"
        said.append(Finding("info", "precision.kept", note, model=model, target=str(target)))
    return tuple(said)
