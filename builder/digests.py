"""Digests of files and folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

PYTHON_CACHE = "__pycache__"


def file_digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file below, sorted."""
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(_files(folder))}


def _files(folder: Path) -> Iterator[Path]:
    """Every file but what a Python interpreter leaves where it reads code."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != PYTHON_CACHE]
        for name in names:
            yield Path(root, name)


def digest_of(digests: Mapping[str, str]) -> str:
    """One digest for a folder's content."""
    text = "".join(f"{name}\0{value}\n" for name, value in sorted(digests.items()))
    return hashlib.sha256(text.encode()).hexdigest()
