"""What Triton's native onnxruntime, openvino and pytorch backends, and the core before them, refuse to load.

Written once for the offline checks and for the embedded server, which copies this one file into another environment:
standard library only, and longer than other modules for that reason. Read from `onnxruntime.cc`, `openvino.cc`,
`*_utils.cc`, `model_config_utils.cc`, and of the pytorch backend `pt/model_instance_state.cc` and `libtorch_utils.cc`;
verdicts of the first two tried on the server of 24.10.

`config` is a ModelConfig as JSON with the proto's field names (dims as integers or strings). `ports` holds the model
file's own `inputs` and `outputs`: `{"name", "dtype": numpy name or "string", "shape": [-1 where any size goes]}` (a
shape of None: not known), and optionally `initializers` (names that a request may override). A TorchScript file has
none of that, but `arguments`: name and TorchScript type of each argument of `forward`. Without ports only the
configuration itself is judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

TRITON = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    "string": "STRING", "object": "STRING", "bfloat16": "BF16",
}  # fmt: skip
OPENVINO_TYPES = frozenset(TRITON.values()) - {"FP64", "STRING", "BF16"}
PYTORCH_TYPES = frozenset(TRITON.values()) - {"UINT16", "UINT32", "UINT64", "STRING", "BF16"}
"""Strings are lists there, with a rule of their own."""
PYTORCH_FLAGS = (
    "DISABLE_OPTIMIZED_EXECUTION", "ENABLE_CACHE_CLEANING", "INFERENCE_MODE", "DISABLE_CUDNN", "ENABLE_TENSOR_FUSER",
    "ENABLE_WEIGHT_SHARING", "ENABLE_JIT_PROFILING", "ENABLE_JIT_EXECUTOR",
)  # fmt: skip
ORT_NUMBERS = ("execution_mode", "intra_op_thread_count", "inter_op_thread_count")
ORT_FLAGS = ("enable_mem_arena", "enable_mem_pattern", "share_session_between_instances")
_ORT_TENSORRT_OPTIONS = (
    "precision_mode max_workspace_size_bytes int8_calibration_table_name int8_use_native_calibration_table "
    "trt_max_partition_iterations trt_min_subgraph_size trt_dla_enable trt_dla_core trt_engine_cache_enable "
    "trt_engine_cache_path trt_engine_cache_prefix trt_dump_subgraphs trt_force_sequential_engine_build "
    "trt_context_memory_sharing_enable trt_layer_norm_fp32_fallback trt_timing_cache_enable trt_timing_cache_path "
    "trt_force_timing_cache trt_detailed_build_log trt_build_heuristics_enable trt_sparsity_enable "
    "trt_builder_optimization_level trt_auxiliary_streams trt_tactic_sources trt_extra_plugin_lib_paths "
    "trt_profile_min_shapes trt_profile_max_shapes trt_profile_opt_shapes trt_cuda_graph_enable "
    "trt_dump_ep_context_model trt_ep_context_file_path trt_ep_context_embed_mode"
)
ORT_TENSORRT_OPTIONS = frozenset(_ORT_TENSORRT_OPTIONS.split())
PYTORCH_NUMBERS = ("INTRA_OP_THREAD_COUNT", "INTER_OP_THREAD_COUNT")
LONGEST_NUMBER = 1000
"""Digits that are read: Python makes no integer of more than 4,300."""
NO_TENSORS = {
    "sequence": "ONNX_TYPE_SEQUENCE", "map": "ONNX_TYPE_MAP", "optional": "ONNX_TYPE_UNKNOWN",
    "sparse": "ONNX_TYPE_SPARSETENSOR",
}  # fmt: skip
ORT_DEFAULT_MAX_BATCH_SIZE = 4
ORT_BF16_SINCE = "26.03"
SIDES = (("input", "inputs"), ("output", "outputs"))
STATELESS = ("openvino",)
"""Backends without the calls that give states back to the core; onnxruntime, tensorrt and pytorch have them."""
CORRID_TYPES = ("TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING")
CONTROL_VALUES = {"int32_false_true": "INT32", "fp32_false_true": "FP32", "bool_false_true": "BOOL"}


def refusals(  # noqa: PLR0913 - the interface that both environments call
    backend: str, config: Json, ports: Json, *, auto_complete: bool, gpus: int = 0, release: str = ""
) -> list[str]:
    """Why the native backend would not load the model, the server's own first reason first; empty: it loads."""
    # The core judges sizes of batches before the backend completes the largest one.
    early = [*_preferred(config), *_preferred_sequences(config)]
    if auto_complete:
        completed = auto_completed(backend, config, ports)
        if isinstance(completed, str):
            return [*early, completed]
        config = completed
    found = [*early, *_core(backend, config, gpus), *_sequence(config), *_states(backend, config, ports)]
    if backend == "openvino":
        found += [*_openvino_parameters(config), *(_openvino(config, ports) if ports else ())]
    elif backend == "onnxruntime":
        found += [*_ort_options(config, gpus), *(_onnxruntime(config, ports, release) if ports else ())]
    elif backend == "pytorch":
        found += _pytorch(config, ports)
    return found


