"""What a release brings that bites: files it cannot load, options it lacks, limits, and instances over the cores."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import tiny_models

from builder.findings import Finding
from builder.validate import validate_repository

PYTHON = """backend: "python"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 3, 1024, 1024 ] }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""
ONNX = """backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
"""


def put(repository: Path, config: str) -> Path:
    (repository / "m" / "1").mkdir(parents=True)
    (repository / "m" / "config.pbtxt").write_text(config)
    (repository / "m" / "1" / "model.py").write_text("class TritonPythonModel:\n    pass\n")
    return repository / "m"


def put_onnx(repository: Path, config: str = ONNX, *, opset: int = 0, ir_version: int = 0) -> None:
    file = put(repository, config) / "1" / "model.onnx"
    tiny_models.linear(file)
    model = onnx.load(file)
    model.opset_import[0].version = opset or model.opset_import[0].version
    model.ir_version = ir_version or model.ir_version
    onnx.save(model, file)


def found(repository: Path, release: str, check: str, **more: int) -> list[Finding]:
    return [item for item in validate_repository(repository, release, **more) if item.check == check]


def test_an_opset_above_the_release_is_refused_with_the_first_that_loads_it(tmp_path: Path) -> None:
    put_onnx(tmp_path, opset=21)
    (one,) = found(tmp_path, "24.01", "release.opset")
    assert (one.severity, one.file) == ("error", "m/1/model.onnx")
    assert "ONNX Runtime 1.16.3, which loads opset 19 at most" in one.message
    assert "--triton 24.05 is the first that loads it" in one.remedy
    assert not found(tmp_path, "24.05", "release.opset")


def test_an_ir_version_above_the_release_is_refused(tmp_path: Path) -> None:
    put_onnx(tmp_path, ir_version=14)
    (one,) = found(tmp_path, "26.07", "release.ir_version")
    assert "IR version 14" in one.message
    assert "IR version 13 or lower" in one.remedy


@pytest.mark.parametrize(("release", "limited"), [("25.05", False), ("25.06", True)])
def test_a_request_above_the_limit_of_http_is_a_warning(tmp_path: Path, release: str, limited: bool) -> None:
    put(tmp_path, PYTHON)
    bitten = found(tmp_path, release, "release.http_limit")
    assert bool(bitten) == limited
    if bitten:
        assert bitten[0].severity == "warning"
        assert "96 MiB" in bitten[0].message
        assert f"--http-max-input-size={8 * 3 * 2**20 * 4 + 4096}" in bitten[0].remedy


def test_open_sizes_and_small_requests_have_no_limit(tmp_path: Path) -> None:
    put(tmp_path, PYTHON.replace("1024, 1024", "-1, 1024"))
    assert not found(tmp_path, "26.07", "release.http_limit")


@pytest.mark.parametrize(
    ("config", "old", "new", "check", "words"),
    [
        ('platform: "torch_aoti"', "26.02", "26.03", "release.platform", "is of Triton 26.03 and newer"),
        ('backend: "openvino" parameters { key: "TARGET_DEVICE" value { string_value: "CPU" } }', "25.09", "25.10",
         "release.parameter", "ignored: the openvino backend reads it since 25.10"),
    ],
)  # fmt: skip
def test_what_the_release_does_not_have_yet(  # noqa: PLR0917
    tmp_path: Path, config: str, old: str, new: str, check: str, words: str
) -> None:
    put(tmp_path, config)
    (one,) = found(tmp_path, old, check)
    assert words in one.message
    assert one.line == 1
    assert not found(tmp_path, new, check)


ACCELERATED = """optimization { execution_accelerators { gpu_execution_accelerator [ {
  name: "tensorrt"
  parameters { key: "precision_mode" value: "FP16" }
  parameters { key: "int8_calibration_table_name" value: "table" }
} ] } }
"""


def test_a_precision_mode_no_longer_holds_with_tensorrt_11(tmp_path: Path) -> None:
    put_onnx(tmp_path, ONNX + ACCELERATED)
    (one,) = found(tmp_path, "26.07", "release.precision_mode")
    assert (one.severity, one.line) == ("warning", 7)
    assert "--targets onnxruntime+tensorrt:fp16" in one.remedy
    (gone,) = found(tmp_path, "26.07", "release.accelerator")
    assert "calibration tables are gone" in gone.message
    assert not found(tmp_path, "25.12", "release.precision_mode")
    # The table holds "10.16 or 11.0" for it.
    assert not found(tmp_path, "26.06", "release.precision_mode")


