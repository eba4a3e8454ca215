"""Strings in an `.npz` that needs no pickle: all bytes behind each other, and their lengths. Any bytes survive."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]


def to_bytes(item: object) -> bytes:
    """One string as it travels."""
    return item if isinstance(item, bytes) else str(item).encode("utf-8", "surrogateescape")


def pack(array: Array) -> tuple[Array, Array]:
    """(bytes, lengths in the array's shape)."""
    import numpy as np

    items = [to_bytes(item) for item in array.ravel().tolist()]
    lengths = np.asarray([len(item) for item in items], np.int64).reshape(array.shape)
    return np.frombuffer(b"".join(items), np.uint8), lengths


def unpack(content: Array, lengths: Array) -> Array:
    """What `pack` was given: str where the bytes are UTF-8, else bytes."""
    import numpy as np

    whole, ends = content.tobytes(), np.cumsum(lengths.ravel())
    array = np.empty(lengths.size, dtype=object)
    array[:] = [
        _text(whole[end - size : end]) for size, end in zip(lengths.ravel().tolist(), ends.tolist(), strict=True)
    ]
    return array.reshape(lengths.shape)


def _text(item: bytes) -> str | bytes:
    try:
        return item.decode()
    except UnicodeDecodeError:
        return item


def array_bytes(array: Array) -> int:
    """Its size in memory and on the wire, the strings themselves counted."""
    if array.dtype.kind != "O":
        return array.nbytes
    return sum(4 + len(to_bytes(item)) for item in array.ravel().tolist())
