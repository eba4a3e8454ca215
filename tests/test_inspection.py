from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models

from builder.errors import SpecError
from builder.inspection import inspect_model
from builder.releases import known_releases


def test_what_a_file_says_and_who_takes_it(tmp_path: Path) -> None:
    found = inspect_model(tiny_models.doubles(tmp_path / "d.onnx"))
    views = {target.backend: target for target in found.targets}
    assert views["onnxruntime"].refusal == ""
    assert views["openvino"].refusal == "unsupported datatype TYPE_FP64 for input 'x'"
    assert "fp16" in views["openvino"].precisions
    assert found.size_bytes == (tmp_path / "d.onnx").stat().st_size


def test_releases_are_those_whose_opset_and_ir_are_high_enough(tmp_path: Path) -> None:
    import onnx

    path = tiny_models.linear(tmp_path / "m.onnx")
    model = onnx.load(path)
    last = known_releases()[-1]
    model.opset_import[0].version = last.max_opset
    onnx.save(model, path)
    found = inspect_model(path).releases
    assert found is not None
    assert set(found) == {item.release for item in known_releases() if item.max_opset >= last.max_opset}
    model.opset_import[0].version = 999
    path.write_bytes(model.SerializeToString())
    assert inspect_model(path).releases == ()


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is a directory that is no model"):
        inspect_model(tmp_path)
