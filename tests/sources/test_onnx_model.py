import numpy as np
import onnx
import pytest
from export_models import F32, I64, export, linear, model_of, plain_run, save, value, work_of
from onnx import TensorProto, helper

from builder.errors import SpecError
from builder.export import run_export
from builder.recognise import recognise
from builder.sources import onnx_model
from builder.tensors import Tensor


def failure(path, tmp_path, **options):
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(SpecError) as caught:
        run_export(work_of(path, format="onnx", **options), out)
    return caught.value.message + " | " + caught.value.remedy


def test_plain_file_is_copied_byte_for_byte(tmp_path):
    path = save(linear(), tmp_path / "m.onnx")
    report, requests, exported = export(path, tmp_path / "out")
    assert exported.read_bytes() == path.read_bytes()
    assert report.signature.describe() == "x float32[batch,4] → y float32[batch,3]"
    assert report.route == "copy"
    assert report.opset == 18
    assert report.ir_version == 10
    assert report.parameters == 12
    assert report.batch.proven
    assert report.batch.sizes == (1, 2, 3, 8)
    assert [request.rows for request in requests] == [1, 2, 3, 8, 1, 2]
    for request in requests:
        assert np.allclose(request.outputs["y"], request.inputs["x"] @ np.arange(12, dtype=np.float32).reshape(4, 3))


def test_describe_needs_no_onnxruntime(tmp_path):
    found = onnx_model.describe(save(linear(), tmp_path / "m.onnx"))
    assert found.operators == {"MatMul": 1}
    assert (found.opset, found.ir_version, found.parameters) == (18, 10, 12)
    assert found.signature.inputs == (Tensor("x", "float32", ("batch", 4)),)


