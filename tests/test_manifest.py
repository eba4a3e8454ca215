from __future__ import annotations

import json
from pathlib import Path

import pytest

from builder.errors import SpecError
from builder.manifest import Manifest, ModelRecord, RunRecord, ServedRecord, all_listed, read_manifest, write_manifest
from builder.tensors import Signature, Tensor
from builder.work import Target


def manifest(*folders: str) -> Manifest:
    signature = Signature((Tensor("x", "float32", ("batch", 4)),), (Tensor("y", "float32", ("batch", 3)),))
    target = Target("onnxruntime", "fp32")
    served = tuple(
        ServedRecord(folder, target, 1, "a", batching=True, files={"1/model.onnx": "d"}) for folder in folders
    )
    record = ModelRecord("m", signature, "onnx", "d", "copy", "random", "k", {"metric": None}, (), served)
    return Manifest(1, "0.1", "26.07", "s", {"m": record}, RunRecord("build-repo build", {}))


def test_it_comes_back_equal(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest("m", "m_openvino_fp32"))
    assert read_manifest(tmp_path) == manifest("m", "m_openvino_fp32")
    assert set(manifest("m").served_folders()) == {"m"}


def test_no_manifest_is_none(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    assert read_manifest(tmp_path / "nowhere") is None
    assert not all_listed(tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"format": "1"}, {"unknown": 1}, {"models": []}, {"triton": None}],
    ids=lambda change: f"{next(iter(change.items()))}",
)
def test_one_of_another_version_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    write_manifest(tmp_path, manifest("m"))
    path = tmp_path / "build-repo.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    with pytest.raises(SpecError, match=r"build-repo\.json cannot be read") as error:
        read_manifest(tmp_path)
    assert "build into a new folder" in error.value.remedy


def test_a_torn_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "build-repo.json").write_text('{"format": 1,', encoding="utf-8")
    with pytest.raises(SpecError, match="not JSON"):
        read_manifest(tmp_path)


def test_every_model_is_listed_or_not(tmp_path: Path) -> None:
    write_manifest(tmp_path, manifest("m"))
    (tmp_path / "m").mkdir()
    (tmp_path / ".git").mkdir()
    assert all_listed(tmp_path)
    (tmp_path / "theirs").mkdir()
    assert not all_listed(tmp_path)