# The core


def _core(backend: str, config: Json, gpus: int) -> Iterator[str]:
    name = config.get("name", "")
    batch = batch_size(config)
    if batch < 0:
        yield f"'max_batch_size' must be non-negative value for {name}"
    for index, group in enumerate(config.get("instance_group", ())):
        yield from _instance_group(backend, config, group, index, gpus)
    for side, _ in SIDES:
        for io in config.get(side, ()):
            problem = _io_problem(io, side, batch) or (None if backend == "tensorrt" else _tensorrt_only(io))
            if problem:
                yield problem


def _preferred(config: Json) -> Iterator[str]:
    name = config.get("name", "")
    for size in sizes(config.get("dynamic_batching", {}).get("preferred_batch_size")):
        if size <= 0:
            yield f"dynamic batching preferred size must be positive for {name}"
        elif size > batch_size(config):
            yield f"dynamic batching preferred size must be <= max batch size for {name}"


def _tensorrt_only(io: Json) -> str | None:
    if io.get("is_shape_tensor"):
        return "shape tensors are only supported for TensorRT platform"
    if io.get("is_non_linear_format_io"):
        return "Non-linear IO format is only supported for the TensorRT platform"
    return None


def _instance_group(backend: str, config: Json, group: Json, index: int, gpus: int) -> Iterator[str]:
    model = config.get("name", "")
    kind = group.get("kind", "KIND_AUTO")
    listed = sizes(group.get("gpus"))
    where = f"instance group {group.get('name') or f'{model}_{index}'} of model {model}"
    if kind == "KIND_AUTO" and any(not 0 <= gpu < gpus for gpu in listed):
        kind = "KIND_CPU"
    if kind.lstrip("-").isdigit():
        yield f"{where} has unexpected kind {kind}"
    if kind in ("KIND_CPU", "KIND_MODEL") and listed:
        yield f"{where} has kind {kind} but specifies one or more GPUs"
    if kind == "KIND_GPU" and not gpus:
        yield f"{where} has kind KIND_GPU but no GPUs are available"
    elif backend == "openvino" and kind in ("KIND_GPU", "KIND_MODEL"):
        yield f"unable to load model '{model}', Triton openVINO backend supports only CPU device"
    elif kind == "KIND_GPU" and any(not 0 <= gpu < gpus for gpu in listed):
        yield f"{where} specifies invalid or unsupported gpu id {next(gpu for gpu in listed if not 0 <= gpu < gpus)}"
    if backend == "tensorrt" and kind == "KIND_CPU":
        yield f"unable to load model '{model}', TensorRT backend supports only GPU device"
    if group.get("profile") and backend != "tensorrt":
        yield f"{where} specifies profile field which is only supported for TensorRT models"


def _io_problem(io: Json, side: str, batch: int) -> str | None:  # noqa: PLR0911 - one line a rule
    if not io.get("name"):
        return f"model {side} must specify 'name'"
    prefix = f"model {side} '{io['name']}' "
    dims = sizes(io.get("dims"))
    if io.get("data_type", "TYPE_INVALID") == "TYPE_INVALID":
        return prefix + "must specify 'data_type'"
    if not dims:
        return prefix + "must specify 'dims'"
    if any(dim < 1 and dim != -1 for dim in dims):
        return prefix + "dimension must be integer >= 1, or -1 to indicate a variable-size dimension"
    if "reshape" in io:
        problem = _reshape_problem(dims, sizes(io["reshape"].get("shape")), batch)
        if problem:
            return prefix + problem
    if side == "input" and io.get("format") in ("FORMAT_NHWC", "FORMAT_NCHW") and len(dims) != 3:  # noqa: PLR2004
        return "model input NHWC/NCHW require 3 dims"
    return None


def _reshape_problem(dims: list[int], shape: list[int], batch: int) -> str | None:
    if not shape:
        if batch == 0:
            return "cannot have empty reshape for non-batching model as scalar tensors are not supported"
        # The core counts with 64 bits, and takes no shape for a count of 0.
        return None if _chunks(dims) in ([0], [1]) else "has different size for dims and reshape"
    if any(dim < 1 and dim != -1 for dim in shape):
        return "reshape dimensions must be integer >= 1, or -1 to indicate a variable-size dimension"
    before, after = _chunks(dims), _chunks(shape)
    if (len(before) == 1) == (len(after) == 1) and len(before) != len(after):
        return "has different number of variable-size dimensions for dims and reshape"
    return None if before == after else "has different size for dims and reshape"


