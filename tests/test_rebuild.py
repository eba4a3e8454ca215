"""A build that finds everything done: the same bytes, and nothing heavy in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import yaml
from command_line import build, contents, environment

HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "tritonclient", "grpc", "numpy", "jinja2", "google"}
SCRIPT = """
import json, sys
from builder.cli import main
code = main(sys.argv[1:])
sys.stderr.write("\\nLOADED " + json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    tiny_models.linear(tmp_path / "m.onnx")
    write_spec(tmp_path)
    return tmp_path


def write_spec(here: Path, **words: Any) -> None:
    model = {"name": "m", "source": {"path": "m.onnx"}, "targets": ["onnxruntime:fp32"], "warmup": {"samples": 2}}
    (here / "spec.yaml").write_text(yaml.safe_dump({"models": [{**model, **words}]}), encoding="utf-8")


def test_a_rebuild_changes_nothing_and_imports_nothing_heavy(here: Path) -> None:
    assert build("spec.yaml", "-o", "repo", cwd=here, check="offline").code == 0
    before = contents(here / "repo")
    assert any("warmup" in str(name) for name in before)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "build", "spec.yaml", "-o", "repo", "--check", "offline"],
        cwd=here, env=environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    code, names = json.loads(done.stderr.rpartition("LOADED ")[2])
    assert code == 0, done.stderr
    assert set(names) & HEAVY == set()
    assert contents(here / "repo") == before


def test_a_changed_word_is_rendered_again_and_the_first_one_is_remembered(here: Path) -> None:
    assert build("spec.yaml", "-o", "repo", cwd=here, check="offline").code == 0
    first = contents(here / "repo" / "m")
    write_spec(here, config={"response_cache": {"enable": True}})
    assert build("spec.yaml", "-o", "repo", cwd=here, check="offline").code == 0
    text = (here / "repo" / "m" / "config.pbtxt").read_text(encoding="utf-8")
    assert "response_cache" in text
    write_spec(here)
    assert build("spec.yaml", "-o", "repo", cwd=here, check="offline").code == 0
    assert contents(here / "repo" / "m") == first


def test_a_kept_offline_verdict_is_only_for_the_files_it_judged(here: Path) -> None:
    assert build("spec.yaml", "-o", "repo", cwd=here, check="offline").code == 0
    before = contents(here / "repo")
    write_spec(here, config={"version_policy": {"specific": {"versions": [7]}}})
    for _ in range(2):
        ran = build("spec.yaml", "-o", "repo", cwd=here, check="offline")
        assert ran.code == 3
        assert "structure" in ran.err
        assert contents(here / "repo") == before


def test_warm_up_requests_run_as_often_as_asked(here: Path) -> None:
    write_spec(here, warmup={"samples": 1, "count": 5})
    assert build("spec.yaml", "-o", "repo", cwd=here, check="offline").code == 0
    assert "count: 5" in (here / "repo" / "m" / "config.pbtxt").read_text(encoding="utf-8")
