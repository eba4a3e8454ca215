"""Every habit of tensors that a source may have: kept through export, or refused with the reason."""

import numpy as np
import onnx
import pytest
from export_models import F32, I64, export, model_of, plain_run, save, value, work_of
from onnx import TensorProto, helper

from builder.errors import SpecError
from builder.export import run_export
from builder.sources import onnx_model

TYPES = {
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
    "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32,
    "uint64": TensorProto.UINT64,
    "int8": TensorProto.INT8,
    "int16": TensorProto.INT16,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "string": TensorProto.STRING,
}


def failure(path, tmp_path, **options):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(SpecError) as caught:
        run_export(work_of(path, **options), out)
    return caught.value.message + " | " + caught.value.remedy


def passed(tmp_path, kind, shape=("batch", 4)):
    """A model that returns its input."""
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return save(model_of(nodes, [value("x", kind, shape)], [value("y", kind, shape)]), tmp_path / "m.onnx")


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_goes_in_and_out(tmp_path, dtype):
    report, requests, exported = export(passed(tmp_path, TYPES[dtype]), tmp_path / "out")
    assert report.signature.describe() == f"x {dtype}[batch,4] → y {dtype}[batch,4]"
    assert report.batch.proven
    for request in requests:
        assert (plain_run(exported, dict(request.inputs))[0] == request.outputs["y"]).all()


@pytest.mark.parametrize(
    ("kind", "reason"), [(TensorProto.BFLOAT16, "is bfloat16"), (TensorProto.COMPLEX64, "type 14")]
)
def test_types_that_cannot_be_served(tmp_path, kind, reason):
    assert reason in failure(passed(tmp_path, kind), tmp_path)


@pytest.mark.parametrize(
    ("shape", "batches"),
    [((), False), (("n",), True), ((3,), False), ((2, "n"), False), (("a", "b", "c", "d", "e"), True)],
)
def test_every_rank(tmp_path, shape, batches):
    report, requests, _ = export(passed(tmp_path, F32, shape), tmp_path / "out")
    assert report.signature.inputs[0].shape == shape
    assert report.signature.outputs[0].shape == shape
    assert report.batch.proven is batches
    assert {request.rows > 0 for request in requests} == {batches}


def without_elements(path):
    nodes = [helper.make_node("Slice", ["x", "begin", "end", "axis"], ["y"])]
    numbers = {"begin": np.array([4]), "end": np.array([4]), "axis": np.array([1])}
    return save(model_of(nodes, [value("x")], [value("y", shape=("batch", 0))], numbers), path)


def test_output_without_elements(tmp_path):
    path = without_elements(tmp_path / "m.onnx")
    report, requests, exported = export(path, tmp_path / "out")
    # A size of 0 in a file may as well mean any size.
    assert report.signature.outputs[0].wire_shape == (-1, -1)
    assert plain_run(exported, dict(requests[1].inputs))[0].shape[1] == 0


def test_one_of_many_outputs(tmp_path):
    names = [f"layer/{place}:0" for place in range(40)]
    nodes = [helper.make_node("Mul", ["x", f"w{place}"], [name]) for place, name in enumerate(names)]
    weights = {f"w{place}": np.float32([place] * 4) for place in range(40)}
    path = save(model_of(nodes, [value("x")], [value(name) for name in names], weights), tmp_path / "m.onnx")
    report, _, exported = export(path, tmp_path / "out", outputs=(names[7],))
    graph = onnx.load(str(exported)).graph
    assert [entry.name for entry in graph.output] == [names[7]]
    assert len(graph.node) == 1
    assert [tensor.name for tensor in graph.initializer] == ["w7"]
    assert [tensor.name for tensor in report.signature.outputs] == [names[7]]


@pytest.mark.parametrize(
    "name", ["a/b/c", "serving_default_x:0", "in put", '{"name": "x", "id": [1]}', "été", "x" * 200, "-1"]
)
def test_odd_names(tmp_path, name):
    nodes = [helper.make_node("Relu", [name], [f"out {name}"])]
    path = save(model_of(nodes, [value(name)], [value(f"out {name}")]), tmp_path / "m.onnx")
    report, requests, exported = export(path, tmp_path / "out")
    assert [tensor.name for tensor in report.signature.tensors] == [name, f"out {name}"]
    assert (plain_run(exported, dict(requests[0].inputs))[0] == requests[0].outputs[f"out {name}"]).all()


