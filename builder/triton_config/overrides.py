"""The `config:` part of a model's spec: ModelConfig fields in Triton's own names, laid over what the build decided.

How a field is laid over: objects are merged field by field, and of two choices of which Triton takes one, the written
one stays. Lists replace what was decided, except those whose items have a name (`KEYED`), which are merged by it, and
instance groups, which are merged by name or else by place, so that `[{host_policy: numa_0}]` keeps count and kind.
"""

from __future__ import annotations

import difflib
from typing import Any, Final

from builder.errors import SpecError
from builder.releases import fields_unknown, new_fields
from builder.triton_config.text import model_config_proto, to_message

Json = dict[str, Any]
Path = tuple[str | int, ...]

OWN_WORDS: Final = {
    "name": "the model's name: in the spec",
    "backend": "targets: in the spec",
    "platform": "targets: in the spec",
    "max_batch_size": "batching: {max_batch_size: …} in the spec, which also writes dims that fit",
}
"""Fields that the spec has a word for, and that this word must decide because other fields follow from it."""
SCHEDULERS: Final = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")
KEYED: Final = {
    "input": "name", "output": "name", "model_warmup": "name", "gpu_execution_accelerator": "name",
    "cpu_execution_accelerator": "name", "agents": "name", "control_input": "name", "state": "input_name",
    "resources": "name",
}  # fmt: skip
"""Lists whose items are told apart by a field."""
ONE_OF: Final = (SCHEDULERS, ("direct", "oldest"), ("latest", "all", "specific"), ("zero_data", "data_file"))
"""Fields of which a message has one."""


class OverrideError(SpecError):
    """What is wrong below `config:`; `path` is where, inside it."""

    def __init__(self, path: Path, message: str, *, remedy: str) -> None:
        super().__init__(f"{_text(path)}: {message}", remedy=remedy)
        self.path = path
        self.reason = message


def check_overrides(overrides: Json, release: str) -> None:
    """What can be said without a model: names and types of the fields, and whether the release knows them.

    Raises:
        OverrideError: a field is unknown (to Triton, or to the release), has another type, or is decided elsewhere.
    """
    for field, word in OWN_WORDS.items():
        if field in overrides:
            raise OverrideError((field,), "this field is decided by another word of the spec", remedy=f"use {word}")
    kind = model_config_proto().ModelConfig.DESCRIPTOR
    overrides = normalised(overrides, kind)
    _check(overrides, kind, (), frozenset(fields_unknown(release)), release)
    for field, value in overrides.items():
        try:
            to_message({field: value}, where="")
        except SpecError as error:
            raise OverrideError((field,), error.message.removeprefix(": "), remedy=error.remedy) from None


def apply_overrides(config: Json, overrides: Json, release: str) -> Json:
    """`config` with `overrides` laid over it.

    Raises:
        OverrideError: as `check_overrides`, or a tensor is none of the model's.
    """
    if not overrides:
        return config
    check_overrides(overrides, release)
    written = normalised(overrides, model_config_proto().ModelConfig.DESCRIPTOR)
    for side in ("input", "output"):
        known = [tensor["name"] for tensor in config.get(side, ())]
        for index, item in enumerate(written.get(side, ())):
            if item.get("name") not in known:
                message = f"the model has no {side} {item.get('name')!r}"
                raise OverrideError((side, index), message, remedy=f"name one of: {', '.join(known)}")
    merged: Json = _merge(config, written)
    return merged


def normalised(value: Any, kind: Any) -> Any:  # noqa: ANN401
    """As the proto wants it: numbers and booleans as text where only text goes, `KEY: value` of parameters written out.

    What has another shape than its field stays as it is, for `check_overrides` to say so.
    """
    if not isinstance(value, dict):
        return value
    return {name: _normalised(item, kind.fields_by_name.get(name)) for name, item in value.items()}


