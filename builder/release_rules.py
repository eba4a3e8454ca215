"""What of one release bites a configuration or a model file: limits, options that are gone or not there yet.

Pure functions over the configuration as JSON and facts of the release; each gives (severity, rule, message, remedy,
a word of the line).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from typing import Any, Final

from builder.findings import Severity
from builder.native_rules import batch_size, sizes
from builder.releases import Release, known_releases
from builder.tensors import BY_TRITON

Json = dict[str, Any]
Problem = tuple[Severity, str, str, str, str]

HTTP_LIMIT_SINCE: Final = "25.06"
HTTP_LIMIT_BYTES: Final = 64 * 2**20
AOTI_SINCE: Final = "26.03"
TENSORFLOW_UNTIL: Final = "25.02"
OLD_GPUS_UNTIL: Final = "25.01"
SMALLEST_CAPABILITY: Final = 7.5
"""Since 25.02; before, 6.0 was enough."""
STRONGLY_TYPED: Final = 11
"""The first major version of TensorRT without precision flags, calibrators and per-layer precisions."""
CAPABILITIES: Final = frozenset(
    ("5.0", "5.2", "5.3", "6.0", "6.1", "6.2", "7.0", "7.2", "7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "10.0", "10.1",
     "10.3", "11.0", "12.0", "12.1")
)  # fmt: skip
"""Compute capabilities that NVIDIA's GPUs have."""
PARAMETERS_SINCE: Final = {
    ("openvino", "TARGET_DEVICE"): "25.10",
    ("tensorrt", "enable_multi_device"): "26.07",
    ("tensorrt", "multi_device_gpus"): "26.07",
    ("tensorrt", "multi_device_per_rank_engines"): "26.07",
}
GONE_WITH_TENSORRT_11: Final = {
    "int8_calibration_table_name": "calibration tables",
    "int8_use_native_calibration_table": "calibration tables",
    "trt_layer_norm_fp32_fallback": "precisions of single layers",
}
_WIDTHS: Final = {"bool": 1, "8": 1, "16": 2, "32": 4, "64": 8}


def config_problems(backend: str, config: Json, release: Release) -> Iterator[Problem]:
    """What of the release concerns the configuration."""
    yield from _aoti(config, release)
    yield from _body(config, release)
    yield from _parameters(backend, config, release)
    if backend == "onnxruntime":
        yield from _accelerators(config, release)
    if backend == "tensorrt" or config.get("cc_model_filenames"):
        yield from _capabilities(config, release)


def file_problems(filename: str, ir_version: int, opset: int, release: Release) -> Iterator[Problem]:
    """An ONNX file above what the release's ONNX Runtime loads."""
    held = f"Triton {release.release} has ONNX Runtime {release.onnxruntime}, which loads"
    if ir_version > release.max_ir:
        message = f"{filename} has ONNX IR version {ir_version}; {held} {release.max_ir} at most"
        yield "error", "ir_version", message, _ways(opset, ir_version, release), ""
    if opset > release.max_opset:
        message = f"{filename} has opset {opset}; {held} opset {release.max_opset} at most"
        yield "error", "opset", message, _ways(opset, ir_version, release), ""


def _ways(opset: int, ir_version: int, release: Release) -> str:
    first = next((item for item in known_releases() if item.max_opset >= opset and item.max_ir >= ir_version), None)
    newer = f"--triton {first.release} is the first that loads it; or " if first else ""
    lower = f"export it with opset {release.max_opset} and IR version {release.max_ir} or lower"
    return f"{newer}{lower}, as build-repo build --triton {release.release} does"


def request_bytes(config: Json) -> int | None:
    """One request of the largest batch over HTTP; None where a size is not fixed."""
    total = 0
    for io in config.get("input", ()):
        dtype, dims = BY_TRITON.get(str(io.get("data_type", ""))), sizes(io.get("dims"))
        if dtype is None or dtype.numpy == "string" or any(size < 1 for size in dims):
            return None
        width = next(size for tail, size in _WIDTHS.items() if dtype.numpy.endswith(tail))
        total += prod(dims) * width * max(batch_size(config), 1)
    return total


def is_strongly_typed(tensorrt: str) -> bool:
    """Whether a version as the table of releases writes it, `11.1.0.106` or `10.16 or 11.0`, is surely 11 or newer."""
    found = re.match(r"\d+", tensorrt)
    return bool(found) and int(found[0]) >= STRONGLY_TYPED if found else False


def _aoti(config: Json, release: Release) -> Iterator[Problem]:
    if config.get("platform") == "torch_aoti" and release.release < AOTI_SINCE:
        message = f'platform "torch_aoti" (model.pt2) is of Triton {AOTI_SINCE} and newer, not of {release.release}'
        yield (
            "error",
            "platform",
            message,
            "serve a TorchScript file as pytorch_libtorch, or an ONNX file",
            "torch_aoti",
        )


def _body(config: Json, release: Release) -> Iterator[Problem]:
    size = request_bytes(config)
    if size is None or size <= HTTP_LIMIT_BYTES or release.release < HTTP_LIMIT_SINCE:
        return
    message = (
        f"a request of {max(batch_size(config), 1)} row(s) has {size / 2**20:.0f} MiB; over HTTP Triton "
        f"{release.release} refuses bodies above 64 MiB (gRPC does not)"
    )
    # A page for the header.
    yield "warning", "http_limit", message, f"start tritonserver with --http-max-input-size={size + 4096}", "dims"


def _parameters(backend: str, config: Json, release: Release) -> Iterator[Problem]:
    for word in config.get("parameters", {}):
        since = PARAMETERS_SINCE.get((backend, word))
        if since and release.release < since:
            message = f"the parameter {word} is ignored: the {backend} backend reads it since {since}"
            yield "warning", "parameter", message, f"remove it, or use Triton {since} or newer", word


def _accelerators(config: Json, release: Release) -> Iterator[Problem]:
    if not is_strongly_typed(release.tensorrt):
        return
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for item in accelerators.get("gpu_execution_accelerator", ()):
        if item.get("name") != "tensorrt":
            continue
        parameters = item.get("parameters", {})
        mode = parameters.get("precision_mode", "FP32")
        has = f"Triton {release.release} has TensorRT {release.tensorrt}"
        if mode != "FP32":
            message = f"precision_mode {mode} may not hold: {has}, which takes the precision from the model alone"
            remedy = (
                f"convert the ONNX file itself: build-repo build MODEL --targets onnxruntime+tensorrt:{mode.lower()}"
            )
            yield "warning", "precision_mode", message, remedy, "precision_mode"
        for word, what in GONE_WITH_TENSORRT_11.items():
            if word in parameters:
                message = f"{word} does nothing or fails: {has}, where {what} are gone"
                yield "warning", "accelerator", message, "quantise the ONNX file (Q/DQ nodes), and remove it", word


def _capabilities(config: Json, release: Release) -> Iterator[Problem]:
    for key in sorted(config.get("cc_model_filenames", {})):
        if key not in CAPABILITIES:
            message = f"cc_model_filenames: no GPU has the compute capability {key!r}; the line is ignored in silence"
            yield "warning", "capability", message, 'write it as "8.6", "8.9" or "9.0"', f'"{key}"'
        elif float(key) < SMALLEST_CAPABILITY and release.release > OLD_GPUS_UNTIL:
            message = (
                f"cc_model_filenames: Triton {release.release} runs on compute capability {SMALLEST_CAPABILITY} and "
                f"newer, so nothing matches {key}"
            )
            yield "warning", "capability", message, "take the line and its file out", f'"{key}"'
