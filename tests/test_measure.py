"""Measurements of real small models: what is wrong with an artefact shows in its numbers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper
from small_graphs import conversion, plain_answers, random_inputs, requests_for, signature, write_export, write_graph

from builder.backends import backend_module
from builder.errors import BuildError
from builder.measure import accuracy_of, artefact_bytes, errors_alone, run_measure
from builder.measurement import MEASUREMENT_FILE, Measurement
from builder.onnx_tools.first_difference import first_difference
from builder.records import read_record
from builder.samples import Request
from builder.samples.recut import rows_alone
from builder.tensors import Signature
from builder.work import Measure, parse_target

LINEAR = signature(["x:float32:batch,16"], ["y:float32:batch,4"])
SILERO = signature(
    ["input:float32:batch,512", "sr:int64:", "state:float32:2,batch,128"],
    ["output:float32:batch,1", "stateN:float32:2,batch,128"],
)


def weights(scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(1).standard_normal((16, 4)) * scale).astype(np.float32)


def write_linear(export: Path, values: np.ndarray) -> None:
    write_graph(
        export / "model.onnx", LINEAR, [helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")], {"w": values}
    )


def measured(export: Path, ports: Signature, target: str = "onnxruntime:fp32") -> Measurement:
    """Convert the export's model for a target and measure it."""
    goal = parse_target(target)
    convert, out = export.parent / "convert", export.parent / "measure"
    convert.mkdir()
    out.mkdir()
    backend_module(goal.backend).convert(conversion(export, ports, goal.precision), convert)
    run_measure(Measure("e", "c", goal, "{}", {}, {}, ""), export, convert, out)
    return read_record(Measurement, out / MEASUREMENT_FILE)


@pytest.mark.parametrize("target", ["onnxruntime:fp32", "openvino:fp32", "openvino:fp16"])
def test_a_good_model_measures_well(target, tmp_path):
    export = tmp_path / "export"
    write_linear(export, weights())
    write_export(export, LINEAR, requests_for(export, LINEAR))
    found = measured(export, LINEAR, target)
    (error,) = found.outputs
    assert error.problem == ""
    assert error.max_relative < 2e-2
    assert error.cosine > 0.999
    assert error.new_nonfinite == 0
    assert error.elements == 14 * 4
    assert found.batch.proven
    assert found.batch.sizes == (1, 2, 3, 8)
    assert [item.batch_size for item in found.latency] == [1, 8]
    assert all(0 < item.least_ms <= item.median_ms <= item.p90_ms and item.runs >= 3 for item in found.latency)
    assert found.size_bytes == artefact_bytes(tmp_path / "convert") > 256
    assert 10e6 < found.peak_memory_bytes < 20e9
    assert "CPU" in found.compute
    assert found.metric is None


def test_a_model_that_mixes_its_rows_is_found_with_the_node(tmp_path):
    export = tmp_path / "export"
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"], name="relu"),
        helper.make_node("ReduceMean", ["positive", "axes"], ["mean"], name="over_batch", keepdims=1),
        helper.make_node("Sub", ["positive", "mean"], ["y"], name="centre"),
    ]
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    write_graph(export / "model.onnx", ports, nodes, {"axes": np.array([0], np.int64)})
    write_export(export, ports, requests_for(export, ports))
    found = measured(export, ports)
    assert not found.batch.proven
    assert found.batch.node == "over_batch (ReduceMean)"
    assert "output 'y'" in found.batch.reason
    assert [item.batch_size for item in found.latency] == [0]


def test_one_sample_row_still_unmasks_mixing(tmp_path):
    export = tmp_path / "export"
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["mean"], name="over_batch", keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"], name="centre"),
    ]
    write_graph(export / "model.onnx", ports, nodes, {"axes": np.array([0], np.int64)})
    write_export(export, ports, requests_for(export, ports, sizes=(1,)))
    found = measured(export, ports)
    assert not found.batch.proven
    assert any("mirror image" in note for note in found.notes)


