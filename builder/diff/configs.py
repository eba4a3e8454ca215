"""Two configurations compared field by field; what the server takes in any order is compared without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from builder.diff.records import ValueChange

Json = dict[str, Any]

KEYED: Final = {
    "input": "name", "output": "name", "instance_group": "name", "model_warmup": "name", "control_input": "name",
    "control": "kind", "state": "input_name", "agents": "name", "gpu_execution_accelerator": "name",
    "cpu_execution_accelerator": "name", "resources": "name",
}  # fmt: skip
"""Lists whose items are told apart by a field; where two items share it, or one has none, they go by place."""
SETS: Final = ("preferred_batch_size", "versions", "gpus", "cc_model_filenames")
"""Lists whose order means nothing."""
IN_ORDER: Final = ("input", "output")
"""Named lists whose order some backends read."""


def config_changes(before: Json, after: Json) -> tuple[ValueChange, ...]:
    """Every field that differs, by its path; both as JSON with the proto's field names."""
    return tuple(_changes(before, after, "", ""))


def _changes(before: Any, after: Any, path: str, field: str) -> Iterator[ValueChange]:  # noqa: ANN401
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            inner = f"{path}.{key}" if path else str(key)
            yield from _changes(before.get(key), after.get(key), inner, str(key))
    elif isinstance(before, list) and isinstance(after, list):
        yield from _lists(before, after, path, field)
    elif before != after:
        yield ValueChange(path, before, after)


def _lists(before: list[Any], after: list[Any], path: str, field: str) -> Iterator[ValueChange]:
    if field in SETS:
        if sorted(map(str, before)) != sorted(map(str, after)):
            yield ValueChange(path, before, after)
        return
    if not any(isinstance(item, dict) for item in (*before, *after)):
        if before != after:
            yield ValueChange(path, before, after)
        return
    left, right = _named(before, after, field)
    for key in dict.fromkeys((*left, *right)):
        yield from _changes(left.get(key), right.get(key), f"{path}[{key}]", "")
    shared = [key for key in left if key in right]
    if field in IN_ORDER and shared != [key for key in right if key in left]:
        yield ValueChange(f"{path} (order)", list(left), list(right))


def _named(before: list[Any], after: list[Any], field: str) -> tuple[Json, Json]:
    key = KEYED.get(field, "")
    names = [[str(item.get(key, "")) for item in items] for items in (before, after)]
    if key and all("" not in side and len(set(side)) == len(side) for side in names):
        return dict(zip(names[0], before, strict=True)), dict(zip(names[1], after, strict=True))
    return {str(i): item for i, item in enumerate(before)}, {str(i): item for i, item in enumerate(after)}
