from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from export_models import export, linear, model_of, plain_run, save, value, work_of
from onnx import helper

from builder.errors import SpecError
from builder.export import run_export
from builder.unproven import PROVES_NOTHING


def package_file(package, name):
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        pytest.skip(f"{package} is not installed")
    path = Path(spec.origin).parent / name
    if not path.is_file():
        pytest.skip(f"this version of {package} has no {name}")
    return path


def check_reference(requests, exported, outputs):
    """The exported file in an ordinary onnxruntime answers like the reference."""
    for request in requests:
        for name, answer in zip(outputs, plain_run(exported, dict(request.inputs)), strict=True):
            expected = request.outputs[name]
            assert answer.shape == expected.shape
            assert np.abs(answer - expected).max() <= 0.02 * np.abs(expected).max()


def test_the_same_source_gives_the_same_files(tmp_path):
    path = save(linear(), tmp_path / "m.onnx")
    export(path, tmp_path / "one")
    export(path, tmp_path / "two")
    for name in ("model.onnx", "export.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_rows_that_multiply(tmp_path):
    nodes = [helper.make_node("Concat", ["x", "x"], ["y"], axis=0)]
    path = save(model_of(nodes, [value("x")], [value("y", shape=("rows", 4))]), tmp_path / "m.onnx")
    report, requests, _ = export(path, tmp_path / "out")
    assert not report.batch.proven
    assert report.batch.reason == "output 'y' has 2 rows for a batch of 1"
    assert report.signature.outputs[0].shape == ("rows", 4)
    assert requests[1].outputs["y"].shape == (4, 4)


def test_batch_that_is_summed_away(tmp_path):
    nodes = [helper.make_node("ReduceMean", ["x"], ["y"], axes=[0], keepdims=0)]
    path = save(model_of(nodes, [value("x")], [value("y", shape=(4,))], opset=17), tmp_path / "m.onnx")
    report, requests, _ = export(path, tmp_path / "out")
    assert not report.batch.proven
    assert not report.signature.has_batch_axis
    assert {request.rows for request in requests} == {0}


def test_rows_that_mix(tmp_path):
    nodes = [helper.make_node("Softmax", ["x"], ["y"], axis=0)]
    report, _, _ = export(save(model_of(nodes, [value("x")], [value("y")]), tmp_path / "m.onnx"), tmp_path / "out")
    assert "rows change with their batch: output 'y' differs by" in report.batch.reason


def test_only_one_row_runs(tmp_path):
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    model = model_of(nodes, [value("x")], [value("y", shape=("batch", 2, 2))], {"shape": np.array([1, 2, 2])})
    report, requests, exported = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert report.signature.describe() == "x float32[1,4] → y float32[1,2,2]"
    assert requests[0].rows == 0
    graph = onnx.load(str(exported)).graph
    for entry in (graph.input[0], graph.output[0]):
        assert entry.type.tensor_type.shape.dim[0].dim_value == 1


def test_output_whose_size_depends_on_values(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("NonZero", ["r"], ["y"])]
    model = model_of(nodes, [value("x", shape=(3, 4))], [value("y", onnx.TensorProto.INT64, (2, "found"))])
    report, _, _ = export(save(model, tmp_path / "m.onnx"), tmp_path / "out")
    assert report.signature.outputs[0].shape == (2, "found")


def test_random_models_are_refused(tmp_path):
    nodes = [helper.make_node("RandomNormalLike", ["x"], ["y"])]
    path = save(model_of(nodes, [value("x")], [value("y")]), tmp_path / "m.onnx")
    (tmp_path / "out").mkdir()
    with pytest.raises(SpecError, match="draws random numbers"):
        run_export(work_of(path), tmp_path / "out")


def test_input_and_output_of_one_name_cannot_be_told_apart(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = model_of(nodes, [value("x")], [value("y"), value("x")])
    (tmp_path / "out").mkdir()
    with pytest.raises(SpecError, match="'x' is the name of an input and of an output"):
        run_export(work_of(save(model, tmp_path / "m.onnx")), tmp_path / "out")


def test_magika(tmp_path):
    path = package_file("magika", "models/standard_v3_3/model.onnx")
    report, requests, exported = export(path, tmp_path / "out")
    assert [tensor.describe() for tensor in report.signature.inputs] == ["bytes int32[unk__214,2048]"]
    assert report.signature.outputs[0].shape[1] == 214
    assert report.batch.proven
    check_reference(requests, exported, ["target_label"])


def test_rapidocr_detector_varies_height_and_width(tmp_path):
    path = package_file("rapidocr", "models/PP-OCRv6_det_small.onnx")
    report, requests, exported = export(path, tmp_path / "out", max_batch_size=2)
    assert len({request.inputs["x"].shape[2:] for request in requests}) == 3
    assert report.signature.inputs[0].wire_shape == (-1, 3, -1, -1)
    check_reference(requests, exported, [report.signature.outputs[0].name])


def test_ddddocr_rank_is_corrected(tmp_path):
    path = package_file("ddddocr", "common.onnx")
    report, requests, exported = export(path, tmp_path / "out")
    assert report.signature.inputs[0].shape == (1, 1, 64, "image_width")
    assert report.signature.outputs[0].wire_shape == (-1, 1, 8210)
    assert len(onnx.load(str(exported)).graph.output[0].type.tensor_type.shape.dim) == 3
    assert report.batch.reason == "the model has no batch axis"
    check_reference(requests, exported, ["387"])


def test_silero_with_state_and_scalar(tmp_path):
    path = package_file("silero_vad", "data/silero_vad.onnx")
    report, requests, exported = export(path, tmp_path / "out")
    assert [tensor.dtype for tensor in report.signature.inputs] == ["float32", "float32", "int64"]
    assert report.signature.inputs[2].shape == ()
    assert not report.signature.has_batch_axis
    assert exported.read_bytes() == path.read_bytes()
    assert len({request.inputs["input"].shape for request in requests}) > 1
    assert all(request.inputs["input"].dtype == np.float32 for request in requests)


def labelled(tmp_path, labels, scale=1.0):
    """An export of `linear`, whose class 2 wins on rows of ones, with one label a row."""
    np.savez(tmp_path / "s.npz", x=np.full((len(labels), 4), scale, np.float32), label=np.asarray(labels))
    path = save(linear(), tmp_path / "m.onnx")
    return export(path, tmp_path / "out", samples=tmp_path / "s.npz", labels="label")[0]


@pytest.mark.parametrize("labels", [[1, 2, 3, 2], [2, 2, -1, 2]])
def test_labels_that_no_output_has_as_classes_are_refused(tmp_path, labels):
    with pytest.raises(
        SpecError, match=r"class numbers -?1 to [23], and no output has such classes: y float32"
    ) as told:
        labelled(tmp_path, labels)
    assert "number the classes from 0" in told.value.remedy


def test_labels_that_are_all_wrong_prove_nothing(tmp_path):
    assert any("none of 4 labelled rows right" in note for note in labelled(tmp_path, [0, 1, 0, 1]).notes)


def test_labels_that_one_class_answers_as_well_prove_nothing(tmp_path):
    """As labels that were shuffled, or rows of one class: a broken target would keep the metric."""
    (note,) = labelled(tmp_path, [2, 2, 2, 0]).notes
    assert note.startswith("the source gets 75.0% of 4 labelled rows right, and class 2 for every row would be right")
    assert PROVES_NOTHING in note
    np.savez(tmp_path / "s.npz", x=np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], label=np.asarray([0, 1, 2, 2]))
    ports = [value("x", shape=("batch", 3))], [value("y", shape=("batch", 3))]
    path = save(model_of([helper.make_node("Identity", ["x"], ["y"])], *ports), tmp_path / "m.onnx")
    assert export(path, tmp_path / "out2", samples=tmp_path / "s.npz", labels="label")[0].notes == ()


def test_labels_without_an_output_of_classes_prove_nothing(tmp_path):
    np.savez(tmp_path / "s.npz", x=np.ones((4, 4), np.float32), label=np.zeros(4, np.int64))
    nodes = [helper.make_node("ReduceSum", ["x", "axis"], ["y"], keepdims=1)]
    weights = {"axis": np.asarray([1], np.int64)}
    path = save(model_of(nodes, [value("x")], [value("y", shape=("batch", 1))], weights), tmp_path / "m.onnx")
    report, _, _ = export(path, tmp_path / "out", samples=tmp_path / "s.npz", labels="label")
    assert any("top-1 cannot be measured" in note and PROVES_NOTHING in note for note in report.notes)


def test_answers_without_a_number_prove_nothing(tmp_path):
    note = labelled(tmp_path, [0, 0, 0, 0], scale=np.nan).notes[0]
    assert note.startswith("output 'y': the source answers every sample with NaN")
    assert PROVES_NOTHING in note


def test_answers_with_some_numbers_are_noted(tmp_path):
    x = np.ones((4, 4), np.float32)
    x[1] = np.inf
    np.savez(tmp_path / "s.npz", x=x)
    report, _, _ = export(save(linear(), tmp_path / "m.onnx"), tmp_path / "out", samples=tmp_path / "s.npz")
    (note,) = report.notes
    assert "numbers of the source's answers are NaN or infinite" in note
    assert PROVES_NOTHING not in note
