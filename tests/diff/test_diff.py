"""Two repositories compared: any, and those that have a manifest."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import build, run
from tiny_models import linear

from builder.diff import diff_repositories
from builder.diff.configs import config_changes
from builder.triton_config import parse_config

BASE = """name: "m" backend: "onnxruntime" max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4, 2 ] }, { name: "z" data_type: TYPE_FP32 dims: [ 1 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] } ]
dynamic_batching { preferred_batch_size: [ 4, 8 ] }
parameters { key: "a" value { string_value: "1" } } parameters { key: "b" value { string_value: "2" } }
instance_group [ { count: 1 kind: KIND_CPU } ]
"""


def changes(after: str, before: str = BASE) -> list[tuple[str, Any, Any]]:
    return [(item.path, item.before, item.after) for item in config_changes(parse_config(before), parse_config(after))]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[ 4, 8 ]", "[ 8, 4 ]", []),
        ("[ 4, 8 ]", "[ 4 ]", [("dynamic_batching.preferred_batch_size", [4, 8], [4])]),
        ("[ 4, 2 ]", "[ 2, 4 ]", [("input[x].dims", ["4", "2"], ["2", "4"])]),
        ("max_batch_size: 8", "max_batch_size: 16", [("max_batch_size", 8, 16)]),
        ('"2"', '"3"', [("parameters.b.string_value", "2", "3")]),
        ("count: 1", "count: 2", [("instance_group[0].count", 1, 2)]),
        ("dynamic_batching { preferred_batch_size: [ 4, 8 ] }", "",
         [("dynamic_batching", {"preferred_batch_size": [4, 8]}, None)]),
        ('output [ { name: "y"', 'output [ { name: "w"',
         [("output[y]", {"name": "y", "data_type": "TYPE_FP32", "dims": ["3"]}, None),
          ("output[w]", None, {"name": "w", "data_type": "TYPE_FP32", "dims": ["3"]})]),
    ],
)  # fmt: skip
def test_configurations_field_by_field(old: str, new: str, expected: list[tuple[str, Any, Any]]) -> None:
    assert old in BASE
    assert changes(BASE.replace(old, new)) == expected


def test_the_order_of_fields_means_nothing_and_that_of_inputs_is_said() -> None:
    lines = BASE.splitlines()
    assert changes("\n".join(lines[::-1])) == []
    swapped = BASE.replace('"x"', '"?"').replace('"z"', '"x"').replace('"?"', '"z"')
    swapped = swapped.replace("[ 4, 2 ]", "[ 5 ]").replace("dims: [ 1 ]", "dims: [ 4, 2 ]").replace("[ 5 ]", "[ 1 ]")
    assert changes(swapped) == [("input (order)", ["x", "z"], ["z", "x"])]


def repository(folder: Path, text: str = BASE, content: bytes = b"one", version: int = 1) -> Path:
    model = folder / "m" / str(version)
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(content)
    (folder / "m" / "config.pbtxt").write_text(text, encoding="utf-8")
    return folder


def test_repositories_that_no_tool_made(tmp_path: Path) -> None:
    one = repository(tmp_path / "a")
    other = repository(tmp_path / "b", BASE.replace("count: 1", "count: 2"), b"two!", version=2)
    shutil.copytree(other / "m", other / "extra")
    found = diff_repositories(one, other)
    assert not found.equal
    added, changed = found.models
    assert (added.name, added.status) == ("extra", "added")
    assert (changed.status, changed.versions_added, changed.versions_removed) == ("changed", (2,), (1,))
    files = {item.path: (item.before and item.before.size_bytes, item.after and item.after.size_bytes)
             for item in changed.files}  # fmt: skip
    assert files == {"1/model.onnx": (3, None), "2/model.onnx": (None, 4)}
    assert [item.path for item in changed.config] == ["instance_group[0].count"]
    assert any(line.startswith("+instance_group") for line in changed.config_text)
    assert diff_repositories(one, other, "m").models == (changed,)


def test_comments_and_spaces_are_no_difference(tmp_path: Path) -> None:
    one = repository(tmp_path / "a")
    other = repository(tmp_path / "b", "# mine\n" + BASE.replace(" ", "  "))
    assert diff_repositories(one, other).equal


def test_a_configuration_that_does_not_parse_differs(tmp_path: Path) -> None:
    one = repository(tmp_path / "a")
    (changed,) = diff_repositories(one, repository(tmp_path / "b", "input [")).models
    assert changed.status == "changed"
    assert "config.pbtxt:" in changed.config_problems[0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.write_text("x"), "is a file, not a folder"),
        (lambda path: (path / "docs").mkdir(parents=True), "is no model repository"),
        (lambda path: (repository(path) / "build-repo.json").write_text("{"), "cannot be read"),
    ],
)
def test_what_is_no_repository_ends_with_2(tmp_path: Path, make: Any, words: str) -> None:
    make(tmp_path / "b")
    ran = run("diff", repository(tmp_path / "a"), "b", "--exit-code", cwd=tmp_path)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert "try: " in ran.err


def test_a_model_that_neither_has(tmp_path: Path) -> None:
    ran = run("diff", repository(tmp_path / "a"), "a", "--model", "n", cwd=tmp_path)
    assert ran.code == 2
    assert "name one of: m" in ran.err


def test_builds_compared(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    linear(tmp_path / "model.onnx")
    assert build("model.onnx", "-o", "a", cwd=tmp_path, cache=cache).code == 0
    linear(tmp_path / "model.onnx", seed=1)
    assert build("model.onnx", "-o", "b", "--triton", "26.06", cwd=tmp_path, cache=cache).code == 0
    same = run("diff", "a", "a", "--exit-code", cwd=tmp_path)
    assert (same.code, "1 equal; the same is served" in same.out) == (0, True)
    ran = run("diff", "a", "b", cwd=tmp_path)
    assert ran.code == 0
    for part in ("triton: 26.07 → 26.06", "changed model", "file 1/model.onnx", "y cosine", "they differ"):
        assert part in ran.out
    as_json = run("diff", "a", "b", "--json", "--exit-code", cwd=tmp_path)
    assert as_json.code == 1
    document = as_json.document
    assert document["equal"] is False
    (model,) = document["models"]
    figures = {(item["target"], item["name"]) for item in model["figures"]}
    assert {"latency_ms", "y"} <= {name.split(" ")[0] for _, name in figures}
    assert model["signature"] == []
    text = run("diff", "a", "b", "--text", cwd=tmp_path).out
    assert "+# Written by build-repo for the onnxruntime backend of Triton 26.06." in text or "openvino" in text


def test_versions_of_one_spec_compared(tmp_path: Path) -> None:
    linear(tmp_path / "m1.onnx", seed=1)
    linear(tmp_path / "m2.onnx", seed=2)
    spec = "models: [{name: m, targets: [onnxruntime:fp32], sources: {1: {path: m1.onnx}, 2: {path: m2.onnx}}}]\n"
    (tmp_path / "models.yaml").write_text(spec, encoding="utf-8")
    for output in ("a", "b"):
        assert build("models.yaml", "-o", output, cwd=tmp_path, cache=tmp_path / "cache").code == 0
        linear(tmp_path / "m1.onnx", seed=3)
    (model,) = run("diff", "a", "b", "--json", cwd=tmp_path).document["models"]
    assert {item["path"] for item in model["files"]} == {"1/model.onnx", "reference.1.npz"}
    assert any(item["target"] == "version 1 onnxruntime:fp32" for item in model["figures"])
