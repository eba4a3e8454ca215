"""An ONNX file in this process: loaded with the choices that the server is told too, named outputs, any type."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import BuildError
from builder.frameworks.onnxruntime.choices import CUDA, TENSORRT, Choices, provider_options
from builder.measurement import PrecisionProof
from builder.onnx_tools.precision.proof import prove, prove_as_run
from builder.onnx_tools.writing import EXTERNAL_FROM_BYTES
from builder.tensors import Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

BF16_ONNX: Final = 16

NOT_STARTED: Final = {
    CUDA: "check nvidia-smi, and install the CUDA and cuDNN libraries that the log names",
    TENSORRT: "install the TensorRT libraries that the log names (libnvinfer), of the version this onnxruntime was "
    "made for, where the loader finds them (LD_LIBRARY_PATH)",
}
"""Why a provider that this onnxruntime has does not start: its own complaint is in the log of the work."""

TYPES: Final = {
    "tensor(bool)": "bool",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bfloat16)": "bfloat16",
    "tensor(string)": "string",
} | {f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
"""onnxruntime's words for element types → ours."""


def ports_of(session: Any, wanted: Signature) -> Signature:  # noqa: ANN401
    """Inputs and outputs as onnxruntime declares them.

    Raises:
        BuildError: the names or types are not the source's.
    """
    return Signature(
        _ports(session.get_inputs(), wanted.inputs, "inputs"),
        _ports(session.get_outputs(), wanted.outputs, "outputs"),
    )


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


def load(path: Path, choices: Choices = Choices()) -> Any:  # noqa: ANN401, B008 - frozen
    """A session as the native backend makes it: its defaults, and what the spec chooses.

    Raises:
        BuildError: onnxruntime refuses the model, or lacks the provider that is asked for.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, choices.level)
    options.intra_op_num_threads = choices.intra_op_threads or 0
    options.inter_op_num_threads = choices.inter_op_threads or 0
    if choices.parallel:
        options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    providers = provider_options(choices, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), options, providers=providers)
    except Exception as error:
        raise BuildError(
            f"onnxruntime {onnxruntime.__version__} does not load the model: {_short(error)}",
            remedy="remove the onnxruntime target, or change the operator that it names",
        ) from error
    # The library falls back to the CPU without a word when a provider does not start.
    if choices.required and session.get_providers()[0] != choices.required:
        raise BuildError(
            f"onnxruntime {onnxruntime.__version__} could not start its {choices.required} and would use "
            f"{session.get_providers()[0]}",
            remedy=NOT_STARTED[choices.required],
        )
    return session


def _short(error: Exception) -> str:
    """Without `[ONNXRuntimeError] : 1 : FAIL :`, source files and folders."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error).strip())
    text = re.sub(r"(?:/[^\s/:]+)+/([^\s/:]+)", r"\1", text)
    return text.splitlines()[0] if text else type(error).__name__


class OnnxRuntimeSession:
    """A loaded `model.onnx`."""

    def __init__(self, session: Any, path: Path, signature: Signature, precision: str) -> None:  # noqa: ANN401
        self._session = session
        self._providers: list[str] = session.get_providers()
        self._path = path
        self._precision = precision
        self._proof: PrecisionProof | None = None
        self._outputs = [tensor.name for tensor in signature.outputs]
        self._bfloat16 = any(tensor.dtype == "bfloat16" for tensor in signature.tensors)

    @property
    def compute(self) -> str:
        provider = self._providers[0]
        shares = {} if self._precision == "fp32" else dict(self.precision_proof().compute)
        return f"{max(shares, key=lambda word: shares[word], default='fp32')}, {provider}"

    def run(self, inputs: Arrays) -> Arrays:
        if self._bfloat16:
            return _run_bfloat16(self._session, self._outputs, inputs)
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))

    def precision_proof(self) -> PrecisionProof:
        """The weights as they are stored, the work as onnxruntime's own graph has it: its CPU computes fp16 in fp32.

        TensorRT takes the types of the graph as it stands; a large model in fp32 is not loaded and written once more
        for this, its own types count. The session ends here: with that of the proof the model would be held twice.
        """
        if self._proof is None:
            self._session = None
            as_it_stands = TENSORRT in self._providers or (self._precision == "fp32" and _is_large(self._path))
            self._proof = prove(self._path) if as_it_stands else prove_as_run(self._path, self._providers)
        return self._proof

    def close(self) -> None:
        self._session = None


def _is_large(path: Path) -> bool:
    return sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file()) >= EXTERNAL_FROM_BYTES


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
