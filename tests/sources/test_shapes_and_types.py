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


def without_elements(path, *, kept=False):
    """`y` is cut to no columns, whatever comes in; `kept` adds an output that is not."""
    nodes = [helper.make_node("Slice", ["x", "begin", "end", "axis"], ["y"])]
    numbers = {"begin": np.array([4]), "end": np.array([4]), "axis": np.array([1])}
    outputs = [value("y", shape=("batch", 0))]
    if kept:
        nodes.append(helper.make_node("Relu", ["x"], ["z"]))
        outputs.append(value("z"))
    return save(model_of(nodes, [value("x")], outputs, numbers), path)


def test_outputs_that_never_have_elements_are_refused(tmp_path):
    """A configuration has no size 0; Triton says so too, but of its configuration."""
    message = failure(without_elements(tmp_path / "m.onnx"), tmp_path)
    assert "output 'y' ['batch', 0] has the size 0 in the model itself: it never has elements" in message
    assert "| the model has no other output: " in message
    path = without_elements(tmp_path / "two.onnx", kept=True)
    assert "| leave it out: outputs: [z] in the spec" in failure(path, tmp_path)
    report, _, _ = export(path, tmp_path / "out", outputs=("z",))
    assert report.signature.describe() == "x float32[batch,4] → z float32[batch,4]"


def selected(path, threshold=0.5):
    """Numbers above a threshold and the texts beside them: none for some requests."""
    nodes = [
        helper.make_node("Greater", ["x", "threshold"], ["above"]),
        helper.make_node("Compress", ["x", "above"], ["numbers"], axis=0),
        helper.make_node("Compress", ["t", "above"], ["texts"], axis=0),
    ]
    inputs = [value("x", F32, ("n",)), value("t", TYPES["string"], ("n",))]
    outputs = [value("numbers", F32, ("m",)), value("texts", TYPES["string"], ("m",))]
    return save(model_of(nodes, inputs, outputs, {"threshold": np.float32(threshold)}), path)


def shortened(path):
    """Without the first 12 steps: the shortest sample has none left, and rows are batched."""
    nodes = [helper.make_node("Slice", ["x", "begin", "end", "axis"], ["y"])]
    numbers = {"begin": np.array([12]), "end": np.array([10_000]), "axis": np.array([1])}
    inputs, outputs = [value("x", F32, ("batch", "steps"))], [value("y", F32, ("batch", "rest"))]
    return save(model_of(nodes, inputs, outputs, numbers), path)


def test_outputs_without_elements_for_some_requests(tmp_path):
    report, requests, _ = export(selected(tmp_path / "m.onnx"), tmp_path / "out")
    for name in ("numbers", "texts"):
        sizes = {request.outputs[name].size for request in requests}
        assert (min(sizes), max(sizes) > 0) == (0, True)
    assert not any("no elements" in note for note in report.notes)
    report, requests, _ = export(shortened(tmp_path / "short.onnx"), tmp_path / "short")
    assert report.batch.proven
    assert {request.outputs["y"].shape[1] for request in requests} == {4, 0, 20}


def test_an_output_that_no_sample_fills_is_served_and_said(tmp_path):
    report, requests, _ = export(selected(tmp_path / "m.onnx", threshold=1e9), tmp_path / "out")
    assert {request.outputs["numbers"].shape for request in requests} == {(0,)}
    said = [note for note in report.notes if "had no elements for any sample" in note]
    assert [note.partition(" had")[0] for note in said] == ["output 'numbers'", "output 'texts'"]


def test_first_axes_of_two_names_are_one_batch_axis_and_that_is_said(tmp_path):
    nodes = [helper.make_node("Add", ["a", "b"], ["y"])]
    inputs = [value("a", F32, ("n", 4)), value("b", F32, ("m", 4))]
    broadcast = save(model_of(nodes, inputs, [value("y", F32, ("k", 4))]), tmp_path / "m.onnx")
    report, _, _ = export(broadcast, tmp_path / "out")
    assert report.batch.proven
    (note,) = report.notes
    assert note.startswith("the first axes n, m may differ in size in the source; as one batch axis Triton refuses")
    assert "batching: {max_batch_size: 0}" in note
    # Where the model itself refuses them, nothing has to be said.
    nodes = [helper.make_node("Concat", ["a", "b"], ["y"], axis=1)]
    joined = save(model_of(nodes, inputs, [value("y", F32, ("k", 8))]), tmp_path / "joined.onnx")
    report, _, _ = export(joined, tmp_path / "joined")
    assert report.batch.proven
    assert report.notes == ()


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


@pytest.mark.live
def test_all_of_them_through_a_triton(tmp_path, runtime):
    from command_line import build

    several(tmp_path / "several.onnx")
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    save(model_of(nodes, [value("x", F32, ("n",))], [value("y", F32, ())]), tmp_path / "scalar.onnx")
    selected(tmp_path / "some.onnx")
    selected(tmp_path / "none.onnx", threshold=1e9)
    shortened(tmp_path / "short.onnx")
    passed(tmp_path, F32, (2, "n")).rename(tmp_path / "unbatched.onnx")
    zipped(tmp_path)
    names = ["several", "m", "scalar", "some", "none", "short", "unbatched"]
    ran = build(
        *[f"{name}.onnx" for name in names],
        "-o",
        "repo",
        "--targets",
        "onnxruntime:fp32",
        "--json",
        cwd=tmp_path,
        check="live",
    )
    assert ran.code == 0, ran.err
    assert f"live check of {', '.join(names)}: done" in ran.err
    assert [model["name"] for model in ran.document["models"]] == names
