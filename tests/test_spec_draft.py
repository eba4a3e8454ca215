from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import yaml
from small_graphs import signature

from builder import defaults
from builder.inspection import Inspection, TargetView, inspect_model
from builder.sources import Description
from builder.spec_draft import draft_spec
from builder.spec_file import load_spec
from builder.yaml_lines import parse_yaml


@pytest.mark.parametrize(
    "name",
    [
        "m.onnx",
        "it's.onnx",
        "a: b # c.onnx",
        "null.onnx",
        "12.onnx",
        "- x.onnx",
        "ü 模型.onnx",
        "[a].onnx",
        "x" * 180 + ".onnx",
    ],
)
def test_any_file_name_gives_a_spec_that_loads(tmp_path: Path, name: str) -> None:
    path = tiny_models.linear(tmp_path / "models of mine" / name)
    (tmp_path / "models.yaml").write_text(draft_spec([inspect_model(path)], tmp_path), encoding="utf-8")
    (model,) = load_spec(tmp_path / "models.yaml").models
    assert model.source.path == path.resolve()
    assert model.targets == defaults.TARGETS


def test_the_commented_lines_are_right_when_uncommented(tmp_path: Path) -> None:
    path = tiny_models.linear(tmp_path / "m.onnx")
    text = draft_spec([inspect_model(path)], tmp_path)
    lines = []
    for line in text.splitlines():
        bare = line.replace("# ", "", 1)
        keep = line.strip().startswith(("# accuracy", "# batching", "# instances", "# inputs:", "#   - {name"))
        lines.append(bare if keep else line)
    (tmp_path / "models.yaml").write_text("\n".join(lines), encoding="utf-8")
    (model,) = load_spec(tmp_path / "models.yaml").models
    assert [(tensor.name, tensor.shape) for tensor in model.inputs] == [("x", ("batch", 4))]
    assert model.accuracy is not None
    assert model.batching is not None
    assert model.batching.max_queue_delay_us == 500


def inspection(form: str, described: bool = True) -> Inspection:
    found = signature(["image:float32:batch,3"], ["y:float32:batch,2"]) if described else None
    views = (TargetView("onnxruntime", ("fp32",), "", ""), TargetView("openvino", ("fp32",), "", ""))
    return Inspection("net.pth", Description(form, found), 1, views, None)


def test_what_only_the_user_knows_is_asked_for(tmp_path: Path) -> None:
    (model,) = yaml.safe_load(draft_spec([inspection("torch_state_dict", described=False)], tmp_path))["models"]
    assert model["source"]["model"] == "my_nets:build"
    assert model["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["batch", 3, 224, 224]}]


def test_two_files_of_one_name_get_two_names(tmp_path: Path) -> None:
    twice = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.pth").write_bytes(b"")
        twice.append(replace(inspection("torchscript"), path=str(tmp_path / folder / "net.pth")))
    data, _ = parse_yaml(draft_spec(twice, tmp_path))
    assert [model["name"] for model in data["models"]] == ["net", "net_2"]
