"""Versions of installed distributions, read from their metadata without importing them, and of our own code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from builder.resources import PACKAGE

NOT_STEP = ("cli", "triton_backends", "_resources", "servers")
"""Folders of the package that no work runs: changing them rebuilds nothing."""


IN_PLACE_OF: Final = {"onnxruntime": ("onnxruntime-gpu",)}
"""Distributions that bring the same package as another one, and are installed in its place."""
ABSENT: Final = "absent"


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Distribution → version, `absent` where it is not installed."""
    return {name: _version(name) for name in sorted(set(names))}


@cache
def _version(name: str) -> str:
    """`1.27.0`, and `1.27.0 (onnxruntime-gpu)` where another distribution stands in: it decides other results."""
    found = _installed(name)
    if found != ABSENT:
        return found
    others = ((other, _installed(other)) for other in IN_PLACE_OF.get(name, ()))
    return next((f"{number} ({other})" for other, number in others if number != ABSENT), ABSENT)


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ABSENT


@cache
def code_digest() -> str:
    """A digest of the code that works run, so a changed build-repo never serves what an older one made."""
    return _digest(NOT_STEP)


@cache
def all_code_digest() -> str:
    """A digest of the whole package, for verdicts of the live check."""
    return _digest(("cli",))


def _digest(left_out: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        inside = file.relative_to(PACKAGE)
        if inside.parts[0] not in left_out:
            digest.update(str(inside).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def package_root() -> Path:
    """The folder that makes `import builder` work in a child process."""
    return PACKAGE.parent
