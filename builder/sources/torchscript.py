"""TorchScript archives: the network with its code, without the names, types and shapes of its inputs."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.frameworks.pytorch.files import torch_kind
from builder.frameworks.pytorch.network import TorchNetwork, check_inputs
from builder.frameworks.pytorch.weights import import_torch
from builder.onnx_tools.reading import short
from builder.sources import Description
from builder.tensors import Tensor
from builder.work import SourceRef

LIBRARIES: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
EXTRA: Final = "torch"
FORMATS: Final = ("onnx", "torchscript")


def recognise(path: Path) -> bool:
    """A zip archive with TorchScript code."""
    return torch_kind(path) == "torchscript"


def describe(path: Path) -> Description:
    """The arguments of `forward` and the number of weights."""
    module = open_archive(path)
    arguments = forward_arguments(module)
    shown = ", ".join(f"{name}: {kind}" for name, kind, _ in arguments)
    return Description(
        format="torchscript",
        signature=None,
        parameters=sum(weight.numel() for weight in module.parameters()),
        notes=(f"forward({shown}); dtypes and shapes are not in the file: inputs: gives them",),
    )


def open_archive(path: Path) -> Any:  # noqa: ANN401 - torch.jit.ScriptModule
    """The module on the CPU.

    Raises:
        SpecError: damaged, or without `forward`.
    """
    torch = import_torch()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(path), map_location="cpu")
    except Exception as error:
        raise SpecError(
            f"{path.name} is not a readable TorchScript file: {short(error)}",
            remedy="the file is cut off, or uses operators this PyTorch does not have: save it again",
        ) from error
    if not hasattr(module, "forward"):
        raise SpecError(f"{path.name} has no method forward", remedy="save a module with torch.jit.script or trace")
    return module


def forward_arguments(module: Any) -> tuple[tuple[str, str, bool], ...]:  # noqa: ANN401
    """Name, type and whether it must be given, of each argument of `forward`."""
    arguments = module.forward.schema.arguments[1:]
    return tuple((argument.name, str(argument.type), not argument.has_default_value()) for argument in arguments)


def screen(source: SourceRef) -> None:
    """Nothing to ask for: No pickle in it runs code."""


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> TorchNetwork:
    """Open the archive; the spec's inputs are the arguments of `forward` in order, without those that `args` fixes.

    Raises:
        SpecError: damaged, or inputs that are missing or too many.
    """
    path = Path(source.path)
    module = open_archive(path)
    constants = json.loads(source.args)
    arguments = forward_arguments(module)
    names = ", ".join(f"{name}: {kind}" for name, kind, _ in arguments)
    free = [argument for argument in arguments if argument[0] not in constants]
    if len(free) + len(constants) != len(arguments):
        raise SpecError(f"source: args: gives {', '.join(constants)}; forward takes {names}")
    check_inputs(inputs, f"a TorchScript file (forward takes {names})")
    _check_count(inputs, free, names)
    _check_numbers(inputs, free)
    return TorchNetwork(module, inputs, outputs, constants=constants, archive=path)


def _check_count(inputs: Sequence[Tensor], arguments: Sequence[tuple[str, str, bool]], names: str) -> None:
    needed = sum(must for _, _, must in arguments)
    if not needed <= len(inputs) <= len(arguments):
        raise SpecError(
            f"inputs: got {len(inputs)} ({', '.join(tensor.name for tensor in inputs)}); forward takes {names}",
            remedy="give the inputs in the order of forward's arguments",
        )


def _check_numbers(inputs: Sequence[Tensor], arguments: Sequence[tuple[str, str, bool]]) -> None:
    for tensor, (name, kind, _) in zip(inputs, arguments, strict=False):
        if kind in ("int", "float", "bool", "number"):
            raise SpecError(
                f"inputs: {tensor.name!r} is the Python {kind} {name!r} in forward, which no served tensor can be",
                remedy=f"fix it with source: {{args: {{{name}: ...}}}}, or leave it out where it has a default",
            )
