"""What a hostile examiner wrote and the validator once judged otherwise than the server, with right neighbours."""

# ruff: noqa: E501 - a case is a line

from corpus import INPUT, MODEL_PY, OUTPUT, PLAIN, Case, configs, model, whole
from corpus.ensembles import ONE, A, B, Files, ensemble, member, step

HEAD = 'backend: "python"\nmax_batch_size: 8\n'
WARM = 'model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 %s } } }\n'
BROKEN = WARM.replace("FP32", "INT8") % "zero_data: true"
BATCHER = 'parameters { key: "TRITON_BATCH_STRATEGY_PATH" value { string_value: "%s" } }'
DECOUPLED = "model_transaction_policy { decoupled: true }"


def cases() -> list[Case]:
    long, dotted = "l" * 300, "@M.python"
    labelled = PLAIN.replace('"y"', '"y" label_filename: "%s"')
    return [
        *whole("strange", WHOLE),
        *configs("strange", AFTER),
        *(Case(f"strange_{name}", files) for name, files in {**ENSEMBLES, **NESTED, **LIBRARIES, **TWICE}.items()),
        *(Case(f"strange_module_{name}", {"@M/config.pbtxt": f'{PLAIN}default_model_filename: "{file}"', f"@M/1/{file}": MODEL_PY}, "real") for name, file in MODULES.items()),
        Case("strange_folder_not_ascii", {"@M-größe/config.pbtxt": PLAIN, "@M-größe/1/model.py": MODEL_PY}, "real"),
        Case("strange_folder_square", {**model(PLAIN), "@M/²/model.py": MODEL_PY}),
        Case("strange_label_long", model(labelled % long)),
        Case("strange_label_slash", model(labelled % "l.txt/", more={"@M/l.txt": "a\nb\n"})),
        Case("strange_label_nul", model(labelled % "l.txt\\0x", more={"@M/l.txt": "a\nb\n"})),
        *(Case(f"strange_backend_in_name_{word}", {f"{dotted}/config.pbtxt": text, f"{dotted}/1/model.py": MODEL_PY}) for word, text in DOTTED.items()),
        Case("strange_backend_in_name_no_file", {f"{dotted}/config.pbtxt": INPUT + OUTPUT, f"{dotted}/1/model.python": MODEL_PY}, "real"),
    ]  # fmt: skip


def direct(value: str) -> str:
    return f"{PLAIN}sequence_batching {{ direct {{ minimum_slot_utilization: {value} }} }}"


def reshaped(dims: str, shape: str) -> str:
    return f'{HEAD}input {{ name: "x" data_type: TYPE_FP32 dims: {dims} reshape {{ shape: {shape} }} }}\n{OUTPUT}'


