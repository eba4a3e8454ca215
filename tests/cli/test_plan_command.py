from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import Ran, build, run, snapshot

ARGUMENTS = ("m.onnx", "-o", "repo", "--targets", "onnxruntime:fp32")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    tiny_models.linear(tmp_path / "m.onnx")
    return tmp_path


def works(ran: Ran) -> dict[str, dict[str, Any]]:
    assert ran.code == 0, ran.err
    return {work["work"]: work for model in ran.document["models"] for work in model["works"]}


def plan(*arguments: object, cwd: Path, **more: Any) -> dict[str, dict[str, Any]]:
    return works(run("plan", *arguments, "--json", cwd=cwd, **more))


def test_it_changes_nothing(here: Path) -> None:
    before = snapshot(here)
    found = plan(*ARGUMENTS, cwd=here, cache=here / "cache")
    assert [work["why"] for work in found.values()] == ["new"] * 4
    assert snapshot(here) == before


def test_it_says_what_is_cached_and_why_not(here: Path) -> None:
    assert build(*ARGUMENTS, cwd=here).code == 0
    found = plan(*ARGUMENTS, cwd=here)
    assert list(found) == [
        "export",
        "prepare fp32 (onnxruntime)",
        "onnxruntime:fp32 convert",
        "onnxruntime:fp32 measure",
    ]
    assert all(work["cached"] for work in found.values())
    tiny_models.linear(here / "m.onnx", seed=77)
    changed = plan(*ARGUMENTS, cwd=here)
    assert not any(work["cached"] for work in changed.values())
    assert changed["export"]["why"].startswith('source.digest: "')
    assert changed["onnxruntime:fp32 convert"]["why"].startswith('export: "')


def test_another_release_is_named_as_the_reason(here: Path) -> None:
    assert build(*ARGUMENTS, cwd=here).code == 0
    found = plan(*ARGUMENTS, "--triton", "25.01", cwd=here)
    assert "opset" in found["export"]["why"]
    assert 'release: "26.07" → "25.01"' in found["onnxruntime:fp32 convert"]["why"]


def test_what_was_built_and_is_gone_from_the_cache_is_said(here: Path) -> None:
    assert build(*ARGUMENTS, cwd=here).code == 0
    found = plan(*ARGUMENTS, cwd=here, cache=here / "another")
    assert {work["why"] for work in found.values()} == {"not in this cache"}


def test_the_defaults_are_printed(here: Path) -> None:
    ran = run("plan", *ARGUMENTS, cwd=here)
    assert ran.code == 0
    for word in ("max_batch_size 8", "min_cosine 0.999", "release 26.07", "versions_kept 2", "serve best"):
        assert word in ran.out
