"""The `config:` part of a model's spec: ModelConfig fields in Triton's own names, laid over what the build decided."""

from __future__ import annotations

import difflib
from typing import Any, Final

from builder.errors import SpecError
from builder.releases import fields_unknown, new_fields
from builder.triton_config.text import model_config_proto, to_message

Json = dict[str, Any]

OWN_WORDS: Final = {
    "name": "the model's name: in the spec",
    "backend": "targets: in the spec",
    "platform": "targets: in the spec",
    "max_batch_size": "batching: {max_batch_size: …} in the spec, which also writes dims that fit",
}
"""Fields that the spec has a word for, and that this word must decide because other fields follow from it."""

SCHEDULERS: Final = ("dynamic_batching", "sequence_batching", "ensemble_scheduling")


def apply_overrides(config: Json, overrides: Json, release: str) -> Json:
    """`config` with `overrides` laid over it: objects are merged, tensors by their name, everything else is replaced.

    Raises:
        SpecError: a field is unknown (to Triton, or to the release), has another type, or is decided elsewhere.
    """
    if not overrides:
        return config
    for field, word in OWN_WORDS.items():
        if field in overrides:
            msg = f"config.{field}: this field is decided by another word of the spec"
            raise SpecError(msg, remedy=f"use {word}")
    kind = model_config_proto().ModelConfig.DESCRIPTOR
    _check(overrides, kind, "config", frozenset(fields_unknown(release)), release)
    for field, value in overrides.items():
        to_message({field: value}, where=f"config.{field}")
    merged = dict(config)
    if any(word in overrides for word in SCHEDULERS):
        merged = {key: value for key, value in merged.items() if key not in SCHEDULERS or key in overrides}
    for key, value in overrides.items():
        merged[key] = _tensors(merged, key, value) if key in ("input", "output") else _merge(merged.get(key), value)
    return merged


def _check(value: Any, kind: Any, path: str, unknown: frozenset[str], release: str) -> None:  # noqa: ANN401
    """Names at every depth; the types of the values are the proto's business."""
    if not isinstance(value, dict):
        msg = f"{path}: expected fields of {kind.name}, got {value!r}"
        raise SpecError(msg, remedy=f"the fields are {', '.join(sorted(kind.fields_by_name))}")
    for name, item in value.items():
        here = f"{path}.{name}"
        field = kind.fields_by_name.get(name)
        if field is None:
            raise _no_field(str(name), kind, here)
        if f"{kind.name}.{name}" in unknown:
            since = next(new.since for new in new_fields() if new.field == f"{kind.name}.{name}")
            msg = f"{here}: Triton {release} does not know this field; it came with {since}"
            raise SpecError(msg, remedy=f'leave it out, or build for triton: "{since}" or newer')
        if field.message_type is not None:
            for where, part, inner in _parts(item, field, here):
                _check(part, inner, where, unknown, release)


def _parts(item: Any, field: Any, here: str) -> list[tuple[str, Any, Any]]:  # noqa: ANN401
    """Path, value and type of the messages in a field: one, a list's items, or a map's values."""
    if field.message_type.GetOptions().map_entry:
        if not isinstance(item, dict):
            msg = f"{here}: expected keys and values, got {item!r}"
            raise SpecError(msg, remedy=f"write it as {field.name}: {{KEY: VALUE}}")
        kind = field.message_type.fields_by_name["value"].message_type
        return [] if kind is None else [(f"{here}.{key}", part, kind) for key, part in item.items()]
    if isinstance(item, list):
        return [(f"{here}[{index}]", part, field.message_type) for index, part in enumerate(item)]
    return [(here, item, field.message_type)]


def _no_field(name: str, kind: Any, here: str) -> SpecError:  # noqa: ANN401
    known = sorted(kind.fields_by_name)
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    msg = f"{here}: {kind.name} has no field {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
    return SpecError(msg, remedy=f"the fields are {', '.join(known)}")


def _tensors(config: Json, side: str, items: list[Json]) -> list[Json]:
    merged = {tensor["name"]: tensor for tensor in config.get(side, ())}
    for index, item in enumerate(items):
        name = item.get("name")
        if name not in merged:
            msg = f"config.{side}[{index}]: the model has no {side} {name!r}"
            raise SpecError(msg, remedy=f"name one of: {', '.join(merged)}")
        merged[name] = _merge(merged[name], item)
    return list(merged.values())


def _merge(old: Any, new: Any) -> Any:  # noqa: ANN401
    if isinstance(old, dict) and isinstance(new, dict):
        return old | {key: _merge(old.get(key), value) for key, value in new.items()}
    return new
