"""Ensembles as they are rarely drawn: wide, deep, with strings, fixed sizes, odd maps and members of every kind."""

# ruff: noqa: E501 - a case is a line

from corpus import MODEL_PY, Case
from corpus.ensembles import CHAIN, ONE, A, B, Files, ensemble, io, member, pair, step


def cases() -> list[Case]:
    return [Case(f"odd_ensembles_{name}", files) for name, files in {**SHAPES, **MAPS, **KINDS, **DEEP}.items()]


def swap(files: Files, old: str, new: str, name: str = "@M/config.pbtxt") -> Files:
    return files | {name: str(files[name]).replace(old, new)}


def chain(length: int) -> Files:
    names = ["in", *(f"t{index}" for index in range(1, length)), "out"]
    steps = [step(f"n{index}", f"x={names[index]}", f"y={names[index + 1]}") for index in range(length)]
    files = ensemble(steps)
    for index in range(length):
        files |= member(f"n{index}")
    return files


IMPLICIT = {"@M_a/config.pbtxt": 'backend: "python"\n', "@M_a/1/model.py": MODEL_PY}
SHAPES: dict[str, Files] = {
    "both_dynamic": pair(member("a", "x:FP32:-1", "y:FP32:-1"), member("b", "x:FP32:-1", "y:FP32:-1"), inputs="in:FP32:-1", outputs="out:FP32:-1"),
    "dynamic_to_fixed_two_axes": pair(member("a", outputs="y:FP32:-1,3"), member("b", "x:FP32:2,-1")),
    "dynamic_conflict": pair(member("a", outputs="y:FP32:-1,3"), member("b", "x:FP32:2,4")),
    "scalar_like": pair(member("a", outputs="y:FP32:1"), member("b", "x:FP32:1")),
    "one_against_two": pair(member("a", outputs="y:FP32:1"), member("b", "x:FP32:1,1")),
    "reshape_both_sides": pair(member("a", outputs="y:FP32:4>2,2"), member("b", "x:FP32:4>2,2")),
    "reshape_shape_matches_not_dims": pair(member("a", outputs="y:FP32:2,2>4"), member("b", "x:FP32:4")),
    "reshape_ensemble_dynamic": pair(A, B, inputs="in:FP32:-1,2>-1,2"),
    "reshape_empty_ensemble": swap(pair(member("a", "x:FP32:1"), B, inputs="in:FP32:1"), "dims: [ 1 ]", "dims: [ 1 ] reshape { shape: [ ] }"),
    "ensemble_fixed_member_dynamic_out": pair(A, member("b", outputs="y:FP32:-1"), outputs="out:FP32:7"),
    "unbatched_three_ranks": pair(member("a", "x:FP32:2,2", "y:FP32:2,2", batch=0), member("b", "x:FP32:2,2", "y:FP32:4", batch=0), inputs="in:FP32:2,2", outputs="out:FP32:4", batch=0),
    "unbatched_ensemble_batched_members_full": pair(A, B, inputs="in:FP32:-1,2", outputs="out:FP32:8,2", batch=0),
    "unbatched_ensemble_batched_members_rank": pair(A, B, inputs="in:FP32:1,1,2", outputs="out:FP32:1,2", batch=0),
    "batched_ensemble_unbatched_last": pair(A, member("b", "x:FP32:-1,2", "y:FP32:2", batch=0)),
    "batched_ensemble_unbatched_first": pair(member("a", "x:FP32:2", "y:FP32:-1,2", batch=0), B),
    "batch_one_member": pair(A, member("b", batch=1), batch=1),
    "batch_one_member_large": pair(A, member("b", batch=1)),
    "batch_int_max": pair(member("a", batch=2147483647), member("b", batch=2147483647), batch=2147483647),
    "type_bf16": pair(member("a", outputs="y:BF16:2"), member("b", "x:BF16:2")),
    "type_string_between": pair(member("a", outputs="y:STRING:1"), member("b", "x:STRING:1")),
    "type_string_bytes": pair(member("a", outputs="y:STRING:-1"), member("b", "x:UINT8:-1")),
    "type_bool_uint8": pair(member("a", outputs="y:BOOL:2"), member("b", "x:UINT8:2")),
    "ragged_member": swap(pair(A, B), "dims: [ 2 ] }", "dims: [ 2 ] allow_ragged_batch: true }", "@M_b/config.pbtxt"),
    "ragged_ensemble": swap(pair(A, B), "dims: [ 2 ] }", "dims: [ 2 ] allow_ragged_batch: true }"),
    "format_member": pair(member("a", outputs="y:FP32:3,4,4"), swap(member("b", "x:FP32:3,4,4"), "dims: [ 3,4,4 ]", "dims: [ 3,4,4 ] format: FORMAT_NCHW", "@M_b/config.pbtxt")),
    "format_ensemble": swap(pair(A, B), "dims: [ 2 ]", "format: FORMAT_NHWC dims: [ 2 ]"),
    "two_outputs_one_shape_wrong": ensemble([step("a", "x=in", "y=out w=out2")], outputs="out:FP32:2 out2:FP32:3") | member("a", outputs="y:FP32:2 w:FP32:2"),
}  # fmt: skip
TWO = member("b", "x:FP32:2 z:FP32:2")
OPT = member("b", "x:FP32:2 z:FP32:2?")
MAPS: dict[str, Files] = {
    "map_list_style": swap(ensemble(ONE) | A, 'input_map { key: "x" value: "in" }', 'input_map [ { key: "x" value: "in" } ]'),
    "map_colon_style": swap(ensemble(ONE) | A, 'input_map { key: "x" value: "in" }', 'input_map: { key: "x", value: "in" },'),
    "map_value_missing": swap(ensemble(ONE) | A, 'input_map { key: "x" value: "in" }', 'input_map { key: "x" }'),
    "map_key_missing": swap(ensemble(ONE) | A, 'input_map { key: "x" value: "in" }', 'input_map { value: "in" }'),
    "map_output_key_twice": ensemble([step("a", "x=in", "y=mid y=out")]) | A,
    "map_output_two_keys_one_input": ensemble([step("a", "x=in", "y=out w=out2")], outputs="out:FP32:2 out2:FP32:2") | member("a", outputs="y:FP32:2 w:FP32:2"),
    "unmapped_required": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid", "y=out")]) | A | TWO,
    "unmapped_optional_second": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid", "y=out")]) | A | OPT,
    "optional_from_required": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid z=in", "y=out")]) | A | OPT,
    "optional_ensemble_to_required": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid z=in2", "y=out")], "in:FP32:2 in2:FP32:2?") | A | TWO,
    "optional_ensemble_to_optional": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid z=in2", "y=out")], "in:FP32:2 in2:FP32:2?") | A | OPT,
    "only_optional_inputs": ensemble(ONE, "in:FP32:2?") | member("a", "x:FP32:2?"),
    "port_case": ensemble([step("a", "X=in", "y=out")]) | A,
    "port_space": ensemble([step("a", "x=in", "y=out").replace('"x"', '"x "')]) | A,
    "tensor_case": ensemble([step("a", "x=In", "y=out")]) | A,
    "tensor_space": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid", "y=out").replace('"mid"', '"mid "')]) | A | B,
    "tensor_unicode": ensemble([step("a", "x=in", "y=größe"), step("b", "x=größe", "y=out")]) | A | B,
    "tensor_named_as_model": ensemble([step("a", "x=in", "y=@M_a"), step("b", "x=@M_a", "y=out")]) | A | B,
    "input_named_as_output": ensemble([step("a", "x=t", "y=t")], "t:FP32:2", "t:FP32:2") | A,
    "echo_input": ensemble([step("a", "x=in", "y=out"), step("b", "x=in", "y=in2")], outputs="out:FP32:2 in2:FP32:2") | A | B,
    "middle_unused_and_output": ensemble([step("a", "x=in", "y=mid w=rest"), step("b", "x=mid", "y=out")], outputs="out:FP32:2 rest:FP32:2") | member("a", outputs="y:FP32:2 w:FP32:2") | B,
    "loop_two": ensemble([step("a", "x=in z=l2", "y=l1"), step("b", "x=l1", "y=l2"), step("c", "x=in", "y=out")]) | member("a", "x:FP32:2 z:FP32:2") | B | member("c"),
    "loop_feeds_output": ensemble([step("a", "x=back", "y=mid"), step("b", "x=mid", "y=back"), step("c", "x=in z=mid", "y=out")]) | A | B | member("c", "x:FP32:2 z:FP32:2"),
    "output_from_unused_input": ensemble([step("a", "x=in", "y=out")], "in:FP32:2 in2:FP32:2", "out:FP32:2 in2:FP32:2") | A,
    "same_step_twice": ensemble([*ONE, *ONE]) | A,
    "member_used_three": ensemble([step("a", "x=in", "y=l"), step("a", "x=l", "y=r"), step("a", "x=r", "y=out")]) | A,
    "model_name_space": ensemble([ONE[0].replace('"@M_a"', '"@M_a "')]) | A,
    "model_name_path": ensemble([ONE[0].replace('"@M_a"', '"./@M_a"')]) | A,
    "model_name_case": ensemble([ONE[0].replace('"@M_a"', '"@M_A"')]) | A,
    "step_angle": swap(ensemble(ONE) | A, "step [ {", "step [ <") | {},
    "step_repeated_blocks": swap(ensemble(CHAIN) | A | B, f"step [ {CHAIN[0]}, {CHAIN[1]} ]", f"step {CHAIN[0]} step {CHAIN[1]}"),
    "step_no_comma": swap(ensemble(CHAIN) | A | B, f"{CHAIN[0]}, {CHAIN[1]}", f"{CHAIN[0]} {CHAIN[1]}"),
    "step_empty": ensemble([*ONE, "{ }"]) | A,
    "scheduling_twice": swap(ensemble(ONE) | A, "ensemble_scheduling {", "ensemble_scheduling { }\nensemble_scheduling {"),
    "platform_last": swap(swap(ensemble(ONE) | A, 'platform: "ensemble"\n', ""), "ensemble_scheduling", 'platform: "ensemble"\nensemble_scheduling'),
}  # fmt: skip
KINDS: dict[str, Files] = {
    "version_hex": ensemble([step("a", "x=in", "y=out", "model_version: 0x1")]) | A,
    "version_int64": ensemble([step("a", "x=in", "y=out", "model_version: 9223372036854775807")]) | A,
    "version_two_pinned": ensemble([step("a", "x=in", "y=mid", "model_version: 1"), step("a", "x=mid", "y=out", "model_version: 2")]) | member("a", more="version_policy { all { } }") | {"@M_a/2/model.py": MODEL_PY},
    "version_old_pinned": ensemble([step("a", "x=in", "y=out", "model_version: 2")]) | A | {"@M_a/2/model.py": MODEL_PY, "@M_a/3/model.py": MODEL_PY},
    "version_specific": ensemble([step("a", "x=in", "y=out", "model_version: 1")]) | member("a", more="version_policy { specific { versions: 1 } }") | {"@M_a/2/model.py": MODEL_PY},
    "own_versions_latest_two": ensemble(ONE, more="version_policy { latest { num_versions: 2 } }") | {"@M/2/.keep": "", "@M/3/.keep": ""} | A,
    "own_version_seven": {key.replace("@M/1/", "@M/7/"): value for key, value in ensemble(ONE).items()} | A,
    "own_name": swap(ensemble(ONE) | A, "platform", 'name: "@M"\nplatform'),
    "own_name_wrong": swap(ensemble(ONE) | A, "platform", 'name: "@M_x"\nplatform'),
    "sequence_oldest_member": ensemble(ONE) | member("a", more="sequence_batching { oldest { max_candidate_sequences: 4 } }"),
    "sequence_and_stateless": pair(member("a", more="sequence_batching { }"), B),
    "two_sequence_members": pair(member("a", more="sequence_batching { }"), member("b", more="sequence_batching { }")),
    "cached_member": ensemble(ONE, more="response_cache { enable: true }") | member("a", more="response_cache { enable: true }"),
    "decoupled_chain": pair(member("a", more="model_transaction_policy { decoupled: true }"), member("b", more="model_transaction_policy { decoupled: true }")),
    "decoupled_side_by_side": ensemble([step("a", "x=in", "y=out"), step("b", "x=in", "y=out2")], outputs="out:FP32:2 out2:FP32:2")
    | member("a", more="model_transaction_policy { decoupled: true }") | member("b", more="model_transaction_policy { decoupled: true }"),
    "decoupled_and_plain_outputs": ensemble([step("a", "x=in", "y=out"), step("b", "x=in", "y=out2")], outputs="out:FP32:2 out2:FP32:2")
    | member("a", more="model_transaction_policy { decoupled: true }") | B,
    "decoupled_output_and_middle": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid", "y=out")], outputs="out:FP32:2 mid:FP32:2")
    | member("a", more="model_transaction_policy { decoupled: true }") | B,
    "decoupled_second_and_first_output": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid", "y=out")], outputs="out:FP32:2 mid:FP32:2")
    | A | member("b", more="model_transaction_policy { decoupled: true }"),
    "decoupled_two_in_a_row_both_out": ensemble([step("a", "x=in", "y=mid"), step("b", "x=mid", "y=out")], outputs="out:FP32:2 mid:FP32:2")
    | member("a", more="model_transaction_policy { decoupled: true }") | member("b", more="model_transaction_policy { decoupled: true }"),
    "decoupled_and_echo": ensemble([step("a", "x=in", "y=out")], outputs="out:FP32:2 in:FP32:2") | member("a", more="model_transaction_policy { decoupled: true }"),
    "decoupled_join_two": ensemble([step("a", "x=in", "y=l"), step("b", "x=in", "y=r"), step("c", "x=l z=r", "y=out")])
    | member("a", more="model_transaction_policy { decoupled: true }") | member("b", more="model_transaction_policy { decoupled: true }") | member("c", "x:FP32:2 z:FP32:2"),
    "decoupled_diamond": ensemble([step("a", "x=in", "y=m"), step("b", "x=m", "y=l"), step("b", "x=m", "y=r"), step("c", "x=l z=r", "y=out")])
    | member("a", more="model_transaction_policy { decoupled: true }") | B | member("c", "x:FP32:2 z:FP32:2"),
    "decoupled_false_said": ensemble(ONE, more="model_transaction_policy { decoupled: false }") | A,
    "member_labels": ensemble(ONE) | swap(member("a"), '"y"', '"y" label_filename: "l.txt"', "@M_a/config.pbtxt") | {"@M_a/l.txt": "a\nb\n"},
    "own_labels": swap(ensemble(ONE) | A, '"out" data_type', '"out" label_filename: "l.txt" data_type') | {"@M/l.txt": "a\nb\n"},
    "metrics_tags": ensemble(ONE, more='metric_tags { key: "a" value: "b" }') | A,
    "own_batch_input": ensemble(ONE, more='batch_input { kind: BATCH_ELEMENT_COUNT target_name: "i" data_type: TYPE_FP32 source_input: "in" }') | A,
    "own_default_file": ensemble(ONE, more='default_model_filename: "model.py"') | A,
    "own_runtime": ensemble(ONE, more='runtime: "libtriton_python.so"') | A,
    "own_cc": ensemble(ONE, more='cc_model_filenames { key: "7.5" value: "x" }') | A,
    "own_sequence": ensemble(ONE, more="sequence_batching { }") | A,
    "own_agents": ensemble(ONE, more='model_repository_agents { agents { name: "nothing" } }') | A,
    "own_operations": ensemble(ONE, more="model_operations { }") | A,
    "own_metrics_empty": ensemble(ONE, more="optimization { priority: PRIORITY_MAX }") | A,
    "member_warm_up_broken": ensemble(ONE) | member("a", more='model_warmup { name: "w" batch_size: 1 inputs { key: "x" value { data_type: TYPE_INT8 dims: 2 zero_data: true } } }'),
    "member_name_wrong": ensemble(ONE) | swap(member("a"), "backend", 'name: "other"\nbackend', "@M_a/config.pbtxt"),
    "member_no_file_folder": ensemble(ONE) | {"@M_a/config.pbtxt": A["@M_a/config.pbtxt"], "@M_a/readme": "x"},
    "member_hidden": ensemble([ONE[0].replace('"@M_a"', '".@M_a"')]) | {key.replace("@M_a", ".@M_a"): value for key, value in A.items()},
    "member_is_file": ensemble(ONE) | {"@M_a": "x"},
    "member_negative_batch": ensemble(ONE) | member("a", batch=-1),
    "member_no_io": ensemble(ONE) | IMPLICIT,
    "member_only_input": ensemble(ONE) | {"@M_a/config.pbtxt": f'backend: "python"\nmax_batch_size: 8\n{io("input", "x:FP32:2")}', "@M_a/1/model.py": MODEL_PY},
    "no_batch_said": swap(ensemble(ONE) | A, "max_batch_size: 8\n", ""),
    "no_batch_said_anywhere": swap(swap(ensemble(ONE) | A, "max_batch_size: 8\n", ""), "max_batch_size: 8\n", "", "@M_a/config.pbtxt"),
}  # fmt: skip
INNER = [step("inner", "in=in", "out=out")]
DEEP: dict[str, Files] = {
    "chain_thirty": chain(30),
    "nested_names_swapped": ensemble([step("inner", "out=in", "in=out")]) | ensemble(ONE, name="@M_inner") | A,
    "nested_optional_unmapped": ensemble(INNER) | ensemble([step("a", "x=in z=in2", "y=out")], "in:FP32:2 in2:FP32:2?", name="@M_inner") | member("a", "x:FP32:2 z:FP32:2?"),
    "nested_required_unmapped": ensemble(INNER) | ensemble([step("a", "x=in z=in2", "y=out")], "in:FP32:2 in2:FP32:2", name="@M_inner") | member("a", "x:FP32:2 z:FP32:2"),
    "nested_shape": ensemble(INNER, outputs="out:FP32:3") | ensemble(ONE, name="@M_inner") | A,
    "nested_dynamic": ensemble(INNER, "in:FP32:-1", "out:FP32:-1") | ensemble(ONE, name="@M_inner") | A,
    "nested_inner_smaller_than_member": ensemble(INNER, batch=4) | ensemble(ONE, name="@M_inner", batch=4) | A,
    "nested_inner_larger_than_member": ensemble(INNER) | ensemble(ONE, name="@M_inner", batch=16) | A,
    "nested_inner_unbatched": ensemble(INNER) | ensemble(ONE, "in:FP32:-1,2", "out:FP32:-1,2", name="@M_inner", batch=0) | A,
    "nested_version_pinned": ensemble([step("inner", "in=in", "out=out", "model_version: 1")]) | ensemble(ONE, name="@M_inner") | A,
    "nested_twice": ensemble([step("inner", "in=in", "out=mid"), step("inner", "in=mid", "out=out")]) | ensemble(ONE, name="@M_inner") | A,
    "nested_member_gone": ensemble([step("inner", "in=in", "out=mid"), step("b", "x=mid", "y=out")]) | ensemble(ONE, name="@M_inner") | B,
    "nested_reshape": ensemble(INNER, "in:FP32:1,2", "out:FP32:2") | ensemble(ONE, "in:FP32:1,2>2", name="@M_inner") | A,
    "nested_reshape_to_shape": ensemble(INNER) | ensemble(ONE, "in:FP32:1,2>2", name="@M_inner") | A,
    "nested_four": ensemble([step("o", "in=in", "out=out")]) | ensemble([step("p", "in=in", "out=out")], name="@M_o") | ensemble(INNER, name="@M_p") | ensemble(ONE, name="@M_inner") | A,
    "nested_cycle_second": ensemble([step("a", "x=in", "y=mid"), step("inner", "in=mid", "out=out")]) | A | ensemble([step("b", "x=in", "y=mid"), INNER[0].replace("@M_inner", "@M").replace('"in"', '"in"').replace('value: "in"', 'value: "mid"')], name="@M_inner") | B,
}  # fmt: skip