def _chunks(dims: list[int]) -> list[int]:
    """Element counts between the -1s: `[2, 4, -1, 6]` gives `[8, 6]`."""
    counts = [1]
    for dim in dims:
        if dim == -1:
            counts.append(1)
        else:
            counts[-1] = counts[-1] * dim % 2**64
    return counts


# Sequences


def _preferred_sequences(config: Json) -> Iterator[str]:
    name = config.get("name", "")
    for size in sizes(config.get("sequence_batching", {}).get("oldest", {}).get("preferred_batch_size")):
        if size <= 0:
            yield f"sequence batching preferred batch size must be positive for {name}"
        elif size > batch_size(config):
            yield f"sequence batching preferred batch size must be <= max batch size for {name}"


def _sequence(config: Json) -> Iterator[str]:
    """What the core refuses of `sequence_batching`; controls and sizes first, states when the scheduler is made."""
    name, batching = config.get("name", ""), config.get("sequence_batching", {})
    slots = float(batching.get("direct", {}).get("minimum_slot_utilization", 0.0))
    if slots < 0.0 or slots > 1.0:
        yield f"sequence batching minimum slot utilization must be in range (0.0, 1.0] for {name}"
    yield from _controls(name, batching)
    seen: set[str] = set()
    for state in batching.get("state", ()):
        yield from _initial_state(state, seen)


def _controls(name: str, batching: Json) -> Iterator[str]:
    seen: set[str] = set()
    for io, control in control_parts(batching):
        kind = control.get("kind", "CONTROL_SEQUENCE_START")
        if not io.get("name"):
            yield f"sequence batching control tensor must have a name for {name}"
        if kind.lstrip("-").isdigit():
            # The core asks for each kind that it knows, and never looks at another.
            continue
        if kind in seen:
            yield f"sequence batching specifies multiple {kind} tensors for {name}"
        seen.add(kind)
        if kind == "CONTROL_SEQUENCE_CORRID":
            if control.get("data_type") not in CORRID_TYPES:
                yield (
                    f"unexpected data type for control {kind} for {name}. Allowed data types are TYPE_UINT64, "
                    "TYPE_INT64, TYPE_UINT32, TYPE_INT32 and TYPE_STRING"
                )
            continue
        given = [word for word in CONTROL_VALUES if control.get(word)]
        if not given:
            yield (
                "sequence batching must specify either 'int32_false_true', 'fp32_false_true' or 'bool_false_true' for "
                f"{kind} for {name}"
            )
        elif len(control[given[0]]) != 2:  # noqa: PLR2004 - false and true
            yield f"sequence batching control '{given[0]}' must have exactly 2 entries for {kind} for {name}"


def control_parts(batching: Json) -> Iterator[tuple[Json, Json]]:
    """(input, control) pairs of `control_input`."""
    for io in batching.get("control_input", ()):
        for control in io.get("control", ()):
            yield io, control


def _initial_state(state: Json, seen: set[str]) -> Iterator[str]:
    given, name = state.get("initial_state", ()), state.get("input_name", "")
    if len(given) > 1:
        yield (
            f"initial_state field for state input '{name}' must contain exactly one or zero element. Found "
            f"'{len(given)}' elements."
        )
    if len(given) != 1:
        return
    first, dims, wanted = given[0], sizes(given[0].get("dims")), sizes(state.get("dims"))
    if first.get("data_type") != state.get("data_type"):
        yield f"The data type used for 'initial_state' field of state '{name}' does not match the state data type."
    elif not first.get("name"):
        yield f"Field 'name' must be set when using initial_state for state input '{name}'."
    elif name in seen:
        yield f"State input name '{name}' specified more than once."
    elif len(dims) != len(wanted):
        yield (
            "Number of dimensions in 'initial_state' doesn't match the size of 'state' dimensions for state input "
            f"'{name}'. {len(dims)} != {len(wanted)}"
        )
    elif -1 in dims:
        yield f"'initial_state' field for state input name '{name}' contains variable dimensions."
    elif any(right not in (-1, left) for left, right in zip(dims, wanted, strict=True)):
        left, right = next(pair for pair in zip(dims, wanted, strict=True) if pair[1] not in (-1, pair[0]))
        yield f"'initial_state' dim for input name '{name}' doesn't match 'state' dim description. {left} != {right}"
    elif "zero_data" not in first and "data_file" not in first:
        yield f"initial_state setting expects state'{name}' to have state_data set"
    seen.add(name)


