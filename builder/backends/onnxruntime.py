"""Triton's onnxruntime backend: the ONNX file itself, run on the CPU provider unless the spec asks for CUDA."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from builder.backends import Conversion, Settings
from builder.frameworks.onnxruntime.choices import Choices, config_of
from builder.frameworks.onnxruntime.session import OnnxRuntimeSession, load, ports_of
from builder.onnx_tools.files import link_model
from builder.tensors import BY_NUMPY, Signature

GRAPHS = {"fp32": "fp32", "fp16": "fp16", "int8": "int8"}
FORMAT = "onnx"
DIALECT = "onnxruntime"
LIBRARIES = ("onnxruntime",)
EXTRA = ""
FILENAME = "model.onnx"
CAN_BATCH = True
OPTIONS_DECIDE = False
DEFERS = False

BF16_SINCE: Final = "26.03"
"""The first release whose backend takes bfloat16 inputs and outputs."""


def missing() -> tuple[str, str] | None:
    """Nothing, in a sound installation: the library belongs to the core."""
    if find_spec("onnxruntime") is None:
        return "the Python package onnxruntime is not installed", "pip install --force-reinstall build-repo"
    return None


def config_fields(settings: Settings) -> dict[str, Any]:
    """Threads, graph level and CUDA's choices, as far as the spec makes any."""
    return config_of(Choices.of(settings.options))


def refuses(signature: Signature, release: str) -> str | None:
    """bfloat16 is the only type of ours that some releases do not take."""
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            if tensor.dtype == "bfloat16" and release < BF16_SINCE:
                return (
                    f"unsupported datatype {BY_NUMPY[tensor.dtype].triton} for {side} '{tensor.name}'"
                    f" (Triton {BF16_SINCE} is the first that takes it; this repository is for {release})"
                )
    return None


def convert(job: Conversion, out: Path) -> Signature:
    """Link the file and its external data: it is served as it is. The ports are what onnxruntime makes of them.

    Raises:
        BuildError: onnxruntime does not load the model, or its names or types are not the source's.
    """
    link_model(job.model, out / FILENAME)
    return ports_of(load(out / FILENAME), job.signature)


def open_session(folder: Path, signature: Signature, settings: Settings) -> OnnxRuntimeSession:
    """Load `folder/model.onnx`.

    Raises:
        BuildError: onnxruntime refuses it.
    """
    path = folder / FILENAME
    return OnnxRuntimeSession(load(path, Choices.of(settings.options)), path, signature, settings.precision)