def _normalised(item: Any, field: Any) -> Any:  # noqa: ANN401
    if field is None or field.message_type is None:
        return item
    kind = field.message_type
    if not kind.GetOptions().map_entry:
        return [normalised(part, kind) for part in item] if isinstance(item, list) else normalised(item, kind)
    inner = kind.fields_by_name["value"]
    if not isinstance(item, dict):
        return item
    if inner.message_type is None:
        is_text = inner.cpp_type == inner.CPPTYPE_STRING
        return {str(key): _as_text(part) if is_text else part for key, part in item.items()}
    if inner.message_type.name == "ModelParameter":
        written = {str(key): part if isinstance(part, dict) else {"string_value": part} for key, part in item.items()}
        return {
            key: {word: _as_text(text) for word, text in part.items()} if part else part
            for key, part in written.items()
        }
    return {str(key): normalised(part, inner.message_type) for key, part in item.items()}


def _as_text(value: Any) -> Any:  # noqa: ANN401
    """YAML reads `1` and `true` as what they look like; Triton takes texts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, (int, float)) else value


def _check(value: Any, kind: Any, path: Path, unknown: frozenset[str], release: str) -> None:  # noqa: ANN401
    """Names at every depth; the types of the values are the proto's business."""
    if not isinstance(value, dict):
        message = f"expected fields of {kind.name}, got {value!r}"
        raise OverrideError(path, message, remedy=f"the fields are {', '.join(sorted(kind.fields_by_name))}")
    for name, item in value.items():
        here = (*path, name)
        field = kind.fields_by_name.get(name)
        if field is None:
            raise _no_field(str(name), kind, here)
        if f"{kind.name}.{name}" in unknown:
            since = next(new.since for new in new_fields() if new.field == f"{kind.name}.{name}")
            message = f"Triton {release} does not know this field; it came with {since}"
            raise OverrideError(here, message, remedy=f'leave it out, or build for triton: "{since}" or newer')
        if field.message_type is not None:
            for where, part, inner in _parts(item, field, here):
                _check(part, inner, where, unknown, release)


def _parts(item: Any, field: Any, here: Path) -> list[tuple[Path, Any, Any]]:  # noqa: ANN401
    """Path, value and type of the messages in a field: one, a list's items, or a map's values."""
    if field.message_type.GetOptions().map_entry:
        if not isinstance(item, dict):
            raise OverrideError(
                here, f"expected keys and values, got {item!r}", remedy=f"write it as {field.name}: {{KEY: VALUE}}"
            )
        kind = field.message_type.fields_by_name["value"].message_type
        return [] if kind is None else [((*here, key), part, kind) for key, part in item.items()]
    if isinstance(item, list):
        return [((*here, index), part, field.message_type) for index, part in enumerate(item)]
    return [(here, item, field.message_type)]


def _no_field(name: str, kind: Any, here: Path) -> OverrideError:  # noqa: ANN401
    known = sorted(kind.fields_by_name)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    message = f"{kind.name} has no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return OverrideError(here, message, remedy=f"the fields are {', '.join(known)}")


def _text(path: Path) -> str:
    return "config" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _merge(old: Any, new: Any, field: str = "") -> Any:  # noqa: ANN401
    if isinstance(old, dict) and isinstance(new, dict):
        for choice in ONE_OF:
            if any(word in new for word in choice):
                old = {key: value for key, value in old.items() if key not in choice or key in new}
        return old | {key: _merge(old.get(key), value, key) for key, value in new.items()}
    if isinstance(old, list) and isinstance(new, list):
        if field == "instance_group":
            return _groups(old, new)
        if field in KEYED:
            return _by_key(old, new, KEYED[field])
    return new


def _by_key(old: list[Json], new: list[Json], key: str) -> list[Json]:
    """The decided items with what is written of them, then those that are new."""
    places = {item.get(key, ""): index for index, item in enumerate(old)}
    merged = list(old)
    for item in new:
        place = places.get(item.get(key, ""))
        if place is None:
            merged.append(item)
        else:
            merged[place] = _merge(merged[place], item)
    return merged


def _groups(old: list[Json], new: list[Json]) -> list[Json]:
    """As many groups as are written, each over the decided one of its name, else of its place, else over the first."""
    named = {group["name"]: group for group in old if group.get("name")}
    merged = []
    for index, group in enumerate(new):
        base = named.get(group.get("name", ""))
        if base is None and index < len(old):
            base = old[index]
        if base is None:
            base = {field: value for field, value in old[0].items() if field in ("count", "kind")} if old else {}
        if "kind" in group and group["kind"] != base.get("kind"):
            base = {field: value for field, value in base.items() if field != "gpus"}
        merged.append(_merge(base, group))
    return merged
