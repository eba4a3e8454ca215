"""Several versions of one model: which stay, which are served, and that each served one is checked by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Ran, build, contents, run
from tiny_models import linear

from builder.runtime import Runtime
from builder.versions import kept_versions, served_numbers


@pytest.mark.parametrize(
    ("serve", "expected"),
    [("latest", [5]), ("all", [1, 2, 5]), (2, [2, 5]), (9, [1, 2, 5]), ((1, 5, 7), [1, 5]), ((4,), [])],
)
def test_what_a_policy_serves(serve: Any, expected: list[int]) -> None:
    assert served_numbers(serve, [5, 1, 2]) == expected


@pytest.mark.parametrize(
    ("keep", "pinned", "expected"),
    [
        (1, (), []),
        (2, (), [4]),
        (3, (), [2, 4]),
        (2, (1,), [1]),
        (3, (1,), [1, 4]),
        (1, (1, 2), [1, 2]),
        (9, (), [1, 2, 4]),
    ],
)
def test_what_stays_beside_the_new_version(keep: int, pinned: tuple[int, ...], expected: list[int]) -> None:
    assert kept_versions([1, 2, 4], 5, keep, pinned) == expected


def write_spec(here: Path, serve: Any, keep: int = 3) -> None:
    model = {
        "name": "m", "source": {"path": "m.onnx"}, "targets": ["onnxruntime:fp32"],
        "versions": {"keep": keep, "serve": serve},
    }  # fmt: skip
    (here / "spec.yaml").write_text(yaml.safe_dump({"models": [model]}), encoding="utf-8")


def make(here: Path, seed: int, check: str = "offline", **more: Any) -> Ran:
    """Build anew from other weights."""
    linear(here / "m.onnx", seed=seed)
    return build("spec.yaml", "-o", "repo", cwd=here, check=check, **more)


def others(here: Path) -> dict[str, str | None]:
    manifest = json.loads((here / "repo" / "build-repo.json").read_text(encoding="utf-8"))
    found: dict[str, str | None] = manifest["models"]["m"]["served"][0]["others"]
    return found


def test_answers_stay_with_versions_that_are_served(tmp_path: Path) -> None:
    write_spec(tmp_path, "all")
    assert make(tmp_path, 0).code == 0
    first = (tmp_path / "repo/m/reference.npz").read_bytes()
    assert make(tmp_path, 1).code == 0
    second = (tmp_path / "repo/m/reference.npz").read_bytes()
    assert make(tmp_path, 2).code == 0
    assert others(tmp_path) == {"1": "reference.1.npz", "2": "reference.2.npz"}
    assert (tmp_path / "repo/m/reference.1.npz").read_bytes() == first
    assert (tmp_path / "repo/m/reference.2.npz").read_bytes() == second
    before = contents(tmp_path / "repo")
    assert make(tmp_path, 2).code == 0
    assert contents(tmp_path / "repo") == before
    assert make(tmp_path, 3).code == 0
    assert others(tmp_path) == {"2": "reference.2.npz", "3": "reference.3.npz"}
    assert not (tmp_path / "repo/m/reference.1.npz").exists()


def test_a_version_whose_answers_were_not_kept_is_never_called_checked(tmp_path: Path) -> None:
    write_spec(tmp_path, "latest")
    assert make(tmp_path, 0).code == 0
    assert make(tmp_path, 1).code == 0
    write_spec(tmp_path, "all")
    ran = make(tmp_path, 1)
    assert ran.code == 0
    assert "version 1 is served too and not checked live" in ran.err
    assert others(tmp_path) == {"1": None}


def test_a_list_without_the_version_that_is_made(tmp_path: Path) -> None:
    write_spec(tmp_path, [1, 2])
    assert make(tmp_path, 0).code == 0
    assert make(tmp_path, 1).code == 0
    before = contents(tmp_path / "repo")
    ran = make(tmp_path, 2)
    assert ran.code == 3
    assert "version 3, which this build makes, is not among the served versions 1, 2" in ran.err
    assert contents(tmp_path / "repo") == before


@pytest.mark.live
@pytest.mark.slow
def test_each_served_version_is_checked_by_its_number(tmp_path: Path, runtime: Runtime) -> None:
    write_spec(tmp_path, 2)
    assert make(tmp_path, 0, "live").code == 0
    ran = make(tmp_path, 1, "live")
    assert ran.code == 0
    assert "live check of m, m:1: done" in ran.err
    checked = run("check", "repo", "--json", cwd=tmp_path).document
    assert [(item["name"], item["status"]) for item in checked["models"]] == [
        ("m", "passed"),
        ("m version 1", "passed"),
    ]
    # Somebody puts other weights in the place of version 1: the next build sees it and replaces nothing.
    linear(tmp_path / "repo/m/1/model.onnx", seed=9)
    before = contents(tmp_path / "repo")
    write_spec(tmp_path, 2, keep=4)
    linear(tmp_path / "m.onnx", seed=1)
    ran = build("spec.yaml", "-o", "repo", cwd=tmp_path, check="live")
    assert ran.code == 3
    assert "version 1: " in ran.err
    assert contents(tmp_path / "repo") == before
    checked = run("check", "repo", "--json", cwd=tmp_path)
    assert checked.code == 3
    assert [item["status"] for item in checked.document["models"]] == ["passed", "failed"]
