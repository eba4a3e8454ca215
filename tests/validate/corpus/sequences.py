"""Sequence batching: strategies, controls, states."""

# ruff: noqa: E501 - a case is a line

from corpus import PLAIN, Case, configs, model, whole


def control(kind: str, value: str = "int32_false_true: [ 0, 1 ]", name: str = "c") -> str:
    return f'control_input [ {{ name: "{name}" control [ {{ kind: CONTROL_SEQUENCE_{kind} {value} }} ] }} ]'


def state(more: str = "", head: str = 'input_name: "si" output_name: "so" data_type: TYPE_FP32 dims: [ 2 ]') -> str:
    return f"state [ {{ {head} {more} }} ]"


def first(text: str) -> str:
    return state(f"initial_state {{ {text} }}")


ZERO = 'name: "s" data_type: TYPE_FP32 dims: [ 2 ] '
CORR = "data_type: TYPE_UINT64"


def cases() -> list[Case]:
    found = configs("sequences", {name: f"sequence_batching {{ {text} }}" for name, text in TABLE.items()})
    small = {
        f"{name}_batch_{size}": PLAIN.replace("8", str(size)) + f"sequence_batching {{ {TABLE[name]} }}"
        for size in (0, 1) for name in ("empty", "oldest", "oldest_preferred", "direct", "state", "start")
    }  # fmt: skip
    from_file = first(ZERO + 'data_file: "a"')
    file = f"sequence_batching {{ {from_file} }}"
    return [
        *found, *whole("sequences", small),
        Case("sequences_state_file", model(PLAIN + file, more={"@M/initial_state/a": bytes(8)})),
        Case("sequences_state_file_short", model(PLAIN + file, more={"@M/initial_state/a": bytes(4)})),
        Case("sequences_state_file_long", model(PLAIN + file, more={"@M/initial_state/a": bytes(12)})),
        Case("sequences_state_file_elsewhere", model(PLAIN + file, more={"@M/a": bytes(8)})),
        Case("sequences_two_groups", model(PLAIN + "sequence_batching { oldest { max_candidate_sequences: 4 } }\n"
                                           "instance_group [ { count: 2 kind: KIND_CPU } ]")),
    ]  # fmt: skip


