"""int8 from a model and labelled samples to a repository, by the command alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import digits
import numpy as np
import pytest
import tiny_models
from command_line import build, contents, run

from builder.manifest import read_manifest
from builder.measurement import CALIBRATION_FILE, CALIBRATION_TABLE, ONNX_FILE, REFERENCE_FILE
from builder.samples import load_requests
from builder.tensors import Signature

INT8 = ("onnxruntime:int8", "openvino:int8")


def write_spec(folder: Path, **more: Any) -> Path:
    model = {
        "name": "digits",
        "source": {"path": "digits.onnx"},
        "samples": {"path": "digits.npz", "labels": "label"},
        "targets": ["onnxruntime:fp32", *INT8],
        "serve": "all",
    } | more
    path = folder / "models.yaml"
    path.write_text(json.dumps({"models": [model]}))
    return path


def targets_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {f"{t['backend']}:{t['precision']}": t for t in document["models"][0]["targets"]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model, its samples and a repository made of them."""
    folder = tmp_path_factory.mktemp("int8")
    digits.write_digits(folder)
    ran = build(write_spec(folder), "-o", "repo", "--json", cwd=folder, cache=folder / "cache")
    assert ran.code == 0, ran.err
    (folder / "ran.json").write_text(ran.out)
    return folder


def test_a_trained_classifier_keeps_its_classes_and_loses_its_size(trained: Path) -> None:
    found = targets_of(json.loads((trained / "ran.json").read_text()))
    assert {found[word]["status"] for word in INT8} == {"built"}
    for word in INT8:
        metric = found[word]["measurement"]["metric"]
        assert metric["source"] > 0.9
        assert metric["source"] - metric["target"] <= 0.01
        assert found[word]["size_bytes"] <= 0.31 * found["onnxruntime:fp32"]["size_bytes"]
        assert found[word]["findings"] == []


def test_the_split_is_recorded_and_disjoint(trained: Path) -> None:
    manifest = read_manifest(trained / "repo")
    assert manifest is not None
    record = manifest.models["digits"]
    assert record.samples == "digits.npz, 300 rows, 300 others calibrate int8 (split by seed 0)"
    (export,) = (trained / "cache" / "export").iterdir()
    inputs = Signature(record.signature.inputs, ())
    parts = [
        {row.tobytes() for request in load_requests(export / name, inputs) for row in request.inputs["image"]}
        for name in (CALIBRATION_FILE, REFERENCE_FILE)
    ]
    assert [len(part) for part in parts] == [300, 300]
    assert not parts[0] & parts[1]


def test_the_table_lies_beside_the_graph_and_is_kept_once(trained: Path) -> None:
    prepared = [path for path in (trained / "cache" / "prepare").iterdir() if (path / CALIBRATION_TABLE).is_file()]
    assert len(prepared) == 2, "one for each dialect"
    tables = {(path / CALIBRATION_TABLE).read_text() for path in prepared}
    cached = {path.read_text() for path in (trained / "cache" / "shared" / "calibration").iterdir()}
    assert len(tables) == len(cached) == 1
    assert cached == tables


