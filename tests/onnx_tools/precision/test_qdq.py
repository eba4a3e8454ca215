"""The forms of static int8: what stands behind a convolution, and biases that make up for rounded weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_tools.precision.test_int8 import answers, calibration, job, out_file
from small_graphs import signature, write_graph

from builder.measurement import CALIBRATION_TABLE
from builder.onnx_tools.precision.calibration import CalibrationTable
from builder.onnx_tools.precision.int8 import convert
from builder.onnx_tools.precision.proof import prove_as_run
from builder.records import read_record
from builder.tensors import Signature

PORTS = signature(["x:float32:batch,8,16,16"], ["y:float32:batch,8,16,16"])
NOTHING: frozenset[str] = frozenset()


def mobile(folder: Path) -> Path:
    """Convolutions with a hard swish between, the middle one depthwise and without a bias, as mobile networks are."""
    rng = np.random.default_rng(0)
    three: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4}
    nodes = [
        helper.make_node("Conv", ["x", "a", "ab"], ["p"], name="expand", kernel_shape=[1, 1]),
        helper.make_node("HardSwish", ["p"], ["ps"], name="swish1"),
        helper.make_node("Conv", ["ps", "b"], ["q"], name="depth", group=16, **three),
        helper.make_node("HardSwish", ["q"], ["qs"], name="swish2"),
        helper.make_node("Conv", ["qs", "c", "cb"], ["r"], name="project", kernel_shape=[1, 1]),
        helper.make_node("Add", ["x", "r"], ["y"], name="sum"),
    ]
    weights = {
        "a": rng.standard_normal((16, 8, 1, 1)),
        "ab": rng.standard_normal(16),
        "b": rng.standard_normal((16, 1, 3, 3)) * np.array([4.0, *[0.3] * 8]).reshape(3, 3),
        "c": rng.standard_normal((8, 16, 1, 1)),
        "cb": rng.standard_normal(8),
    }
    return write_graph(folder / "m.onnx", PORTS, nodes, {k: v.astype(np.float32) for k, v in weights.items()})


def rows(count: int, seed: int = 1) -> np.ndarray:
    return np.abs(np.random.default_rng(seed).standard_normal((count, 8, 16, 16))).astype(np.float32)


@pytest.mark.parametrize("dialect", ["onnx", "onnxruntime", "tensorrt"])
def test_rounded_weights_shift_no_channel(tmp_path: Path, dialect: str) -> None:
    source, samples, inputs = mobile(tmp_path), calibration(rows(32), name="x"), {"x": rows(32, seed=2)}
    exact = answers(source, inputs, ("y",))
    shift, error = {}, {}
    for word in ("corrected", "plain"):
        path = out_file(tmp_path, word)
        convert(source, path, job(tmp_path / word, samples, PORTS, dialect), NOTHING)
        if word == "corrected":
            table = read_record(CalibrationTable, path.parent / CALIBRATION_TABLE)
            assert sorted(table.means) == ["ps", "qs", "x"]
            assert table.means["x"] == pytest.approx(rows(32).mean(axis=(0, 2, 3)), rel=1e-5)
        else:
            (cached,) = (tmp_path / word / "shared" / "calibration").iterdir()
            document = json.loads(cached.read_text()) | {"means": {}}
            cached.unlink()
            cached.write_text(json.dumps(document))
            convert(source, path, job(tmp_path / word, samples, PORTS, dialect), NOTHING)
        off = answers(path, inputs, ("y",)) - exact
        shift[word], error[word] = np.abs(off.mean(axis=(0, 2, 3))).max(), np.square(off).mean()
    # What the rounded activations shift is left, and around zero their steps are twice as large.
    assert shift["corrected"] < (1.0 if dialect == "tensorrt" else 0.7) * shift["plain"]
    assert error["corrected"] < error["plain"]


def pairs(path: Path) -> set[str]:
    return {node.input[0] for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"}


def test_onnxruntime_computes_in_int8_where_no_relu_follows(tmp_path: Path) -> None:
    """Its integer convolution gives 8 bits, so a pair stands behind each; OpenVINO is faster without."""
    source, samples = mobile(tmp_path), calibration(rows(16), name="x")
    found = {}
    for dialect in ("onnx", "onnxruntime"):
        path = out_file(tmp_path, dialect)
        convert(source, path, job(tmp_path, samples, PORTS, dialect), NOTHING)
        found[dialect] = pairs(path)
        onnx.checker.check_model(onnx.load(path), full_check=True)
    assert found["onnxruntime"] == {"x", "p", "ps", "q", "qs", "r"}
    assert found["onnx"] == {"x", "ps", "qs"}
    proof = prove_as_run(tmp_path / "onnxruntime" / "model.onnx", ("CPUExecutionProvider",))
    assert dict(proof.compute) == {"int8": 1.0}


def test_what_leaves_the_model_stays_as_exact_as_it_is(tmp_path: Path) -> None:
    """An output of the model is what the source gives, not 256 steps of it."""
    ports = Signature(
        PORTS.inputs, signature(["x:float32:1"], ["r:float32:batch,8,16,16", "y:float32:batch,8,16,16"]).outputs
    )
    model = onnx.load(mobile(tmp_path))
    model.graph.output.insert(0, helper.make_tensor_value_info("r", 1, ["batch", 8, 16, 16]))
    onnx.save(model, tmp_path / "two.onnx")
    path = out_file(tmp_path)
    convert(tmp_path / "two.onnx", path, job(tmp_path, calibration(rows(16), name="x"), ports, "onnxruntime"), NOTHING)
    assert "r" not in pairs(path)


def test_one_large_convolution_between_small_matrices_is_static(tmp_path: Path) -> None:
    """Dynamic int8 would leave it, and so most of the work, in fp32."""
    rng = np.random.default_rng(0)
    ports = signature(["x:float32:batch,4,16"], ["y:float32:batch,4"])
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Conv", ["p", "c"], ["q"], name="conv", kernel_shape=[5]),
        helper.make_node("ReduceMax", ["q", "axis"], ["m"], name="most", keepdims=0),
        helper.make_node("MatMul", ["m", "b"], ["y"], name="last"),
    ]
    weights = {
        "a": rng.standard_normal((16, 16)),
        "c": rng.standard_normal((64, 4, 5)),
        "b": rng.standard_normal((64, 4)),
    }
    stored: dict[str, Any] = {name: value.astype(np.float32) for name, value in weights.items()}
    source = write_graph(tmp_path / "m.onnx", ports, nodes, stored | {"axis": np.asarray([2], np.int64)})
    samples = calibration(rng.standard_normal((16, 4, 16)).astype(np.float32), name="x")
    report = convert(source, out_file(tmp_path), job(tmp_path, samples, ports, "onnxruntime"), NOTHING)
    assert (report.mode, report.quantized_nodes) == ("static", 3)


@pytest.mark.parametrize("operator", ["ReduceMax", "ReduceMin"])
def test_openvino_multiplies_with_the_quantised_extreme_that_onnxruntime_has(tmp_path: Path, operator: str) -> None:
    """With a pair behind the reduction alone its products are wrong; the same pair in front changes no number."""
    import openvino

    rng = np.random.default_rng(0)
    ports = signature(["x:float32:batch,8,16,16"], ["y:float32:batch,4"])
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["q"], name="conv", kernel_shape=[3, 3]),
        helper.make_node(operator, ["q", "axes"], ["m"], name="most", keepdims=0),
        helper.make_node("MatMul", ["m", "b"], ["y"], name="last"),
    ]
    weights = {"c": rng.standard_normal((32, 8, 3, 3)), "b": rng.standard_normal((32, 4))}
    stored: dict[str, Any] = {name: value.astype(np.float32) for name, value in weights.items()}
    source = write_graph(tmp_path / "m.onnx", ports, nodes, stored | {"axes": np.asarray([2, 3], np.int64)})
    path = out_file(tmp_path)
    convert(source, path, job(tmp_path, calibration(rows(16), name="x"), ports), NOTHING)
    assert pairs(path) == {"x", "q", "m"}
    made = onnx.load(path)
    onnx.checker.check_model(made, full_check=True)
    inputs = {"x": rows(8, seed=2)}
    exact, right = answers(source, inputs, ("y",)), answers(path, inputs, ("y",))
    got = openvino.compile_model(path, "CPU")(inputs)[0]
    assert np.abs(right - exact).max() < 0.05 * np.abs(exact).max()
    assert np.abs(got - right).max() < 0.02 * np.abs(exact).max()