def _states(backend: str, config: Json, ports: Json) -> Iterator[str]:
    """States that load and fail at the first request, or are mixed up: refused here, since nothing would work."""
    states, batch = config.get("sequence_batching", {}).get("state", ()), batch_size(config)
    if states and backend in STATELESS:
        yield f"the {backend} backend keeps no state: what the model puts out would never come back to it"
        return
    if states and warm_ups(config) and backend != "python":
        yield "model_warmup: a warm-up request belongs to no sequence and has no state, so the model would not load"
    for state in states:
        if state.get("use_growable_memory") and not _grows(state, config):
            yield (
                f"state input '{state.get('input_name', '')}': 'use_growable_memory' needs "
                "'use_same_buffer_for_input_output' and KIND_GPU instances: every request would fail"
            )
        for side in (side for side, plural in SIDES if plural in ports):
            name = state.get(f"{side}_name", "")
            port = find_port(ports, side, name)
            if port is None:
                known = ", ".join(sorted(port["name"] for port in ports.get(f"{side}s", ())))
                yield f"state {side} '{name}' is not among the model's {side}s ({known}): every request would fail"
                continue
            given = TRITON.get(port["dtype"], "INVALID")
            if state.get("data_type", "TYPE_INVALID") != f"TYPE_{given}":
                yield (
                    f"state {side} '{name}' is {state.get('data_type', 'TYPE_INVALID')} in the configuration and "
                    f"TYPE_{given} in the model: every request would fail"
                )
            problem = None if port["shape"] is None else _state_dims(state, side, list(port["shape"]), batch)
            if problem:
                yield f"state {side} '{name}': {problem}"
    if pairs_swapped(states):
        names = ", ".join(f"{state.get('input_name', '')} ← {state.get('output_name', '')}" for state in states)
        yield (
            f"the states {names} would be mixed up: Triton pairs the inputs with the outputs by the alphabetical order "
            "of their names; rename the outputs so that they sort as their inputs do"
        )


def all_passive(config: Json) -> bool:
    """Whether no instance is ever given a request."""
    groups = config.get("instance_group", ())
    return bool(groups) and all(group.get("passive") for group in groups)


def warm_ups(config: Json) -> list[Json]:
    """The requests that the server sends to itself: to instances that are not passive."""
    if all_passive(config):
        return []
    return [item for item in config.get("model_warmup", ()) if int(item.get("batch_size", 0))]


def _grows(state: Json, config: Json) -> bool:
    kinds = {group.get("kind", "KIND_AUTO") for group in config.get("instance_group", ())}
    return bool(state.get("use_same_buffer_for_input_output")) and not kinds & {"KIND_CPU", "KIND_MODEL"}


def _state_dims(state: Json, side: str, shape: list[int], batch: int) -> str | None:
    dims = sizes(state.get("dims"))
    full = [-1, *dims] if batch > 0 else dims
    pairs = zip(full, shape, strict=False)
    fits = len(full) == len(shape) and all(-1 in (ours, theirs) or ours == theirs for ours, theirs in pairs)
    if not fits or (batch > 0 and shape[0] != -1):
        return f"the model has shape {_text(shape)}, the configuration {_text(full)}: every request would fail"
    lead = 1 if batch > 0 else 0
    given: list[Json] = state.get("initial_state") or [{}]
    first = sizes(given[0].get("dims")) or [1] * len(dims)
    for ours, theirs, size in zip(dims, shape[lead:], first, strict=False):
        if side == "input" and ours == -1 and (theirs not in (-1, 1) or size != 1):
            return (
                f"a sequence begins with size 1 wherever the dims {_text(dims)} say -1, whatever initial_state says; "
                "write the size"
            )
    return None


def pairs_swapped(states: Any) -> bool:  # noqa: ANN401 - a list of states
    """The core walks two maps sorted by name, one of inputs and one of outputs, and takes equal places for a pair."""
    ordered = sorted(states, key=lambda state: str(state.get("input_name", "")))
    outputs = [str(state.get("output_name", "")) for state in ordered]
    return outputs != sorted(outputs)


# ONNX Runtime


def _onnxruntime(config: Json, ports: Json, release: str) -> Iterator[str]:
    for side, plural in SIDES:
        for port in ports.get(plural, ()):
            if port["dtype"] in NO_TENSORS:
                kind = NO_TENSORS[port["dtype"]]
                yield f"Unsupported ONNX Type '{kind}' for I/O '{port['name']}', expected 'ONNX_TYPE_TENSOR'."
                return
        if side == "input":
            yield from _ort_controls(config, ports)
            yield from _ort_batch_inputs(config, ports)
            yield from _input_count(config, ports, _ort_input_count(config))
        for io in config.get(side, ()):
            problem = _ort_tensor(config, ports, side, io, release)
            if problem:
                yield problem