def test_two_builds_give_the_same_bytes(trained: Path, tmp_path: Path) -> None:
    for name in ("digits.onnx", "digits.npz"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    ran = build(write_spec(tmp_path), "-o", "repo", cwd=tmp_path, cache=tmp_path / "cache", PYTHONHASHSEED="77")
    assert ran.code == 0, ran.err
    left, right = (
        {k: v for k, v in contents(f / "repo").items() if k.startswith("digits_")} for f in (trained, tmp_path)
    )
    assert left == right


@pytest.mark.live
def test_the_served_endpoint_is_judged_by_the_same_gates(trained: Path, runtime: object) -> None:
    """The metric decides in process; live answers must be as near as they were there."""
    ran = build(write_spec(trained), "-o", "repo", "--json", cwd=trained, check="live", cache=trained / "cache")
    assert ran.code == 0, ran.err
    assert not [f for f in ran.document["findings"] if f["severity"] == "error"]
    checked = run("check", "repo", "--json", cwd=trained)
    assert checked.code == 0, checked.out


def test_bounds_on_tensors_hold_where_they_are_given(trained: Path) -> None:
    """They are not met by int8, though no class changes."""
    accuracy = {"max_relative_error": 1e-4, "search_budget_s": 0}
    spec = write_spec(trained, targets=["onnxruntime:fp32", "onnxruntime:int8"], serve="best", accuracy=accuracy)
    ran = build(spec, "-o", "other", "--json", cwd=trained, cache=trained / "cache")
    assert ran.code == 0, ran.err
    target = targets_of(ran.document)["onnxruntime:int8"]
    assert target["status"] == "rejected"
    assert [finding["check"] for finding in target["findings"] if "accuracy" in finding["check"]] == ["accuracy.error"]


def test_zeros_as_samples_are_caught(tmp_path: Path) -> None:
    digits.write_digits(tmp_path)
    np.savez(tmp_path / "digits.npz", image=np.zeros((20, 1, 8, 8), np.float32), label=np.zeros(20, np.int64))
    ran = build(write_spec(tmp_path, serve="best"), "-o", "repo", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    for word in INT8:
        target = targets_of(ran.document)[word]
        assert target["status"] == "failed"
        (finding,) = [item for item in target["findings"] if item["check"] == "target.failed"]
        assert "'image' is 0 in every element" in finding["message"]
        assert "samples" in finding["remedy"]


def test_one_sample_many_times_is_caught(tmp_path: Path) -> None:
    found = digits.write_digits(tmp_path)
    with np.load(found.samples) as stored:
        rows = np.repeat(stored["image"][:1], 20, axis=0)
    np.savez(tmp_path / "digits.npz", image=rows, label=np.zeros(20, np.int64))
    ran = build(
        write_spec(tmp_path, serve="best", targets=["onnxruntime:fp32", INT8[0]]), "-o", "repo", "--json", cwd=tmp_path
    )
    target = targets_of(ran.document)[INT8[0]]
    assert target["status"] == "failed"
    assert "10 calibration samples are 10 times the same" in str(target["findings"])


def test_without_samples_int8_is_refused_before_any_work(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    ran = build("m.onnx", "-o", "repo", "--targets", "openvino:int8", cwd=tmp_path)
    assert ran.code == 2
    assert "needs real samples to calibrate with" in ran.err
    assert "--samples FILE.npz" in ran.err
    assert not (tmp_path / "repo").exists()


def test_one_row_is_too_few(tmp_path: Path) -> None:
    digits.write_digits(tmp_path)
    np.savez(tmp_path / "digits.npz", image=np.ones((1, 1, 8, 8), np.float32), label=np.zeros(1, np.int64))
    ran = build(write_spec(tmp_path), "-o", "repo", cwd=tmp_path)
    assert ran.code != 0
    assert "int8 calibrates on one part" in ran.err
    assert "at least 2 rows" in ran.err


def test_a_handful_of_rows_is_said_to_be_one(tmp_path: Path) -> None:
    found = digits.write_digits(tmp_path)
    with np.load(found.samples) as stored:
        rows, labels = stored["image"][:4], stored["label"][:4]
    np.savez(tmp_path / "digits.npz", image=rows, label=labels)
    spec = write_spec(tmp_path, serve="best", targets=["onnxruntime:fp32", INT8[0]])
    ran = build(spec, "-o", "repo", "--json", cwd=tmp_path)
    said = [
        item["message"] for item in targets_of(ran.document)[INT8[0]]["findings"] if item["check"] == "precision.note"
    ]
    assert "only 2 rows of the samples calibrated int8" in said[0]


def test_dynamic_is_for_onnxruntime_alone(tmp_path: Path) -> None:
    digits.write_digits(tmp_path)
    spec = write_spec(tmp_path, quantization={"mode": "dynamic"})
    ran = build(spec, "-o", "repo", cwd=tmp_path)
    assert ran.code == 2
    assert "openvino:int8 takes static int8 only" in ran.err
    spec = write_spec(tmp_path, quantization={"mode": "dynamic"}, samples=None, targets=["onnxruntime:int8"])
    ran = build(spec, "-o", "repo", "--json", cwd=tmp_path, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache" / "export").glob(f"*/{CALIBRATION_FILE}")), ran.err
    made = list((tmp_path / "cache" / "prepare").glob(f"*/{ONNX_FILE}"))
    assert made, ran.err


def test_a_pytorch_model_keeps_its_batch_axis_beside_int8(tmp_path: Path) -> None:
    """The rows that calibrate are no part of the reference, and answers of one part are no answers to the other."""
    import torch
    from torch import nn

    digits.write_digits(tmp_path)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)).eval()
    torch.jit.script(network).save(str(tmp_path / "net.pt"))
    inputs = [{"name": "image", "dtype": "float32", "shape": ["batch", 1, 8, 8]}]
    spec = write_spec(tmp_path, source={"path": "net.pt"}, inputs=inputs, targets=["onnxruntime:fp32", INT8[0]])
    ran = build(spec, "-o", "repo", "--json", cwd=tmp_path, cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    for target in targets_of(ran.document).values():
        assert target["measurement"]["batch"]["proven"]
        assert not [finding for finding in target["findings"] if finding["check"] == "batch.unproven"]
