"""Triton's pytorch backend: a TorchScript file, run by libtorch on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.backends import Conversion, Settings
from builder.errors import BuildError
from builder.measurement import TORCHSCRIPT_FILE, PrecisionProof
from builder.native_rules import PYTORCH_TYPES, pytorch_places
from builder.onnx_tools.files import link_file
from builder.tensors import BY_NUMPY, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

GRAPHS = {"fp32": "fp32"}
"""The weights are those of the source, in its own types."""
FORMAT = "torchscript"
DIALECT = ""
LIBRARIES = ("torch",)
EXTRA = "torch"
FILENAME = TORCHSCRIPT_FILE
CAN_BATCH = True
OPTIONS_DECIDE = False
DEFERS = False

WORDS: Final = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
"""PyTorch's types → the words of a precision."""


def missing() -> tuple[str, str] | None:
    """The package is all it needs."""
    if find_spec("torch") is None:
        return "the Python package torch is not installed", "pip install 'build-repo[torch]'"
    return None


def refuses(signature: Signature, release: str) -> str | None:  # noqa: ARG001 - the same in every release
    """Types that libtorch lacks, scalars, and names that mean other places than they have."""
    for side, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        for tensor in tensors:
            word = BY_NUMPY[tensor.dtype].triton
            if word.removeprefix("TYPE_") not in PYTORCH_TYPES:
                return f"unsupported datatype {word} for {side} '{tensor.name}'"
            if not tensor.shape:
                return f"{side} '{tensor.name}' is a scalar which is not supported"
        names = [tensor.name for tensor in tensors]
        places = pytorch_places(names, None)
        if places != list(range(len(names))) and (side == "output" or not all(map(str.isidentifier, names))):
            return (
                f"the {side}s {', '.join(names)} are named <name>__<index>, which for this backend means the places "
                f"{', '.join(map(str, places))}; name them in their order, or without the two underscores"
            )
    return None


def convert(job: Conversion, out: Path) -> Signature:
    """Link the file: it is served as it is. TorchScript declares no types and shapes, so the ports are the source's.

    Raises:
        BuildError: PyTorch does not load the file, or its arguments are not the inputs in their order.
    """
    link_file(job.model, out / FILENAME)
    script = _load(out / FILENAME)
    names = [tensor.name for tensor in job.signature.inputs]
    arguments = [argument.name for argument in script.forward.schema.arguments[1:]]
    if len(arguments) != len(names) or pytorch_places(names, arguments) != list(range(len(names))):
        raise BuildError(
            f"{FILENAME} takes the arguments {', '.join(arguments)}; expected the inputs {', '.join(names)}",
            remedy="export the model again; if it happens again, please report it",
        )
    return Signature(tuple(map(_servable, job.signature.inputs)), tuple(map(_servable, job.signature.outputs)))


def _servable(tensor: Tensor) -> Tensor:
    """An axis that was never seen with elements may have any size: a configuration has no size 0."""
    shape = tuple(dim or f"{tensor.name}_dim_{axis}" for axis, dim in enumerate(tensor.shape))
    return replace(tensor, shape=shape)


def _load(path: Path) -> Any:  # noqa: ANN401 - torch.jit.ScriptModule
    """As the native backend does: on the CPU, in the mode it was saved in.

    Raises:
        BuildError: PyTorch refuses the file.
    """
    from builder.frameworks.pytorch.torchscript import open_script

    return open_script(path)


class PyTorchSession:
    """A loaded `model.pt`, run as the native backend does: in inference mode, with libtorch's own number of threads.

    Another number, where the spec says one, holds for the whole process until the session is closed.
    """

    def __init__(self, script: Any, signature: Signature, threads: int | None = None) -> None:  # noqa: ANN401
        from builder.frameworks.pytorch.torchscript import runner
        from builder.frameworks.pytorch.weights import import_torch

        self._torch = import_torch()
        self._threads_before: int = self._torch.get_num_threads()
        if threads is not None:
            self._torch.set_num_threads(threads)
        self._weights = _weights(script)
        self._names = [tensor.name for tensor in signature.outputs]
        self._run: Any = runner(script, signature)

    @property
    def compute(self) -> str:
        floats = {word: count for word, count in self._weights.items() if word != "int8"}
        return f"{max(floats, key=lambda word: floats[word], default='fp32')}, CPU"

    def run(self, inputs: Arrays) -> Arrays:
        return dict(zip(self._names, self._run(inputs), strict=True))

    def precision_proof(self) -> PrecisionProof | None:
        """The types that the weights are stored in; TorchScript does not tell what an operator computes in."""
        total = sum(self._weights.values())
        shares = tuple((word, count / total) for word, count in sorted(self._weights.items()))
        return PrecisionProof((), shares, "TorchScript weights")

    def close(self) -> None:
        self._run = None
        self._torch.set_num_threads(self._threads_before)


def _weights(script: Any) -> Counter[str]:  # noqa: ANN401
    """Elements of the weights by the word of their type."""
    found: Counter[str] = Counter()
    for weight in (*script.parameters(), *script.buffers()):
        word = WORDS.get(str(weight.dtype).removeprefix("torch."))
        if word:
            found[word] += weight.numel()
    return found


def open_session(folder: Path, signature: Signature, settings: Settings) -> PyTorchSession:
    """Load `folder/model.pt`.

    Raises:
        BuildError: PyTorch refuses it.
    """
    return PyTorchSession(_load(folder / FILENAME), signature, settings.options.get("intra_op_threads"))


def config_fields(settings: Settings) -> Mapping[str, Any]:
    """The spec's number of threads; the backend's other defaults are what is measured."""
    threads = settings.options.get("intra_op_threads")
    return {"parameters": {"INTRA_OP_THREAD_COUNT": {"string_value": str(threads)}}} if threads else {}