def _ort_options(config: Json, gpus: int) -> Iterator[str]:
    """Parameters that are parsed when the model is made, and accelerators when an instance is."""
    for key, item in config.get("parameters", {}).items():
        value = str(item.get("string_value", ""))
        yield from _number_or_flag(key, value, ORT_NUMBERS, ORT_FLAGS)
        if key == "execution_mode" and _is_number(value) and leading_number(value) not in (0, 1):
            yield (
                "Invalid configuration value provided. Expected values for  execution_mode are 0 or 1 but got "
                f"{leading_number(value)} ."
            )
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    groups = config.get("instance_group") or [{}]
    on_gpu = gpus and any(group.get("kind", "KIND_AUTO") in ("KIND_AUTO", "KIND_GPU") for group in groups)
    for item in accelerators.get("gpu_execution_accelerator", ()) if on_gpu else ():
        if item.get("name") == "tensorrt":
            yield from _ort_tensorrt(item.get("parameters", {}))
        elif item.get("name") != "cuda":
            yield f"unknown Execution Accelerator '{item.get('name', '')}' is requested"
    for item in accelerators.get("cpu_execution_accelerator", ()):
        if item.get("name") != "openvino":
            yield f"unknown Execution Accelerator '{item.get('name', '')}' is requested"


def _ort_tensorrt(options: Json) -> Iterator[str]:
    for key, value in options.items():
        if key not in ORT_TENSORRT_OPTIONS:
            yield f"unknown parameter '{key}' is provided for TensorRT Execution Accelerator"
        elif key == "precision_mode" and value not in ("FP32", "FP16", "BF16", "INT8"):
            yield f"unsupported precision mode '{value}' is requested"


def _number_or_flag(key: str, value: str, numbers: tuple[str, ...], flags: tuple[str, ...]) -> Iterator[str]:
    if key in flags and value.lower() not in ("true", "on", "1", "false", "off", "0"):
        yield f"failed to convert '{value}' to boolean"
    elif key in numbers and not _is_number(value):
        yield f"failed to convert '{value}' to integral number"


def _is_number(value: str) -> bool:
    """As C's strtol: a number at the beginning, whatever follows it."""
    text = value.lstrip(" \t\n\v\f\r")
    return text[:1].isdecimal() or (text[:1] in ("+", "-") and text[1:2].isdecimal())


def leading_number(value: str) -> int:
    text = value.strip(" \t\n\v\f\r")
    end = 1
    while end < min(len(text), LONGEST_NUMBER) and text[end].isdecimal():
        end += 1
    return int(text[:end])


def _ort_input_count(config: Json) -> int:
    count = sum(not io.get("optional") for io in config.get("input", ())) + len(config.get("batch_input", ()))
    sequence = config.get("sequence_batching", {})
    kinds = {part.get("kind") for io in sequence.get("control_input", ()) for part in io.get("control", ())}
    return count + len(kinds) + len(sequence.get("state", ()))


def _ort_batch_inputs(config: Json, ports: Json) -> Iterator[str]:
    """Inputs that the server fills: it looks for them, and at their types, only when a request comes."""
    for item in config.get("batch_input", ()):
        wanted = item.get("data_type", "TYPE_INVALID")
        for name in item.get("target_name", ()):
            port = find_port(ports, "input", name)
            if port is None:
                known = ", ".join(sorted(port["name"] for port in ports.get("inputs", ())))
                yield f"batch_input '{name}' is not among the model's inputs ({known}): every request would fail"
            elif wanted != f"TYPE_{TRITON.get(port['dtype'], '<invalid>')}":
                given = TRITON.get(port["dtype"], "<invalid>")
                yield (
                    f"batch_input '{name}' is {wanted} in the configuration and TYPE_{given} in the model: every "
                    "request would fail"
                )


def _ort_controls(config: Json, ports: Json) -> Iterator[str]:
    head = f"unable to load model '{config.get('name', '')}', sequence control "
    for io, control in control_parts(config.get("sequence_batching", {})):
        name, port = io.get("name", ""), find_port(ports, "input", io.get("name", ""))
        if port is None:
            yield f"configuration specified sequence control '{name}', but model does not provide that input"
            continue
        dims = (port["shape"] or [])[1 if batch_size(config) > 0 else 0 :]
        if port["shape"] is not None and dims != [1]:
            yield f"{head}'{name}' in model has dims {_text(dims)} but dims [1] is expected"
        wanted = next((kind for word, kind in CONTROL_VALUES.items() if control.get(word)), None)
        wanted = wanted or str(control.get("data_type", "")).removeprefix("TYPE_")
        given = TRITON.get(port["dtype"], "<invalid>")
        if wanted != given:
            yield (
                f"{head}'{name}', the model expects data-type {given} but the model configuration specifies data-type "
                f"TYPE_{wanted}"
            )


