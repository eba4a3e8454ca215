"""Tell an ONNX file from any other by walking the outermost fields of its protobuf; onnx is not imported."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO, Final

VARINT: Final = 0
BYTES: Final = 2
FIELDS: Final = {1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES} | dict.fromkeys(
    (14, 20, 25, 26), BYTES
)
"""Field number → wire type of `ModelProto` in onnx.proto."""
IR_VERSION: Final = 1
GRAPH: Final = 7
OPSET_IMPORT: Final = 8
MAX_IR: Final = 1000


def looks_like_onnx(path: Path) -> bool:
    """True for an ONNX file, also for one that was cut off."""
    size = path.stat().st_size
    seen: set[int] = set()
    with path.open("rb") as stream:
        while stream.tell() < size:
            key = _varint(stream)
            if key is None or FIELDS.get(key >> 3) != key & 7:
                return False
            value = _varint(stream)
            if value is None or (key >> 3 == IR_VERSION and not 1 <= value <= MAX_IR):
                return False
            seen.add(key >> 3)
            if key & 7 == BYTES:
                if stream.tell() + value > size:
                    return key >> 3 == GRAPH and IR_VERSION in seen
                stream.seek(value, 1)
    return IR_VERSION in seen and bool(seen & {GRAPH, OPSET_IMPORT})


def _varint(stream: BinaryIO) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:  # noqa: PLR2004 - the high bit says that another byte follows
            return value
    return None
