"""Ports read from files agree with what the libraries themselves report."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder.errors import SpecError
from builder.ports import inspect_ports, ports_json, read_ports
from builder.tensors import Signature, Tensor


def save_onnx(path: Path, nodes: list[onnx.NodeProto], inputs: list, outputs: list, constants: tuple = ()) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(v, n) for n, v in constants])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path


def info(name: str, dims: list | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, dims)


def runtime_ports(path: Path) -> dict:
    """What ONNX Runtime reports after loading, in the form of `ports_json`."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return {
        word: [[item.name, [dim if isinstance(dim, int) else -1 for dim in item.shape]] for item in items]
        for word, items in (("inputs", session.get_inputs()), ("outputs", session.get_outputs()))
    }


def file_ports(path: Path) -> dict:
    table = ports_json(inspect_ports(path))
    return {word: [[item["name"], item["shape"]] for item in table[word]] for word in ("inputs", "outputs")}


def linear(path: Path, out_dims: list | None, rows: int = 3) -> Path:
    weight = np.ones((rows, 1000), np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return save_onnx(path, [node], [info("x", ["batch", rows])], [info("y", out_dims)], (("w", weight),))


@pytest.mark.parametrize("out_dims", [["batch", 1000], ["batch", "classes"], [None, None], None])
def test_onnx_outputs_as_the_runtime_infers_them(tmp_path: Path, out_dims: list | None) -> None:
    path = linear(tmp_path / "model.onnx", out_dims)
    assert file_ports(path) == runtime_ports(path)
    assert file_ports(path)["outputs"] == [["y", [-1, 1000]]]


def test_onnx_signature_keeps_names_of_dims(tmp_path: Path) -> None:
    path = linear(tmp_path / "model.onnx", ["batch", 1000])
    assert read_ports(path) == Signature(
        (Tensor("x", "float32", ("batch", 3)),), (Tensor("y", "float32", ("batch", 1000)),)
    )


def test_onnx_types_scalars_and_overridable_initializers(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["s"], ["t"]), helper.make_node("Add", ["k", "c"], ["m"])]
    inputs = [info("s", ["n"], TensorProto.STRING), info("k", [], TensorProto.INT64), info("c", [], TensorProto.INT64)]
    outputs = [info("t", ["n"], TensorProto.STRING), info("m", [], TensorProto.INT64)]
    path = save_onnx(tmp_path / "model.onnx", nodes, inputs, outputs, (("c", np.array(1, np.int64)),))
    found = inspect_ports(path)
    assert found.signature == Signature(
        (Tensor("s", "string", ("n",)), Tensor("k", "int64", ())),
        (Tensor("t", "string", ("n",)), Tensor("m", "int64", ())),
    )
    assert found.initializers == ("c",)
    assert found.unranked == ()


def test_onnx_sequence_output_is_named_as_such(tmp_path: Path) -> None:
    out = helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, ["n"])
    path = save_onnx(
        tmp_path / "m.onnx", [helper.make_node("SplitToSequence", ["x"], ["parts"])], [info("x", ["n"])], [out]
    )
    assert [port.dtype for port in read_ports(path).outputs] == ["sequence"]


def test_onnx_data_dependent_dims_are_unsure(tmp_path: Path) -> None:
    path = save_onnx(
        tmp_path / "m.onnx", [helper.make_node("NonZero", ["x"], ["y"])], [info("x", ["n"])],
        [info("y", [1, "found"], TensorProto.INT64)],
    )  # fmt: skip
    assert inspect_ports(path).unsure == (("y", 1),)


def test_a_large_file_is_read_quickly(tmp_path: Path) -> None:
    """100 MB of weights inside the file; the rule is well under 1 s."""
    path = linear(tmp_path / "model.onnx", ["batch", 1000], rows=25_000)
    assert path.stat().st_size > 99_000_000
    read_ports(path)
    begin = time.perf_counter()
    found = read_ports(path)
    assert time.perf_counter() - begin < 1
    assert found.outputs == (Tensor("y", "float32", ("batch", 1000)),)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "sub/../../weights.bin"])
