"""Triton's onnxruntime backend with TensorRT inside: the server builds engines for its own GPU when it loads.

Its TensorRT is the server's, so nothing can be of the wrong version, and what TensorRT lacks runs on CUDA.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from builder.backends import Conversion, Settings
from builder.frameworks.onnxruntime.choices import Choices, config_of
from builder.frameworks.onnxruntime.session import OnnxRuntimeSession, load, ports_of
from builder.machine import has_nvidia_gpu
from builder.onnx_tools.files import link_model
from builder.tensors import BY_NUMPY, Signature

GRAPHS = {"fp32": "fp32", "fp16": "fp16", "bf16": "bf16", "int8": "int8"}
FORMAT = "onnx"
DIALECT = "tensorrt"
LIBRARIES = ("onnxruntime", "onnxruntime-gpu", "tensorrt")
EXTRA = ""
FILENAME = "model.onnx"
CAN_BATCH = True
OPTIONS_DECIDE = False
DEFERS = True

PROVIDER: Final = "libonnxruntime_providers_tensorrt.so"
STRONG_SINCE: Final = "24.05"
"""The first release with TensorRT 10, where the provider takes every type from the graph."""
BF16_SINCE: Final = "26.03"
CHOICES: Final = (
    "remove the onnxruntime+tensorrt target, add --defer to build it later, or build on a machine with an NVIDIA GPU"
)


def missing() -> tuple[str, str] | None:
    """A GPU first, then the provider, which only some builds of onnxruntime have."""
    if not has_nvidia_gpu():
        return "an onnxruntime+tensorrt target needs an NVIDIA GPU, and this machine shows none", CHOICES
    package = find_spec("onnxruntime")
    folders = (package and package.submodule_search_locations) or ()
    if not any((Path(folder) / "capi" / PROVIDER).is_file() for folder in folders):
        remedy = f"pip install onnxruntime-gpu tensorrt, after pip uninstall onnxruntime; or {CHOICES}"
        return "the installed onnxruntime was made without TensorRT", remedy
    return None


def config_fields(settings: Settings) -> dict[str, Any]:
    """The accelerator with its engine cache, and what else the spec chooses."""
    return config_of(Choices.of(settings.options, tensorrt=True))


def refuses(signature: Signature, release: str) -> str | None:
    """TensorRT 8 would take precisions from flags; bfloat16 is younger than other types."""
    if release < STRONG_SINCE:
        return (
            f"the TensorRT 8 of Triton {release} does not take the types of the graph; {STRONG_SINCE} is the first "
            "release whose does"
        )
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if tensor.dtype == "bfloat16" and release < BF16_SINCE:
                return f"unsupported datatype {BY_NUMPY[tensor.dtype].triton} for {side} '{tensor.name}'"
    return None


def convert(job: Conversion, out: Path) -> Signature:
    """Link the file and its external data; the ports are what onnxruntime makes of them, on any provider.

    Raises:
        BuildError: onnxruntime does not load the model, or its names or types are not the source's.
    """
    link_model(job.model, out / FILENAME)
    return ports_of(load(out / FILENAME), job.signature)


def open_session(folder: Path, signature: Signature, settings: Settings) -> OnnxRuntimeSession:
    """Load `folder/model.onnx` with TensorRT, CUDA and the CPU, in this order.

    Raises:
        BuildError: onnxruntime refuses it, or TensorRT does not start.
    """
    path = folder / FILENAME
    choices = Choices.of(settings.options, tensorrt=True)
    return OnnxRuntimeSession(load(path, choices), path, signature, settings.precision)
