import numpy as np
import onnx
import pytest
from export_models import linear

from builder.code_digest import callable_digest, data_files, path_digest
from builder.errors import SpecError
from builder.onnx_tools.reading import source_files


def test_module_stands_for_the_files_of_its_folder(tmp_path):
    (tmp_path / "nets.py").write_text("def build(): ...")
    (tmp_path / "helper.py").write_text("x = 1")
    (tmp_path / "deeper").mkdir()
    first = callable_digest("nets:build", tmp_path)
    (tmp_path / "deeper" / "other.py").write_text("y = 1")
    (tmp_path / "notes.txt").write_text("no code")
    assert callable_digest("nets:build", tmp_path) == first
    (tmp_path / "helper.py").write_text("x = 2")
    assert callable_digest("nets:build", tmp_path) != first


def test_package_stands_for_all_its_files(tmp_path):
    inner = tmp_path / "pack" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "pack" / "__init__.py").touch()
    (inner / "nets.py").write_text("raise SystemExit('never imported')")
    first = callable_digest("pack.inner.nets:build", tmp_path)
    (inner / "nets.py").write_text("changed")
    assert callable_digest("pack.inner.nets:build", tmp_path) != first


def test_installed_distribution_and_nowhere(tmp_path):
    assert callable_digest("numpy.linalg:norm", tmp_path) == callable_digest("numpy:array", tmp_path / "other")
    with pytest.raises(SpecError) as caught:
        callable_digest("no_such_net:build", tmp_path)
    assert f"no module 'no_such_net' in {tmp_path}" in caught.value.message


def test_path_digest(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    first = path_digest(file)
    folder = path_digest(tmp_path)
    file.write_bytes(b"two")
    assert path_digest(file) != first
    assert path_digest(tmp_path) != folder
    with pytest.raises(SpecError, match="no such file"):
        path_digest(tmp_path / "none")


def test_external_data_is_part_of_the_digest(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(linear(), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert source_files(path) == (path, (tmp_path / "w.bin").resolve())
    assert data_files(path) == ((tmp_path / "w.bin").resolve(),)
    first = path_digest(path)
    (tmp_path / "w.bin").write_bytes(np.zeros(12, np.float32).tobytes())
    assert path_digest(path) != first


def test_a_checkpoint_is_all_files_of_its_prefix(tmp_path):
    for name in ("m.ckpt.index", "m.ckpt.meta", "m.ckpt.data-00000-of-00001"):
        (tmp_path / name).write_bytes(name.encode())
    before = path_digest(tmp_path / "m.ckpt.index")
    (tmp_path / "m.ckpt.meta").write_bytes(b"other")
    assert path_digest(tmp_path / "m.ckpt.index") != before
