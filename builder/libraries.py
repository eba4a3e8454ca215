"""Versions of installed distributions, read from their metadata without importing them, and of our own code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from builder.resources import PACKAGE

NOT_STEP = ("cli", "triton_backends", "_resources", "servers")
"""Folders of the package that no work runs: changing them rebuilds nothing."""


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Distribution → version, `absent` where it is not installed."""
    return {name: _version(name) for name in sorted(set(names))}


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


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
