from __future__ import annotations

import re
from pathlib import Path

import tiny_models
from command_line import assert_refused, run

from builder.backends import BACKENDS


def test_an_onnx_file_is_described(tmp_path: Path) -> None:
    path = tiny_models.linear(tmp_path / "m.onnx")
    ran = run("inspect", "m.onnx", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    document = ran.document
    assert document["description"]["format"] == "onnx"
    assert document["description"]["opset"] == 18
    assert document["description"]["ir_version"] == 9
    assert document["description"]["operators"] == {"MatMul": 1}
    assert document["description"]["parameters"] == 12
    assert document["size_bytes"] == path.stat().st_size
    assert document["description"]["signature"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]
    assert [target["backend"] for target in document["targets"]] == list(BACKENDS)
    assert "26.07" in document["releases"]


def test_the_backends_stand_in_columns(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    lines = [line for line in run("inspect", "m.onnx", cwd=tmp_path).out.splitlines() if line.startswith("target ")]
    assert len({re.search(r" (yes|no)\b", line).start() for line in lines}) == 1  # type: ignore[union-attr]


def test_external_data_counts(tmp_path: Path) -> None:
    import onnx

    model = onnx.load(tiny_models.linear(tmp_path / "m.onnx"))
    onnx.save_model(model, tmp_path / "e.onnx", save_as_external_data=True, location="e.bin", size_threshold=0)
    size = sum((tmp_path / name).stat().st_size for name in ("e.onnx", "e.bin"))
    ran = run("inspect", "e.onnx", "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert ran.document["size_bytes"] == size


def test_what_a_backend_refuses_is_said(tmp_path: Path) -> None:
    tiny_models.doubles(tmp_path / "d.onnx")
    ran = run("inspect", "d.onnx", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "x float64[batch,4]" in ran.out
    assert "(dynamic: batch)" in ran.out
    assert "no: unsupported datatype TYPE_FP64" in ran.out


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    assert_refused(run("inspect", "gone.onnx", cwd=tmp_path), 2, "no such file or folder: gone.onnx")
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    (tmp_path / "models.yaml").write_text("models: []", encoding="utf-8")
    assert_refused(
        run("inspect", "models.yaml", cwd=tmp_path), 2, "models.yaml is no model", "build-repo plan models.yaml"
    )
    assert_refused(run("inspect", "notes.txt", cwd=tmp_path), 2, "notes.txt is a text file, no model", "accepted are")
