"""Versions of distributions, read from metadata alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from builder.libraries import ABSENT, library_versions, package_root


def test_what_is_not_installed_is_absent() -> None:
    assert library_versions(["no-such-distribution"]) == {"no-such-distribution": ABSENT}


@pytest.mark.parametrize(
    ("installed", "said"),
    [
        ({"onnxruntime": "1.27.0"}, "1.27.0"),
        ({"onnxruntime-gpu": "1.27.0"}, "1.27.0 (onnxruntime-gpu)"),
        ({"onnxruntime": "1.26.0", "onnxruntime-gpu": "1.27.0"}, "1.26.0"),
        ({}, ABSENT),
    ],
)
def test_onnxruntime_gpu_stands_in_for_onnxruntime(installed: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, number in installed.items():
        folder = tmp_path / f"{name.replace('-', '_')}-{number}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\n", encoding="utf-8")
    code = (
        f"import sys; sys.path[:0] = [{str(package_root())!r}, {str(tmp_path)!r}];"
        "from builder.libraries import library_versions; print(library_versions(['onnxruntime'])['onnxruntime'])"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said