WHOLE = {
    "float_hex": direct("0x1"),
    "float_octal": direct("01"),
    "float_octal_zero": direct("00"),
    "float_zero": direct("0"),
    "float_minus_zero": direct("-0"),
    "bool_hex": PLAIN + "optimization { eager_batching: 0x1 }",
    "unsigned_minus_zero": PLAIN + "dynamic_batching { max_queue_delay_microseconds: -0 }",
    "unsigned_minus_zero_comment": PLAIN + "dynamic_batching { max_queue_delay_microseconds: - # none\n 0 }",
    "unsigned_in_map_minus_zero": PLAIN
    + "dynamic_batching { priority_levels: 1 default_priority_level: 1 priority_queue_policy { key: -0 value { } } }",
    "signed_minus_zero": PLAIN.replace("8", "-0"),
    "signed_hex_list": PLAIN.replace("[ 2 ]", "[ 0x2, 02 ]"),
    "enum_beyond_int32": PLAIN.replace("TYPE_FP32", "99999999999"),
    "enum_below_int32": PLAIN.replace("TYPE_FP32", "-99999999999"),
    "reshape_count_wraps_to_zero": reshaped("[ 4294967296, 4294967296 ]", "[ ]"),
    "reshape_count_wraps_not_one": reshaped("[ 4294967296, 4294967296 ]", "[ 1 ]"),
    "reshape_count_equal_beyond": reshaped("[ 4294967296, 4294967296 ]", "[ 8589934592, 8589934592 ]"),
}
AFTER = {
    "control_kind_unknown_two_values": 'sequence_batching { control_input { name: "c" control { kind: 77 int32_false_true: [ 0, 1 ] fp32_false_true: [ 0, 1 ] } } }',
    "control_kind_unknown_no_value": 'sequence_batching { control_input { name: "c" control { kind: 77 } } }',
    "control_kind_unknown_twice": 'sequence_batching { control_input { name: "c" control [ { kind: 77 }, { kind: 77 } ] } }',
    "state_nothing": "sequence_batching { state { } }",
    "state_only_input": 'sequence_batching { state { input_name: "a" } }',
    "state_only_outputs": 'sequence_batching { state { output_name: "b" } state { output_name: "a" } }',
    "state_mixed_up": 'sequence_batching { state { input_name: "a" output_name: "z" data_type: TYPE_FP32 dims: 1 } state { input_name: "b" output_name: "c" data_type: TYPE_FP32 dims: 1 } }',
    "warm_up_broken": BROKEN,
    "warm_up_broken_passive": BROKEN + "instance_group { kind: KIND_CPU passive: true }",
    "warm_up_broken_one_passive": BROKEN
    + "instance_group [ { kind: KIND_CPU passive: true }, { kind: KIND_CPU } ]",
    "warm_up_no_file_passive": WARM % 'input_data_file: "none"' + "instance_group { kind: KIND_CPU passive: true }",
    "warm_up_wild_passive": BROKEN.replace("dims: 2", "dims: -1") + "instance_group { kind: KIND_CPU passive: true }",
    **{f"batcher_{name}": BATCHER % path for name, path in (("empty", ""), ("relative", "x.so"), ("relative_folder", "1/x.so"), ("variable", "$$TRITON_MODEL_DIRECTORY/x.so"))},
}  # fmt: skip
MINE = PLAIN.replace('"python"', '"mine"')
TWICE: dict[str, Files] = {
    "member_output_twice": ensemble(ONE) | member("a", outputs="y:FP32:2 y:FP32:2"),
    "member_output_twice_unmapped": ensemble([step("a", "x=in", "w=out")]) | member("a", outputs="y:FP32:2 y:FP32:2 w:FP32:2"),
    "member_output_twice_types": ensemble(ONE) | member("a", outputs="y:INT32:2 y:FP32:2"),
    "member_output_twice_types_last": ensemble(ONE) | member("a", outputs="y:FP32:2 y:INT32:2"),
    "member_input_twice": ensemble(ONE) | member("a", "x:FP32:2 x:FP32:2"),
    "member_input_twice_types": ensemble(ONE) | member("a", "x:INT32:2 x:FP32:2"),
    "member_input_twice_types_last": ensemble(ONE) | member("a", "x:FP32:2 x:INT32:2"),
    "inner_output_twice": ensemble([step("inner", "in=in", "out=out")]) | ensemble(ONE, outputs="out:FP32:2 out:FP32:2", name="@M_inner") | A,
}  # fmt: skip
LIBRARIES: dict[str, Files] = {
    "batcher_in_model": model(PLAIN, more={"@M/batchstrategy.so": "x"}),
    "batcher_in_version": model(PLAIN, more={"@M/1/batchstrategy.so": "x"}),
    "batcher_in_old_version": model(PLAIN, more={"@M/1/batchstrategy.so": "x", "@M/2/model.py": MODEL_PY}),
    "library_in_model": {"@M/config.pbtxt": MINE, "@M/1/x": "x", "@M/libtriton_mine.so": "x"},
    "library_in_version": {"@M/config.pbtxt": MINE, "@M/1/libtriton_mine.so": "x"},
    "library_in_old_version": {"@M/config.pbtxt": MINE, "@M/1/libtriton_mine.so": "x", "@M/2/x": "x"},
    "library_by_runtime": {"@M/config.pbtxt": MINE + 'runtime: "a.so"', "@M/1/x": "x", "@M/a.so": "x"},
    "library_over_the_servers": model(PLAIN, more={"@M/libtriton_python.so": "x"}),
}
MODULES = {
    "dot": "my.model.py", "twice": "model.py.py", "no_suffix": "model", "other_suffix": "model.python", "capital": "model.PY",
    "dash": "my-model.py", "number": "1model.py", "word": "class.py", "only_suffix": ".py", "not_ascii": "größe.py",
    "folder": "lib/main.py", "folder_dot": "a.b/main.py", "here": "./model.py",
    "slash": "/model.py", "two_slashes": "lib//main.py",
}  # fmt: skip
DOTTED = {
    "batch_only": "max_batch_size: 2",
    "io": INPUT + OUTPUT,
    "parameter": 'parameters { key: "a" value { string_value: "b" } }',
    "platform": 'platform: "python"',
}
ENSEMBLES: dict[str, Files] = {
    f"ensemble_{name}": ensemble(ONE, more=text) | A
    for name, text in {
        "batch_input": 'batch_input { target_name: "q" data_type: TYPE_FP32 source_input: "in" }',
        "batch_input_no_source": 'batch_input { target_name: "q" data_type: TYPE_FP32 }',
        "batch_input_type": 'batch_input { target_name: "q" data_type: TYPE_FP64 source_input: "in" }',
        "batch_output": 'batch_output { target_name: "out" source_input: "in" }',
        "batch_output_unknown": 'batch_output { target_name: "q" source_input: "in" }',
        "tag": 'metric_tags { key: "a" value: "b" }',
        "tag_underscores": 'metric_tags { key: "__x" value: "b" }',
        "no_agents": "model_repository_agents { }",
        "file_name": 'default_model_filename: "none"',
        "file_name_of_onnx": 'default_model_filename: "model.onnx"',
        "file_name_of_torch": 'default_model_filename: "model.pt"',
        "file_name_of_tensorflow": 'default_model_filename: "model.savedmodel"',
        "batcher": BATCHER % "x",
        "decoupled_and_cached": DECOUPLED + "\nresponse_cache { enable: true }",
    }.items()
}
INNER = [step("inner", "in=in", "out=out")]
SECOND = step("b", "x=in", "y=out2")


def nested(outer: Files, inner: str, lowest: str) -> Files:
    """The inner ensemble is judged after the outer one by its name, and decides whether that one is decoupled."""
    return outer | ensemble(ONE, name="@M_inner", more=inner) | member("a", more=lowest) | B


NESTED: dict[str, Files] = {
    f"nested_{name}{own}_{shape}": nested(outer, DECOUPLED if own else "", lowest)
    for name, lowest in (("decoupled", DECOUPLED), ("plain", ""))
    for own in ("", "_said")
    for shape, outer in {
        "beside": ensemble([*INNER, SECOND], outputs="out:FP32:2 out2:FP32:2"),
        "cached": ensemble(INNER, more="response_cache { enable: true }"),
        "twice_deep": ensemble([step("o", "in=in", "out=out"), SECOND], outputs="out:FP32:2 out2:FP32:2")
        | ensemble(INNER, name="@M_o"),
    }.items()
}
