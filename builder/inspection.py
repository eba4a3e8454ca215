"""What a model file says of itself, and which targets and releases take it; nothing is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builder.backends import BACKENDS, backend_module, refuses_source
from builder.code_digest import data_files
from builder.defaults import RELEASE
from builder.recognise import find_model, recognise
from builder.releases import known_releases
from builder.sources import Description, source_module
from builder.tensors import Signature


@dataclass(frozen=True, slots=True)
class TargetView:
    """One backend's view: why it refuses the signature, and what this machine lacks to build it; empty where fine."""

    backend: str
    precisions: tuple[str, ...]
    refusal: str
    missing: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """The description, the targets, and the releases whose onnxruntime loads the file's opset and IR version.

    `releases` is None where the file fixes neither (they are chosen at export); `size_bytes` counts the file
    with its external data, or the folder.
    """

    path: str
    description: Description
    size_bytes: int
    targets: tuple[TargetView, ...]
    releases: tuple[str, ...] | None


def inspect_model(path: Path) -> Inspection:
    """Look at one model file or folder.

    Raises:
        SpecError: it is missing, damaged, or no model that build-repo knows.
    """
    path = find_model(path)
    word = recognise(path)
    description = source_module(word).describe(path)
    return Inspection(
        path=str(path),
        description=description,
        size_bytes=_size(path),
        targets=tuple(_target(backend, word, description.signature) for backend in BACKENDS),
        releases=_releases(description),
    )


def _size(path: Path) -> int:
    files = [path, *data_files(path)] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    return sum(item.stat().st_size for item in files)


def _target(word: str, source: str, signature: Signature | None) -> TargetView:
    backend = backend_module(word)
    refusal = refuses_source(word, source, source_module(source).FORMATS)
    refusal = refusal or (backend.refuses(signature, RELEASE) if signature else None)
    missing = backend.missing()
    return TargetView(word, tuple(backend.GRAPHS), refusal or "", missing[0] if missing else "")


def _releases(description: Description) -> tuple[str, ...] | None:
    opset, ir_version = description.opset, description.ir_version
    if opset is None or ir_version is None:
        return None
    return tuple(item.release for item in known_releases() if item.max_opset >= opset and item.max_ir >= ir_version)
