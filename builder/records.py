"""Frozen dataclasses to JSON and back, checked by their annotations.

Supported: str, int, float, bool, None, Literal, unions with None, tuples, `dict[str, X]`, nested dataclasses, and a
union of dataclasses told apart by their `kind` field. Unknown keys are refused: a file written by another version
must fail with a message, not load half.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
import types
import typing
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

T = TypeVar("T")


class RecordError(ValueError):
    """The JSON does not fit the dataclass; the message holds the path inside the document."""


def to_json(value: Any) -> Any:  # noqa: ANN401 - the border between typed records and JSON
    """Plain JSON data; NaN and infinities become the strings `nan`, `inf`, `-inf` (JSON has none)."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def from_json(kind: type[T], data: Any, where: str = "$") -> T:  # noqa: ANN401
    """Build `kind` from JSON data.

    Raises:
        RecordError: a key is missing or unknown, or a value has another type.
    """
    return typing.cast("T", _read(kind, data, where))


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, data: Any, where: str) -> Any:  # noqa: ANN401, C901, PLR0911 - one line for each kind of annotation
    origin = get_origin(kind)
    if kind is Any:
        return data
    if origin is Literal:
        return _expect(data in get_args(kind), data, kind, where)
    if origin in (Union, types.UnionType):
        return _read_union(get_args(kind), data, where)
    if origin is tuple:
        return _read_tuple(get_args(kind), data, where)
    if origin is dict:
        _expect(isinstance(data, dict), data, kind, where)
        return {key: _read(get_args(kind)[1], item, f"{where}.{key}") for key, item in data.items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, data, where)
    if kind is float:
        if data in ("nan", "inf", "-inf"):
            return float(data)
        return float(_expect(isinstance(data, (int, float)) and not isinstance(data, bool), data, kind, where))
    if kind is int:
        return _expect(isinstance(data, int) and not isinstance(data, bool), data, kind, where)
    if kind is types.NoneType:
        return _expect(data is None, data, kind, where)
    return _expect(isinstance(data, kind), data, kind, where)


def _expect(ok: bool, data: Any, kind: Any, where: str) -> Any:  # noqa: ANN401
    if not ok:
        msg = f"{where}: expected {getattr(kind, '__name__', kind)}, got {data!r}"
        raise RecordError(msg)
    return data


def _read_union(options: tuple[Any, ...], data: Any, where: str) -> Any:  # noqa: ANN401
    problems = []
    for option in options:
        try:
            return _read(option, data, where)
        except RecordError as error:
            problems.append(str(error))
    raise RecordError(problems[-1] if len(problems) == 1 else " or ".join(problems))


def _read_tuple(arguments: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:  # noqa: ANN401
    _expect(isinstance(data, list), data, list, where)
    if len(arguments) == 2 and arguments[1] is Ellipsis:  # noqa: PLR2004 - tuple[X, ...]
        return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(data))
    _expect(len(arguments) == len(data), data, f"list of {len(arguments)}", where)
    return tuple(_read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(arguments, data, strict=True)))


def _read_dataclass(kind: Any, data: Any, where: str) -> Any:  # noqa: ANN401
    _expect(isinstance(data, dict), data, dict, where)
    hints = _hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = sorted(set(data) - set(fields))
    if unknown:
        msg = f"{where}: unknown key {unknown[0]!r}"
        raise RecordError(msg)
    missing = [
        name
        for name, field in fields.items()
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        msg = f"{where}: missing key {missing[0]!r}"
        raise RecordError(msg)
    return kind(**{name: _read(hints[name], item, f"{where}.{name}") for name, item in data.items()})


def dump(value: Any) -> str:  # noqa: ANN401
    """Indented JSON with a final newline; the same value always gives the same text."""
    return json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def canonical(value: Any) -> bytes:  # noqa: ANN401
    """Sorted, compact JSON: what digests are made of."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new text, never a part."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_record(path: Path, value: Any) -> None:  # noqa: ANN401
    """`dump` into a file, atomically."""
    write_text(path, dump(value))


def read_record(kind: type[T], path: Path) -> T:
    """Read what `write_record` wrote.

    Raises:
        RecordError: the file is not JSON or does not fit `kind`.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path.name}: not JSON: {error}"
        raise RecordError(msg) from error
    return from_json(kind, data, path.name)
