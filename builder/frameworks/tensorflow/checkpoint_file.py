"""Which checkpoint a path means, and what lies in it; TensorFlow is not asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import SpecError
from builder.frameworks.tensorflow.bundle import OBJECT_GRAPH, StoredTensor, is_index, read_index

STATE: Final = "checkpoint"
LATEST: Final = re.compile(r'^model_checkpoint_path:\s*"(.*)"', re.MULTILINE)
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """`prefix` is what TensorFlow calls the path; `has_objects`: written by `tf.train.Checkpoint`."""

    prefix: Path
    tensors: tuple[StoredTensor, ...]
    has_objects: bool

    @property
    def meta(self) -> Path:
        """Where TensorFlow 1 puts the graph."""
        return self.prefix.with_name(f"{self.prefix.name}.meta")

    @property
    def roots(self) -> tuple[str, ...]:
        """The names under which the saved objects hang."""
        return tuple(dict.fromkeys(tensor.name.partition("/")[0] for tensor in self.tensors if tensor.is_weight))


def is_checkpoint(path: Path) -> bool:
    """An index file, or a folder that has one."""
    if path.is_dir():
        return bool(_indexes(path))
    return is_index(path)


def _indexes(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*.index")) if is_index(file)]


def read_checkpoint(path: Path) -> CheckpointFile:
    """The checkpoint of an index file, or the latest of a folder.

    Raises:
        SpecError: damaged, incomplete, or several without a word which is meant.
    """
    index = _latest(path) if path.is_dir() else path
    prefix = index.with_name(index.name.removesuffix(".index"))
    if not list(prefix.parent.glob(f"{_escaped(prefix.name)}.data-*")):
        raise SpecError(
            f"{index.name}: the weights are missing: there is no {prefix.name}.data-00000-of-00001 beside it",
            remedy="copy all files of the checkpoint",
        )
    tensors = read_index(index)
    return CheckpointFile(prefix, tensors, any(tensor.name == OBJECT_GRAPH for tensor in tensors))


def _escaped(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _latest(folder: Path) -> Path:
    found = _indexes(folder)
    state = folder / STATE
    match = LATEST.search(state.read_text(encoding="utf-8", errors="replace")) if state.is_file() else None
    if match:
        # Only the name: the path is that of the machine on which the model was trained.
        named = folder / f"{Path(match.group(1)).name}.index"
        if named in found:
            return named
    if len(found) == 1:
        return found[0]
    shown = ", ".join(file.name for file in found[:SHOWN])
    raise SpecError(f"{folder.name} holds several checkpoints: {shown}", remedy="name one of those files as path")
