"""The backends of the wheel's server, laid out as it wants them; the slim image is made with it too.

Standard library only.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from builder.resources import PACKAGE

BACKENDS: Final = {"onnxruntime": "onnxruntime", "openvino": "openvino", "pytorch": "torch"}
"""Word → the package of the runtime that runs its models."""
COMMON_FILES: Final = ("backend_common.py", "sequence_states.py")
SHARED_FILES: Final = ("native_rules.py", "ragged_batches.py")
"""What the build itself uses too."""


def words_of(packages: Collection[str]) -> tuple[str, ...]:
    """The backends that a runtime with these packages has."""
    return tuple(word for word, package in BACKENDS.items() if package in packages)


def assemble_backends(folder: Path, python_backend: Path, packages: Collection[str]) -> None:
    """Triton's Python backend, and beside it ours, as far as the runtime has their packages."""
    folder.mkdir()
    (folder / "python").symlink_to(python_backend)
    for backend in words_of(packages):
        (folder / backend).mkdir()
        shutil.copyfile(PACKAGE / "triton_backends" / backend / "model.py", folder / backend / "model.py")
        for file in COMMON_FILES:
            shutil.copyfile(PACKAGE / "triton_backends" / file, folder / backend / file)
        for file in SHARED_FILES:
            shutil.copyfile(PACKAGE / file, folder / backend / file)
