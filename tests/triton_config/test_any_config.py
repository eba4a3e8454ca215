"""Whatever a ModelConfig holds: written by the templates and read back, and laid over what the build decided."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given
from hypothesis import strategies as st

from builder.native_rules import refusals
from builder.native_warnings import warnings
from builder.spec_serving import BatchingSpec, InstancesSpec
from builder.tensors import Signature, Tensor
from builder.triton_config import ConfigRequest, config_to_text, parse_config, render_config
from builder.triton_config.overrides import OWN_WORDS, SCHEDULERS, apply_overrides
from builder.triton_config.text import model_config_proto, to_message

Json = dict[str, Any]

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6)
BASE: Json = {
    "name": "m", "backend": "onnxruntime", "max_batch_size": 8,
    "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}],
    "output": [{"name": "y", "data_type": "TYPE_FP32", "dims": [4]}],
    "instance_group": [{"count": 2, "kind": "KIND_CPU"}],
    "dynamic_batching": {"max_queue_delay_microseconds": 5},
}  # fmt: skip


def values(field: Any) -> st.SearchStrategy[Any]:
    """Values of one field, as JSON has them."""
    kinds: dict[int, st.SearchStrategy[Any]] = {
        FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
        FieldDescriptor.CPPTYPE_STRING: TEXT,
        FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
        FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
        FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
        FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
        FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32, allow_nan=False, allow_infinity=False),
        FieldDescriptor.CPPTYPE_DOUBLE: st.floats(allow_nan=False, allow_infinity=False),
    }
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return st.sampled_from([value.name for value in field.enum_type.values])
    if field.message_type is None:
        return kinds[field.cpp_type]
    if field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[word] for word in ("key", "value"))
        return st.dictionaries(values(key).map(str), values(value), max_size=2)
    return messages(field.message_type)


def messages(kind: Any, names: tuple[str, ...] | None = None) -> st.SearchStrategy[Json]:
    """Messages with some of their fields, at most one of each choice."""

    def made(draw: Any) -> Json:
        asked = draw(st.lists(st.sampled_from(sorted(names or kind.fields_by_name)), unique=True, max_size=4))
        found: Json = {}
        taken: set[str] = set()
        for name in asked:
            field = kind.fields_by_name[name]
            choice = field.containing_oneof.name if field.containing_oneof else ""
            if choice and choice in taken:
                continue
            taken.add(choice)
            is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
            one = values(field)
            found[name] = draw(st.lists(one, max_size=2) if field.is_repeated and not is_map else one)
        return found

    return st.composite(made)() if kind.fields_by_name else st.just({})


KIND = model_config_proto().ModelConfig.DESCRIPTOR
OTHERS = tuple(sorted(set(KIND.fields_by_name) - set(OWN_WORDS) - {"input", "output", "ensemble_scheduling"}))


def canonical(config: Json) -> Json:
    found: Json = json_format.MessageToDict(to_message(config), preserving_proto_field_name=True)
    return found


@given(messages(KIND))
def test_every_configuration_reads_back_as_it_was_written(config: Json) -> None:
    assert parse_config(config_to_text(config)) == canonical(config)


@given(messages(KIND, OTHERS))
def test_fields_laid_over_are_those_that_come_out(overrides: Json) -> None:
    merged = apply_overrides(BASE, overrides, "26.07")
    found, wanted = canonical(merged), canonical(overrides)
    assert parse_config(config_to_text(merged)) == found
    for field in wanted.keys() - {"instance_group", *SCHEDULERS}:
        assert found[field] == wanted[field]
    for field in BASE.keys() - overrides.keys() - set(SCHEDULERS):
        assert found[field] == canonical(BASE)[field]
    assert sum(word in merged for word in SCHEDULERS) <= 1
    assert len(merged["instance_group"]) == len(overrides.get("instance_group", BASE["instance_group"]))


@given(messages(KIND, OTHERS))
def test_the_rules_judge_whatever_is_rendered(overrides: Json) -> None:
    ports = Signature((Tensor("x", "float32", ("n", 4)),), (Tensor("y", "float32", ("n", 4)),))
    request = ConfigRequest(
        "m", "onnxruntime", "26.07", ports, ports, batch_proven=True, batching=BatchingSpec(),
        instances=(InstancesSpec(),), overrides=overrides,
    )  # fmt: skip
    config = parse_config(render_config(request).text)
    table = {
        side: [
            {"name": port.name, "dtype": port.dtype, "shape": list(port.wire_shape)} for port in getattr(ports, side)
        ]
        for side in ("inputs", "outputs")
    }
    for backend in ("onnxruntime", "openvino", "tensorrt", "pytorch", "python"):
        assert all(isinstance(text, str) for text in refusals(backend, config, table, auto_complete=False))
        assert all(isinstance(text, str) for text in warnings(backend, config, table))


@pytest.mark.parametrize(
    ("overrides", "field", "expected"),
    [
        ({"instance_group": [{"host_policy": "a"}]}, "instance_group",
         [{"count": 2, "kind": "KIND_CPU", "host_policy": "a"}]),
        ({"instance_group": [{"kind": "KIND_GPU", "gpus": [0]}, {"name": "b"}]}, "instance_group",
         [{"count": 2, "kind": "KIND_GPU", "gpus": [0]}, {"count": 2, "kind": "KIND_CPU", "name": "b"}]),
        ({"input": [{"name": "x", "format": "FORMAT_NCHW"}]}, "input",
         [{"name": "x", "data_type": "TYPE_FP32", "dims": [4], "format": "FORMAT_NCHW"}]),
        ({"dynamic_batching": {"preserve_ordering": True}}, "dynamic_batching",
         {"max_queue_delay_microseconds": 5, "preserve_ordering": True}),
        ({"sequence_batching": {"direct": {}}}, "sequence_batching", {"direct": {}}),
        ({"parameters": {"a": 1, "b": True, "c": {"string_value": 0.5}}}, "parameters",
         {"a": {"string_value": "1"}, "b": {"string_value": "true"}, "c": {"string_value": "0.5"}}),
        ({"metric_tags": {"level": 3}}, "metric_tags", {"level": "3"}),
    ],
)  # fmt: skip
def test_what_laying_over_does(overrides: Json, field: str, expected: Any) -> None:
    assert apply_overrides(BASE, overrides, "26.07")[field] == expected


def test_of_two_alternatives_the_written_one_stays() -> None:
    sequences = {"sequence_batching": {"oldest": {"max_candidate_sequences": 4}, "max_sequence_idle_microseconds": 7}}
    config = {key: value for key, value in BASE.items() if key != "dynamic_batching"} | sequences
    found = apply_overrides(config, {"sequence_batching": {"direct": {}}}, "26.07")["sequence_batching"]
    assert found == {"max_sequence_idle_microseconds": 7, "direct": {}}
    policy = apply_overrides(
        BASE | {"version_policy": {"all": {}}}, {"version_policy": {"latest": {"num_versions": 2}}}, "26.07"
    )
    assert policy["version_policy"] == {"latest": {"num_versions": 2}}
