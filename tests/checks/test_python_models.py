"""Environments and compiled packages of Python models against the Python of the release."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from builder.findings import Finding
from builder.validate import validate_repository

CONFIG = """backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""
PACKED = 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }\n'


def put(repository: Path, config: str) -> Path:
    (repository / "m" / "1").mkdir(parents=True)
    (repository / "m" / "config.pbtxt").write_text(config)
    (repository / "m" / "1" / "model.py").write_text("class TritonPythonModel:\n    pass\n")
    return repository / "m"


def pack(path: Path, *names: str) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())


def judged(repository: Path, release: str) -> list[Finding]:
    return [item for item in validate_repository(repository, release) if item.check.startswith("python.")]


@pytest.mark.parametrize(("release", "wrong"), [("24.10", False), ("24.11", True)])
def test_a_packed_environment_is_for_one_python(tmp_path: Path, release: str, wrong: bool) -> None:
    model = put(tmp_path, CONFIG + PACKED)
    pack(model / "env.tar.gz", "bin/activate", "lib/python3.10/site-packages/numpy/__init__.py")
    found = judged(tmp_path, release)
    assert bool(found) == wrong
    if found:
        assert (found[0].severity, found[0].check, found[0].line) == ("error", "python.version", 4)
        assert "Python 3.10; Triton 24.11 has 3.12" in found[0].message
        assert "make it with Python 3.12" in found[0].remedy


def test_an_own_stub_makes_another_python_right(tmp_path: Path) -> None:
    model = put(tmp_path, CONFIG + PACKED)
    pack(model / "env.tar.gz", "bin/activate", "lib/python3.9/os.py")
    (model / "triton_python_backend_stub").write_bytes(b"")
    assert judged(tmp_path, "26.07") == []


def test_compiled_packages_are_for_one_python(tmp_path: Path) -> None:
    model = put(tmp_path, CONFIG)
    (model / "1" / "numpy").mkdir()
    (model / "1" / "numpy" / "core.cpython-310-x86_64-linux-gnu.so").write_bytes(b"")
    (found,) = judged(tmp_path, "26.07")
    assert "compiled for Python 3.10; Triton 26.07 has 3.12" in found.message
    assert "--python-version 3.12" in found.remedy
    assert judged(tmp_path, "24.05") == []


def test_a_path_of_the_serving_machine_is_only_a_warning(tmp_path: Path) -> None:
    put(tmp_path, CONFIG + PACKED.replace("$$TRITON_MODEL_DIRECTORY", "/envs"))
    (found,) = judged(tmp_path, "26.07")
    assert found.severity == "warning"
