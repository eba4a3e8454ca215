"""Fields of a protobuf message from its bytes, so that a file can be looked at without the library that wrote it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

Value = int | bytes


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """A variable-length number and the place behind it.

    Raises:
        ValueError: the data ends within it.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the high bit says that another byte follows
            return value, at
    raise ValueError("the file is cut off within a number")


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Field number and value of every field in order; texts and messages as views of the bytes.

    Raises:
        ValueError: this is no protobuf message.
    """
    view = memoryview(data)
    at = 0
    while at < len(view):
        key, at = read_varint(view, at)
        kind = key & 7
        if kind == VARINT:
            value, at = read_varint(view, at)
            yield key >> 3, value
            continue
        if kind == BYTES:
            length, at = read_varint(view, at)
        elif kind in (FIXED32, FIXED64):
            length = 4 if kind == FIXED32 else 8
        else:
            raise ValueError(f"wire type {kind} at byte {at}")
        if at + length > len(view):
            raise ValueError("the file is cut off within a field")
        yield key >> 3, view[at : at + length]
        at += length


def messages(data: bytes | memoryview, number: int) -> Iterator[memoryview]:
    """The values of one field that holds messages or texts."""
    for found, value in fields(data):
        if found == number and isinstance(value, memoryview):
            yield value


def message(data: bytes | memoryview, number: int) -> memoryview:
    """The last message in one field; empty where there is none."""
    last = memoryview(b"")
    for last in messages(data, number):  # noqa: B007 - the last one counts
        pass
    return last


def number_in(data: bytes | memoryview, number: int) -> int:
    """The last number in one field; 0 where there is none."""
    found = [value for field, value in fields(data) if field == number and isinstance(value, int)]
    return found[-1] if found else 0


def signed(value: int) -> int:
    """An int64 from its varint."""
    return value - (1 << 64) if value >> 63 else value


def text_of(value: memoryview) -> str:
    """UTF-8, whatever it takes."""
    return bytes(value).decode("utf-8", "replace")
