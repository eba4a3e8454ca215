"""The comparison with the source's outputs and the gates."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from builder import records
from builder.compare import (
    BLOCK,
    Gates,
    accuracy_findings,
    compare_outputs,
    gates_of,
    live_gates,
    merge_errors,
    output_scales,
    worst_excess,
)
from builder.measurement import OutputError, TaskMetric
from builder.samples import Request
from builder.spec import AccuracySpec
from builder.task_metrics import task_metric
from builder.tensors import Signature, Tensor


def compare(source: Any, served: Any, dtype: str = "float32") -> OutputError:
    """One output over the requests given as two lists of arrays."""
    signature = Signature((), (Tensor("y", dtype, ("n",)),))
    (error,) = compare_outputs(signature, [{"y": item} for item in source], [{"y": item} for item in served])
    return error


def checks(error: OutputError, gates: Gates | None = None) -> list[str]:
    return [item.check for item in accuracy_findings([error], gates or Gates(), model="m", target="openvino:fp16")]


def floats(*values: float, dtype: Any = np.float32) -> Any:
    return np.asarray(values, dtype)


def test_equal_outputs() -> None:
    values = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    error = compare([values], [values.copy()])
    assert error == OutputError("y", elements=12, top1_agreement=1.0, cosine=error.cosine)
    assert error.cosine == pytest.approx(1.0)
    assert checks(error) == []


def test_error_is_relative_to_the_largest_magnitude_of_all_requests() -> None:
    error = compare([floats(100, 1), floats(0.001, 2)], [floats(100, 1), floats(0.002, 2)])
    assert error.max_absolute == pytest.approx(0.001)
    assert error.max_relative == pytest.approx(0.00001)
    assert checks(error) == []


def test_the_worst_request_counts() -> None:
    error = compare([floats(1, 0), floats(1, 0)], [floats(1, 0), floats(0, 1)])
    assert error.cosine == 0.0
    assert error.max_relative == 1.0
    assert checks(error) == ["accuracy.error", "accuracy.cosine"]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16"])
def test_every_float_type(dtype: str) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    source = np.linspace(-4, 4, 33).astype(kind).reshape(3, 11)
    assert checks(compare([source], [source.copy()], dtype)) == []
    assert checks(compare([source], [-source], dtype)) == ["accuracy.error", "accuracy.cosine"]


@pytest.mark.parametrize(("dtype", "value"), [("float16", 6e4), ("float32", 3e38), ("float64", 1.5e308)])
def test_the_largest_floats_do_not_overflow(dtype: str, value: float) -> None:
    source = np.asarray([value, -value, 1.0], dtype)
    assert checks(compare([source], [source.copy()], dtype)) == []
    error = compare([source], [-source], dtype)
    assert error.cosine == pytest.approx(-1.0)
    assert error.max_relative == pytest.approx(2.0) or math.isinf(error.max_relative)


def test_smallest_floats_do_not_vanish() -> None:
    source = floats(1e-40, 2e-40)
    assert checks(compare([source], [source.copy()])) == []
    assert "accuracy.error" in checks(compare([source], [floats(2e-40, 1e-40)]))


def test_zero_outputs() -> None:
    zeros = np.zeros((2, 3), np.float32)
    assert compare([zeros], [zeros]).cosine == 1.0
    assert checks(compare([zeros], [zeros + 1e-7])) == []
    wrong = compare([zeros], [zeros + 1e-3])
    assert math.isinf(wrong.max_relative)
    assert checks(wrong) == ["accuracy.error", "accuracy.cosine"]
    assert records.from_json(OutputError, records.to_json(wrong)) == wrong


def test_a_request_of_noise_has_no_direction() -> None:
    error = compare([floats(5), floats(1e-5)], [floats(5), floats(-1e-5)])
    assert error.cosine == 1.0
    assert checks(error) == []
    assert "accuracy.cosine" in checks(compare([floats(5, 0), floats(1, 0)], [floats(5, 0), floats(1, 0.05)]))


def test_nonfinite_values() -> None:
    nan, inf = math.nan, math.inf
    same = compare([floats(nan, inf, -inf, 1)], [floats(nan, inf, -inf, 1)])
    assert (same.new_nonfinite, same.mismatches, same.max_relative) == (0, 0, 0.0)
    assert same.cosine == pytest.approx(1.0)
    assert checks(same) == []
    new = compare([floats(1, 2, 3)], [floats(1, nan, inf)])
    assert new.new_nonfinite == 2
    assert checks(new) == ["accuracy.nonfinite"]
    assert compare([floats(inf, 1)], [floats(nan, 1)]).new_nonfinite == 1
    assert compare([floats(inf, 1)], [floats(-inf, 1)]).new_nonfinite == 1
    assert checks(compare([floats(-inf, 1)], [floats(-65504, 1)])) == []
    assert checks(compare([floats(-inf, 1)], [floats(0.5, 1)])) == ["accuracy.equal"]
    everything = compare([floats(nan, nan)], [floats(nan, nan)])
    assert checks(everything) == []
    assert checks(compare([floats(1, 2)], [floats(nan, nan)])) == ["accuracy.nonfinite"]


def test_form() -> None:
    ones = np.ones((2, 3), np.float32)
    assert "shape [3, 2], the source gives [2, 3]" in compare([ones], [ones.T]).problem
    assert "dtype float64" in compare([ones], [ones.astype(np.float64)]).problem
    signature = Signature((), (Tensor("y", "float32", ("n",)),))
    (missing,) = compare_outputs(signature, [{"y": ones}], [{}])
    assert "missing" in missing.problem
    assert checks(missing) == ["accuracy.shape"]
    assert "request 1" in compare([ones, ones], [ones, ones[:1]]).problem


def test_integers_bools_and_strings_must_be_equal() -> None:
    whole = np.asarray([2**62 + 1, 2], np.int64)
    assert compare([whole], [whole + 1], "int64").mismatches == 2
    assert checks(compare([whole], [whole.copy()], "int64")) == []
    assert compare([np.asarray([True, False])], [np.asarray([True, True])], "bool").mismatches == 1
    texts = np.asarray(["Käse", "", "b"], dtype=object)
    wire = np.asarray(["Käse".encode(), b"", b"c"], dtype=object)
    error = compare([texts], [wire], "string")
    assert (error.mismatches, error.elements) == (1, 3)
    assert checks(error) == ["accuracy.equal"]


def test_top1_agreement_and_ties() -> None:
    source = np.asarray([[1, 2, 2], [3, 0, 0], [0, 0, 0]], np.float32)
    served = np.asarray([[1, 2, 2.001], [3, 0, 0], [0, 0, 1e-9]], np.float32)
    assert compare([source], [served]).top1_agreement == 1.0
    assert compare([source], [source[:, ::-1]]).top1_agreement == pytest.approx(1 / 3)
    assert compare([floats(1, 2)], [floats(2, 1)]).top1_agreement is None


def test_scalars_and_empty_outputs() -> None:
    assert checks(compare([np.float32(3).reshape(())], [np.float32(3).reshape(())])) == []
    empty = np.zeros((0, 4), np.float32)
    assert checks(compare([empty], [empty])) == []
    assert compare([], []).elements == 0


def test_outputs_of_many_blocks() -> None:
    source = np.random.default_rng(1).standard_normal(2 * BLOCK + 17).astype(np.float32)
    served = source.copy()
    served[-1] += 10 * np.abs(source).max()
    error = compare([source], [served])
    assert error.max_relative == pytest.approx(10, rel=1e-3)
    assert error.elements == source.size


def test_a_part_is_judged_by_the_scale_of_all() -> None:
    signature = Signature((), (Tensor("y", "float32", ("n",)),))
    requests = [{"y": floats(100)}, {"y": floats(0.01)}]
    scales = output_scales(signature, requests)
    assert scales == {"y": 100.0}
    (error,) = compare_outputs(signature, requests[1:], [{"y": floats(-0.01)}], scales=scales)
    assert checks(error) == []


def test_merged_errors_are_the_worst() -> None:
    first = (OutputError("y", max_relative=0.1, cosine=1.0, elements=3, top1_agreement=1.0),)
    second = (OutputError("y", max_relative=0.0, cosine=0.5, elements=4, mismatches=1, problem="odd"),)
    expected = OutputError(
        "y", max_relative=0.1, cosine=0.5, elements=7, mismatches=1, top1_agreement=1.0, problem="odd"
    )
    assert merge_errors([first, second]) == (expected,)


def test_findings_say_numbers_and_remedy() -> None:
    error = OutputError("logits", max_absolute=0.5, max_relative=0.05, cosine=0.99, elements=10)
    gates = Gates(max_relative_error=0.02, min_cosine=0.999)
    first, second = accuracy_findings([error], gates, model="m", target="t", check_prefix="live.")
    assert (first.check, first.severity, first.model, first.target) == ("live.accuracy.error", "error", "m", "t")
    assert "0.05" in first.message
    assert "0.02" in first.message
    assert "accuracy: {max_relative_error: 0.06}" in first.remedy
    assert "accuracy: {min_cosine: 0.99}" in second.remedy
    assert accuracy_findings([error], Gates(0.05, 0.99), model="m", target="t") == ()


def test_task_metric_and_its_gate() -> None:
    signature = Signature((), (Tensor("y", "float32", ("n", 3)),))
    scores = np.eye(3, dtype=np.float32)
    request = Request({}, {"y": scores}, rows=3, labels=np.asarray([0, 1, 2]))
    metric = task_metric("top1", signature, [request], [{"y": scores[::-1].copy()}])
    assert metric == TaskMetric("top1", 1.0, 1 / 3, 3)
    assert task_metric("top1", signature, [Request({}, {"y": scores}, rows=3)], [{"y": scores}]) is None
    gates = Gates(metric="top1", max_drop=0.01)
    (finding,) = accuracy_findings([], gates, model="m", target=None, metric=metric)
    assert finding.check == "accuracy.metric"
    assert "1.0000" in finding.message
    assert "0.3333" in finding.message
    assert accuracy_findings([], Gates(metric="top1", max_drop=0.7), model="m", target=None, metric=metric) == ()
    assert finding.message.endswith("one row of 3 is 0.333, so no row may change")
    assert finding.remedy.startswith("give more labelled samples, 100 or more, ")
    assert finding.remedy.endswith("accuracy: {max_drop: 0.667}")
    (enough,) = accuracy_findings([], gates, model="m", target=None, metric=TaskMetric("top1", 0.9, 0.8, 500))
    assert "one row" not in enough.message
    assert enough.remedy.startswith("choose a higher precision")


BOUND = AccuracySpec(min_cosine=0.9)
DROP = AccuracySpec(metric="top1", max_drop=0.05)


@pytest.mark.parametrize(
    ("spec", "precision", "labelled", "expected"),
    [
        (None, "fp32", True, (0.02, 0.999, None, False)),
        (None, "fp16", True, (0.02, 0.999, None, False)),
        (None, "int8", False, (0.1, 0.99, None, False)),
        (None, "int8", True, (0.1, 0.99, 0.01, True)),
        (DROP, "fp32", True, (0.02, 0.999, 0.05, False)),
        (DROP, "fp16", True, (0.02, 0.999, 0.05, True)),
        (DROP, "int8", True, (0.1, 0.99, 0.05, True)),
        (BOUND, "int8", True, (1.0, 0.9, None, False)),
        (BOUND, "fp16", True, (0.02, 0.9, None, False)),
        (AccuracySpec(max_drop=0.0, max_relative_error=0.5), "int8", True, (0.5, 0.99, 0.0, False)),
    ],
)
def test_gates_by_precision(spec: Any, precision: str, labelled: bool, expected: Any) -> None:
    gates = gates_of(spec, precision, labelled=labelled)
    assert (gates.max_relative_error, gates.min_cosine, gates.max_drop, gates.metric_decides) == expected


def test_the_metric_decides_where_it_was_measured() -> None:
    gates = gates_of(None, "int8", labelled=True)
    far = OutputError("y", max_relative=0.5, cosine=0.8, mismatches=2, elements=10)
    kept, lost = TaskMetric("top1", 0.9, 0.895, 200), TaskMetric("top1", 0.9, 0.85, 200)

    def said(error: OutputError, metric: TaskMetric | None) -> list[str]:
        return [item.check for item in accuracy_findings([error], gates, model="m", target="t", metric=metric)]

    assert said(far, kept) == []
    assert worst_excess([far], gates, kept) == pytest.approx(0.5)
    assert said(far, lost) == ["accuracy.metric"]
    assert worst_excess([far], gates, lost) == pytest.approx(5)
    assert said(far, None) == ["accuracy.equal", "accuracy.error", "accuracy.cosine"]
    assert said(replace(far, new_nonfinite=1), kept) == ["accuracy.nonfinite"]
    assert said(replace(far, problem="shape"), kept) == ["accuracy.shape"]


def test_live_answers_must_be_as_near_as_in_process() -> None:
    """A metric says nothing of one answer, so the errors measured with it take its place."""
    gates = gates_of(None, "int8", labelled=True)
    measured = OutputError("y", max_relative=0.2, cosine=0.97, mismatches=1, elements=10)
    metric = TaskMetric("top1", 0.9, 0.9, 200)
    live = live_gates(gates, [measured], metric)
    assert (live.max_relative_error, live.min_cosine, live.max_mismatch_share) == pytest.approx((0.3, 0.955, 0.2))
    assert checks(replace(measured, mismatches=2), live) == []
    assert checks(replace(measured, mismatches=3, cosine=0.9), live) == ["accuracy.equal", "accuracy.cosine"]
    assert live_gates(gates, [measured], None) == gates, "without labels the bounds themselves hold"
    near = live_gates(gates, [OutputError("y", max_relative=0.01)], metric)
    assert (near.max_relative_error, near.min_cosine, near.max_mismatch_share) == (0.1, 0.99, 0.0)
    assert records.from_json(Gates, records.to_json(live)) == live
