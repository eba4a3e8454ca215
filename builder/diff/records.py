"""What differs between two repositories, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["added", "removed", "changed", "equal"]


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file by its content."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file of a model's folder, `1/model.onnx`; None where a side has it not."""

    path: str
    before: FileInfo | None
    after: FileInfo | None


@dataclass(frozen=True, slots=True)
class ValueChange:
    """A value by its name: a field of the configuration, a library's version. None where a side has it not."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class FigureChange:
    """A measured figure; `ratio` is after / before, None where one of them is missing or 0."""

    target: str
    name: str
    before: float | None
    after: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class ModelDiff:
    """One model folder. `signature` holds `-` and `+` lines of what clients would notice."""

    name: str
    status: Status
    served: tuple[str | None, str | None] = (None, None)
    versions_added: tuple[int, ...] = ()
    versions_removed: tuple[int, ...] = ()
    files: tuple[FileChange, ...] = ()
    config: tuple[ValueChange, ...] = ()
    config_problems: tuple[str, ...] = ()
    signature: tuple[str, ...] = ()
    figures: tuple[FigureChange, ...] = ()
    libraries: tuple[ValueChange, ...] = ()
    config_text: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RepositoryDiff:
    """`equal` speaks of what is served: figures and versions of libraries may differ between equal repositories."""

    before: str
    after: str
    equal: bool
    made: tuple[ValueChange, ...]
    models: tuple[ModelDiff, ...]