def test_truncated_and_garbage_files(tmp_path):
    content = save(linear(), tmp_path / "m.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(content[: len(content) // 2])
    assert recognise(cut) == "onnx"
    assert failure(cut, tmp_path).startswith("cut.onnx is not a readable ONNX model: ")
    with pytest.raises(SpecError, match=r"cut\.onnx is not a readable ONNX model"):
        onnx_model.describe(cut)
    garbage = tmp_path / "garbage.onnx"
    garbage.write_bytes(bytes(range(256)) * 10)
    with pytest.raises(SpecError, match=r"garbage\.onnx is not a readable ONNX model"):
        recognise(garbage)


def external(tmp_path, name="m.onnx", location="weights.bin"):
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    weights = {"w": np.ones((40, 30), np.float32), "v": np.full((30, 5), 2, np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    model = model_of(nodes, [value("x", shape=("n", 40))], [value("y", shape=("n", 5))], weights)
    onnx.save(model, str(folder / name), save_as_external_data=True, location=location, size_threshold=0)
    return folder / name


def relocate(path, location):
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(model.SerializeToString())


def test_external_data_is_gathered_beside_the_model(tmp_path):
    path = external(tmp_path)
    _, requests, exported = export(path, tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx.data").stat().st_size >= 4 * (1200 + 150)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "export.json",
        "model.onnx",
        "model.onnx.data",
        "reference.npz",
    ]
    answer = plain_run(exported, {"x": requests[1].inputs["x"]})[0]
    assert np.allclose(answer, requests[1].outputs["y"], atol=1e-4)


def test_external_data_of_several_files(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    model = onnx.load(str(external(tmp_path)))
    onnx.save(
        model, str(folder / "m.onnx"), save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0
    )
    assert {file.name for file in folder.iterdir()} == {"m.onnx", "v", "w"}
    _, requests, exported = export(folder / "m.onnx", tmp_path / "out")
    assert np.allclose(plain_run(exported, {"x": requests[1].inputs["x"]})[0], requests[1].outputs["y"], atol=1e-4)


@pytest.mark.parametrize("location", ["../../x", "/etc/passwd", "sub/../../weights.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    path = external(tmp_path)
    relocate(path, location)
    assert f"points to '{location}', outside the model's folder" in failure(path, tmp_path)


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path):
    path = external(tmp_path)
    (path.parent / "weights.bin").rename(tmp_path / "elsewhere.bin")
    (path.parent / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    assert "tensor 'w' points to 'weights.bin', outside the model's folder" in failure(path, tmp_path)


def test_missing_and_short_external_data(tmp_path):
    path = external(tmp_path)
    data = path.parent / "weights.bin"
    data.write_bytes(data.read_bytes()[:100])
    assert "which has 100 bytes" in failure(path, tmp_path)
    data.unlink()
    assert "needs the data file 'weights.bin', which is missing" in failure(path, tmp_path)


def test_opset_beyond_the_release_names_the_first_that_loads_it(tmp_path):
    path = save(linear(opset=21), tmp_path / "m.onnx")
    message = failure(path, tmp_path, opset=20, ir_version=9)
    assert "uses ONNX opset 21; the target release loads opset 20 at most" in message
    assert "release 24.05 is the first" in message


def test_ir_version_is_lowered(tmp_path):
    path = save(linear(ir_version=12), tmp_path / "m.onnx")
    report, _, exported = export(path, tmp_path / "out", ir_version=9)
    assert onnx.load(str(exported)).ir_version == report.ir_version == 9
    assert any("lowered from 12 to 9" in note for note in report.notes)


def test_initialisers_listed_as_inputs_are_no_inputs(tmp_path):
    model = linear()
    model.graph.input.append(value("w", shape=(4, 3)))
    report, _, exported = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert [tensor.name for tensor in report.signature.inputs] == ["x"]
    assert [entry.name for entry in onnx.load(str(exported)).graph.input] == ["x"]


@pytest.mark.parametrize("dim", ["-1", "0", None, "None", -1, 0])
def test_literal_and_nameless_dims_mean_any_size(tmp_path, dim):
    model = linear()
    for entry in (model.graph.input[0], model.graph.output[0]):
        first = entry.type.tensor_type.shape.dim[0]
        first.Clear()
        if isinstance(dim, int):
            first.dim_value = dim
        elif dim is not None:
            first.dim_param = dim
    report, _, exported = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert report.signature.describe() == "x float32[batch,4] → y float32[batch,3]"
    assert plain_run(exported, {"x": np.ones((5, 4), np.float32)})[0].shape == (5, 3)


def test_wrong_declared_rank_is_corrected(tmp_path):
    nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["y"])]
    model = model_of(nodes, [value("x")], [value("y", shape=("batch", 4))], {"axes": np.array([1])})
    report, _, exported = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert report.signature.outputs == (Tensor("y", "float32", ("batch", 1, 4)),)
    dims = onnx.load(str(exported)).graph.output[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 1, 4]


def test_sequence_outputs_are_refused_unless_left_out(tmp_path):
    sequence = helper.make_tensor_sequence_value_info("s", F32, None)
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["s"]), helper.make_node("Relu", ["x"], ["y"])]
    path = save(model_of(nodes, [value("x")], [sequence, value("y")]), tmp_path / "m.onnx")
    assert "output 's' is a sequence; Triton serves tensors only" in failure(path, tmp_path)
    report, _, exported = export(path, tmp_path / "out2", outputs=("y",))
    assert [node.op_type for node in onnx.load(str(exported)).graph.node] == ["Relu"]
    assert [tensor.name for tensor in report.signature.outputs] == ["y"]


def two_outputs(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["relu"]), helper.make_node("Exp", ["x"], ["exponent"])]
    return save(model_of(nodes, [value("x")], [value("relu"), value("exponent")]), tmp_path / "two.onnx")


def test_outputs_are_selected_in_order(tmp_path):
    path = two_outputs(tmp_path)
    report, requests, exported = export(path, tmp_path / "out", outputs=("exponent", "relu"))
    assert [tensor.name for tensor in report.signature.outputs] == ["exponent", "relu"]
    assert [entry.name for entry in onnx.load(str(exported)).graph.output] == ["exponent", "relu"]
    assert np.allclose(requests[0].outputs["exponent"], np.exp(requests[0].inputs["x"]), rtol=1e-5)


def test_unknown_output_names_the_nearest(tmp_path):
    assert "no output 'exponents'; the nearest are 'exponent'" in failure(
        two_outputs(tmp_path), tmp_path, outputs=("exponents",)
    )


def test_spec_inputs_may_fix_and_name_axes(tmp_path):
    path = save(linear(), tmp_path / "m.onnx")
    report, requests, exported = export(path, tmp_path / "out", inputs=[Tensor("x", "float32", (2, 4))])
    assert report.signature.describe() == "x float32[2,4] → y float32[2,3]"
    assert requests[0].rows == 0
    assert onnx.load(str(exported)).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    report, _, exported = export(path, tmp_path / "named", inputs=[Tensor("x", "float32", ("rows", 4))])
    assert report.signature.describe() == "x float32[rows,4] → y float32[rows,3]"


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor("z", "float32", ("n", 4)), "inputs: got z; the model's inputs are x"),
        (Tensor("x", "float16", ("n", 4)), "'x' is declared float16, the model expects float32"),
        (Tensor("x", "float32", ("n", 5)), "'x' got shape [n,5], the model expects [batch,4]"),
        (Tensor("x", "float32", ("n", 4, 1)), "'x' got shape [n,4,1], the model expects [batch,4]"),
    ],
)
def test_spec_inputs_that_do_not_fit(tmp_path, tensor, message):
    assert message in failure(save(linear(), tmp_path / "m.onnx"), tmp_path, inputs=[tensor])