@pytest.mark.parametrize(
    ("key", "release", "words"),
    [("89", "26.07", "no GPU has"), ("ampere", "26.07", "no GPU has"), ("7.0", "25.02", "nothing matches 7.0"),
     ("7.0", "25.01", ""), ("8.9", "26.07", "")],
)  # fmt: skip
def test_compute_capabilities_that_nothing_matches(tmp_path: Path, key: str, release: str, words: str) -> None:
    put(tmp_path, f'backend: "tensorrt"\ncc_model_filenames {{ key: "{key}" value: "model.py" }}\n')
    messages = [item.message for item in found(tmp_path, release, "release.capability")]
    assert [words in message for message in messages] == ([True] if words else [])


def test_more_instances_than_cores(tmp_path: Path) -> None:
    put(tmp_path, PYTHON + "instance_group [ { kind: KIND_CPU count: 3 }, { count: 2 } ]\n")
    (one,) = found(tmp_path, "26.07", "release.instances", cores=4)
    assert (one.severity, one.line) == ("warning", 5)
    assert "5 instances run on the CPU, which has 4 cores" in one.message
    assert not found(tmp_path, "26.07", "release.instances", cores=5)
    assert not found(tmp_path, "26.07", "release.instances", cores=4, gpus=1)


@pytest.mark.parametrize(
    ("words", "severity", "count"),
    [
        ("", "info", 2),
        ("instance_group [ { kind: KIND_CPU count: 3 } ]", "warning", 3),
        ("instance_group [ { kind: KIND_CPU count: 1 } ]", "", 0),
        ('parameters { key: "intra_op_thread_count" value: { string_value: "1" } }', "", 0),
        ('parameters { key: "intra_op_thread_count" value: { string_value: "0" } }', "info", 2),
    ],
)
def test_instances_of_onnxruntime_that_each_take_all_cores(
    words: str, severity: str, count: int, tmp_path: Path
) -> None:
    put_onnx(tmp_path, f"{ONNX}{words}\n")
    findings = found(tmp_path, "26.07", "release.threads")
    assert [item.severity for item in findings] == ([severity] if severity else [])
    for finding in findings:
        assert f"{count} instances run on the CPU" in finding.message
        assert f"CORES DIVIDED BY {count}" in finding.remedy
    assert not found(tmp_path, "26.07", "release.threads", gpus=1) or "KIND_CPU" in words
    if not words:
        (tmp_path / "m" / "config.pbtxt").unlink()
        assert found(tmp_path, "26.07", "release.threads") == findings, "the server completes it to the same"


@pytest.mark.parametrize("name", ["model.saved_model", "model.tflite", "model.pdmodel"])
def test_formats_that_only_openvino_reads_are_no_fault(tmp_path: Path, name: str) -> None:
    config = 'backend: "openvino"\ninput { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }\n'
    model = put(tmp_path, f'{config}output {{ name: "y" data_type: TYPE_FP32 dims: [ 3 ] }}\n')
    (model / "config.pbtxt").write_text(
        f'default_model_filename: "{name}"\n' + (model / "config.pbtxt").read_text(), encoding="utf-8"
    )
    if name.endswith("saved_model"):
        (model / "1" / name).mkdir()
    else:
        (model / "1" / name).write_bytes(b"x")
    judged = validate_repository(tmp_path, "26.07")
    assert [item.severity for item in judged] == ["info"]
    assert "only OpenVINO itself reads that format" in judged[0].message


def test_a_folder_of_any_name_holds_model_onnx(tmp_path: Path) -> None:
    put_onnx(tmp_path, 'default_model_filename: "net"\n' + ONNX + "instance_group { kind: KIND_CPU count: 1 }\n")
    version = tmp_path / "m" / "1"
    (version / "net").mkdir()
    (version / "model.onnx").rename(version / "net" / "model.onnx")
    assert validate_repository(tmp_path, "26.07") == ()
    (version / "net" / "model.onnx").rename(version / "net" / "net")
    assert [item.severity for item in validate_repository(tmp_path, "26.07")] == ["error"]
