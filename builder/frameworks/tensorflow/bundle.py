"""The index of a TensorFlow checkpoint (`*.index`, a LevelDB table) read without TensorFlow: names, types, shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import SpecError
from builder.frameworks.tensorflow.saved_model_file import DTYPES
from builder.frameworks.tensorflow.wire import message, messages, number_in, read_varint

MAGIC: Final = bytes.fromhex("57fb808b247547db")
FOOTER: Final = 48
OBJECT_GRAPH: Final = "_CHECKPOINTABLE_OBJECT_GRAPH"
NOT_WEIGHTS: Final = (".OPTIMIZER_SLOT", "optimizer/", "/optimizer", "save_counter", OBJECT_GRAPH)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a checkpoint; `dtype` is empty for a type that Triton has not."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def is_weight(self) -> bool:
        """A number of the model, not of its training."""
        return self.dtype not in ("", "string") and not any(part in self.name for part in NOT_WEIGHTS)


def is_index(path: Path) -> bool:
    """By the magic number at the end of the table."""
    if not path.is_file() or path.stat().st_size < FOOTER:
        return False
    with path.open("rb") as stream:
        stream.seek(-len(MAGIC), 2)
        return stream.read() == MAGIC


def read_index(path: Path) -> tuple[StoredTensor, ...]:
    """Every tensor of the checkpoint.

    Raises:
        SpecError: damaged.
    """
    data = path.read_bytes()
    try:
        _, at = _handle(data, len(data) - FOOTER)  # the meta index, which says nothing of the tensors
        blocks, _ = _handle(data, at)
        entries = [item for _, block in _block(data, *blocks) for item in _block(data, *_handle(block, 0)[0])]
        return tuple(_tensor(key, value) for key, value in entries if key)
    except (ValueError, IndexError) as error:
        raise SpecError(f"{path.name} is damaged: {error}", remedy="copy the checkpoint again") from error


def count_weights(tensors: tuple[StoredTensor, ...]) -> int:
    """Numbers in the model's tensors, without what only training needs."""
    return sum(math.prod(tensor.shape) for tensor in tensors if tensor.is_weight)


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """Offset and size of a block, and the place behind them."""
    offset, at = read_varint(data, at)
    size, at = read_varint(data, at)
    return (offset, size), at


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of one block; a key shares its beginning with the one before."""
    if data[offset + size] != 0:
        raise ValueError("its blocks are compressed")
    block = data[offset : offset + size]
    end = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little")
    at, key = 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        length, at = read_varint(block, at)
        key = key[:shared] + block[at : at + own]
        yield key, block[at + own : at + own + length]
        at += own + length


def _tensor(key: bytes, value: bytes) -> StoredTensor:
    dims = messages(message(value, 2), 2)
    dtype = DTYPES.get(number_in(value, 1), "")
    return StoredTensor(key.decode("utf-8", "replace"), dtype, tuple(number_in(dim, 1) for dim in dims))