def test_operator_that_onnxruntime_does_not_know(tmp_path):
    nodes = [
        helper.make_node("NoSuchOp", ["x"], ["a"]),
        helper.make_node("Fancy", ["a"], ["b"], domain="acme.ops"),
        helper.make_node("Gelu", ["b"], ["y"], domain="com.microsoft"),
    ]
    said = failure(save(model_of(nodes, [value("x")], [value("y")]), tmp_path / "m.onnx"), tmp_path)
    assert "has operators that neither ONNX nor onnxruntime knows: NoSuchOp, acme.ops:Fancy" in said
    assert "Gelu" not in said


def test_opset_beyond_every_release(tmp_path):
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [value("x")], [value("y")])
    model.opset_import[0].version = 99
    said = failure(save(model, tmp_path / "m.onnx"), tmp_path)
    assert "uses ONNX opset 99, and no known Triton release loads more than" in said
    assert "export the model again with opset" in said


def test_strings_and_odd_names(tmp_path):
    nodes = [helper.make_node("Identity", ["text:0"], ["out put/1"])]
    model = model_of(
        nodes,
        [value("text:0", TensorProto.STRING, ("batch", 2))],
        [value("out put/1", TensorProto.STRING, ("batch", 2))],
    )
    report, requests, _ = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert report.signature.describe() == "text:0 string[batch,2] → out put/1 string[batch,2]"
    assert (requests[3].inputs["text:0"] == requests[3].outputs["out put/1"]).all()
    assert isinstance(requests[0].inputs["text:0"].flat[0], str)


def test_scalar_input_has_no_batch_axis(tmp_path):
    nodes = [helper.make_node("Mul", ["x", "s"], ["y"])]
    model = model_of(nodes, [value("x"), value("s", F32, ())], [value("y")])
    report, requests, _ = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert not report.batch.proven
    assert report.batch.reason == "the model has no batch axis"
    assert {request.rows for request in requests} == {0}
    assert len({request.inputs["x"].shape for request in requests}) == 3
    assert report.signature.outputs[0].shape == ("batch", 4)


def test_integers_are_found_by_trying(tmp_path):
    table = np.arange(50 * 3, dtype=np.float32).reshape(50, 3)
    nodes = [helper.make_node("Gather", ["table", "ids"], ["y"])]
    model = model_of(
        nodes, [value("ids", I64, ("batch", "length"))], [value("y", F32, ("batch", "length", 3))], {"table": table}
    )
    report, requests, _ = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert "ids: integers 0..49, found by trying; give samples for real ones" in report.notes
    assert max(int(request.inputs["ids"].max()) for request in requests) == 49
    assert len({request.inputs["ids"].shape[1] for request in requests}) == 3
