"""ONNX → ONNX transforms that make a graph smaller or faster, one file each; none is kept without being measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, Protocol

from builder.onnx_tools.optimise import (
    clean,
    fuse_attention,
    fuse_batch_norm,
    fuse_bias,
    fuse_pad,
    fuse_transformer,
    transposes,
)
from builder.onnx_tools.reading import ModelProto, read_onnx

Dialect = Literal["onnx", "onnxruntime"]


class Transform(Protocol):
    """A module of this folder."""

    DIALECT: Dialect
    """`onnx`: standard operators in, standard operators out. `onnxruntime`: makes operators only that library knows."""

    def requires(self, model: ModelProto) -> bool:
        """Whether the graph has anything for this transform: a look at its nodes, which needs no weights."""

    def apply(self, model: ModelProto) -> ModelProto:
        """A changed copy; `model` holds its weights and stays as it is."""

    def ensures(self, before: ModelProto, after: ModelProto) -> str | None:
        """What does not hold of `after` although it must; None when all does."""


TRANSFORMS: Final[Mapping[str, Transform]] = MappingProxyType(
    {
        "clean": clean,
        "fuse_pad": fuse_pad,
        "fuse_batch_norm": fuse_batch_norm,
        "fuse_bias": fuse_bias,
        "transposes": transposes,
        "fuse_transformer": fuse_transformer,
        "fuse_attention": fuse_attention,
    }
)
"""Word → module, in the order in which they are tried: what one leaves behind the next can use."""


def speaks(transform: Transform, dialect: str) -> bool:
    """Whether a graph of that dialect may hold what the transform makes."""
    return transform.DIALECT in ("onnx", dialect)


def applicable(path: Path, dialect: str) -> tuple[str, ...]:
    """The transforms that would find something to do in this file; neither weights nor onnxruntime are loaded.

    Raises:
        SpecError: as `read_onnx`.
    """
    model = read_onnx(path)
    return tuple(name for name, row in TRANSFORMS.items() if speaks(row, dialect) and row.requires(model))
