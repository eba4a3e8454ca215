"""From an export to the graph that the backends take: precision, the nodes that stay, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import planted_models
import pytest
import tiny_models
from onnx import helper
from small_graphs import plain_answers, random_inputs, requests_for, signature, write_export, write_graph

from builder.cache import Cache
from builder.compare import compare_outputs
from builder.errors import BuildError
from builder.measurement import (
    CALIBRATION_FILE,
    EXPORT_FILE,
    ONNX_FILE,
    PREPARE_FILE,
    ExportReport,
    KeptNode,
    PrepareReport,
)
from builder.onnx_tools.precision import PrecisionJob
from builder.onnx_tools.precision.search import Found, Verdict
from builder.onnx_tools.reading import read_onnx
from builder.prepare import _lacking_notes, _search_notes, has_nothing_to_do, run_prepare
from builder.records import read_record, write_record
from builder.samples import Request, save_requests
from builder.tensors import Signature
from builder.work import Prepare, Quantization, Search

NORMED = signature(["x:float32:batch,2,6,6"], ["y:float32:batch,3,4,4"])
DRIFTING = signature(["x:float32:batch,4"], ["y:float32:batch,3", "z:float32:batch,3"])
GATES = {"max_relative_error": 0.02, "min_cosine": 0.999, "metric": None, "max_drop": None}


def prepare_work(precision: str = "fp16", budget_s: float = 60, **gates: Any) -> Prepare:
    search = None if precision == "fp32" else Search(GATES | gates, budget_s)
    return Prepare("e", precision, "onnx", False, None, search, 18, 9, {}, {}, "")


def drifting_beside_another(path: Path) -> Path:
    even = np.full((4, 3), 1000, np.float32)
    weights = {"w": even + np.float32(0.2) * tiny_models.weights(), "v": even, "u": tiny_models.weights(1)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["large"]),
        helper.make_node("MatMul", ["x", "v"], ["nearly"]),
        helper.make_node("Sub", ["large", "nearly"], ["y"]),
        helper.make_node("MatMul", ["x", "u"], ["z"]),
    ]
    return write_graph(path, DRIFTING, nodes, weights)


def convolution_and_norm(path: Path) -> Path:
    generator = np.random.default_rng(0)
    weights = {name: np.abs(generator.standard_normal(3)).astype(np.float32) for name in ("g", "b", "m", "v")}
    weights["k"] = generator.standard_normal((3, 2, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["y"], name="norm"),
    ]
    return write_graph(path, NORMED, nodes, weights)


def prepared(
    tmp_path: Path,
    ports: Signature,
    make: Callable[[Path], Any],
    work: Prepare,
    *,
    answers: Callable[[Path], Any] | None = None,
    applicable: tuple[str, ...] = (),
) -> tuple[Path, PrepareReport, Any]:
    """The prepared folder, its report, and what making the model returned; `answers` makes the source, if another."""
    cache = Cache(tmp_path / "cache")
    export = cache.folder("export", "e")
    source = tmp_path / "source" if answers else export
    made = make(export / ONNX_FILE)
    if answers:
        answers(source / ONNX_FILE)
    write_export(export, ports, requests_for(source, ports))
    report = read_record(ExportReport, export / EXPORT_FILE)
    write_record(export / EXPORT_FILE, replace(report, applicable=applicable))
    out = tmp_path / "work" / "out"
    out.mkdir(parents=True)
    run_prepare(work, cache, out)
    assert sorted(path.name for path in out.parent.iterdir()) == ["out"], "scratch files were left"
    return out, read_record(PrepareReport, out / PREPARE_FILE), made


def kept_nodes(report: PrepareReport) -> set[str]:
    return {node.name for node in report.kept_fp32}


@pytest.mark.parametrize("plant", [planted_models.chain, planted_models.apart])
def test_exactly_the_three_overflowing_nodes_stay_in_fp32(
    tmp_path: Path, plant: Callable[[Path], frozenset[str]]
) -> None:
    out, report, planted = prepared(tmp_path, planted_models.PORTS, plant, prepare_work())
    assert kept_nodes(report) == planted
    assert all(node.gain > 5 for node in report.kept_fp32), "without any of them the gates are missed by far"
    assert report.notes == ()
    graph = onnx.load(out / ONNX_FILE).graph
    operators = {node.name: node.op_type for node in graph.node}
    assert {node.name: node.operator for node in report.kept_fp32} == {name: operators[name] for name in planted}
    assert 55 <= sum(node.op_type != "Cast" for node in graph.node) <= 65


def test_another_search_finds_the_same(tmp_path: Path) -> None:
    reports = [
        prepared(tmp_path / word, planted_models.PORTS, planted_models.chain, prepare_work())[1] for word in ("a", "b")
    ]
    assert reports[0] == reports[1]


def test_a_graph_that_meets_its_gates_keeps_nothing(tmp_path: Path) -> None:
    source = tmp_path / "cache" / "export" / "e" / ONNX_FILE
    out, report, _ = prepared(tmp_path, tiny_models.LINEAR, tiny_models.linear, prepare_work())
    assert report == PrepareReport("fp16", "onnx")
    weights = {tensor.name: tensor.data_type for tensor in onnx.load(out / ONNX_FILE).graph.initializer}
    assert weights == {"w": onnx.TensorProto.FLOAT16}
    assert onnx.load(source).graph.initializer[0].data_type == onnx.TensorProto.FLOAT


def test_a_tolerance_decides_what_stays(tmp_path: Path) -> None:
    """Products are rounded to 16 bits of which their difference needs the last ones; the other output does not."""
    strict = prepared(tmp_path / "strict", DRIFTING, drifting_beside_another, prepare_work())[1]
    loose = prepare_work(max_relative_error=1e3, min_cosine=-1.0)
    assert kept_nodes(prepared(tmp_path / "loose", DRIFTING, drifting_beside_another, loose)[1]) == set()
    assert kept_nodes(strict) == {"MatMul_0", "MatMul_1", "Sub_2"}, "unnamed nodes got names"
    assert all(node.gain > 0 for node in strict.kept_fp32)


def test_gates_that_only_fp32_meets_are_a_failure_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="only good enough with every node in fp32: nothing is left for fp16"):
        prepared(tmp_path, tiny_models.LINEAR, tiny_models.drifting, prepare_work())


def test_gates_that_nothing_meets_leave_a_graph_and_a_true_note(tmp_path: Path) -> None:
    """Not even fp32 is exact to the last bit of the source: here the source's answers are another model's."""
    out, report, _ = prepared(
        tmp_path, tiny_models.LINEAR, tiny_models.linear, prepare_work(), answers=tiny_models.twice
    )
    assert (out / ONNX_FILE).is_file()
    assert len(report.notes) == 1
    assert report.notes[0].startswith("fp16 misses the gates: with the best set of nodes in fp32 its worst error is")
    assert "no set of nodes kept in fp32 helps" in report.notes[0]


def test_without_time_only_constants_beyond_the_range_stay(tmp_path: Path) -> None:
    out, report, planted = prepared(tmp_path, planted_models.PORTS, planted_models.apart, prepare_work(budget_s=0))
    assert kept_nodes(report) == planted
    assert out.is_dir()
    _, chained, _ = prepared(tmp_path / "chain", planted_models.PORTS, planted_models.chain, prepare_work(budget_s=0))
    assert (chained.kept_fp32, chained.notes) == ((), ())


def test_time_that_is_not_enough_is_said(tmp_path: Path) -> None:
    _, report, _ = prepared(tmp_path, planted_models.PORTS, planted_models.chain, prepare_work(budget_s=1e-6))
    assert len(report.notes) == 1
    assert "none that does was found within the 1e-06 s of accuracy: {search_budget_s: …}" in report.notes[0]


def test_a_search_that_ended_early_is_not_said_to_have_used_up_its_time() -> None:
    """It ends where the next trial would not fit into what is left."""
    found = Found((KeptNode("n", "Mul", 2.0),), Verdict(passes=True, excess=0.5), finished=False)
    (said,) = _search_notes("int8", Search({}, 120), found)
    assert said.startswith("fewer nodes in fp32 might do for int8")
    assert said.endswith("to know it would have taken longer than the 120 s of accuracy: {search_budget_s: …}")


def test_operators_without_a_form_in_the_precision_are_counted(tmp_path: Path) -> None:
    ports = signature(["x:float32:batch,2,4,4"], ["y:float32:batch,2,8,8"])
    nodes = [
        helper.make_node("Conv", ["x", "c"], ["m"], name="conv"),
        helper.make_node("ConvTranspose", ["m", "t"], ["y"], name="grow", strides=[2, 2]),
    ]
    weights = {"c": np.ones((2, 2, 1, 1), np.float32), "t": np.ones((2, 2, 2, 2), np.float32)}
    path = write_graph(tmp_path / "m.onnx", ports, nodes, weights)

    def notes(precision: str, dialect: str) -> tuple[str, ...]:
        return _lacking_notes(read_onnx(path), PrecisionJob(precision, dialect, ports, None, None, tmp_path, 18, 9))

    assert notes("int8", "onnx") == ("what has no int8 form stays in fp32: 1 ConvTranspose",)
    assert notes("bf16", "tensorrt") == ("what has no bf16 form stays in fp32: 1 ConvTranspose",)
    assert notes("fp16", "tensorrt") == ()


def test_bf16_has_the_range_of_fp32(tmp_path: Path) -> None:
    gates = {"max_relative_error": 0.2, "min_cosine": 0.99}
    _, report, _ = prepared(tmp_path, planted_models.PORTS, planted_models.chain, prepare_work("bf16", **gates))
    assert report.kept_fp32 == ()


def test_what_cannot_be_had_in_the_precision_fails_with_a_remedy(tmp_path: Path) -> None:
    ports = signature(["x:float64:batch,4"], ["y:float64:batch,4"])
    with pytest.raises(BuildError, match="the model computes in double, and only fp32 can be made fp16") as caught:
        prepared(tmp_path, ports, tiny_models.doubles, prepare_work())
    assert "remove the fp16 targets" in caught.value.remedy


def test_fp32_has_nothing_to_do_unless_a_transform_applies(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    export = cache.folder("export", "e")
    tiny_models.linear(export / ONNX_FILE)
    write_export(export, tiny_models.LINEAR, requests_for(export, tiny_models.LINEAR))
    report = read_record(ExportReport, export / EXPORT_FILE)
    optimising = replace(prepare_work("fp32"), optimize=True)
    assert has_nothing_to_do(prepare_work("fp32"), cache)
    assert has_nothing_to_do(optimising, cache)
    assert not has_nothing_to_do(prepare_work("fp16"), cache)
    write_record(export / EXPORT_FILE, replace(report, applicable=("fuse_transformer",)))
    assert has_nothing_to_do(optimising, cache), "it makes operators that only onnxruntime has"
    assert not has_nothing_to_do(replace(optimising, dialect="onnxruntime"), cache)
    write_record(export / EXPORT_FILE, replace(report, applicable=("clean",)))
    assert not has_nothing_to_do(optimising, cache)
    assert has_nothing_to_do(prepare_work("fp32"), cache), "optimize: none"


def test_the_graph_is_optimised_before_it_is_lowered(tmp_path: Path) -> None:
    """A batch norm goes into the convolution before it; what is left is in fp16."""
    work = replace(prepare_work(), optimize=True)
    out, report, _ = prepared(tmp_path, NORMED, convolution_and_norm, work, applicable=("fuse_batch_norm",))
    assert [(item.name, item.kept) for item in report.transforms if item.name == "fuse_batch_norm"] == [
        ("fuse_batch_norm", True)
    ]
    graph = onnx.load(out / ONNX_FILE).graph
    assert [node.op_type for node in graph.node] == ["Cast", "Conv", "Cast"]
    assert {tensor.data_type for tensor in graph.initializer} == {onnx.TensorProto.FLOAT16}


def three_products(path: Path) -> Path:
    """The second one reads values of which one column is a hundred times larger than the others."""
    generator = np.random.default_rng(0)
    weights = {name: (generator.standard_normal((16, 16)) / 4).astype(np.float32) for name in ("a", "b", "c")}
    weights["a"][:, 3] *= 100
    weights["b"][3] /= 100
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["p"], name="first"),
        helper.make_node("MatMul", ["p", "b"], ["q"], name="second"),
        helper.make_node("MatMul", ["q", "c"], ["y"], name="third"),
    ]
    return write_graph(path, planted_models.PORTS, nodes, weights)


def quantized(tmp_path: Path, budget_s: float, gates: dict[str, Any]) -> tuple[float, PrepareReport]:
    """The largest relative error of the static int8 graph, and its report."""
    ports = planted_models.PORTS
    work = replace(prepare_work("int8", budget_s, **gates), quantization=Quantization("static", "minmax", True))
    rows = [Request(random_inputs(ports, 16, seed), {}, 16) for seed in range(20, 24)]
    cache = Cache(tmp_path / "cache")
    cache.folder("export", "e").mkdir(parents=True)
    save_requests(cache.folder("export", "e") / CALIBRATION_FILE, replace(ports, outputs=()), rows)
    out, report, _ = prepared(tmp_path, ports, three_products, work)
    requests = requests_for(cache.folder("export", "e"), ports)
    answers = [plain_answers(out, request.inputs, ports) for request in requests]
    errors = compare_outputs(ports, [request.outputs for request in requests], answers)
    return max(error.max_relative for error in errors), report


def test_the_search_serves_int8_too(tmp_path: Path) -> None:
    error, plain = quantized(tmp_path / "plain", 0, {})
    assert plain.quantization is not None
    assert (plain.kept_fp32, plain.quantization.quantized_nodes > 0) == ((), True)
    gates = {"max_relative_error": error / 3, "min_cosine": -1.0}
    better, report = quantized(tmp_path / "searched", 60, gates)
    assert better <= error / 3
    assert kept_nodes(report) == {"second"}


def branching(path: Path) -> Path:
    """A product, and one inside an If."""
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,3"])
    inner = [
        helper.make_graph(
            [helper.make_node(word, ["p", "p"], [word])], word, [], [helper.make_tensor_value_info(word, 1, None)]
        )
        for word in ("Add", "Mul")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
        helper.make_node("If", ["yes"], ["y"], name="choice", then_branch=inner[0], else_branch=inner[1]),
    ]
    return write_graph(path, ports, nodes, {"w": tiny_models.weights(), "yes": np.asarray(True)})


def test_what_stays_in_fp32_inside_an_if_is_said(tmp_path: Path) -> None:
    ports = signature(["x:float32:batch,4"], ["y:float32:batch,3"])
    _, report, _ = prepared(tmp_path, ports, branching, prepare_work("fp16"))
    assert report.notes == ("what is inside 1 If stays in fp32",)
