"""`build-repo validate` on good and bad repositories, in every format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import tiny_models
from command_line import ROOT, environment, run

CONFIG = """name: "m"
backend: "onnxruntime"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 3 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 2 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One good model; its true sizes are those of `tiny_models.LINEAR`."""
    (tmp_path / "repo" / "m" / "1").mkdir(parents=True)
    tiny_models.linear(tmp_path / "repo" / "m" / "1" / "model.onnx")
    ports = tiny_models.LINEAR
    text = CONFIG.replace("[ 3 ]", str(list(ports.inputs[0].shape[1:]))).replace(
        "[ 2 ]", str(list(ports.outputs[0].shape[1:]))
    )
    text = text.replace('"x"', f'"{ports.inputs[0].name}"').replace('"y"', f'"{ports.outputs[0].name}"')
    (tmp_path / "repo" / "m" / "config.pbtxt").write_text(text)
    return tmp_path / "repo"


def spoil(repository: Path) -> None:
    path = repository / "m" / "config.pbtxt"
    path.write_text(path.read_text().replace("TYPE_FP32", "TYPE_FP16", 1))


def test_a_good_repository_has_no_findings(repository: Path) -> None:
    ran = run("validate", repository, "--format", "json", cwd=repository.parent)
    assert (ran.code, ran.document["findings"]) == (0, [])


def test_a_fault_is_an_error_with_file_line_and_remedy(repository: Path) -> None:
    spoil(repository)
    ran = run("validate", repository, "--format", "json", cwd=repository.parent)
    assert ran.code == 3
    (found,) = ran.document["findings"]
    assert set(found) == {"severity", "check", "model", "file", "line", "message", "remedy"}
    assert (found["severity"], found["model"], found["file"], found["line"]) == ("error", "m", "m/config.pbtxt", 4)
    assert "configuration expects datatype TYPE_FP16 for input" in found["message"]


def test_sarif_points_to_the_line(repository: Path) -> None:
    spoil(repository)
    ran = run("validate", repository, "--format", "sarif", cwd=repository.parent)
    assert ran.code == 3
    assert ran.document["version"] == "2.1.0"
    (result,) = ran.document["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "m/config.pbtxt"
    assert place["region"] == {"startLine": 4}
    assert ran.document["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]


def test_junit_has_a_case_for_every_model(repository: Path) -> None:
    (repository / "empty").mkdir()
    ran = run("validate", repository, "--format", "junit", cwd=repository.parent)
    root = ET.fromstring(ran.out)
    assert {case.get("name"): len(case) for case in root} == {"empty": 2, "m": 0}


def test_text_counts_and_names_the_next_step(repository: Path) -> None:
    spoil(repository)
    ran = run("validate", repository, cwd=repository.parent)
    assert "1 model judged for Triton 26.07: 1 error" in ran.out
    assert "try: " in ran.err


@pytest.mark.parametrize("name", ["nowhere", "repo/m/1"])
def test_no_repository_is_a_usage_error(repository: Path, name: str) -> None:
    ran = run("validate", repository.parent / name, "--format", "json", cwd=repository.parent)
    assert ran.code == 2
    assert "folder" in ran.err
    assert ran.document["findings"][0]["severity"] == "error"


def test_an_unknown_release_is_refused(repository: Path) -> None:
    assert run("validate", repository, "--triton", "19.01", cwd=repository.parent).code == 2


def test_nothing_is_changed(repository: Path) -> None:
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    run("validate", repository, cwd=repository.parent)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("form", ["text", "json", "sarif", "junit"])
def test_names_that_no_terminal_and_no_document_should_meet_as_they_are(tmp_path: Path, form: str) -> None:
    text = 'backend: "python"\ninput { name: "x\\033[31m" data_type: TYPE_FP32 dims: 0 }\n'
    for name in (b"a\xff", b"b\x1b[31m", "c\u202e".encode()):
        version = os.fsencode(tmp_path) + b"/" + name + b"/1"
        os.makedirs(version + b"\xfe")  # noqa: PTH103 - bytes that are no text
        os.makedirs(version)  # noqa: PTH103
        Path(os.fsdecode(version)).with_name("config.pbtxt").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "builder", "validate", str(tmp_path), "--format", form]
    ran = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, check=False)
    assert ran.returncode == 3, ran.stderr.decode()
    out = ran.stdout.decode("utf-8")
    assert "no UTF-8" in out + ran.stderr.decode("utf-8")
    assert not {"\x1b", "\u202e"} & set(ran.stderr.decode("utf-8"))
    if form in ("json", "sarif"):
        json.loads(out)
    elif form == "junit":
        ET.fromstring(out)
