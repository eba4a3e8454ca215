"""What loads and is still wrong, through `validate`: each a warning with its reason, and exit 0."""

# ruff: noqa: E501 - as OpenVINO writes it

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models

from builder.findings import Finding
from builder.validate import validate_repository

IR = """<net name="n" version="11"><layers>
<layer id="0" name="x" type="Parameter"><output><port id="0" precision="FP32" names="x"><dim>{dim}</dim><dim>4</dim></port></output></layer>
<layer id="1" name="c" type="Convert"><output><port id="1" precision="I64" names="y"><dim>{dim}</dim><dim>4</dim></port></output></layer>
<layer id="2" name="y/sink" type="Result"><input><port id="0" precision="I64"><dim>{dim}</dim><dim>4</dim></port></input></layer>
</layers><edges><edge from-layer="1" from-port="1" to-layer="2" to-port="0"/></edges></net>
"""
OPENVINO = """backend: "openvino"
max_batch_size: {batch}
input {{ name: "x" data_type: TYPE_FP32 dims: {dims} }}
output {{ name: "y" data_type: {kind} dims: {dims} }}
"""
ONNX = """backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
"""
PROFILE = """optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt"
  parameters { key: "trt_profile_min_shapes" value: "x:2x4" }
  parameters { key: "trt_profile_max_shapes" value: "x:4x4" }
} } }
dynamic_batching { preferred_batch_size: [ 1, 4, 8 ] }
"""


def judged(repository: Path, config: str, ir: str = "", **machine: int) -> list[str]:
    """The warnings; nothing may be an error."""
    (repository / "m" / "1").mkdir(parents=True)
    (repository / "m" / "config.pbtxt").write_text(config)
    if ir:
        (repository / "m" / "1" / "model.xml").write_text(ir)
    else:
        tiny_models.linear(repository / "m" / "1" / "model.onnx")
    found: tuple[Finding, ...] = validate_repository(repository, "26.07", **machine)
    assert [item.message for item in found if item.severity == "error"] == []
    assert all(item.remedy for item in found)
    return [item.message for item in found if item.severity == "warning"]


def test_openvino_with_a_batch_fails_at_the_first_single_request(tmp_path: Path) -> None:
    config = OPENVINO.format(batch=4, dims="[ 4 ]", kind="TYPE_INT64")
    assert "requests of other sizes fail" in judged(tmp_path, config, IR.format(dim=-1))[0]


@pytest.mark.parametrize(("kind", "cut"), [("TYPE_INT32", True), ("TYPE_UINT64", False), ("TYPE_INT64", None)])
def test_an_int64_output_is_truncated(tmp_path: Path, kind: str, cut: bool | None) -> None:
    found = judged(tmp_path, OPENVINO.format(batch=0, dims="[ 2, 4 ]", kind=kind), IR.format(dim=2))
    assert ["are cut: write TYPE_INT64" in message for message in found] == ([] if cut is None else [cut])


@pytest.mark.parametrize("batch", [0, 1])
def test_a_batcher_that_can_never_merge(tmp_path: Path, batch: int) -> None:
    dims = ("[ -1, 4 ]", "[ -1, 3 ]") if batch == 0 else ("[ 4 ]", "[ 3 ]")
    config = ONNX.replace("8", str(batch)).replace("[ 4 ]", dims[0]).replace("[ 3 ]", dims[1])
    assert "there is no batch to make" in judged(tmp_path, config + "dynamic_batching { }")[0]


def test_preferred_sizes_without_a_profile(tmp_path: Path) -> None:
    found = judged(tmp_path, ONNX + PROFILE, gpus=1)
    assert any("trt_profile_max_shapes x:4x4 has no profile for batches of 8" in message for message in found)
    assert any("trt_profile_min_shapes x:2x4 has no profile for batches of 1" in message for message in found)


def test_more_instances_than_cores(tmp_path: Path) -> None:
    found = judged(tmp_path, ONNX + "instance_group { kind: KIND_CPU count: 9 }", cores=4)
    assert "9 instances run on the CPU, which has 4 cores" in found[0]


def test_a_gpu_instance_on_a_cpu_target_is_refused_as_the_server_does(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="KIND_GPU but no GPUs"):
        judged(tmp_path, ONNX + "instance_group { kind: KIND_GPU }")


def test_engines_for_gpus_that_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    config = (
        'platform: "tensorrt_plan"\ncc_model_filenames { key: "8_9" value: "model.plan" }\n'
        'input { name: "x" data_type: TYPE_FP32 dims: 4 }\noutput { name: "y" data_type: TYPE_FP32 dims: 4 }\n'
    )
    (tmp_path / "m" / "config.pbtxt").write_text(config)
    (tmp_path / "m" / "1" / "model.plan").write_bytes(b"x")
    found = [item for item in validate_repository(tmp_path, "26.07", gpus=1) if item.severity == "warning"]
    assert "no GPU has the compute capability '8_9'" in found[0].message


@pytest.mark.parametrize(("library", "said"), [("ops.so", True), ("lib/ops.so", True), ("/opt/ops.so", False)])
def test_an_operator_library_that_lies_with_the_model_is_not_found(tmp_path: Path, library: str, said: bool) -> None:
    config = f'backend: "onnxruntime"\nmodel_operations {{ op_library_filename: "{library}" }}\n'
    found = judged(tmp_path, config)
    assert any(f"the operator library '{library}'" in message for message in found) is said


def test_what_is_not_compared_with_a_plan_is_named(tmp_path: Path) -> None:
    """Reading a plan takes its own GPU; the rest of the configuration is judged all the same."""
    folder = tmp_path / "engine" / "1"
    folder.mkdir(parents=True)
    (folder / "model.plan").write_bytes(b"ftrt")
    text = (
        'platform: "tensorrt_plan"\nmax_batch_size: 4\ninput [ { name: "x" data_type: TYPE_FP32 dims: [ 2 ] } ]\n'
        'output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]\ndynamic_batching { preferred_batch_size: [ 8 ] }\n'
    )
    (tmp_path / "engine" / "config.pbtxt").write_text(text, encoding="utf-8")
    found = validate_repository(tmp_path, "26.07", gpus=1)
    said = [finding for finding in found if finding.check == "native.tensorrt" and finding.severity == "info"]
    assert len(said) == 1
    assert "not compared with its plan: names, types and dims" in said[0].message
    assert any("preferred size must be <= max batch size" in finding.message for finding in found)