def test_an_axis_that_takes_only_some_sizes_is_refused_with_the_librarys_words(tmp_path):
    export = tmp_path / "export"
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    nodes = [helper.make_node("Reshape", ["x", "four"], ["f"]), helper.make_node("Reshape", ["f", "back"], ["y"])]
    shapes = {"four": np.array([2, -1, 4], np.int64), "back": np.array([-1, 4], np.int64)}
    write_graph(export / "model.onnx", ports, nodes, shapes)
    write_export(export, ports, requests_for(export, ports, sizes=(2, 4)))
    found = measured(export, ports)
    assert not found.batch.proven
    assert found.batch.refused[0][0] == 1
    assert "Reshape" in found.batch.refused[0][1]


def test_an_export_that_did_not_prove_its_batches_is_not_tried_again(tmp_path):
    export = tmp_path / "export"
    write_linear(export, weights())
    write_export(export, LINEAR, requests_for(export, LINEAR), proven=False)
    found = measured(export, LINEAR)
    assert not found.batch.proven
    assert found.batch.reason == "not tried"


def test_fp16_weights_that_lose_what_matters_show_in_the_numbers(tmp_path):
    """The large weights fit into fp16; the small differences between them, which make the output, do not."""
    export = tmp_path / "export"
    base = np.full((16, 4), 2000.0, np.float32) + weights() * 0.3
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"]),
        helper.make_node("MatMul", ["x", "two_thousand"], ["level"]),
        helper.make_node("Sub", ["product", "level"], ["y"]),
    ]
    level = np.full((16, 4), 2000.0, np.float32)
    write_graph(export / "model.onnx", LINEAR, nodes, {"w": base, "two_thousand": level})
    write_export(export, LINEAR, requests_for(export, LINEAR))
    half = measured(export, LINEAR, "openvino:fp16").outputs[0]
    for name in ("convert", "measure"):
        shutil.rmtree(tmp_path / name)
    exact = measured(export, LINEAR, "onnxruntime:fp32").outputs[0]
    assert half.max_relative > 0.05 > exact.max_relative * 2.5
    assert half.cosine < 0.999 < exact.cosine


def test_weights_that_fp16_cannot_hold_are_no_fp16_artefact(tmp_path):
    export = tmp_path / "export"
    values = weights()
    values[3, 2] = 3e6
    write_linear(export, values)
    write_export(export, LINEAR, requests_for(export, LINEAR))
    with pytest.raises(
        BuildError, match=r"only 0 of 64 weights in fp16: the others are in tensors with values beyond 65504"
    ):
        measured(export, LINEAR, "openvino:fp16")


def test_nan_is_counted_only_where_the_source_has_none(tmp_path):
    export = tmp_path / "export"
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    write_graph(export / "model.onnx", ports, [helper.make_node("Sqrt", ["x"], ["y"])])
    requests = []
    for request in requests_for(export, ports):
        clean = {"y": np.nan_to_num(request.outputs["y"])}
        requests.append(Request(request.inputs, clean, request.rows))
    write_export(export, ports, requests)
    (error,) = measured(export, ports).outputs
    assert error.new_nonfinite == sum(int((request.inputs["x"] < 0).sum()) for request in requests) > 0


def test_labels_give_the_task_metric(tmp_path):
    export = tmp_path / "export"
    write_linear(export, weights())
    requests = []
    for request in requests_for(export, LINEAR):
        labels = request.outputs["y"].argmax(axis=-1)
        labels[0] = (labels[0] + 1) % 4
        requests.append(Request(request.inputs, request.outputs, request.rows, labels))
    write_export(export, LINEAR, requests)
    metric = measured(export, LINEAR).metric
    assert metric is not None
    assert (metric.name, metric.rows) == ("top1", 14)
    assert metric.source == metric.target == pytest.approx(10 / 14)


def test_strings_and_several_outputs(tmp_path):
    export = tmp_path / "export"
    ports = signature(["s:string:batch", "x:float32:batch,2"], ["t:string:batch", "n:int64:batch", "y:float32:batch,2"])
    nodes = [
        helper.make_node("Identity", ["s"], ["t"]),
        helper.make_node("ArgMax", ["x"], ["n"], axis=1, keepdims=0),
        helper.make_node("Exp", ["x"], ["y"]),
    ]
    write_graph(export / "model.onnx", ports, nodes)
    requests = []
    for seed, rows in enumerate((1, 2, 3)):
        x = np.random.default_rng(seed).standard_normal((rows, 2)).astype(np.float32)
        inputs = {"s": np.array([f"ö{seed}{i}" for i in range(rows)], dtype=object), "x": x}
        requests.append(Request(inputs, plain_answers(export, inputs, ports), rows))
    broken = dict(requests[0].outputs) | {"n": requests[0].outputs["n"] + 1}
    requests[0] = Request(requests[0].inputs, broken, 1)
    write_export(export, ports, requests, sizes=(1, 2, 3))
    found = measured(export, ports)
    assert [error.mismatches for error in found.outputs] == [0, 1, 0]
    assert found.batch.proven


