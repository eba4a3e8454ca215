"""`.pre-commit-hooks.yaml`: what pre-commit needs is in it, and its entry runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import tiny_models
import yaml
from command_line import ROOT, run

CONFIG = """backend: "onnxruntime"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] }
"""


def hook() -> dict[str, object]:
    (only,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    return dict(only)


def test_the_definition_holds_what_pre_commit_needs() -> None:
    assert hook()["id"] == "build-repo-validate"
    assert hook()["language"] == "python"
    assert {"name", "entry", "files"} <= set(hook())
    files = re.compile(str(hook()["files"]))
    assert files.search("model_repository/m/config.pbtxt")
    assert files.search("model_repository/m/1/model.onnx")
    assert not files.search("src/main.c")


def test_the_entry_runs_with_its_arguments(tmp_path: Path) -> None:
    words = shlex.split(str(hook()["entry"])) + list(hook()["args"])  # type: ignore[call-overload]
    assert words[0] == "build-repo"
    model = tmp_path / "model_repository" / "m"
    (model / "1").mkdir(parents=True)
    tiny_models.linear(model / "1" / "model.onnx")
    (model / "config.pbtxt").write_text(CONFIG)
    assert run(*words[1:], cwd=tmp_path).code == 0
    (model / "config.pbtxt").write_text(CONFIG.replace("FP32", "FP16", 1))
    assert run(*words[1:], cwd=tmp_path).code == 3
