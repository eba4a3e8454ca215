"""fp16 and bf16 graphs: what changes type, what does not, and that both forms compute the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_graphs import random_inputs, signature, write_graph

from builder.errors import BuildError
from builder.onnx_tools.precision import PrecisionJob
from builder.onnx_tools.precision.half import convert, emulate, overflowing_nodes
from builder.onnx_tools.running import open_plain, run_plain
from builder.tensors import Signature

PORTS = signature(["x:float32:batch,8"], ["y:float32:batch,8"])
HALF, FULL = TensorProto.FLOAT16, TensorProto.FLOAT


def job(precision: str = "fp16", ports: Signature = PORTS, opset: int = 22) -> PrecisionJob:
    return PrecisionJob(precision, "onnxruntime", ports, None, None, Path(), opset, 10)


def weights(*names: str, shape: tuple[int, ...] = (8, 8)) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {name: (generator.standard_normal(shape) / 3).astype(np.float32) for name in names}


def two_products(path: Path) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["y"], name="second"),
    ]
    return write_graph(path, PORTS, nodes, weights("w", "v"))


def converted(source: Path, keep: Sequence[str] = (), what: PrecisionJob | None = None) -> Any:
    """The graph; what `convert` writes has passed the checker with full type inference."""
    out = source.with_name("low.onnx")
    convert(source, out, what or job(), frozenset(keep))
    return onnx.load(out)


def run(path: Path, ports: Signature, inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    return run_plain(open_plain(path), [tensor.name for tensor in ports.outputs], inputs)


def nodes_of(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.node]


def types_of(model: Any) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def port_types(model: Any) -> list[tuple[str, int, list[Any]]]:
    ports = (*model.graph.input, *model.graph.output)
    return [
        (p.name, p.type.tensor_type.elem_type, [d.dim_param or d.dim_value for d in p.type.tensor_type.shape.dim])
        for p in ports
    ]


def test_only_the_borders_get_casts_and_the_ports_stay(tmp_path: Path) -> None:
    source = two_products(tmp_path / "m.onnx")
    model = converted(source)
    assert nodes_of(model) == ["Cast", "MatMul", "Relu", "MatMul", "Cast"]
    assert types_of(model) == {"w": HALF, "v": HALF}
    assert port_types(model) == port_types(onnx.load(source))
    assert [node.name for node in model.graph.node][1:4] == ["first", "Relu_1", "second"]


def test_a_kept_node_has_its_weights_and_its_values_in_fp32(tmp_path: Path) -> None:
    model = converted(two_products(tmp_path / "m.onnx"), ["second"])
    assert nodes_of(model) == ["Cast", "MatMul", "Relu", "Cast", "MatMul"]
    assert types_of(model) == {"w": HALF, "v": FULL}


def test_a_weight_that_both_kinds_read_is_stored_in_both_types(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="low"),
        helper.make_node("MatMul", ["a", "w"], ["y"], name="exact"),
    ]
    source = write_graph(tmp_path / "m.onnx", PORTS, nodes, weights("w"))
    model = converted(source, ["exact"])
    assert types_of(model) == {"w": FULL, "w__fp16": HALF}
    readers = {node.name: node.input[1] for node in model.graph.node if node.op_type == "MatMul"}
    assert readers == {"low": "w__fp16", "exact": "w"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_emulation_rounds_what_the_graph_rounds(tmp_path: Path, precision: str) -> None:
    """A chain of exact operations: what differs from fp32 is the rounding alone, and numpy can do it."""
    import ml_dtypes

    nodes = [
        helper.make_node("Add", ["x", "c"], ["a"], name="add"),
        helper.make_node("Mul", ["a", "d"], ["y"], name="mul"),
    ]
    constants = {"c": np.float32(1.1), "d": np.float32(3.3)}
    source = write_graph(tmp_path / "m.onnx", PORTS, nodes, constants)
    emulate(source, tmp_path / "low.onnx", job(precision), frozenset())
    inputs = random_inputs(PORTS, 4)
    low = np.float16 if precision == "fp16" else ml_dtypes.bfloat16

    def rounded(value: Any) -> np.ndarray:
        return np.asarray(value, np.float32).astype(low).astype(np.float32)

    expected = rounded(rounded(rounded(inputs["x"]) + rounded(1.1)) * rounded(3.3))
    assert np.array_equal(run(tmp_path / "low.onnx", PORTS, inputs)[0], expected)


def test_an_overflow_in_the_middle_shows_in_the_emulation_and_not_in_onnxruntime(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["large"], name="up"),
        helper.make_node("Mul", ["large", "small"], ["y"], name="down"),
    ]
    constants = {"big": np.float32(60000), "small": np.float32(1 / 60000)}
    source = write_graph(tmp_path / "m.onnx", PORTS, nodes, constants)
    inputs = {"x": np.full((1, 8), 3, np.float32)}
    converted(source)
    assert np.isfinite(run(tmp_path / "low.onnx", PORTS, inputs)[0]).all()
    emulate(source, tmp_path / "emulated.onnx", job(), frozenset())
    assert np.isinf(run(tmp_path / "emulated.onnx", PORTS, inputs)[0]).all()
    emulate(source, tmp_path / "kept.onnx", job(), frozenset({"up", "down"}))
    assert np.allclose(run(tmp_path / "kept.onnx", PORTS, inputs)[0], 3)


def test_a_constant_beyond_the_range_is_named_and_never_clamped(tmp_path: Path) -> None:
    constants = {"mask": np.asarray([-3.4028235e38] * 8, np.float32), "w": np.float32(2)}
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["a"], name="scale"),
        helper.make_node("Add", ["a", "mask"], ["y"], name="masked"),
    ]
    source = write_graph(tmp_path / "m.onnx", PORTS, nodes, constants)
    assert overflowing_nodes(source, job()) == (("masked", "Add"),)
    assert overflowing_nodes(source, job("bf16")) == (("masked", "Add"),)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in converted(source).graph.initializer}
    assert np.isneginf(stored["mask"]).all()
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in converted(source, ["masked"]).graph.initializer}
    assert kept["mask"].dtype == np.float32
    assert kept["mask"][0] == constants["mask"][0]


def test_arithmetic_on_sizes_stays_exact(tmp_path: Path) -> None:
    """5001 is no float16: a model that computes with sizes must not round them."""
    ports = signature(["x:float32:batch,length"], ["y:float32:batch,length"])
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], name="shape"),
        helper.make_node("Cast", ["shape"], ["sizes"], name="as_float", to=FULL),
        helper.make_node("Mul", ["sizes", "one"], ["same"], name="times"),
        helper.make_node("Cast", ["same"], ["again"], name="as_int", to=TensorProto.INT64),
        helper.make_node("Expand", ["x", "again"], ["wide"], name="expand"),
        helper.make_node("Mul", ["wide", "half"], ["y"], name="halve"),
    ]
    source = write_graph(tmp_path / "m.onnx", ports, nodes, {"one": np.float32(1), "half": np.float32(0.5)})
    model = converted(source, what=job(ports=ports))
    casts = {node.name: helper.get_node_attr_value(node, "to") for node in model.graph.node if node.op_type == "Cast"}
    assert (casts["as_float"], types_of(model)) == (FULL, {"one": FULL, "half": HALF})
    inputs = {"x": np.ones((1, 5001), np.float32)}
    assert run(tmp_path / "low.onnx", ports, inputs)[0].shape == (1, 5001)


def test_ports_whose_type_is_fixed_stay_fp32(tmp_path: Path) -> None:
    ports = signature(["x:float32:batch,1,4,4"], ["y:float32:batch,1,8,8", "k:int64:batch,1,8,1"])
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["r"], name="resize", mode="linear"),
        helper.make_node("LayerNormalization", ["r", "g"], ["y", "mean", "deviation"], name="norm"),
        helper.make_node("ArgMax", ["y"], ["k"], name="best", axis=-1, keepdims=1),
    ]
    constants = {"scales": np.asarray([1, 1, 2, 2], np.float32), "g": np.ones(8, np.float32)}
    source = write_graph(tmp_path / "m.onnx", ports, nodes, constants)
    for precision in ("fp16", "bf16"):
        model = converted(source, what=job(precision, ports))
        assert types_of(model)["scales"] == FULL
        assert types_of(model)["g"] != FULL


def test_what_is_inside_an_if_stays_and_reads_fp32(tmp_path: Path) -> None:
    def branch(operator: str) -> Any:
        out = helper.make_tensor_value_info("out", FULL, None)
        return helper.make_graph([helper.make_node(operator, ["a", "v"], ["out"])], operator, [], [out])

    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("ReduceSum", ["a"], ["sum"], name="sum", keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"], name="positive"),
        helper.make_node("If", ["positive"], ["b"], name="if", then_branch=branch("Add"), else_branch=branch("Sub")),
        helper.make_node("MatMul", ["b", "w"], ["y"], name="last"),
    ]
    source = write_graph(tmp_path / "m.onnx", PORTS, nodes, weights("w", "v") | {"zero": np.float32(0)})
    model = converted(source)
    assert types_of(model)["v"] == FULL
    assert types_of(model)["w"] == HALF
    inputs = random_inputs(PORTS, 8)
    exact, low = run(source, PORTS, inputs)[0], run(tmp_path / "low.onnx", PORTS, inputs)[0]
    assert np.abs(exact - low).max() < 5e-3 * np.abs(exact).max()


def test_onnxruntimes_own_operators_are_lowered_too(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("FastGelu", ["a"], ["y"], name="gelu", domain="com.microsoft"),
    ]
    source = write_graph(tmp_path / "m.onnx", PORTS, nodes, weights("w"))
    assert nodes_of(converted(source)) == ["Cast", "MatMul", "FastGelu", "Cast"]
    inputs = random_inputs(PORTS, 4)
    assert np.allclose(run(tmp_path / "low.onnx", PORTS, inputs)[0], run(source, PORTS, inputs)[0], atol=5e-3)


def test_constants_and_functions_of_the_file_are_stored_weights_like_others(tmp_path: Path) -> None:
    body = [helper.make_node("Mul", ["a", "b"], ["c"])]
    function = helper.make_function("local", "Times", ["a", "b"], ["c"], body, [helper.make_opsetid("", 18)])
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights("w")["w"])),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Times", ["a", "a"], ["y"], domain="local"),
    ]
    source = write_graph(tmp_path / "m.onnx", PORTS, nodes)
    model = onnx.load(source)
    model.functions.append(function)
    onnx.save(model, source)
    low = converted(source)
    assert nodes_of(low) == ["Cast", "MatMul", "Mul", "Cast"]
    assert types_of(low) == {"w": HALF}


def test_weights_outside_the_file_stay_outside_and_are_halved(tmp_path: Path) -> None:
    source = two_products(tmp_path / "inside.onnx")
    outside = tmp_path / "outside" / "m.onnx"
    outside.parent.mkdir()
    onnx.save(onnx.load(source), outside, save_as_external_data=True, location="w.bin", size_threshold=0)
    out = tmp_path / "low" / "model.onnx"
    out.parent.mkdir()
    convert(outside, out, job(), frozenset({"second"}))
    sizes = {
        tensor.name: int(next(entry.value for entry in tensor.external_data if entry.key == "length"))
        for tensor in onnx.load(out, load_external_data=False).graph.initializer
    }
    assert sizes == {"w": 2 * 64, "v": 4 * 64}
    convert(source, tmp_path / "low.onnx", job(), frozenset({"second"}))
    inputs = random_inputs(PORTS, 4)
    assert np.array_equal(run(out, PORTS, inputs)[0], run(tmp_path / "low.onnx", PORTS, inputs)[0])


def test_bf16_convolutions_need_the_opset_that_has_them(tmp_path: Path) -> None:
    ports = signature(["x:float32:batch,1,6,6"], ["y:float32:batch,2,4,4"])
    nodes = [helper.make_node("Conv", ["x", "k"], ["y"], name="conv")]
    source = write_graph(tmp_path / "m.onnx", ports, nodes, weights("k", shape=(2, 1, 3, 3)))
    model = converted(source, what=job("bf16", ports))
    assert types_of(model) == {"k": TensorProto.BFLOAT16}
    with pytest.raises(BuildError, match="no operator of the model has a bf16 form in its opset"):
        converted(source, what=job("bf16", ports, opset=18))


def test_an_opset_in_which_onnxruntime_lacks_an_operator_is_not_needed(tmp_path: Path) -> None:
    ports = signature(["x:float32:batch,2,6,6"], ["y:float32:batch,2,1,1"])
    nodes = [
        helper.make_node("Mul", ["x", "k"], ["a"], name="scale"),
        helper.make_node("GlobalLpPool", ["a"], ["y"], name="pool"),
    ]
    source = write_graph(tmp_path / "m.onnx", ports, nodes, weights("k", shape=(2, 1, 1)))
    model = converted(source, what=job("bf16", ports))
    assert model.opset_import[0].version == 18
    assert types_of(model) == {"k": TensorProto.BFLOAT16}


def test_a_model_of_other_types_has_nothing_to_lower(tmp_path: Path) -> None:
    ports = signature(["x:float64:batch,4"], ["y:float64:batch,4"])
    source = write_graph(tmp_path / "m.onnx", ports, [helper.make_node("Add", ["x", "x"], ["y"])])
    with pytest.raises(BuildError, match="fp16") as caught:
        converted(source, what=job(ports=ports))
    assert "remove the fp16 targets" in caught.value.remedy


def test_a_model_that_computes_inside_a_node_says_so(tmp_path: Path) -> None:
    """As the voice detector of silero-vad, whose graph is one If."""
    ports = signature(["x:float32:batch,8", "c:bool:"], ["y:float32:batch,8"])
    result = helper.make_tensor_value_info("r", FULL, ["batch", 8])
    branches = [
        helper.make_graph([helper.make_node(operator, ["x"], ["r"])], operator, [], [result])
        for operator in ("Relu", "Tanh")
    ]
    node = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    source = write_graph(tmp_path / "m.onnx", ports, [node])
    with pytest.raises(BuildError, match="computes inside If, and what is inside of a node stays in fp32") as caught:
        converted(source, what=job(ports=ports))
    assert "export the branch that is used without If" in caught.value.remedy


def half_product(path: Path) -> Path:
    """A product whose input, weights and output are fp16."""
    ports = signature(["x:float16:batch,8"], ["y:float16:batch,8"])
    return write_graph(path, ports, [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.eye(8, dtype=np.float16)})


def test_a_model_that_comes_in_the_precision_stays_as_it_is(tmp_path: Path) -> None:
    source = half_product(tmp_path / "m.onnx")
    convert(source, tmp_path / "low.onnx", job(), frozenset())
    assert (tmp_path / "low.onnx").read_bytes() == source.read_bytes()
    with pytest.raises(BuildError, match="computes in float16, and only fp32 can be made bf16"):
        convert(source, tmp_path / "low.onnx", job("bf16"), frozenset())


@pytest.mark.parametrize("axes", [(1, 0, 2), (1, 2, 0), (0, 2, 1)])
def test_onnxruntime_loads_a_batch_that_is_transposed_and_multiplied(tmp_path: Path, axes: tuple[int, ...]) -> None:
    """In fp16 it fuses some of these into what makes it crash, and a crash here would be the server's."""
    ports = signature(["x:float32:batch,8,8"], ["y:float32:other,rows,8"])
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], name="transpose", perm=axes),
        helper.make_node("MatMul", ["t", "w"], ["y"], name="product"),
    ]
    write_graph(tmp_path / "m.onnx", ports, nodes, weights("w"))
    convert(tmp_path / "m.onnx", tmp_path / "low.onnx", job(ports=ports), frozenset())
    load = "import sys, onnxruntime as o; o.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    ran = subprocess.run(
        [sys.executable, "-c", load, tmp_path / "low.onnx"], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lowered = {node.input[0] for node in onnx.load(tmp_path / "low.onnx").graph.node if node.op_type == "Transpose"}
    assert lowered == ({"x__fp16"} if axes == (0, 2, 1) else {"x"})


def test_a_model_of_nothing_but_what_tensorrt_lacks_says_so(tmp_path: Path) -> None:
    source = write_graph(tmp_path / "m.onnx", PORTS, [helper.make_node("HardSwish", ["x"], ["y"], name="swish")])
    with pytest.raises(BuildError, match="tensorrt lacks HardSwish in bf16, and the model has nothing else"):
        convert(source, tmp_path / "low.onnx", replace(job("bf16"), dialect="tensorrt"), frozenset())


def test_tensorrt_gets_its_bf16_without_the_operators_it_lacks(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="product"),
        helper.make_node("HardSwish", ["a"], ["y"], name="swish"),
    ]
    source = write_graph(tmp_path / "m.onnx", PORTS, nodes, weights("w"))
    for dialect, before in (("tensorrt", "Cast"), ("onnx", "MatMul")):
        convert(source, tmp_path / "low.onnx", replace(job("bf16"), dialect=dialect), frozenset())
        made = {name: node for node in onnx.load(tmp_path / "low.onnx").graph.node for name in node.output}
        (swish,) = [node for node in made.values() if node.op_type == "HardSwish"]
        assert made[swish.input[0]].op_type == before