def _ort_tensor(  # noqa: PLR0911 - one line a rule
    config: Json, ports: Json, side: str, io: Json, release: str
) -> str | None:
    name, model, batch = io.get("name", ""), config.get("name", ""), batch_size(config)
    head = f"unable to load model '{model}', "
    optional = bool(io.get("optional"))
    if optional and batch:
        return f"{head}optional input '{name}' is not supported for models that support batching"
    port = find_port(ports, side, name)
    if port is None:
        known = ports.get("initializers") if optional else ()
        return None if optional and (known is None or name in known) else unexpected_port(ports, side, name)
    problem = _ort_dtype(io, port, side, model, release)
    if problem:
        return problem
    if port["shape"] is None:
        return None
    shape, dims = list(port["shape"]), wire_dims(io)
    if side == "input" and io.get("allow_ragged_batch"):
        if optional or shape != [-1]:
            return (
                f"{head}configuration expects model provides input with shape [-1]  for ragged input '{name}', "
                f"model provides {_text(shape)}"
            )
        return None
    if side == "output" and any(name in item.get("target_name", ()) for item in config.get("batch_output", ())):
        return None
    if not shape:
        scalar_only = (
            f"{head}scalar tensor '{name}', should only provide 1 in the model configuration when the model doesn't "
            f"support batching. Model configuration provided: {_text(dims)}."
        )
        return scalar_only if any(dim != 1 for dim in dims) else None
    return _ort_dims(model, name, shape, dims, batch=batch, exact=side == "output")


def _ort_dtype(io: Json, port: Json, side: str, model: str, release: str) -> str | None:
    wanted, name = io.get("data_type", "TYPE_INVALID"), io.get("name", "")
    given = TRITON.get(port["dtype"], "<invalid>")
    old = bool(release) and release < ORT_BF16_SINCE
    if wanted.removeprefix("TYPE_") not in TRITON.values() or (wanted == "TYPE_BF16" and old):
        return f"unsupported datatype {wanted} for {side} '{name}' for model '{model}'"
    if wanted != f"TYPE_{given}":
        given = {"STRING": "BYTES"}.get(given, given)
        return (
            f"unable to load model '{model}', configuration expects datatype {wanted} for {side} '{name}', "
            f"model provides TYPE_{given}"
        )
    return None


def _ort_dims(  # noqa: PLR0913
    model: str, name: str, shape: list[int], dims: list[int], *, batch: int, exact: bool
) -> str | None:
    if batch > 0 and shape[0] != -1:
        return (
            f"model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 "
            f"dimension and the first dimension must be -1; but shape expected by the model is {_text(shape)}"
        )
    full = [-1, *dims] if batch > 0 else dims
    pairs = zip(shape, full, strict=False)
    if len(shape) == len(full) and all(ours == theirs or (ours == -1 and not exact) for ours, theirs in pairs):
        return None
    return dims_mismatch(model, name, shape, full, batch)


# OpenVINO


def _openvino_parameters(config: Json) -> Iterator[str]:
    for key, item in config.get("parameters", {}).items():
        value = str(item.get("string_value", "")).lower()
        head = f"expected the parameter '{key}' to be "
        if key in ("INFERENCE_NUM_THREADS", "COMPILATION_NUM_THREADS") and not (value.isdigit() or not value):
            yield f"{head}a non-negative number, got {value}"
        elif key == "COMPILATION_NUM_THREADS" and value == "1":
            yield "configuring openvino core: the parameter 'COMPILATION_NUM_THREADS' is refused with value 1"
        elif key == "HINT_BF16" and value not in ("yes", ""):
            yield f"{head}YES, got {value}"
        elif key == "NUM_STREAMS" and not (value in ("auto", "numa", "") or value.isdigit()):
            yield f"{head}either AUTO/NUMA/<int_value>, got {value}"
        elif key == "PERFORMANCE_HINT" and value not in ("latency", "throughput", "cumulative_throughput", ""):
            yield f"{head}LATENCY/THROUGHPUT/CUMULATIVE_THROUGHPUT, got {value}"


def _openvino(config: Json, ports: Json) -> Iterator[str]:
    if any(not port["name"] for _, plural in SIDES for port in ports.get(plural, ())):
        yield "ModelInstanceState::Create ov::Exception: Attempt to get a name for a Tensor without names"
        return
    yield from _input_count(config, ports, len(config.get("input", ())))
    for side, _ in SIDES:
        for io in config.get(side, ()):
            name, wanted = io.get("name", ""), io.get("data_type", "TYPE_INVALID")
            port = find_port(ports, side, name)
            if port is None:
                yield unexpected_port(ports, side, name)
            elif wanted.removeprefix("TYPE_") not in OPENVINO_TYPES:
                yield f"unsupported datatype {wanted} for {side} '{name}' for model '{config.get('name', '')}'"
            elif port["shape"] is not None:
                shape = _openvino_shape(config, ports, side, list(port["shape"]))
                problem = _openvino_dims(config, name, shape, wire_dims(io), exact=side == "output")
                if problem:
                    yield problem