def test_a_sample_that_the_target_does_not_run(tmp_path):
    export = tmp_path / "export"
    write_linear(export, weights())
    request = Request({"x": np.zeros((2, 15), np.float32)}, {"y": np.zeros((2, 4), np.float32)}, 2)
    write_export(export, LINEAR, [request])
    with pytest.raises(BuildError, match=r"onnxruntime:fp32 does not run a sample .*x float32\[2, 15\]") as caught:
        measured(export, LINEAR)
    assert "15" in caught.value.message.split("):")[1]
    assert caught.value.remedy


def test_silero_vad_with_a_scalar_and_a_state(tmp_path):
    """No batch axis in Triton's sense (the state's is the second, the rate is a scalar): one request, whole."""
    silero_vad = pytest.importorskip("silero_vad", reason="silero_vad is not installed")
    export = tmp_path / "export"
    export.mkdir()
    shutil.copy(Path(silero_vad.__file__).parent / "data" / "silero_vad_op18_ifless.onnx", export / "model.onnx")
    requests = []
    for rows in (1, 3):
        state = np.zeros((2, rows, 128), np.float32)
        inputs = {"input": random_inputs(LINEAR, 1)["x"].repeat(32, 1)[:, :512].repeat(rows, 0)}
        inputs |= {"sr": np.array(16000, np.int64), "state": state}
        requests.append(Request(inputs, plain_answers(export, inputs, SILERO)))
    write_export(export, SILERO, requests, proven=False)
    found = measured(export, SILERO)
    assert all(error.cosine > 0.9999 and not error.problem for error in found.outputs)
    assert [item.batch_size for item in found.latency] == [0]


def test_first_difference_finds_nothing_in_a_model_of_separate_rows(tmp_path):
    path = tmp_path / "export" / "model.onnx"
    write_linear(tmp_path / "export", weights())
    x = random_inputs(LINEAR, 2)["x"]
    assert first_difference(path, {"x": x}, [{"x": x[:1]}, {"x": x[1:]}]) is None


def test_first_difference_follows_rows_through_other_axes(tmp_path):
    """The rows lie on the second axis after a transpose; a softmax over that axis lets them see each other."""
    path = tmp_path / "export" / "model.onnx"
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,4"])
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], name="turn", perm=[1, 0]),
        helper.make_node("Softmax", ["turned"], ["soft"], name="soft", axis=1),
        helper.make_node("Transpose", ["soft"], ["y"], name="back", perm=[1, 0]),
    ]
    write_graph(path, ports, nodes)
    x = random_inputs(ports, 2)["x"]
    assert first_difference(path, {"x": x}, [{"x": x[:1]}, {"x": x[1:]}]) == "soft (Softmax)"


def test_rows_are_judged_alone_where_answers_depend_on_the_rows_beside_them() -> None:
    """As dynamic int8 does: one range for all rows of a run; the small row is only right beside the large one."""
    rows = np.asarray([[0.1, 0.2], [4.0, 8.0]], np.float32)
    whole = Request({"x": rows}, {"y": rows / 8.0}, rows=2)
    single = Request({"x": rows[:1]}, {"y": rows[:1] / 8.0}, rows=1)
    ports = signature(["x:float32:batch,2"], ["y:float32:batch,2"])

    def run(inputs: Any) -> Any:
        return {"y": inputs["x"] / np.abs(inputs["x"]).max()}

    together, _ = accuracy_of(run, ports, [whole])
    assert together[0].max_absolute == 0.0
    (alone,) = errors_alone(run, ports, [whole, single])
    assert alone[0].max_absolute == pytest.approx(1 - 0.025)
    assert alone[0].max_relative == pytest.approx(1 - 0.025), "by the magnitudes of all requests"
    assert list(errors_alone(run, ports, [single])) == []
    assert [item.inputs["x"].tolist() for item in rows_alone([single, whole])] == [rows[:1].tolist(), rows[1:].tolist()]
