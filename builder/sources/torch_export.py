"""Programs of `torch.export.save` (.pt2): the graph with its weights, input names, types and axes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Final

from builder.archives import member_names
from builder.errors import SpecError
from builder.frameworks.pytorch.archive import check_archive, damaged
from builder.frameworks.pytorch.files import torch_kind
from builder.frameworks.pytorch.program import ProgramPorts, ProgramSource, program_ports
from builder.frameworks.pytorch.weights import import_torch
from builder.onnx_tools.narrowing import narrow
from builder.onnx_tools.ports import Port
from builder.sources import Description
from builder.tensors import Signature, Tensor
from builder.work import SourceRef

LIBRARIES: Final = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")
EXTRA: Final = "torch"
FORMATS: Final = ("onnx", "torchscript")


def recognise(path: Path) -> bool:
    """A zip archive laid out as PyTorch's pt2."""
    return torch_kind(path) == "exported"


def describe(path: Path) -> Description:
    """Everything is in the file."""
    program = open_program(path)
    ports = program_ports(program)
    return Description(
        format="torch_export",
        signature=Signature(ports.inputs, ports.outputs),
        parameters=sum(weight.numel() for weight in program.state_dict.values()),
        notes=_ranges(program, ports),
    )


def _ranges(program: Any, ports: ProgramPorts) -> tuple[str, ...]:  # noqa: ANN401 - an ExportedProgram
    """Limits that the program sets to its dynamic axes."""
    notes = []
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    for tensor in ports.inputs:
        for axis in tensor.dynamic_axes:
            symbol = values[tensor.name].shape[axis].node.expr
            found = program.range_constraints.get(symbol)
            if not symbol.is_Symbol:
                notes.append(f"{tensor.shape[axis]} is {symbol} in the program: not every size runs")
            if found is not None and (str(found.lower) not in "012" or "oo" not in str(found.upper)):
                notes.append(f"{tensor.shape[axis]} is {found.lower} to {found.upper} in the program")
    return tuple(dict.fromkeys(notes))


def open_program(path: Path) -> Any:  # noqa: ANN401 - torch.export.ExportedProgram
    """The program on the CPU, after a look for code that opening it would run.

    Raises:
        SpecError: damaged, compiled for one machine, or with pickled objects.
    """
    names = member_names(path)
    if not any("models/" in name or name == "serialized_exported_program.json" for name in names):
        raise SpecError(
            f"{path.name} is a .pt2 package without a program (an AOTInductor package is compiled for one machine)",
            remedy="save the program itself: torch.export.save(torch.export.export(model, ...), 'model.pt2')",
        )
    torch = import_torch()
    check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.load(str(path))
    except Exception as error:
        raise damaged(path, error) from error


def screen(source: SourceRef) -> None:
    """Nothing to ask for: `load` refuses what would run code."""


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> ProgramSource:
    """Open the program; the spec may name or fix its axes.

    Raises:
        SpecError: damaged, no tensor inputs, or a spec that does not fit.
    """
    path = Path(source.path)
    program = open_program(path)
    ports = program_ports(program)
    if not ports.inputs:
        raise SpecError(f"{path.name} has no tensor inputs; Triton needs one at least")
    declared = tuple(Port(tensor.name, tensor.dtype, tensor.shape) for tensor in ports.inputs)
    return ProgramSource(program, ports, narrow(declared, inputs), outputs)
