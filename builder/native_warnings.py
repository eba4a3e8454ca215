"""What loads in Triton's native onnxruntime and openvino backends and still goes wrong, or does nothing.

The arguments are those of `builder.native_rules.refusals`.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import gt, lt

from builder.backend_parameters import unknown_parameters
from builder.native_rules import (
    OPENVINO_TYPES,
    SIDES,
    TRITON,
    Json,
    all_passive,
    auto_completed,
    batch_size,
    find_port,
    is_torchscript,
    leading_number,
    pytorch_places,
    sizes,
)


def warnings(backend: str, config: Json, ports: Json, *, auto_complete: bool = False) -> list[str]:
    """What loads and still goes wrong, or does nothing."""
    if auto_complete:
        completed = auto_completed(backend, config, ports)
        config = config if isinstance(completed, str) else completed
    found = [*_core_warnings(backend, config), *unknown_parameters(backend, config), *_unused(backend, config)]
    if backend in ("openvino", "python"):
        found += _unjoined(backend, config)
    if backend == "openvino":
        found += _openvino_warnings(config, ports)
    elif backend == "onnxruntime":
        found += [*_onnxruntime_warnings(config, ports), *_profile_warnings(config)]
    elif backend == "pytorch":
        found += _pytorch_warnings(config, ports)
    elif backend == "python":
        found += _python_warnings(config)
    return found


def _core_warnings(backend: str, config: Json) -> Iterator[str]:
    batch = batch_size(config)
    if "dynamic_batching" in config:
        queues = {"priority_levels", "default_queue_policy"} & set(config["dynamic_batching"])
        if batch <= 1 and not queues:
            yield f"dynamic_batching does nothing with max_batch_size {batch}: there is no batch to make"
        preferred = sizes(config["dynamic_batching"].get("preferred_batch_size"))
        if preferred and max(preferred) < batch:
            yield (
                f"preferred_batch_size {preferred} leaves out max_batch_size {batch}: a full queue is cut into batches "
                f"of at most {max(preferred)}"
            )
    yield from _sequence_warnings(config)
    batcher = str(config.get("parameters", {}).get("TRITON_BATCH_STRATEGY_PATH", {}).get("string_value", ""))
    if batcher.startswith("/"):
        yield f"TRITON_BATCH_STRATEGY_PATH {batcher!r} is a path of the machine that serves, and is not judged here"
    if all_passive(config):
        yield "every instance group is passive: the model loads, is never warmed up, and answers no request"
    for index, group in enumerate(config.get("instance_group", ())):
        if group.get("kind") == "KIND_MODEL" and backend != "pytorch":
            yield f"instance group {index} has KIND_MODEL, which onnxruntime and openvino do not use"


def _unused(backend: str, config: Json) -> Iterator[str]:
    """Fields that this backend never looks at."""
    optimization = config.get("optimization", {})
    for field, takers in USED_BY.items():
        if field in optimization and backend in {"onnxruntime", "openvino", "tensorrt", "pytorch"} - takers:
            yield f"optimization.{field} does nothing: the {backend} backend does not read it"


def _unjoined(backend: str, config: Json) -> Iterator[str]:
    """Requests of unequal sizes that the batcher merges and the backend cannot take."""
    if config.get("batch_input"):
        yield f"batch_input does nothing: the {backend} backend fills no inputs"
    ragged = [io.get("name", "") for io in config.get("input", ()) if io.get("allow_ragged_batch")]
    if ragged and batch_size(config) > 1 and backend == "openvino":
        yield (
            f"allow_ragged_batch of '{ragged[0]}': the openvino backend does not join requests of unequal sizes, so "
            "those that the batcher merges fail"
        )


USED_BY = {
    "graph": {"onnxruntime"},
    "execution_accelerators": {"onnxruntime"},
    "cuda": {"tensorrt"},
    "priority": {"tensorrt"},
}


def _sequence_warnings(config: Json) -> Iterator[str]:
    batching = config.get("sequence_batching")
    if batching is None:
        return
    controls = [control for io in batching.get("control_input", ()) for control in io.get("control", ())]
    starts = any(control.get("kind", "CONTROL_SEQUENCE_START") == "CONTROL_SEQUENCE_START" for control in controls)
    for state in batching.get("state", ()):
        if not state.get("initial_state") and not starts:
            yield (
                f"state input '{state.get('input_name', '')}' has no initial_state and the model is not told where a "
                "sequence starts: the first request sees whatever lies in memory"
            )
    slots = int(batching.get("oldest", {}).get("max_candidate_sequences", 0))
    if slots <= 0 and batch_size(config) <= 1:
        yield (
            f"sequence_batching with max_batch_size {batch_size(config)} takes one sequence at a time on each "
            "instance: the others wait until it ends or is idle for too long; oldest { max_candidate_sequences: N } "
            "takes N"
        )


def _onnxruntime_warnings(config: Json, ports: Json) -> Iterator[str]:
    for side, plural in SIDES:
        for port in ports.get(plural, ()):
            if port["shape"] == [] and batch_size(config) > 0:
                yield (
                    f"{side} '{port['name']}' is a scalar in the model, yet max_batch_size {batch_size(config)} makes "
                    "every request carry a batch axis: it loads and fails at inference"
                )
    for library in config.get("model_operations", {}).get("op_library_filename", ()):
        if not library.startswith("/"):
            yield (
                f"the operator library '{library}' is looked for where the server's loader looks (LD_LIBRARY_PATH, or "
                "with a slash its working directory), not in the model's folder: without it the model does not load"
            )


def _python_warnings(config: Json) -> Iterator[str]:
    for word, _ in SIDES:
        for io in config.get(word, ()):
            if io.get("data_type") == "TYPE_BF16":
                yield (
                    f"{word} '{io.get('name', '')}': numpy has no bfloat16, so as_numpy() and Tensor() fail at every "
                    "request (TYPE_BF16 not currently supported.); only DLPack carries it"
                )


def _pytorch_warnings(config: Json, ports: Json) -> Iterator[str]:
    arguments = [argument["name"] for argument in ports.get("arguments", ())]
    names = [io.get("name", "") for io in config.get("input", ())]
    if not arguments or not is_torchscript(config):
        return
    places = pytorch_places(names, arguments)
    shown = ", ".join(f"'{name}' {place}" for name, place in zip(names, places, strict=True))
    if sorted(places) != list(range(len(names))):
        yield (
            f"by the numbers in their names the inputs are the arguments {shown} of forward, which has 0 to "
            f"{len(arguments) - 1}: every request fails, or makes the server write outside its memory"
        )


NARROWER = {
    "INT64": ("INT32", "INT16", "INT8", "UINT32", "UINT16", "UINT8", "BOOL"),
    "INT32": ("INT16", "INT8", "UINT16", "UINT8", "BOOL"),
    "FP32": ("FP16", "INT64", "INT32", "INT16", "INT8", "UINT8", "BOOL"),
}


def _loss(model: str, wanted: str, side: str) -> str:
    """What an output of the model's type loses."""
    lost = side == "output" and wanted in NARROWER.get(model, ())
    return f", and values that {wanted} does not hold are cut: write TYPE_{model}" if lost else ""


