"""What a target's precision is said to be, and what broke the gates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builder.findings import Finding
from builder.measurement import BatchProof, KeptNode, Measurement, PrecisionProof, PrepareReport, TaskMetric
from builder.precision_findings import judged_precision, metric_finding, prepare_findings, share_findings, told_of_bf16
from builder.spec import ModelSpec
from builder.work import Target


def proven(compute: dict[str, float], weights: dict[str, float], device: str = "fp32, CPU") -> Measurement:
    proof = PrecisionProof(tuple(compute.items()), tuple(weights.items()), "ONNX graph")
    return Measurement((), BatchProof(proven=True), (), 1, 1, device, precision=proof)


HALVES, FULLS, INTEGERS = {"fp16": 1.0}, {"fp32": 1.0}, {"int8": 0.99, "fp32": 0.01}


@pytest.mark.parametrize(
    ("target", "measured", "rejected"),
    [
        ("openvino:int8", proven({"int8": 0.5, "fp32": 0.5}, INTEGERS), False),
        ("openvino:int8", proven({"int8": 0.49, "fp32": 0.51}, INTEGERS), True),
        ("openvino:int8", proven(FULLS, INTEGERS), True),
        ("openvino:int8", proven({}, FULLS), True),
        ("openvino:fp16", proven(FULLS, HALVES), False),
        ("openvino:fp16", proven({"bf16": 1.0}, HALVES, "bf16, CPU"), False),
        ("openvino:fp16", proven(FULLS, FULLS), True),
        ("openvino:fp16", proven({}, {}), False),
        ("tensorrt:fp16", proven(HALVES, HALVES, "fp16, GPU"), False),
        ("tensorrt:fp16", proven(FULLS, HALVES, "fp32, GPU"), True),
        ("tensorrt:bf16", proven({"bf16": 0.9, "fp32": 0.1}, {}, "bf16, GPU"), False),
        ("openvino:fp32", proven({"bf16": 1.0}, HALVES), False),
    ],
)
def test_a_target_mostly_not_in_its_precision_is_an_error(target: str, measured: Measurement, rejected: bool) -> None:
    """On a CPU fp16 is how the weights are stored; elsewhere, and for int8, it is how the work is done."""
    found = share_findings("m", Target(*target.split(":")), measured, None)
    assert [(item.severity, item.check) for item in found] == [("error", "precision.share")] * rejected


def test_the_finding_says_what_was_asked_what_is_there_and_what_to_do() -> None:
    measured = proven({"fp32": 0.88, "int8": 0.12}, INTEGERS)
    (found,) = share_findings("m", Target("openvino", "int8"), measured, None)
    for words in ("int8 was asked", "88% fp32, 12% int8", "ONNX graph", "expected at least 50% int8"):
        assert words in found.message
    assert found.remedy == "remove openvino:int8 from the targets"
    kept = PrepareReport("int8", "onnx", kept_fp32=(KeptNode("layer", "Conv", 3.0),))
    (found,) = share_findings("m", Target("openvino", "int8"), measured, kept)
    assert "let fewer nodes stay in fp32 with looser gates (accuracy:)" in found.remedy


@pytest.mark.parametrize(
    ("samples", "metric", "words"),
    [
        (None, None, "the samples have no labels"),
        ({"path": "s.npz"}, None, "the samples have no labels"),
        ({"path": "s.npz", "labels": "kind"}, None, ""),
        ({"path": "s.npz", "labels": "kind"}, TaskMetric("top1", 1.0, 1.0, 9), ""),
    ],
)
def test_a_drop_that_nothing_measured_is_said(samples: object, metric: TaskMetric | None, words: str) -> None:
    spec = {"name": "m", "source": {"path": "m.onnx"}, "samples": samples}
    measured = replace(proven(FULLS, FULLS), metric=metric)
    assert metric_finding(ModelSpec.model_validate(spec), Target("openvino", "fp16"), measured) == ()
    asked = ModelSpec.model_validate(spec | {"accuracy": {"metric": "top1", "max_drop": 0.01}})
    found = metric_finding(asked, Target("openvino", "fp16"), measured)
    assert len(found) == bool(words)
    assert all(words in item.message and item.severity == "warning" for item in found)


def test_errors_of_bf16_units_are_not_mended_by_a_higher_precision() -> None:
    found = Finding(
        "error", "accuracy.cosine", "m", "choose a higher precision, or allow it in the spec: accuracy: {…}"
    )
    wrong = Finding("error", "accuracy.error", "m", "the answer is wrong, not imprecise: remove the target")
    broken = Finding("error", "accuracy.nonfinite", "m", "choose a target of higher precision (fp32) for this model")
    measured = proven({}, FULLS, "bf16, CPU")
    told, far, other = told_of_bf16([found, wrong, broken], Target("openvino", "fp32"), measured)
    assert told.remedy.startswith("OpenVINO computes in bf16 on this CPU")
    assert "ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI" in told.remedy
    assert told.remedy.endswith("or allow it in the spec: accuracy: {…}")
    assert far.remedy.startswith("OpenVINO computes in bf16 on this CPU"), "bf16 can be as far off as a wrong answer"
    assert "allow" not in far.remedy
    assert other == broken, "bf16 holds every number that fp32 holds"
    assert told_of_bf16([found], Target("openvino", "fp32"), proven({}, FULLS, "fp32, CPU")) == (found,)
    assert told_of_bf16([found], Target("openvino", "int8"), measured) == (found,)
    (asked,) = told_of_bf16([found], Target("openvino", "bf16"), measured)
    assert asked.remedy.startswith("OpenVINO computes its fp32 in bf16 too on this CPU: use onnxruntime:fp32")


@pytest.mark.parametrize(
    ("target", "compute", "judged"),
    [
        ("openvino:fp32", "bf16, CPU", "bf16"),
        ("openvino:fp32", "fp32, CPU", "fp32"),
        ("onnxruntime:fp32", "fp32, CPU", "fp32"),
        ("openvino:fp16", "bf16, CPU", "fp16"),
        ("openvino:int8", "bf16, CPU", "int8"),
    ],
)
def test_fp32_computed_in_bf16_has_the_gates_of_bf16(target: str, compute: str, judged: str) -> None:
    """A task metric that decides on openvino:fp16 decides on openvino:fp32 too where both compute in bf16."""
    assert judged_precision(Target(*target.split(":")), proven({}, FULLS, compute)) == judged


def test_what_stays_in_fp32_is_said_by_name() -> None:
    kept = tuple(KeptNode(f"layer{place}", "Mul", 3.0) for place in range(11))
    report = PrepareReport("fp16", "onnx", kept_fp32=kept, notes=("fewer might do",))
    target, measured = Target("onnxruntime", "fp16"), proven(FULLS, HALVES)
    note, said = prepare_findings("m", target, report, measured)
    assert (note.severity, note.check, note.message) == ("info", "precision.note", "fewer might do")
    assert (said.severity, said.check) == ("info", "precision.kept")
    assert said.message.startswith("11 nodes stay in fp32 within the fp16 graph: layer0 (Mul), layer1 (Mul), ")
    assert said.message.endswith("layer7 (Mul) and 3 more")
    assert prepare_findings("m", target, PrepareReport("fp16", "onnx"), measured) == ()


def test_what_stays_in_fp32_is_told_to_be_computed_in_bf16() -> None:
    report = PrepareReport("int8", "onnx", kept_fp32=(KeptNode("layer", "Conv", 3.0),))
    (said,) = prepare_findings("m", Target("openvino", "int8"), report, proven(INTEGERS, INTEGERS, "bf16, CPU"))
    assert said.message.endswith(
        "1 node stays in fp32 within the int8 graph: layer (Conv); OpenVINO computes that in bf16 on this CPU"
    )
