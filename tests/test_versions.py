"""Several versions of one model: which stay, which are served, and that each served one is checked by its number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from command_line import Ran, build, contents, run
from tiny_models import drifting, linear, mixing, overflowing, wide

from builder.errors import SpecError
from builder.runtime import Runtime
from builder.spec_file import load_spec
from builder.triton_config import parse_config
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


# Several versions in one spec


def write_sources(here: Path, numbers: dict[int, Any], **words: Any) -> None:
    sources = {}
    for number, make_model in numbers.items():
        make_model(here / f"m{number}.onnx")
        sources[number] = {"path": f"m{number}.onnx"}
    model = {"name": "m", "sources": sources, "targets": ["onnxruntime:fp32"], **words}
    (here / "spec.yaml").write_text(yaml.safe_dump({"models": [model]}, sort_keys=False), encoding="utf-8")


def seeded(seed: int) -> Any:
    return lambda path: linear(path, seed=seed)


def config(here: Path) -> dict[str, Any]:
    return parse_config((here / "repo/m/config.pbtxt").read_text(encoding="utf-8"))


def offline(here: Path, *more: str) -> Ran:
    return build("spec.yaml", "-o", "repo", *more, cwd=here, check="offline")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("source: {path: a.onnx}, sources: {1: {path: a.onnx}}", ("source and sources: give one of them",)),
        ("targets: [onnxruntime:fp32]", ("the key 'source' is missing",)),
        ("sources: {}", ("the key 'source' is missing",)),
        ("sources: {0: {path: a.onnx}}", ("models[0].sources", "greater than or equal to 1")),
        ("sources: {new: {path: a.onnx}}", ("models[0].sources",)),
        ("sources: {1: {path: a.onnx}, 2: {pth: a.onnx}}", ("models[0].sources[2].pth", "did you mean 'path'?")),
        ("sources: {1: {path: a.onnx}, 2: {path: none.onnx}}", ("models[0].sources[2].path", "no such file")),
        ("sources: {1: {path: a.onnx}}, versions: {keep: 2}", ("versions.keep", "exactly those versions")),
        ("sources: {1: {path: a.onnx}, 2: {path: a.onnx}}, versions: {serve: [1, 3]}",
         ("there is no version 3; sources has 1, 2", "version 2, the newest, would be built and not served")),
        ("sources: {1: {path: a.onnx}}, config: {version_policy: {all: {}}}", ("config.version_policy",)),
        ("sources: {1: {path: a.onnx}, 2: {path: step.py}}", ("a step in Python has one version",)),
    ],
)  # fmt: skip
def test_sources_that_are_refused(tmp_path: Path, text: str, parts: tuple[str, ...]) -> None:
    linear(tmp_path / "a.onnx")
    (tmp_path / "step.py").write_text("def step(x): return x\n", encoding="utf-8")
    (tmp_path / "spec.yaml").write_text(f"models: [{{name: m, {text}}}]\n", encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_spec(tmp_path / "spec.yaml")
    for part in parts:
        assert part in caught.value.message, caught.value.message


def test_every_version_is_built_measured_and_recorded(tmp_path: Path) -> None:
    write_sources(tmp_path, {1: seeded(1), 3: seeded(3)})
    document = offline(tmp_path, "--json").document
    assert [(item["name"], item["version"]) for item in document["models"]] == [("m", 3), ("m", 1)]
    for item in document["models"]:
        assert item["served"] == {"backend": "onnxruntime", "precision": "fp32"}
        assert item["targets"][0]["measurement"]["outputs"][0]["max_relative"] == 0
    assert config(tmp_path)["version_policy"] == {"all": {}}
    manifest = json.loads((tmp_path / "repo/build-repo.json").read_text(encoding="utf-8"))
    (other,) = manifest["models"]["m"]["versions"]
    assert (other["version"], other["targets"][0]["status"]) == (1, "built")
    assert set(manifest["run"]["timings"]) == {"m", "m:1"}
    assert (tmp_path / "repo/m/1/model.onnx").read_bytes() == (tmp_path / "m1.onnx").read_bytes()
    before = contents(tmp_path / "repo")
    assert offline(tmp_path).code == 0
    assert contents(tmp_path / "repo") == before


def test_a_changed_source_changes_its_version_alone(tmp_path: Path) -> None:
    write_sources(tmp_path, {1: seeded(1), 2: seeded(2)})
    assert offline(tmp_path).code == 0
    kept = (tmp_path / "repo/m/2/model.onnx").stat().st_ino
    write_sources(tmp_path, {1: seeded(7), 2: seeded(2), 4: seeded(4)}, versions={"serve": [1, 4]})
    document = offline(tmp_path, "--json").document
    assert [(item["version"], item["served"] is not None) for item in document["models"]] == [
        (4, True), (2, False), (1, True),
    ]  # fmt: skip
    assert (tmp_path / "repo/m/1/model.onnx").read_bytes() == (tmp_path / "m1.onnx").read_bytes()
    assert (tmp_path / "repo/m/2/model.onnx").stat().st_ino == kept
    assert config(tmp_path)["version_policy"] == {"specific": {"versions": ["1", "4"]}}
    assert others(tmp_path) == {"1": "reference.1.npz"}
    write_sources(tmp_path, {4: seeded(4)})
    assert offline(tmp_path).code == 0
    assert sorted(item.name for item in (tmp_path / "repo/m").iterdir() if item.is_dir()) == ["4"]


def test_versions_of_two_signatures(tmp_path: Path) -> None:
    write_sources(tmp_path, {1: seeded(1), 2: wide})
    ran = offline(tmp_path)
    assert ran.code == 3
    for part in ("versions 1 and 2 have different signatures: - output y float32[batch,3]; + output y float32[batch,5]",
                 "name (for example m_v2)"):  # fmt: skip
        assert part in ran.err
    assert not (tmp_path / "repo").exists()


def test_a_target_that_one_version_cannot_take_is_served_of_none(tmp_path: Path) -> None:
    targets = ["openvino:fp16", "onnxruntime:fp32"]
    write_sources(tmp_path, {1: drifting, 2: seeded(2)}, targets=targets)
    ran = offline(tmp_path, "--json")
    newest, older = ran.document["models"]
    assert ran.code == 0
    assert newest["served"] == older["served"] == {"backend": "onnxruntime", "precision": "fp32"}
    assert newest["targets"][0]["status"] == "rejected"
    assert newest["targets"][1]["status"] in ("built", "cached")
    assert any(finding["message"].startswith("version 1: ") for finding in newest["targets"][0]["findings"])
    write_sources(tmp_path, {1: drifting, 2: seeded(2)}, targets=targets, serve="openvino:fp16")
    assert offline(tmp_path).code == 3


def test_batching_needs_the_proof_of_every_version(tmp_path: Path) -> None:
    write_sources(tmp_path, {1: overflowing, 2: overflowing})
    assert offline(tmp_path).code == 0
    assert config(tmp_path)["max_batch_size"] == 8
    write_sources(tmp_path, {1: mixing, 2: overflowing})
    assert offline(tmp_path).code == 0
    assert config(tmp_path).get("max_batch_size", 0) == 0


def test_an_older_version_that_cannot_be_exported(tmp_path: Path) -> None:
    write_sources(tmp_path, {1: seeded(1), 2: seeded(2)})
    whole = (tmp_path / "m1.onnx").read_bytes()
    (tmp_path / "m1.onnx").write_bytes(whole.replace(b"MatMul", b"MatMal"))
    ran = offline(tmp_path)
    assert ran.code == 2
    assert "version 1: " in ran.err
    assert "MatMal" in ran.err
    assert not (tmp_path / "repo").exists()


@pytest.mark.live
@pytest.mark.slow
def test_every_version_of_the_spec_is_checked_live(tmp_path: Path, runtime: Runtime) -> None:
    write_sources(tmp_path, {1: seeded(1), 2: seeded(2)})
    ran = build("spec.yaml", "-o", "repo", cwd=tmp_path, check="live")
    assert ran.code == 0
    assert "live check of m, m:1: done" in ran.err
    manifest = json.loads((tmp_path / "repo/build-repo.json").read_text(encoding="utf-8"))
    assert {key: item["checked"] for key, item in manifest["models"]["m"]["live"].items()} == {"m": True, "m:1": True}
    assert run("check", "repo", cwd=tmp_path).code == 0
    (tmp_path / "repo/m/reference.1.npz").write_bytes((tmp_path / "repo/m/reference.npz").read_bytes())
    assert run("check", "repo", cwd=tmp_path).code == 3