def _openvino_shape(config: Json, ports: Json, side: str, shape: list[int]) -> list[int]:
    """Outputs are compared after `set_batch`, which gives every batch axis the size max_batch_size."""
    batch = batch_size(config)
    axes = {port["shape"][0] for port in ports.get("inputs", ()) if port["shape"]} | {-1}
    if side == "output" and batch > 0 and shape and shape[0] in axes:
        return [batch, *shape[1:]]
    return shape


def _openvino_dims(config: Json, name: str, shape: list[int], dims: list[int], *, exact: bool) -> str | None:
    model, batch = config.get("name", ""), batch_size(config)
    if (
        not exact
        and str(config.get("parameters", {}).get("RESHAPE_IO_LAYERS", {}).get("string_value")).lower() == "yes"
    ):
        return None
    if batch > 0 and not shape:
        return (
            f"model '{model}', tensor '{name}': for the model to support batching the shape should have at least 1 "
            "dimension"
        )
    full = [batch, *dims] if batch > 0 else dims
    loose = batch > 0 and not exact
    matches = len(shape) == len(full) and all(
        ours in (-1, theirs) or (loose and (axis == 0 or theirs == -1))
        for axis, (ours, theirs) in enumerate(zip(shape, full, strict=True))
    )
    return None if matches else dims_mismatch(model, name, shape, full, batch)


# PyTorch


def is_torchscript(config: Json) -> bool:
    """Whether the pytorch backend would read a TorchScript file, and not an AOTInductor package or Python code."""
    return config.get("platform", "") != "torch_aoti" and not config.get("runtime")


def pytorch_places(names: list[str], arguments: list[str] | None) -> list[int]:
    """The argument, or without `arguments` the place in the answer, that the backend takes each name for."""
    if arguments and all(name in arguments for name in names):
        return [arguments.index(name) for name in names]
    if all(map(_is_indexed, names)):
        return [int(name.partition("__")[2] or 0) for name in names]
    return list(range(len(names)))


def pytorch_named_places(config: Json, side: str, arguments: list[str] | None) -> dict[str, int]:
    """`pytorch_places` by name, also of states and controls, which go by the number in their names."""
    names = [io["name"] for io in config.get(side, ())]
    sequence = config.get("sequence_batching", {})
    others = [state[f"{side}_name"] for state in sequence.get("state", ())]
    others += [io["name"] for io in sequence.get("control_input", ()) if side == "input"]
    numbered = {name: int(name.partition("__")[2] or 0) for name in others if _is_indexed(name)}
    return numbered | dict(zip(names, pytorch_places(names, arguments), strict=True))


def _pytorch(config: Json, ports: Json) -> Iterator[str]:
    """`ports["arguments"]`: name and TorchScript type of each argument of `forward`."""
    if not is_torchscript(config):
        return
    model = config.get("name", "")
    yield from _pytorch_parameters(config)
    if "arguments" in ports:
        yield from _pytorch_arguments(config, ports["arguments"])
    for side, _ in SIDES:
        if not config.get(side):
            yield f"model configuration must contain at least one {side}, none were specified."
        yield from _pytorch_states(config, ports, side)
        for io in config.get(side, ()):
            name, wanted = io.get("name", ""), io.get("data_type", "TYPE_INVALID")
            if wanted == "TYPE_STRING":
                if len(wire_dims(io)) + (batch_size(config) > 0) > 1:
                    head = f"Triton only supports 1 dimensional List of String as {side} for "
                    yield f"{head}'{name}' for model '{model}'"
            elif wanted.removeprefix("TYPE_") not in PYTORCH_TYPES:
                yield f"unsupported datatype {wanted} for {side} '{name}' for model '{model}'"


def _pytorch_parameters(config: Json) -> Iterator[str]:
    for key, item in config.get("parameters", {}).items():
        value = str(item.get("string_value", ""))
        yield from _number_or_flag(key, value, PYTORCH_NUMBERS, PYTORCH_FLAGS)


def _pytorch_arguments(config: Json, arguments: list[Json]) -> Iterator[str]:
    kinds = [argument["type"].partition("[")[0] for argument in arguments]
    if kinds == ["Dict"]:
        return
    if "Dict" in kinds[1:]:
        yield (
            "Multiple inputs of kind DictType were detected. Only a single input of type Dict(str, Tensor) is "
            "supported."
        )
        return
    for argument, kind in zip(arguments, kinds, strict=True):
        if kind not in ("Tensor", "List"):
            yield (
                f"An input of type '{argument['type']}' was detected in the model. Only a single input of type "
                "Dict(str, Tensor) or input(s) of type Tensor are supported."
            )
            return
    expected = _ort_input_count(config) + sum(bool(io.get("optional")) for io in config.get("input", ()))
    if len(arguments) != expected:
        yield (
            f"unable to load model '{config.get('name', '')}', configuration expects {expected} inputs, model provides "
            f"{len(arguments)}"
        )