def test_external_data_that_is_missing_or_outside(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "1"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    path = linear(folder / "model.onnx", ["batch", 1000], rows=1)
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    onnx.external_data_helper.set_external_data(_with_raw(tensor), location)
    tensor.ClearField("raw_data")
    onnx.save(model, path)
    assert inspect_ports(path).missing_data == (location,)
    if location == "weights.bin":
        (folder / location).write_bytes(bytes(4000))
        assert inspect_ports(path).missing_data == ()


def _with_raw(tensor: onnx.TensorProto) -> onnx.TensorProto:
    tensor.raw_data = b"\0"
    return tensor


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x07", b"<net", b"<html></html>"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(SpecError):
        read_ports(path)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = linear(tmp_path / "model.onnx", ["batch", 1000])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SpecError, match="Protobuf parsing failed"):
        read_ports(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="failed to stat file model"):
        read_ports(tmp_path / "model.onnx")


def test_a_folder_of_that_name_holds_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").mkdir()
    linear(tmp_path / "model.onnx" / "model.onnx", ["batch", 1000])
    assert read_ports(tmp_path / "model.onnx").inputs[0].name == "x"


@pytest.fixture
def openvino_ir(tmp_path: Path) -> Path:
    openvino = pytest.importorskip("openvino")
    from openvino import opset13 as ops

    x = ops.parameter(openvino.PartialShape([-1, 3, openvino.Dimension(1, 8)]), np.float32, name="px")
    k = ops.parameter([2], np.int64, name="pk")
    flag = ops.parameter([-1], bool, name="pb")
    x.output(0).set_names({"x", "a,b"})
    k.output(0).set_names({"k"})
    flag.output(0).set_names({"flag"})
    y = ops.relu(x)
    z = ops.add(k, ops.constant(np.array([1, 2], np.int64)))
    y.output(0).set_names({"y"})
    half = ops.convert(y, "f16")
    results = [ops.result(y), ops.result(z), ops.result(half), ops.result(ops.logical_not(flag))]
    path = tmp_path / "model.xml"
    openvino.save_model(openvino.Model(results, [x, k, flag], "m"), path, compress_to_fp16=False)
    return path


def test_openvino_agrees_with_the_library(openvino_ir: Path) -> None:
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(openvino_ir)
    found = read_ports(openvino_ir)
    for ports, nodes in ((found.inputs, model.inputs), (found.outputs, model.outputs)):
        assert [list(port.wire_shape) for port in ports] == [
            [dim.get_length() if dim.is_static else -1 for dim in node.get_partial_shape()] for node in nodes
        ]
        assert [port.dtype for port in ports] == [
            "bool" if node.element_type.to_string() == "boolean" else str(np.dtype(node.element_type.to_dtype()))
            for node in nodes
        ]
        assert [port.name for port in ports] == [node.any_name if node.names else "" for node in nodes]


def test_openvino_without_its_weights(openvino_ir: Path) -> None:
    openvino_ir.with_suffix(".bin").unlink()
    assert inspect_ports(openvino_ir).missing_data == ("model.bin",)


def test_the_arguments_of_a_torchscript_file_without_torch(tmp_path: Path) -> None:
    from script_models import Doubling, Minus, Numbered, Taking, Words, save_script, torch

    networks = (Doubling(), Minus(), Numbered(), Taking(), Words(), torch.nn.Sequential(torch.nn.Linear(3, 2)))
    for place, network in enumerate(networks):
        path = save_script(network, tmp_path / f"{place}.pt")
        declared = torch.jit.load(str(path)).forward.schema.arguments[1:]
        wanted = [{"name": item.name, "type": item.type.annotation_str} for item in declared]
        assert ports_json(inspect_ports(path)) == {"arguments": wanted}


def test_a_module_that_does_not_say_self(tmp_path: Path) -> None:
    from script_models import save_script, torch

    class This(torch.nn.Module):  # type: ignore[misc]
        def forward(this, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return a - b

    path = save_script(This(), tmp_path / "model.pt")
    assert inspect_ports(path).arguments == (("a", "Tensor"), ("b", "Tensor"))


def test_a_traced_file_tells_its_arguments_too(tmp_path: Path) -> None:
    from script_models import Minus, torch

    traced = torch.jit.trace(Minus(), (torch.ones(1, 3), torch.ones(1, 3)))
    traced.save(str(tmp_path / "model.pt"))
    arguments = inspect_ports(tmp_path / "model.pt").arguments
    assert arguments == (("a", "Tensor"), ("b", "Tensor"))


def test_what_torch_save_wrote_is_no_torchscript(tmp_path: Path) -> None:
    from script_models import torch

    torch.save({"weight": torch.ones(2)}, tmp_path / "model.pt")
    with pytest.raises(SpecError, match=r"model\.pt is no TorchScript archive"):
        inspect_ports(tmp_path / "model.pt")
