"""Errors of pydantic → problems in our words, each at its place in the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from builder.problems import Problem, nearest


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[Problem]:
    """All of them; an element's own error makes its list invalid too, and that echo is left out."""
    problems = [Problem(tuple(item["loc"]), _plain(item, root)) for item in error.errors()]
    paths = [problem.path for problem in problems]
    return [problem for problem in problems if not _has_inner(problem.path, paths)]


def _has_inner(path: tuple[str | int, ...], paths: Sequence[tuple[str | int, ...]]) -> bool:
    return any(len(other) > len(path) and other[: len(path)] == path for other in paths)


def _plain(item: Any, root: type[BaseModel]) -> str:  # noqa: ANN401 - pydantic's error dictionary
    """Pydantic's words, made ours."""
    if item["type"] == "extra_forbidden":
        return f"unknown key {item['loc'][-1]!r}{nearest(str(item['loc'][-1]), _known_keys(item['loc'], root))}"
    if item["type"] == "missing":
        return f"the key {item['loc'][-1]!r} is missing"
    if item["type"] in ("model_type", "dataclass_type"):
        return f"got {item['input']!r}, expected keys and values{_example(item, root)}"
    if item["type"] in ("tuple_type", "list_type"):
        return "expected a list: begin each element with '- ', or write [ELEMENT, ...]"
    message = str(item["msg"]).removeprefix("Value error, ")
    return message if item["type"] == "value_error" else f"{message}, got {item['input']!r}"


def _example(item: Any, root: type[BaseModel]) -> str:  # noqa: ANN401 - pydantic's error dictionary
    """Where a bare path stands for what has one: how it is written."""
    known = _known_keys((*item["loc"], ""), root)
    return f": {{path: {item['input']}}}" if "path" in known and isinstance(item["input"], str) else ""


def _known_keys(loc: tuple[str | int, ...], root: type[BaseModel]) -> tuple[str, ...]:
    kind: Any = root
    for part in loc[:-1]:
        field = kind.model_fields.get(part)
        if field is not None:
            kind = next(_parts_of(field.annotation), None)
        if kind is None:
            return ()
    return tuple(kind.model_fields)


def _parts_of(annotation: Any) -> Iterator[Any]:  # noqa: ANN401
    """The parts of the spec in `tuple[X, ...] | None` and the like."""
    if hasattr(annotation, "model_fields"):
        yield annotation
    for inner in getattr(annotation, "__args__", ()):
        yield from _parts_of(inner)