def _profile_warnings(config: Json) -> Iterator[str]:
    """Batches for which TensorRT inside onnxruntime has no profile."""
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    preferred = sizes(config.get("dynamic_batching", {}).get("preferred_batch_size"))
    largest, batches = batch_size(config), sorted({*preferred, batch_size(config)})
    for item in accelerators.get("gpu_execution_accelerator", ()):
        for word, wrong in (("max", gt), ("min", lt)):
            key = f"trt_profile_{word}_shapes"
            for shape in str(item.get("parameters", {}).get(key, "")).split(","):
                edge = shape.rpartition(":")[2].partition("x")[0]
                outside = [size for size in batches if edge.isdecimal() and wrong(size, leading_number(edge))]
                if largest > 0 and outside:
                    yield (
                        f"{key} {shape} has no profile for batches of {', '.join(map(str, outside))}: TensorRT builds "
                        f"the engine again when one comes; let the profile go from 1 to {largest}"
                    )


def _stream_warnings(config: Json) -> Iterator[str]:
    """All instances on the CPU share one compiled network, which runs as many requests at a time as it has streams."""
    groups = [group for group in config.get("instance_group", ()) if not group.get("passive")]
    count = sum(int(group.get("count", 1)) for group in groups)
    said = {key: str(item.get("string_value", "")).lower() for key, item in config.get("parameters", {}).items()}
    streams, hint = said.get("NUM_STREAMS", ""), said.get("PERFORMANCE_HINT", "")
    goal = hint in ("throughput", "cumulative_throughput")
    if count <= 1 or said.get("TARGET_DEVICE", "cpu") not in ("", "cpu") or (not streams and goal):
        return
    if streams.isdecimal() and leading_number(streams) < count:
        few = f"NUM_STREAMS {streams} lets {streams} of {count} instances run at a time, the others wait"
    elif not streams:
        few = f"{count} instances share one compiled network, and without NUM_STREAMS it runs one request at a time"
    else:
        return
    yield f"{few}; write parameters NUM_STREAMS: {count} (INFERENCE_NUM_THREADS counts the threads of all streams)"


def _openvino_warnings(config: Json, ports: Json) -> Iterator[str]:
    yield from _stream_warnings(config)
    batch = batch_size(config)
    if batch > 1:
        yield (
            f"max_batch_size {batch}: the OpenVINO backend compiles for batch {batch} exactly; requests of "
            f"other sizes fail with \"expected requests with batch size '{batch}'\"; use max_batch_size 0 and full dims"
        )
        if any(-1 in sizes(io.get("dims")) for io in config.get("input", ())):
            yield "dynamic dims together with max_batch_size > 0 load in the OpenVINO backend and fail at inference"
        if any(int(item.get("batch_size", 0)) > 1 for item in config.get("model_warmup", ())):
            yield "a warm-up with a batch above 1 is unsafe in the OpenVINO backend: it refuses the model or aborts"
    if str(config.get("parameters", {}).get("ENABLE_BATCH_PADDING", {}).get("string_value")).lower() == "yes":
        yield (
            "ENABLE_BATCH_PADDING: after one partial batch every full batch fails with 'failed to split the output "
            "tensor', because the padding size is never reset"
        )
    for side, _ in SIDES:
        for io in config.get(side, ()):
            port, wanted = find_port(ports, side, io.get("name", "")), io.get("data_type", "").removeprefix("TYPE_")
            if port and wanted in OPENVINO_TYPES and wanted != TRITON.get(port["dtype"]):
                yield (
                    f"{side} '{io['name']}' is TYPE_{wanted} in the configuration and "
                    f"TYPE_{TRITON.get(port['dtype'], 'INVALID')} in the model: the OpenVINO backend converts silently"
                    f"{_loss(TRITON.get(port['dtype'], ''), wanted, side)}"
                )
