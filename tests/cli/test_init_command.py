from __future__ import annotations

from pathlib import Path

import tiny_models
import yaml
from command_line import assert_refused, build, run


def test_the_spec_builds_without_editing(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    tiny_models.linear(tmp_path / "one" / "it's: a #model.onnx")
    tiny_models.doubles(tmp_path / "two" / "m.onnx")
    tiny_models.wide(tmp_path / "m.onnx")
    ran = run("init", "one/it's: a #model.onnx", "two/m.onnx", "m.onnx", "-o", "two/models.yaml", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.out == ""
    assert "next: build-repo build two/models.yaml" in ran.err
    spec = yaml.safe_load((tmp_path / "two" / "models.yaml").read_text(encoding="utf-8"))
    assert [model["name"] for model in spec["models"]] == ["it_s__a__model", "m", "m_2"]
    assert spec["models"][1]["targets"] == ["onnxruntime:fp32"]
    done = build("two/models.yaml", "-o", "repo", cwd=tmp_path)
    assert done.code == 0, done.err
    assert sorted(item.name for item in (tmp_path / "repo").iterdir() if item.is_dir()) == [
        "it_s__a__model",
        "m",
        "m_2",
    ]


def test_a_spec_that_exists_is_kept(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    (tmp_path / "models.yaml").write_text("mine", encoding="utf-8")
    assert_refused(run("init", "m.onnx", cwd=tmp_path), 2, "models.yaml exists", "--force")
    assert (tmp_path / "models.yaml").read_text(encoding="utf-8") == "mine"
    assert run("init", "m.onnx", "--force", cwd=tmp_path).code == 0
    assert "linear" not in (tmp_path / "models.yaml").read_text(encoding="utf-8")


def test_to_stdout(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    ran = run("init", "m.onnx", "-o", "-", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert yaml.safe_load(ran.out)["models"][0]["source"] == {"path": "m.onnx", "format": "onnx"}
    assert sorted(item.name for item in tmp_path.iterdir()) == ["m.onnx"]


def test_what_is_no_model_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    assert_refused(run("init", "notes.txt", cwd=tmp_path), 2, "notes.txt is a text file")
    assert_refused(run("init", "notes.txt", "-o", "no/where.yaml", cwd=tmp_path), 2, "no such folder", "mkdir")
    assert not (tmp_path / "models.yaml").exists()


def test_what_only_the_user_knows_is_named(tmp_path: Path) -> None:
    import torch

    torch.save({"w": torch.zeros(2, 3)}, tmp_path / "w.pth")
    tiny_models.linear(tmp_path / "m.onnx")
    ran = run("init", "w.pth", "m.onnx", cwd=tmp_path)
    assert "wrote models.yaml; fill in model: of w.pth, inputs: of w.pth; next: build-repo build models.yaml" in ran.err