def zipped(tmp_path, *, strings=True, extra=()):
    """A classifier as skl2onnx writes it by default."""
    labels = {"classlabels_strings": ["cat", "dog", "cow"]} if strings else {"classlabels_int64s": [5, 6, 7]}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["chances"]),
        helper.make_node("ZipMap", ["chances"], ["probabilities"], domain="ai.onnx.ml", **labels),
        *extra,
    ]
    key = TensorProto.STRING if strings else I64
    kind = helper.make_map_type_proto(key, helper.make_tensor_type_proto(F32, None))
    output = helper.make_value_info("probabilities", helper.make_sequence_type_proto(kind))
    weights = {"w": np.arange(12, dtype=np.float32).reshape(4, 3)}
    model = model_of(nodes, [value("x")], [output], weights)
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    return save(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(("strings", "columns"), [(True, "cat, dog, cow"), (False, "5, 6, 7")])
def test_zip_map_is_removed(tmp_path, strings, columns):
    path = zipped(tmp_path, strings=strings)
    assert onnx_model.describe(path).signature.outputs[0].wire_shape == (-1, 3)
    report, requests, exported = export(path, tmp_path / "out")
    assert report.signature.describe() == "x float32[batch,4] → probabilities float32[batch,3]"
    assert any(f"(ZipMap), now a tensor; its columns are {columns}" in note for note in report.notes)
    assert "ZipMap" not in {node.op_type for node in onnx.load(str(exported)).graph.node}
    dictionaries = plain_run(path, dict(requests[2].inputs))[0]
    keys = columns.split(", ") if strings else [int(text) for text in columns.split(", ")]
    assert np.allclose(requests[2].outputs["probabilities"], [[row[key] for key in keys] for row in dictionaries])


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (helper.make_tensor_sequence_value_info("y", F32, None), "sequence"),
        (
            helper.make_value_info("y", helper.make_optional_type_proto(helper.make_tensor_type_proto(F32, None))),
            "optional",
        ),
        (helper.make_value_info("y", helper.make_map_type_proto(I64, helper.make_tensor_type_proto(F32, None))), "map"),
    ],
)
def test_outputs_that_are_no_tensors(tmp_path, made, word):
    operator = {"sequence": "SequenceConstruct", "optional": "Optional", "map": "CastMap"}[word]
    nodes = [helper.make_node(operator, ["x"], ["y"])]
    message = failure(save(model_of(nodes, [value("x")], [made]), tmp_path / "m.onnx"), tmp_path)
    assert f"output 'y' is a {word}; Triton serves tensors only" in message


@pytest.mark.parametrize("word", ["sequence", "optional"])
def test_inputs_that_are_no_tensors(tmp_path, word):
    inner = helper.make_tensor_type_proto(F32, None)
    kind = helper.make_sequence_type_proto(inner) if word == "sequence" else helper.make_optional_type_proto(inner)
    operator = {"sequence": "SequenceLength", "optional": "OptionalHasElement"}[word]
    nodes = [helper.make_node(operator, ["s"], ["y"])]
    output = value("y", I64 if word == "sequence" else TensorProto.BOOL, ())
    path = save(model_of(nodes, [helper.make_value_info("s", kind)], [output]), tmp_path / "m.onnx")
    assert f"input 's' is a {word}; Triton serves tensors only" in failure(path, tmp_path)


def test_inputs_with_a_default_are_served_with_it(tmp_path):
    """An initialiser listed as an input is ONNX's way to say that an input is optional."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["y"])]
    model = model_of(nodes, [value("x"), value("factor", F32, (1,))], [value("y")], {"factor": np.float32([3])})
    report, requests, _ = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert [tensor.name for tensor in report.signature.inputs] == ["x"]
    assert np.allclose(requests[0].outputs["y"], requests[0].inputs["x"] * 3)
    assert any("weights were also declared as inputs" in note for note in report.notes)


def several(path):
    """Odd names, most types, one file: what a live Triton has to take at once."""
    kinds = {
        "text:0": "string",
        "a/b": "int32",
        "in put": "uint8",
        '{"x": 1}': "bool",
        "half": "float16",
        "wide": "float64",
    }
    inputs = [value(name, TYPES[kind], ("rows", 3)) for name, kind in kinds.items()]
    outputs = [value(f"out {name}", TYPES[kind], ("rows", 3)) for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", [name], [f"out {name}"]) for name in kinds]
    return save(model_of(nodes, inputs, outputs), path)


def test_outputs_that_never_have_elements_are_refused_as_triton_would(tmp_path):
    from command_line import build

    without_elements(tmp_path / "empty.onnx")
    ran = build("empty.onnx", "-o", "repo", "--targets", "onnxruntime:fp32", cwd=tmp_path, check="offline")
    assert ran.code == 3, ran.err
    assert "output 'y' dimension must be integer >= 1, or -1" in ran.out + ran.err


@pytest.mark.live
def test_all_of_them_through_a_triton(tmp_path, runtime):
    from command_line import build

    several(tmp_path / "several.onnx")
    zipped(tmp_path)
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    save(model_of(nodes, [value("x", F32, ("n",))], [value("y", F32, ())]), tmp_path / "scalar.onnx")
    ran = build(
        "several.onnx",
        "m.onnx",
        "scalar.onnx",
        "-o",
        "repo",
        "--targets",
        "onnxruntime:fp32",
        "--json",
        cwd=tmp_path,
        check="live",
    )
    assert ran.code == 0, ran.err
    assert "live check of several, m, scalar: done" in ran.err
    assert {model["name"] for model in ran.document["models"]} == {"several", "m", "scalar"}