TABLE = {
    "empty": "",
    "idle": "max_sequence_idle_microseconds: 5000000",
    "direct": "direct { }",
    "direct_delay": "direct { max_queue_delay_microseconds: 100 minimum_slot_utilization: 0.5 }",
    "direct_full": "direct { minimum_slot_utilization: 1.0 }",
    "direct_above": "direct { minimum_slot_utilization: 1.5 }",
    "direct_negative": "direct { minimum_slot_utilization: -0.1 }",
    "oldest": "oldest { max_candidate_sequences: 4 }",
    "oldest_empty": "oldest { }",
    "oldest_negative": "oldest { max_candidate_sequences: -1 }",
    "oldest_preferred": "oldest { max_candidate_sequences: 4 preferred_batch_size: [ 2, 4 ] }",
    "oldest_preferred_zero": "oldest { max_candidate_sequences: 4 preferred_batch_size: [ 0 ] }",
    "oldest_preferred_above": "oldest { max_candidate_sequences: 4 preferred_batch_size: [ 16 ] }",
    "oldest_preserve": "oldest { max_candidate_sequences: 4 preserve_ordering: true }",
    "both": "direct { } oldest { }",
    "iterative": "iterative_sequence: true",
    "iterative_oldest": "iterative_sequence: true oldest { max_candidate_sequences: 2 }",
    "start": control("START"),
    "end": control("END"),
    "ready": control("READY"),
    "start_fp32": control("START", "fp32_false_true: [ 0, 1 ]"),
    "start_bool": control("START", "bool_false_true: [ false, true ]"),
    "start_three": control("START", "int32_false_true: [ 0, 1, 2 ]"),
    "start_one": control("START", "fp32_false_true: [ 0 ]"),
    "start_bool_one": control("START", "bool_false_true: [ true ]"),
    "start_none": control("START", ""),
    "start_two_types": control("START", "int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ]"),
    "start_two_types_bool": control("START", "bool_false_true: [ false, true ] fp32_false_true: [ 0, 1 ]"),
    "start_data_type": control("START", "int32_false_true: [ 0, 1 ] data_type: TYPE_INT32"),
    "start_only_data_type": control("START", "data_type: TYPE_INT32"),
    "no_name": control("START", name=""),
    "no_control": 'control_input [ { name: "c" } ]',
    "no_control_no_name": "control_input [ { } ]",
    "twice": control("START") + control("START", name="d"),
    "same_tensor_twice": control("START") + control("END"),
    "same_tensor_both": 'control_input [ { name: "c" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] '
                        '}, { kind: CONTROL_SEQUENCE_END int32_false_true: [ 0, 1 ] } ] } ]',
    "all": control("START") + control("END", name="d") + control("READY", name="e") + control("CORRID", CORR, "f"),
    "kind_default": 'control_input [ { name: "c" control [ { int32_false_true: [ 0, 1 ] } ] } ]',
    "kind_unknown": control("MIDDLE"),
    "named_as_input": control("START", name="x"),
    "corrid": control("CORRID", CORR),
    "corrid_string": control("CORRID", "data_type: TYPE_STRING"),
    "corrid_int32": control("CORRID", "data_type: TYPE_INT32"),
    "corrid_fp32": control("CORRID", "data_type: TYPE_FP32"),
    "corrid_none": control("CORRID", ""),
    "corrid_values": control("CORRID", CORR + " int32_false_true: [ 0, 1 ]"),
    "corrid_twice": control("CORRID", CORR) + control("CORRID", CORR, "d"),
    "state": state(),
    "state_start": state() + control("START"),
    "state_no_input": state(head='output_name: "so" data_type: TYPE_FP32 dims: [ 2 ]'),
    "state_no_output": state(head='input_name: "si" data_type: TYPE_FP32 dims: [ 2 ]'),
    "state_no_type": state(head='input_name: "si" output_name: "so" dims: [ 2 ]'),
    "state_no_dims": state(head='input_name: "si" output_name: "so" data_type: TYPE_FP32'),
    "state_dynamic": state(head='input_name: "si" output_name: "so" data_type: TYPE_FP32 dims: [ -1 ]'),
    "state_zero_dim": state(head='input_name: "si" output_name: "so" data_type: TYPE_FP32 dims: [ 0 ]'),
    "state_string": state(head='input_name: "si" output_name: "so" data_type: TYPE_STRING dims: [ 1 ]'),
    "state_twice": state() + state(),
    "state_twice_initial": first(ZERO + "zero_data: true") + first(ZERO + "zero_data: true"),
    "state_named_as_input": state(head='input_name: "x" output_name: "y" data_type: TYPE_FP32 dims: [ 2 ]'),
    "state_same_buffer": state("use_same_buffer_for_input_output: true"),
    "state_growable": state("use_growable_memory: true"),
    "state_growable_same": state("use_growable_memory: true use_same_buffer_for_input_output: true"),
    "initial": first(ZERO + "zero_data: true"),
    "initial_false": first(ZERO + "zero_data: false"),
    "initial_none": first(ZERO),
    "initial_no_name": first("data_type: TYPE_FP32 dims: [ 2 ] zero_data: true"),
    "initial_type": first('name: "s" data_type: TYPE_INT32 dims: [ 2 ] zero_data: true'),
    "initial_no_type": first('name: "s" dims: [ 2 ] zero_data: true'),
    "initial_no_dims": first('name: "s" data_type: TYPE_FP32 zero_data: true'),
    "initial_dims": first('name: "s" data_type: TYPE_FP32 dims: [ 3 ] zero_data: true'),
    "initial_rank": first('name: "s" data_type: TYPE_FP32 dims: [ 1, 2 ] zero_data: true'),
    "initial_dynamic": first('name: "s" data_type: TYPE_FP32 dims: [ -1 ] zero_data: true'),
    "initial_two": state(f"initial_state [ {{ {ZERO} zero_data: true }}, {{ {ZERO} zero_data: true }} ]"),
    "initial_zero_and_file": first(ZERO + 'zero_data: true data_file: "a"'),
    "initial_file_missing": first(ZERO + 'data_file: "a"'),
    "initial_file_empty_name": first(ZERO + 'data_file: ""'),
    "initial_for_dynamic":
        'state [ { input_name: "si" output_name: "so" data_type: TYPE_FP32 dims: [ -1 ] initial_state { name: "s" '
        "data_type: TYPE_FP32 dims: [ 4 ] zero_data: true } } ]",
    "initial_string":
        'state [ { input_name: "si" output_name: "so" data_type: TYPE_STRING dims: [ 1 ] initial_state { name: "s" '
        "data_type: TYPE_STRING dims: [ 1 ] zero_data: true } } ]",
    "oldest_states": "oldest { max_candidate_sequences: 4 } " + first(ZERO + "zero_data: true"),
}  # fmt: skip
