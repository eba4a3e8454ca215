"""Structure and native checks over real folders with real model files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from builder.checks import CHECKS, CheckContext, check_module, run_checks
from builder.findings import Finding, has_errors
from builder.spec_serving import BatchingSpec, InstancesSpec
from builder.tensors import Signature, Tensor
from builder.triton_config import ConfigRequest, WarmupInput, WarmupRequest, render_config, warmup_files

CONTEXT = CheckContext(release="26.07")
IMAGE, LOGITS = Tensor("x", "float32", ("batch", 3)), Tensor("y", "float32", ("batch", 4))
SIGNATURE = Signature((IMAGE,), (LOGITS,))


def save_model(path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(np.ones((3, 4), np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def make_request(backend: str = "onnxruntime", name: str = "net") -> ConfigRequest:
    warm = WarmupRequest("sample_0", (WarmupInput("x", "float32", (1, 3), np.zeros((1, 3), np.float32)),))
    return ConfigRequest(
        name, backend, "26.07", SIGNATURE, SIGNATURE, batch_proven=True, batching=BatchingSpec(),
        instances=(InstancesSpec(),), label_files={"y": "labels.txt"}, warmup=(warm,),
    )  # fmt: skip


def make_repository(root: Path, backend: str = "onnxruntime") -> Path:
    request = make_request(backend)
    folder = root / request.name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(render_config(request).text, encoding="utf-8")
    (folder / "labels.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    for name, content in warmup_files(request).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    if backend == "onnxruntime":
        save_model(folder / "1" / "model.onnx")
    else:
        openvino = pytest.importorskip("openvino")
        save_model(root.parent / "source.onnx")
        openvino.save_model(openvino.convert_model(root.parent / "source.onnx"), folder / "1" / "model.xml")
    return root


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "repository")


def edit(repository: Path, old: str, new: str) -> None:
    path = repository / "net" / "config.pbtxt"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def only(findings: tuple[Finding, ...]) -> Finding:
    assert len(findings) == 1, findings
    return findings[0]


@pytest.mark.parametrize("word", sorted(CHECKS))
def test_every_row_of_the_table_checks_a_repository(word: str, repository: Path) -> None:
    assert list(check_module(word).check(repository, CONTEXT)) == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("auto_complete", [False, True])
def test_what_we_write_is_clean(tmp_path: Path, backend: str, auto_complete: bool) -> None:
    repository = make_repository(tmp_path / "repository", backend)
    assert run_checks(repository, CheckContext("26.07", auto_complete=auto_complete)) == ()


def test_nothing_is_written(repository: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    run_checks(repository, CONTEXT)
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


# Structure


def test_syntax_error_has_its_line(repository: Path) -> None:
    edit(repository, "max_batch_size: 8", "max_batch_size 8")
    found = only(run_checks(repository, CONTEXT))
    assert (found.severity, found.check, found.file, found.line) == (
        "error", "structure.config", "net/config.pbtxt", 5,
    )  # fmt: skip


def test_no_config(repository: Path) -> None:
    (repository / "net" / "config.pbtxt").unlink()
    found = only(run_checks(repository, CONTEXT))
    assert (found.severity, found.check) == ("error", "structure.config")
    assert not has_errors(run_checks(repository, CheckContext("26.07", auto_complete=True)))


def test_name_differs_from_the_folder(repository: Path) -> None:
    edit(repository, 'name: "net"', 'name: "nut"')
    found = only(run_checks(repository, CONTEXT))
    assert (found.check, found.line) == ("structure.name", 3)
    assert "'nut'" in found.message
    assert "'net'" in found.message


@pytest.mark.parametrize(
    ("folder", "severity", "word"),
    [("01", "warning", "leading zeros"), ("old", "warning", "no number"), ("0", "warning", "start at 1")],
)
def test_odd_version_folders(repository: Path, folder: str, severity: str, word: str) -> None:
    (repository / "net" / folder).mkdir()
    found = only(run_checks(repository, CONTEXT))
    assert (found.severity, found.check, found.file) == (severity, "structure.version", f"net/{folder}")
    assert word in found.message


def test_no_version_and_a_stranger_in_the_root(repository: Path) -> None:
    (repository / "reports").mkdir()
    found = run_checks(repository, CONTEXT)
    assert {(item.model, item.check) for item in found} == {
        ("reports", "structure.config"), ("reports", "structure.version"),
    }  # fmt: skip


def test_missing_model_file_names_what_is_there(repository: Path) -> None:
    (repository / "net" / "1" / "model.onnx").rename(repository / "net" / "1" / "net.onnx")
    found = only(run_checks(repository, CONTEXT))
    assert (found.check, found.file) == ("structure.file", "net/1/model.onnx")
    assert "failed to stat file net/1/model.onnx" in found.message
    assert "net.onnx" in found.message


def test_only_the_latest_version_is_judged(repository: Path) -> None:
    (repository / "net" / "2").mkdir()
    save_model(repository / "net" / "2" / "model.onnx")
    (repository / "net" / "1" / "model.onnx").write_bytes(b"garbage")
    assert run_checks(repository, CONTEXT) == ()


def test_specific_version_that_is_not_there(repository: Path) -> None:
    edit(repository, "max_batch_size: 8", "max_batch_size: 8\nversion_policy { specific { versions: [ 1, 7 ] } }")
    found = only(run_checks(repository, CONTEXT))
    assert (found.check, found.line) == ("structure.version", 6)


def test_label_and_warm_up_files(repository: Path) -> None:
    (repository / "net" / "labels.txt").unlink()
    (repository / "net" / "warmup" / "sample_0.0").write_bytes(b"1234")
    found = run_checks(repository, CONTEXT)
    assert [item.check for item in found] == ["structure.labels", "structure.warmup"]
    assert "warmup setting expects 12 bytes, but sample_0.0 only has 4 bytes" in found[1].message
    (repository / "net" / "warmup" / "sample_0.0").unlink()
    assert "net/warmup/sample_0.0 is not there" in run_checks(repository, CONTEXT)[1].message


def test_the_file_that_a_state_starts_with(repository: Path) -> None:
    first = 'initial_state { name: "a" data_type: TYPE_FP32 dims: [ 3 ] data_file: "state_0" }'
    state = f'state {{ input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [ 3 ] {first} }}'
    edit(repository, "dynamic_batching { }", f"sequence_batching {{ {state} }}")
    found = [item for item in run_checks(repository, CONTEXT) if item.check == "structure.initial_state"]
    assert [item.message for item in found] == ["state 's': net/initial_state/state_0 is not there"]
    (repository / "net" / "initial_state").mkdir()
    (repository / "net" / "initial_state" / "state_0").write_bytes(b"1234")
    found = [item for item in run_checks(repository, CONTEXT) if item.check == "structure.initial_state"]
    assert "initial_state setting expects 12 bytes, but state_0 only has 4 bytes" in found[0].message
    assert found[0].line is not None


def test_a_field_that_the_release_does_not_know(repository: Path) -> None:
    edit(repository, "max_batch_size: 8", "max_batch_size: 8\nmodel_metrics { }")
    assert run_checks(repository, CONTEXT) == ()
    found = only(run_checks(repository, CheckContext("24.10")))
    assert (found.check, found.line) == ("structure.field", 6)
    assert "24.11" in found.remedy


# Native


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("dims: [ 3 ]", "dims: [ 5 ]", "tensor 'x': the model expects 2 dimensions (shape [-1,3])"),
        ("dims: [ 4 ]", "dims: [ -1 ]", "tensor 'y': the model expects 2 dimensions (shape [-1,4])"),
        ("TYPE_FP32", "TYPE_FP16", "configuration expects datatype TYPE_FP16 for input 'x', model provides TYPE_FP32"),
        ('name: "x"', 'name: "z"', "unexpected inference input 'z', allowed inputs are: x"),
        ("KIND_CPU", "KIND_GPU", "has kind KIND_GPU but no GPUs are available"),
        ("max_batch_size: 8", "max_batch_size: 0", "tensor 'x': the model expects 2 dimensions"),
    ],
)
def test_the_native_backend_would_refuse(repository: Path, old: str, new: str, message: str) -> None:
    edit(repository, old, new)
    found = [item for item in run_checks(repository, CONTEXT) if item.severity == "error"]
    assert message in found[0].message
    assert (found[0].check, found[0].model, found[0].file) == ("native.onnxruntime", "net", "net/config.pbtxt")
    text = (repository / "net" / "config.pbtxt").read_text(encoding="utf-8").splitlines()
    assert found[0].line is None or any(word in text[found[0].line - 1] for word in ('"x"', '"y"', '"z"', "KIND_GPU"))


def test_a_damaged_model_file(repository: Path) -> None:
    (repository / "net" / "1" / "model.onnx").write_bytes(b"garbage")
    found = only(run_checks(repository, CONTEXT))
    assert (found.check, found.file) == ("native.onnxruntime.file", "net/1/model.onnx")
    assert "Protobuf parsing failed" in found.message


def test_openvino_batching_loads_and_is_warned_of(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository", "openvino")
    edit(repository, "max_batch_size: 0", "max_batch_size: 8")
    edit(repository, "dims: [ -1, 3 ]", "dims: [ 3 ]")
    edit(repository, "dims: [ -1, 4 ]", "dims: [ 4 ]")
    found = only(run_checks(repository, CONTEXT, ("native",)))
    assert (found.severity, found.check) == ("warning", "native.openvino")
    assert "compiles for batch 8 exactly" in found.message


def test_models_of_other_backends_are_judged_by_the_core(repository: Path) -> None:
    folder = repository / "script"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.py").write_text("", encoding="utf-8")
    (folder / "config.pbtxt").write_text(
        'backend: "python" input [ { name: "x" data_type: TYPE_FP32 dims: [ 0 ] } ]', encoding="utf-8"
    )
    found = only(run_checks(repository, CONTEXT))
    assert (found.model, found.check) == ("script", "native.core")
    assert "dimension must be integer >= 1" in found.message


@pytest.mark.parametrize(("dims", "refused"), [("[ 1, 5 ]", False), ("[ 1, -1 ]", False), ("[ 2, 5 ]", True)])
def test_a_size_that_only_the_runtime_can_know_is_no_error(repository: Path, dims: str, refused: bool) -> None:
    graph = helper.make_graph(
        [helper.make_node("NonZero", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [1, "found"])],
    )
    folder = repository / "net"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "1" / "model.onnx")
    (folder / "config.pbtxt").write_text(
        'backend: "onnxruntime" input { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } '
        f'output {{ name: "y" data_type: TYPE_INT64 dims: {dims} }}',
        encoding="utf-8",
    )
    assert has_errors(run_checks(repository, CONTEXT)) == refused


def test_external_data_outside_the_folder(repository: Path) -> None:
    path = repository / "net" / "1" / "model.onnx"
    model = onnx.load(path)
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../../weights")
    model.graph.initializer[0].ClearField("raw_data")
    onnx.save(model, path)
    found = only(run_checks(repository, CONTEXT))
    assert (found.check, found.file) == ("native.onnxruntime.file", "net/1/model.onnx")
    assert "'../../weights'" in found.message


def twice(repository: Path, *texts: str) -> tuple[Finding, ...]:
    """The model and a copy of it, each with more text in its configuration; what is said of no single model."""
    shutil.copytree(repository / "net", repository / "other")
    for name, text in zip(("net", "other"), texts, strict=True):
        path = repository / name / "config.pbtxt"
        path.write_text(path.read_text(encoding="utf-8").replace('name: "net"', f'name: "{name}"') + text, "utf-8")
    return tuple(finding for finding in run_checks(repository, CONTEXT) if finding.model is None)


def parameter(key: str, value: int) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


def test_openvino_models_that_share_the_same_cores(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository", "openvino")
    found = only(twice(repository, *(parameter("INFERENCE_NUM_THREADS", count) for count in (1, 2))))
    assert (found.severity, found.check) == ("warning", "native.openvino")
    assert "net 1, other 2; OpenVINO gives the threads of every model the same first cores" in found.message


def test_one_openvino_model_may_limit_its_threads(tmp_path: Path) -> None:
    repository = make_repository(tmp_path / "repository", "openvino")
    assert twice(repository, parameter("INFERENCE_NUM_THREADS", 1), "") == ()


def test_pytorch_models_with_other_numbers_of_threads(tmp_path: Path) -> None:
    for name, text in (("a", parameter("INTRA_OP_THREAD_COUNT", 1)), ("b", parameter("INTRA_OP_THREAD_COUNT", 2))):
        (tmp_path / name / "1").mkdir(parents=True)
        config = f'name: "{name}" backend: "pytorch" platform: "pytorch_libtorch"\n{text}'
        (tmp_path / name / "config.pbtxt").write_text(config, encoding="utf-8")
    said = [finding.message for finding in run_checks(tmp_path, CONTEXT) if "INTRA_OP" in finding.message]
    assert len(said) == 1
    assert said[0].startswith("INTRA_OP_THREAD_COUNT: a 1, b 2; PyTorch has one number of threads for all its models")
