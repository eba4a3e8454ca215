"""Triton's onnxruntime backend: the ONNX file itself, run on the CPU provider."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.backends import Conversion, Settings
from builder.errors import BuildError
from builder.measurement import PrecisionProof
from builder.onnx_tools.files import link_model
from builder.tensors import BY_NUMPY, Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

GRAPHS = {"fp32": "fp32"}
DIALECT = "onnxruntime"
LIBRARIES = ("onnxruntime",)
EXTRA = ""
FILENAME = "model.onnx"
CAN_BATCH = True
DEFERS = False

BF16_SINCE: Final = "26.03"
"""The first release whose backend takes bfloat16 inputs and outputs."""
BF16_ONNX: Final = 16

TYPES: Final = {
    "tensor(bool)": "bool",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bfloat16)": "bfloat16",
    "tensor(string)": "string",
} | {f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
"""onnxruntime's words for element types → ours."""


def missing() -> tuple[str, str] | None:
    """Nothing, in a sound installation: the library belongs to the core."""
    if find_spec("onnxruntime") is None:
        return "the Python package onnxruntime is not installed", "pip install --force-reinstall build-repo"
    return None


def config_fields(settings: Settings) -> dict[str, Any]:  # noqa: ARG001 - the Protocol
    """Nothing: the file holds it all."""
    return {}


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
    session = _load(out / FILENAME)
    ports = Signature(
        _ports(session.get_inputs(), job.signature.inputs, "inputs"),
        _ports(session.get_outputs(), job.signature.outputs, "outputs"),
    )
    del session
    return ports


def _ports(declared: Any, wanted: tuple[Tensor, ...], side: str) -> tuple[Tensor, ...]:  # noqa: ANN401
    found = tuple((port.name, TYPES.get(port.type, port.type), tuple(port.shape)) for port in declared)
    if [port[:2] for port in found] != [(tensor.name, tensor.dtype) for tensor in wanted]:
        got = ", ".join(f"{name} {dtype}" for name, dtype, _ in found)
        expected = ", ".join(f"{tensor.name} {tensor.dtype}" for tensor in wanted)
        raise BuildError(
            f"model.onnx declares the {side} {got}; expected {expected}",
            remedy="export the model again; if it happens again, please report it",
        )
    return tuple(
        Tensor(name, dtype, tuple(_dim(size, tensor, axis) for axis, size in enumerate(shape)))
        for (name, dtype, shape), tensor in zip(found, wanted, strict=True)
    )


def _dim(size: int | str | None, wanted: Tensor, axis: int) -> Dim:
    if isinstance(size, int) and size >= 0:
        return size
    known = wanted.shape[axis] if axis < len(wanted.shape) else None
    if isinstance(known, str):
        return known
    return size if isinstance(size, str) and size else f"{wanted.name}_{axis}"


def _load(path: Path) -> Any:  # noqa: ANN401
    """A session with the native backend's defaults: every graph optimisation, onnxruntime's own number of threads.

    Raises:
        BuildError: onnxruntime refuses the model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BuildError(
            f"onnxruntime {onnxruntime.__version__} does not load the model: {_short(error)}",
            remedy="remove the onnxruntime target, or change the operator that it names",
        ) from error


def _short(error: Exception) -> str:
    """Without `[ONNXRuntimeError] : 1 : FAIL :`, source files and folders."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"(?:/[^\s/:]+)+/([^\s/:]+)", r"\1", text)
    return text.splitlines()[0] if text else type(error).__name__


class OnnxRuntimeSession:
    """A loaded `model.onnx`."""

    def __init__(self, session: Any, signature: Signature) -> None:  # noqa: ANN401
        self._session = session
        self._outputs = [tensor.name for tensor in signature.outputs]
        self._bfloat16 = any(tensor.dtype == "bfloat16" for tensor in signature.tensors)

    @property
    def compute(self) -> str:
        return f"fp32, {self._session.get_providers()[0]}"

    def run(self, inputs: Arrays) -> Arrays:
        if self._bfloat16:
            return _run_bfloat16(self._session, self._outputs, inputs)
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def precision_proof(self) -> PrecisionProof | None:
        return None

    def close(self) -> None:
        self._session = None


def open_session(folder: Path, signature: Signature, settings: Settings) -> OnnxRuntimeSession:  # noqa: ARG001 - the Protocol
    """Load `folder/model.onnx`.

    Raises:
        BuildError: onnxruntime refuses it.
    """
    return OnnxRuntimeSession(_load(folder / FILENAME), signature)


def _run_bfloat16(session: Any, outputs: list[str], inputs: Arrays) -> Arrays:  # noqa: ANN401
    """Bfloat16 crosses onnxruntime's border only as raw memory: its Python package has no numpy type for it."""
    import numpy as np
    import onnxruntime

    make = onnxruntime.OrtValue
    values = {}
    for name, array in inputs.items():
        if array.dtype.name == "bfloat16":
            bits = np.ascontiguousarray(array).view(np.uint16)
            values[name] = make.ortvalue_from_numpy_with_onnx_type(bits, BF16_ONNX)
        else:
            values[name] = make.ortvalue_from_numpy(np.ascontiguousarray(array))
    results = session.run_with_ort_values(outputs, values)
    return {name: _to_numpy(result) for name, result in zip(outputs, results, strict=True)}


def _to_numpy(value: Any) -> NDArray[np.generic]:  # noqa: ANN401
    import ctypes
    import math

    import ml_dtypes
    import numpy as np

    if value.data_type() != "tensor(bfloat16)":
        return np.asarray(value.numpy())
    shape = tuple(value.shape())
    raw = ctypes.string_at(value.data_ptr(), 2 * math.prod(shape))
    return np.frombuffer(raw, dtype=ml_dtypes.bfloat16).reshape(shape)
