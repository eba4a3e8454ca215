"""A build with a tuning file beside its spec: what it serves, says, records, and when it goes back to the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import yaml
from command_line import assert_refused, build, contents, run
from tuned_models import WORDS, tuned_model

from builder.manifest import read_manifest
from builder.tuning_file import write_tuning

OTHER = {"serve": "onnxruntime:fp32", "batching": {"max_batch_size": 4}, "onnxruntime": {"intra_op_threads": 1}}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    tiny_models.linear(tmp_path / "m.onnx")
    tiny_models.drifting(tmp_path / "drift.onnx")
    write_spec(tmp_path)
    return tmp_path


def write_spec(here: Path, **words: Any) -> None:
    model = {"name": "m", "source": {"path": "m.onnx"}, "targets": ["onnxruntime:fp32", "openvino:fp32"], **words}
    (here / "models.yaml").write_text(yaml.safe_dump({"models": [model]}), encoding="utf-8")


def write(here: Path, words: dict[str, Any], name: str = "models.tuning.yaml") -> None:
    write_tuning(here / name, {"m": words}, {"m": tuned_model()})


def document(here: Path, *arguments: str) -> Any:
    ran = build("models.yaml", "-o", "repo", "--json", *arguments, cwd=here, check="offline")
    assert ran.code == 0, ran.err
    return ran.document


def config(here: Path) -> str:
    return (here / "repo" / "m" / "config.pbtxt").read_text(encoding="utf-8")


def test_the_file_beside_the_spec_decides_and_is_recorded(here: Path) -> None:
    write(here, WORDS)
    made = document(here)
    assert made["models"][0]["served"] == {"backend": "openvino", "precision": "fp32"}
    assert made["models"][0]["tuned"] is True
    assert made["models"][0]["choice"] == {
        "by": "tuning",
        "objective": "throughput",
        "unit": "rows/s",
        "values": {"onnxruntime:fp32": 100.0, "openvino:fp32": 200.0},
    }
    checks = {finding["check"]: finding["message"] for finding in made["findings"]}
    assert "models.tuning.yaml" in checks["tuning.file"]
    assert "another model" in checks["tuning.changed"]
    assert 'key: "INFERENCE_NUM_THREADS"' in config(here)
    write(here, OTHER)
    assert document(here)["models"][0]["served"]["backend"] == "onnxruntime"
    assert "max_batch_size: 4" in config(here)
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert manifest.run.tuning == {"m": tuned_model()}


def test_the_same_file_again_changes_nothing_and_none_leaves_it_out(here: Path) -> None:
    plain = document(here)
    before = contents(here / "repo" / "m")
    assert plain["models"][0]["tuned"] is False
    choice = plain["models"][0]["choice"]
    assert (choice["by"], choice["objective"], choice["unit"]) == ("measurement", "latency", "ms")
    assert min(choice["values"], key=choice["values"].get) == next(iter(choice["values"]))
    write(here, OTHER)
    document(here)
    tuned, stamp = contents(here / "repo"), (here / "repo" / "build-repo.json").stat().st_mtime_ns
    document(here)
    assert contents(here / "repo") == tuned
    assert (here / "repo" / "build-repo.json").stat().st_mtime_ns == stamp
    document(here, "--tuning", "none")
    assert contents(here / "repo" / "m") == before
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert manifest.run.tuning == {}


def test_new_evidence_of_the_same_words_is_recorded(here: Path) -> None:
    write(here, OTHER)
    document(here)
    write_tuning(here / "models.tuning.yaml", {"m": OTHER}, {"m": tuned_model(export_key="2" * 32)})
    document(here)
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert manifest.run.tuning["m"].export_key == "2" * 32


def test_a_tuned_target_that_misses_a_gate_gives_way(here: Path) -> None:
    write_spec(here, source={"path": "drift.onnx"}, targets=["onnxruntime:fp32", "openvino:fp16"])
    write(here, {"serve": "openvino:fp16", "batching": {"max_batch_size": 4}})
    made = document(here)
    assert made["models"][0]["served"] == {"backend": "onnxruntime", "precision": "fp32"}
    lost = [finding for finding in made["findings"] if finding["check"] == "tuning.lost"]
    assert [finding["severity"] for finding in lost] == ["warning"]
    assert "openvino:fp16 is " in lost[0]["message"]
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert manifest.run.tuning == {}, "what was measured is not what is served"
    write_spec(
        here, source={"path": "drift.onnx"}, targets=["onnxruntime:fp32", "openvino:fp16"], serve="openvino:fp16"
    )
    assert build("models.yaml", "-o", "repo", cwd=here).code != 0, "a target that the user asked for blocks"


def test_what_a_build_does_not_name_keeps_its_evidence(here: Path) -> None:
    write(here, OTHER)
    document(here)
    tiny_models.twice(here / "n.onnx")
    assert build("n.onnx", "-o", "repo", "--targets", "onnxruntime:fp32", cwd=here).code == 0
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert set(manifest.models) == {"m", "n"}
    assert set(manifest.run.tuning) == {"m"}


def test_a_file_of_another_place_and_a_wrong_one(here: Path) -> None:
    write(here, OTHER, "mine.yaml")
    assert document(here, "--tuning", "mine.yaml")["models"][0]["tuned"] is True
    before = contents(here / "repo")
    (here / "mine.yaml").write_text("format: 1\nmodels: {m: {threads: 1}}\n", encoding="utf-8")
    for command in ("build", "plan"):
        ran = run(command, "models.yaml", "-o", "repo", "--tuning", "mine.yaml", cwd=here)
        assert_refused(ran, 2, "mine.yaml: line 2: models.m.threads: unknown key 'threads'")
        assert_refused(run(command, "models.yaml", "--tuning", "no.yaml", cwd=here), 2, "no.yaml: no such file")
    assert contents(here / "repo") == before


def test_plan_and_the_table_say_so(here: Path) -> None:
    write(here, OTHER, "m.tuning.yaml")
    arguments = ("m.onnx", "--targets", "onnxruntime:fp32,openvino:fp32", "-o", "repo")
    planned = run("plan", *arguments, "--json", cwd=here)
    assert planned.document["tuning"] == "m.tuning.yaml"
    assert {finding["check"] for finding in planned.document["findings"]} == {"tuning.file", "tuning.changed"}
    assert "tuned by m.tuning.yaml" in run("plan", *arguments, cwd=here).err
    ran = build(*arguments, cwd=here, COLUMNS="200")
    row = next(line for line in ran.out.splitlines() if "onnxruntime:fp32" in line)
    assert row.rstrip().endswith("← served, tuned")
    key = json.loads((here / "repo" / "build-repo.json").read_text(encoding="utf-8"))["models"]["m"]["export_key"]
    write_tuning(here / "m.tuning.yaml", {"m": OTHER}, {"m": tuned_model(export_key=key)})
    planned = run("plan", *arguments, "--json", cwd=here)
    assert [finding["check"] for finding in planned.document["findings"]] == ["tuning.file"]
