"""A build in a lower precision, from the command to the repository: size, accuracy, proof and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import digits
import planted_models
import pytest
import tiny_models
from command_line import Ran, build


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ran]:
    """`build-repo build digits.onnx` for two CPUs' fp16, beside fp32."""
    folder = tmp_path_factory.mktemp("digits")
    written = digits.write_digits(folder)
    spec = {
        "models": [
            {
                "name": "digits",
                "source": {"path": written.model.name},
                "samples": {"path": written.samples.name, "labels": "label"},
                "accuracy": {"metric": "top1", "max_drop": 0.001},
                "targets": ["onnxruntime:fp32", "openvino:fp32", "onnxruntime:fp16", "openvino:fp16"],
                "serve": "all",
            }
        ]
    }
    (folder / "models.yaml").write_text(json.dumps(spec))
    return folder, build("models.yaml", "-o", "repository", "--json", cwd=folder)


def targets_of(ran: Ran) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    return {f"{item['backend']}:{item['precision']}": item for item in ran.document["models"][0]["targets"]}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_fp16_is_half_as_large_and_as_good(made: tuple[Path, Ran], backend: str) -> None:
    targets = targets_of(made[1])
    low, full = targets[f"{backend}:fp16"], targets[f"{backend}:fp32"]
    assert low["size_bytes"] <= 0.52 * full["size_bytes"]
    metric = low["measurement"]["metric"]
    assert metric["rows"] == 600
    assert metric["source"] > 0.95, "the network was trained"
    assert metric["source"] - metric["target"] <= 0.001
    assert dict(map(tuple, low["measurement"]["precision"]["weights"]))["fp16"] > 0.95
    assert low["measurement"]["compute"].split(",")[0] in ("fp32", "bf16"), "what a CPU computes fp16 in is said"


def test_the_graph_of_each_target_is_in_the_json_and_in_the_manifest(made: tuple[Path, Ran]) -> None:
    folder, ran = made
    targets = targets_of(ran)
    prepared = {name: item["prepare"]["precision"] for name, item in targets.items()}
    assert prepared == {
        "onnxruntime:fp32": "fp32",
        "openvino:fp32": "fp32",
        "onnxruntime:fp16": "fp16",
        "openvino:fp16": "fp32",
    }, "OpenVINO stores halves itself"
    manifest = json.loads((folder / "repository" / "build-repo.json").read_text())
    records = {
        f"{item['target']['backend']}:{item['target']['precision']}": item
        for item in manifest["models"]["digits"]["targets"]
    }
    for name, item in targets.items():
        assert records[name]["prepare"]["precision"] == item["prepare"]["precision"]
        assert records[name]["numbers"]["precision"] == item["measurement"]["precision"]
        clocks = [transform["median_ms_before"] for transform in records[name]["prepare"]["transforms"]]
        assert clocks == [None] * len(clocks)


def test_the_inputs_and_outputs_of_the_served_model_are_the_sources(made: tuple[Path, Ran]) -> None:
    config = (made[0] / "repository" / "digits_onnxruntime_fp16" / "config.pbtxt").read_text()
    assert config.count("TYPE_FP32") == 2
    assert "TYPE_FP16" not in config


def test_the_overflowing_layers_are_found_by_the_command_alone(tmp_path: Path) -> None:
    planted = planted_models.chain(tmp_path / "m.onnx")
    ran = build("m.onnx", "--targets", "onnxruntime:fp16", "-o", "repository", "--json", cwd=tmp_path)
    target = targets_of(ran)["onnxruntime:fp16"]
    assert {node["name"] for node in target["prepare"]["kept_fp32"]} == planted
    (said,) = [item["message"] for item in target["findings"] if item["check"] == "precision.kept"]
    assert said == ("3 nodes stay in fp32 within the fp16 graph: square (Pow), sum (ReduceSum), root (Sqrt)")


def test_a_precision_that_cannot_meet_its_gates_is_a_failed_target(tmp_path: Path) -> None:
    tiny_models.drifting(tmp_path / "m.onnx")
    ran = build("m.onnx", "--targets", "onnxruntime:fp32,onnxruntime:fp16", "-o", "r", "--json", cwd=tmp_path)
    target = targets_of(ran)["onnxruntime:fp16"]
    (finding,) = target["findings"]
    assert (target["status"], finding["check"], finding["severity"]) == ("failed", "target.failed", "warning")
    assert "every node in fp32" in finding["message"]
    assert ran.document["models"][0]["served"] == {"backend": "onnxruntime", "precision": "fp32"}
