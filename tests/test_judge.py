"""What a failing target means, by the words of `serve`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from builder.findings import Finding
from builder.judge import (
    ModelState,
    TargetState,
    candidates,
    deferral_finding,
    is_blocked,
    needed_targets,
    reject,
    served_gates,
    soften,
)
from builder.measurement import (
    BatchProof,
    ConvertReport,
    Latency,
    Measurement,
    OutputError,
    TaskMetric,
)
from builder.plan import make_plan, model_gates
from builder.spec_file import spec_from_models
from builder.tensors import Signature
from builder.work import Target

ORT, FP32, FP16 = (Target(*text.split(":")) for text in ("onnxruntime:fp32", "openvino:fp32", "openvino:fp16"))
BAD = Finding("error", "accuracy.cosine", "off")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.linear(tmp_path_factory.mktemp("judge") / "m.onnx")


def state(model: Path, serve: str, **targets: Any) -> ModelState:
    """`ort`, `fp32`, `fp16`: a latency in milliseconds, or a status."""
    words = [str({"ort": ORT, "fp32": FP32, "fp16": FP16}[name]) for name in targets]
    spec = spec_from_models([{"name": "m", "source": {"path": str(model)}}], {"targets": words, "serve": serve})
    plan = make_plan(spec).models[0]
    return ModelState(plan, None, tuple(map(_target, plan.targets, targets.values())))


def _target(plan: Any, value: Any) -> TargetState:
    if isinstance(value, str):
        return TargetState(plan, value, findings=() if value == "deferred" else (BAD,))  # type: ignore[arg-type]
    latency = (Latency(8, value * 8, value * 8, 3), Latency(1, value, value, 3))
    measured = Measurement((), BatchProof(proven=True), latency, 1, 1, "fp32")
    return TargetState(plan, "built", converted=ConvertReport(Signature((), ()), {}, 1), measurement=measured)


def served(made: ModelState) -> list[str]:
    return [str(target.target) for target in candidates(made)]


def severities(made: ModelState) -> set[str]:
    return {finding.severity for target in made.targets for finding in target.findings}


def test_the_fastest_target_that_passes_is_best(model: Path) -> None:
    assert served(state(model, "best", ort=2.0, fp32=1.0, fp16=0.5)) == [str(FP16), str(FP32), str(ORT)]
    assert served(state(model, "best", ort=2.0, fp32=1.0, fp16="rejected")) == [str(FP32), str(ORT)]
    assert served(state(model, "best", ort=1.0, fp32=1.0)) == [str(ORT), str(FP32)], "the spec's order where equal"


def test_one_target_asked_for_is_the_only_one(model: Path) -> None:
    assert served(state(model, "openvino:fp32", ort=1.0, fp32=2.0)) == [str(FP32)]
    assert served(state(model, "openvino:fp32", ort=1.0, fp32="failed")) == []


@pytest.mark.parametrize("status", ["failed", "rejected"])
@pytest.mark.parametrize(
    ("serve", "strict", "blocked"),
    [
        ("best", False, False),
        ("best", True, True),
        ("all", False, True),
        ("onnxruntime:fp32", False, False),
        ("openvino:fp32", False, True),
    ],
)
def test_a_lost_target_blocks_only_where_it_is_needed(
    model: Path, status: str, serve: str, strict: bool, blocked: bool
) -> None:
    made = soften(state(model, serve, ort=1.0, fp32=status), strict=strict)
    assert is_blocked(made, strict=strict) == blocked
    assert severities(made) == {"error" if blocked else "warning"}


def test_no_target_at_all_is_an_error(model: Path) -> None:
    made = soften(state(model, "best", ort="rejected", fp32="failed"), strict=False)
    assert is_blocked(made, strict=False)
    assert severities(made) == {"error"}


@pytest.mark.parametrize(("serve", "strict"), [("best", False), ("best", True), ("all", False)])
def test_a_deferred_target_blocks_nothing(model: Path, serve: str, strict: bool) -> None:
    made = state(model, serve, ort=1.0, fp32="deferred")
    assert not is_blocked(made, strict=strict)
    assert FP32 not in needed_targets(made, strict=strict)
    assert deferral_finding(made) is None


@pytest.mark.parametrize(
    ("serve", "words"),
    [
        ("openvino:fp32", "serve asks for openvino:fp32, which is deferred"),
        ("best", "only openvino:fp32 is left, deferred"),
    ],
)
def test_nothing_but_deferred_is_said(model: Path, serve: str, words: str) -> None:
    made = state(model, serve, ort=1.0, fp32="deferred") if serve != "best" else state(model, serve, fp32="deferred")
    found = deferral_finding(made)
    assert found is not None
    assert (found.severity, words in found.message) == ("error", True)


def test_a_later_check_rejects_the_served_one_and_the_next_is_tried(model: Path) -> None:
    made = reject(state(model, "best", ort=2.0, fp32=1.0), FP32, [BAD])
    assert served(made) == [str(ORT)]
    softened = soften(made, strict=False)
    assert severities(softened) == {"warning"}
    none = soften(reject(softened, ORT, [BAD]), strict=False)
    assert is_blocked(none, strict=False)


@pytest.mark.parametrize(("compute", "allowed"), [("bf16, CPU", 0.075), ("fp32, CPU", 0.02)])
def test_a_metric_decides_on_fp32_that_is_computed_in_bf16(model: Path, compute: str, allowed: float) -> None:
    """Live answers may then be as far off as those that the metric was measured with, and half as far again."""
    accuracy = {"metric": "top1", "max_drop": 0.01}
    spec = spec_from_models([{"name": "m", "source": {"path": str(model)}, "accuracy": accuracy}], {})
    plan = make_plan(spec).models[0]
    target = _target(next(item for item in plan.targets if item.target == FP32), 1.0)
    assert target.measurement is not None
    metric, error = TaskMetric("top1", 0.9, 0.9, 200), OutputError("y", max_relative=0.05)
    measured = replace(target.measurement, compute=compute, metric=metric, outputs=(error,))
    made = ModelState(plan, None, (replace(target, measurement=measured),))
    assert served_gates(made, FP32).max_relative_error == pytest.approx(allowed)


def test_gates_are_the_specs(model: Path) -> None:
    assert model_gates(state(model, "best", ort=1.0).spec, "fp32").min_cosine == 0.999
    words = {
        "name": "m",
        "source": {"path": str(model)},
        "accuracy": {"min_cosine": 0.5, "metric": "top1", "max_drop": 0.1},
    }
    gates = model_gates(spec_from_models([words], {}).models[0], "int8")
    assert (gates.min_cosine, gates.metric, gates.max_drop, gates.max_relative_error) == (0.5, "top1", 0.1, 1.0)
    assert not gates.metric_decides
