"""Fields that few configurations have, next to each other, and what they do together."""

# ruff: noqa: E501 - a case is a line

from corpus import MODEL_PY, OUTPUT, PLAIN, Case, configs, model, whole

HEAD = 'backend: "python"\nmax_batch_size: 8\n'
RAGGED = 'input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]\n'
SUM = 'kind: BATCH_ACCUMULATED_ELEMENT_COUNT data_type: TYPE_INT32 source_input: "x"'
START = 'control_input [ { name: "S" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] } ]'
STATE = 'state [ { input_name: "i" output_name: "o" data_type: TYPE_FP32 dims: [ 2 ] } ]'


def cases() -> list[Case]:
    return [
        *whole("rare", WHOLE),
        *configs("rare", AFTER),
        *(Case(f"rare_{name}", files) for name, files in TREES.items()),
        Case("rare_config_in_version", {"@M/1/model.py": MODEL_PY, "@M/1/config.pbtxt": PLAIN}, "real"),
    ]


WHOLE = {
    "ragged_and_filled": HEAD
    + RAGGED
    + OUTPUT
    + f'\nbatch_input [ {{ {SUM} target_name: "e" }} ]\ndynamic_batching {{ }}',
    "ragged_unbatched": HEAD.replace("8", "0") + RAGGED + OUTPUT + f'\nbatch_input [ {{ {SUM} target_name: "e" }} ]',
    "ragged_scattered": HEAD + RAGGED + OUTPUT + '\nbatch_output [ { target_name: "y" source_input: "x" } ]',
    "ragged_scattered_no_kind_word": HEAD
    + RAGGED
    + OUTPUT
    + '\nbatch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" } ]\npriority: 1',
    "ragged_optional": HEAD + RAGGED.replace("true }", "true optional: true }") + OUTPUT,
    "ragged_reshaped": HEAD + RAGGED.replace("true }", "true reshape { shape: [ -1, 1 ] } }") + OUTPUT,
    "ragged_sequence": HEAD + RAGGED + OUTPUT + f"\nsequence_batching {{ {START} }}",
    "ragged_bf16_filled": HEAD
    + RAGGED
    + OUTPUT
    + f'\nbatch_input [ {{ {SUM.replace("INT32", "BF16")} target_name: "e" }} ]',
    "scattered_int_batch": HEAD
    + RAGGED
    + OUTPUT
    + '\nbatch_output { target_name: "y" source_input: "x" }\nbatch_output { target_name: "y" source_input: "y" }',
    "string_dims_wild": HEAD + 'input { name: "x" data_type: TYPE_STRING dims: -1 dims: -1 }\n' + OUTPUT,
    "nhwc_wild": HEAD + 'input { name: "x" data_type: TYPE_UINT8 format: FORMAT_NHWC dims: [ -1, -1, 3 ] }\n' + OUTPUT,
    "nchw_reshaped": HEAD
    + 'input { name: "x" data_type: TYPE_UINT8 format: FORMAT_NCHW dims: [ 3, 2, 2 ] reshape { shape: [ 12 ] } }\n'
    + OUTPUT,
    "same_name_in_and_out": HEAD
    + 'input { name: "x" data_type: TYPE_FP32 dims: 2 }\noutput { name: "x" data_type: TYPE_FP32 dims: 2 }',
    "huge_dim": HEAD + 'input { name: "x" data_type: TYPE_FP32 dims: [ 9223372036854775807 ] }\n' + OUTPUT,
    "dim_beyond_int64": HEAD + 'input { name: "x" data_type: TYPE_FP32 dims: [ 9223372036854775808 ] }\n' + OUTPUT,
    "batch_beyond_int32": HEAD.replace("8", "2147483648") + OUTPUT,
    "batch_largest": HEAD.replace("8", "2147483647") + 'input { name: "x" data_type: TYPE_FP32 dims: 2 }\n' + OUTPUT,
}
AFTER = {
    "queue_everything": "dynamic_batching { preferred_batch_size: [ 2, 4, 8 ] priority_levels: 3 default_priority_level: 2 default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 allow_timeout_override: true max_queue_size: 1 } priority_queue_policy { key: 3 value { max_queue_size: 9 } } }",
    "queue_level_twice": "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 1 value { } } priority_queue_policy { key: 1 value { max_queue_size: 2 } } }",
    "queue_level_zero": "dynamic_batching { priority_levels: 2 default_priority_level: 1 priority_queue_policy { key: 0 value { } } }",
    "queue_policy_without_levels": "dynamic_batching { priority_queue_policy { key: 4 value { } } }",
    "default_level_without_levels": "dynamic_batching { default_priority_level: 4 }",
    "ordering_one_level_delay": "dynamic_batching { preserve_ordering: true priority_levels: 1 default_priority_level: 1 default_queue_policy { timeout_action: DELAY } }",
    "groups_named_alike": 'instance_group [ { name: "a" kind: KIND_CPU }, { name: "a" kind: KIND_CPU } ]',
    "group_count_zero": "instance_group [ { count: 0 kind: KIND_CPU } ]",
    "group_all_passive": "instance_group [ { count: 1 kind: KIND_CPU passive: true } ]",
    "limiter_negative": 'instance_group [ { kind: KIND_CPU rate_limiter { resources [ { name: "r" count: 0 } ] priority: 0 } } ]',
    "limiter_global_and_not": 'instance_group [ { kind: KIND_CPU rate_limiter { resources [ { name: "r" count: 1 global: true }, { name: "r" count: 1 } ] } } ]',
    "sequence_oldest_and_state": f"sequence_batching {{ oldest {{ max_candidate_sequences: 4 preferred_batch_size: [ 4 ] }} {START} {STATE} }}",
    "sequence_iterative_coupled": "sequence_batching { iterative_sequence: true }",
    "sequence_iterative_decoupled": "sequence_batching { iterative_sequence: true }\nmodel_transaction_policy { decoupled: true }",
    "decoupled_and_dynamic": "dynamic_batching { }\nmodel_transaction_policy { decoupled: true }",
    "cache_and_ordering": "response_cache { enable: true }\ndynamic_batching { preserve_ordering: true }",
    "warmup_ragged_sizes": 'model_warmup [ { name: "a" batch_size: 9 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } } } ]',
    "warmup_batch_zero_broken": 'model_warmup [ { name: "a" inputs { key: "q" value { data_type: TYPE_FP32 dims: [ 9 ] zero_data: true } } } ]',
    "warmup_file_in_folder": 'model_warmup [ { name: "a" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] input_data_file: "deep/none" } } } ]',
    "metric_tag_empty": 'metric_tags { key: "" value: "" }',
    "op_library_missing": 'model_operations { op_library_filename: [ "none.so" ] }',
    "optimisation_everything": "optimization { graph { level: 9 } priority: PRIORITY_MIN cuda { graphs: true busy_wait_events: true output_copy_stream: true graph_spec { batch_size: 99 } } gather_kernel_buffer_threshold: 4294967295 eager_batching: true input_pinned_memory { } }",
    "version_specific_missing": "version_policy { specific { versions: [ 7 ] } }",
    "version_specific_twice": "version_policy { specific { versions: [ 1, 1 ] } }",
    "version_latest_negative": "version_policy { latest { num_versions: -1 } }",
}
TREES = {
    "labels_in_version": {
        **model(PLAIN.replace("dims: [ 2 ] } ]\n", 'dims: [ 2 ] label_filename: "1/l.txt" } ]\n')),
        "@M/1/l.txt": "a\nb\n",
    },
    "labels_empty": {**model(PLAIN.rstrip().removesuffix("} ]") + 'label_filename: "l.txt" } ]'), "@M/l.txt": ""},
    "warmup_deep": {
        **model(
            PLAIN
            + 'model_warmup [ { name: "a" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] input_data_file: "d/f" } } } ]'
        ),
        "@M/warmup/d/f": b"\0" * 8,
    },
    "warmup_file_short": {
        **model(
            PLAIN
            + 'model_warmup [ { name: "a" batch_size: 1 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 2 ] input_data_file: "f" } } } ]'
        ),
        "@M/warmup/f": b"\0" * 7,
    },
    "two_models_one_bad": {
        "@M/1/model.py": MODEL_PY,
        "@M/config.pbtxt": PLAIN,
        "@M_b/1/model.py": MODEL_PY,
        "@M_b/config.pbtxt": PLAIN.replace("8", "-1"),
    },
}