def _pytorch_states(config: Json, ports: Json, side: str) -> Iterator[str]:
    """States are found by NAME__INDEX only, and so must be everything beside them."""
    states = config.get("sequence_batching", {}).get("state", ())
    if not states:
        return
    model = config.get("name", "")
    arguments = {argument["name"] for argument in ports.get("arguments", ())} if side == "input" else set()
    names = [io.get("name", "") for io in config.get(side, ())]
    if (names and all(name in arguments for name in names)) or not all(map(_is_indexed, names)):
        yield (
            f"PyTorch model '{model}' is using sequence batching with state but not all inputs and outputs follow the "
            "<name>__<index> naming convention. "
        )
        return
    for state in states:
        name = state.get(f"{side}_name", "")
        if not _is_indexed(name):
            yield (
                f"PyTorch model '{model}' is using sequence batching with state but state '{name}' does not follow the "
                "<name>__<index> naming convention. "
            )


def _is_indexed(name: str) -> bool:
    _, mark, index = name.partition("__")
    return bool(mark) and (index.isdigit() or not index)


# What all share


def auto_completed(backend: str, config: Json, ports: Json) -> Json | str:
    """The configuration after the backend's auto-complete, or why it refuses."""
    missing = [(side, plural) for side, plural in SIDES if not config.get(side)]
    if backend not in ("onnxruntime", "openvino") or not ports or not missing:
        return config
    config, batch = dict(config), batch_size(config)
    if backend == "onnxruntime":
        tensors = [port for _, plural in SIDES for port in ports.get(plural, ())]
        if all(port["shape"] and port["shape"][0] == -1 for port in tensors):
            batch = batch or ORT_DEFAULT_MAX_BATCH_SIZE
            config["max_batch_size"] = batch
            if batch > 1 and "sequence_batching" not in config:
                config.setdefault("dynamic_batching", {})
        elif batch:
            return (
                f"autofill failed for model '{config.get('name', '')}': model does not support batching while non-zero "
                "max_batch_size is specified"
            )
    for side, plural in missing:
        config[side] = [_completed_io(backend, port, batch) for port in ports.get(plural, ())]
    return config


def _completed_io(backend: str, port: Json, batch: int) -> Json:
    shape = list(port["shape"] or ())
    if backend == "openvino" and -1 in shape:
        shape = [-1] * len(shape)
    io: Json = {"name": port["name"], "data_type": f"TYPE_{TRITON.get(port['dtype'], 'INVALID')}"}
    io["dims"] = shape[1:] if batch > 0 else shape
    if not io["dims"] and backend == "onnxruntime":
        io["dims"] = [1]
        if batch > 0:
            io["reshape"] = {"shape": []}
    return io


def _input_count(config: Json, ports: Json, expected: int) -> Iterator[str]:
    provided = len(ports.get("inputs", ()))
    if provided != expected:
        yield (
            f"unable to load model '{config.get('name', '')}', configuration expects {expected} inputs, model provides "
            f"{provided}"
        )


def unexpected_port(ports: Json, side: str, name: str) -> str:
    allowed = ", ".join(sorted(port["name"] for port in ports.get(f"{side}s", ())))
    return f"unexpected inference {side} '{name}', allowed {side}s are: {allowed}"


def dims_mismatch(model: str, name: str, shape: list[int], full: list[int], batch: int) -> str:
    how = (
        "an initial batch dimension because max_batch_size > 0 followed by the explicit tensor shape, making complete "
        if batch > 0
        else ""
    )
    return (
        f"model '{model}', tensor '{name}': the model expects {len(shape)} dimensions (shape {_text(shape)}) but the "
        f"model configuration specifies {len(full)} dimensions ({how}shape {_text(full)})"
    )


def find_port(ports: Json, side: str, name: str) -> Json | None:
    return next((port for port in ports.get(f"{side}s", ()) if port["name"] == name), None)


def batch_size(config: Json) -> int:
    return int(config.get("max_batch_size", 0))


def sizes(values: Any) -> list[int]:  # noqa: ANN401 - int64 in JSON is a string or a number
    return [int(value) for value in values or ()]


def wire_dims(io: Json) -> list[int]:
    """What is compared with the model: the reshape where there is one, else the dims."""
    return sizes(io["reshape"].get("shape")) if "reshape" in io else sizes(io.get("dims"))


def _text(shape: list[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
