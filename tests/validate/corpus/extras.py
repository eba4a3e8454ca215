"""What else a configuration can say: parameters, agents, metrics, optimisation, transactions."""

# ruff: noqa: E501 - a case is a line

from corpus import PLAIN, Case, configs, whole


def cases() -> list[Case]:
    return [*configs("extras", TABLE), *whole("extras", WHOLE)]


METRIC = 'model_metrics { metric_control [ { metric_identifier { family: "nv_inference_first_response_histogram_ms" } '
TABLE = {
    "parameters": 'parameters { key: "a" value { string_value: "1" } }',
    "parameter_empty_key": 'parameters { key: "" value { string_value: "1" } }',
    "agent": 'model_repository_agents { agents [ { name: "checksum" } ] }',
    "agent_unknown": 'model_repository_agents { agents [ { name: "nothing" parameters { key: "a" value: "b" } } ] }',
    "agent_no_name": "model_repository_agents { agents [ { } ] }",
    "agents_empty": "model_repository_agents { }",
    "metrics": METRIC + "histogram_options { buckets: [ 1, 2, 3 ] } } ] }",
    "metrics_no_buckets": METRIC + "histogram_options { } } ] }",
    "metrics_no_options": METRIC + "} ] }",
    "metrics_no_family": "model_metrics { metric_control [ { metric_identifier { } histogram_options { buckets: 1 } } ] }",
    "metrics_no_identifier": "model_metrics { metric_control [ { histogram_options { buckets: 1 } } ] }",
    "metrics_empty": "model_metrics { }",
    "tags": 'metric_tags { key: "team" value: "a" }',
    "tags_odd": 'metric_tags { key: "team name" value: "a\\"b" }',
    "priority": "optimization { priority: PRIORITY_MIN }",
    "priority_unknown": "optimization { priority: PRIORITY_HIGH }",
    "pinned": "optimization { input_pinned_memory { enable: false } output_pinned_memory { enable: true } }",
    "graph": "optimization { graph { level: 5 } }",
    "cuda": "optimization { cuda { graphs: true busy_wait_events: true output_copy_stream: true } }",
    "cuda_spec": 'optimization { cuda { graphs: true graph_spec [ { batch_size: 4 input { key: "x" value { dim: 2 } } } ] } }',
    "accelerator": 'optimization { execution_accelerators { cpu_execution_accelerator [ { name: "nothing" } ] } }',
    "gather": "optimization { gather_kernel_buffer_threshold: 4 eager_batching: true }",
    "operations": 'model_operations { op_library_filename: "nothing.so" }',
    "cc_names": 'cc_model_filenames { key: "8.9" value: "model.py" }',
    "cc_names_missing": 'cc_model_filenames { key: "8.9" value: "other.py" }',
    "platform_any": 'platform: "anything"',
    "runtime": 'runtime: "model.py"',
    "runtime_odd": 'runtime: "libtriton_python.so"',
    "runtime_missing": 'runtime: "nothing.so"',
    "decoupled_empty": "model_transaction_policy { }",
    "cache_empty": "response_cache { }",
}
WHOLE = {
    "no_backend": PLAIN.replace('backend: "python"', ""),
    "backend_empty": PLAIN.replace('"python"', '""'),
    "backend_unknown": PLAIN.replace('"python"', '"nothing"'),
    "backend_case": PLAIN.replace('"python"', '"Python"'),
    "backend_space": PLAIN.replace('"python"', '"python "'),
    "backend_path": PLAIN.replace('"python"', '"../python"'),
    "backend_ensemble": PLAIN.replace('"python"', '"ensemble"'),
    "platform_python": PLAIN.replace("backend", "platform"),
    "platform_unknown": PLAIN.replace('backend: "python"', 'platform: "nothing"'),
    "platform_ensemble": PLAIN.replace('backend: "python"', 'platform: "ensemble"'),
    "platform_ensemble_backend": 'platform: "ensemble"\n' + PLAIN,
    "platform_onnx_backend": 'platform: "onnxruntime_onnx"\n' + PLAIN,
    "pair_onnx_tensorrt": 'platform: "tensorrt_plan"\n' + PLAIN.replace("python", "onnxruntime"),
    "pair_torch_onnx": 'platform: "onnxruntime_onnx"\n' + PLAIN.replace("python", "pytorch"),
    "tensorflow": PLAIN.replace("python", "tensorflow"),
    "tensorflow_platform": PLAIN.replace('backend: "python"', 'platform: "tensorflow_savedmodel"'),
    "tensorflow_graphdef": PLAIN.replace('backend: "python"', 'platform: "tensorflow_graphdef"'),
    "caffe2": PLAIN.replace('backend: "python"', 'platform: "caffe2_netdef"'),
    "filename_only": PLAIN.replace('backend: "python"', 'default_model_filename: "model.py"'),
    "filename_odd_only": PLAIN.replace('backend: "python"', 'default_model_filename: "main.py"'),
}
