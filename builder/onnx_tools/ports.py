"""The inputs and outputs that an ONNX graph declares, as they are and with every axis named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from builder.errors import SpecError
from builder.onnx_tools.reading import ModelProto
from builder.tensors import BY_ONNX, Dim, Tensor

BATCH = "batch"
NO_NAMES = ("", "-1", "0", "?", "None", "none", "null", "unknown")
"""What exporters write where an axis has no name."""


@dataclass(frozen=True, slots=True)
class Port:
    """A declared tensor: a dim of None has any size and no name; `dims` None is an undeclared rank.

    `literal_dims` is true where the graph holds a size of 0 or less for "any", which libraries take by the letter.
    """

    name: str
    dtype: str
    dims: tuple[Dim | None, ...] | None
    literal_dims: bool = False


def read_ports(model: ModelProto, wanted: Sequence[str] = ()) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Declared inputs (without those that are initialisers) and outputs, or the `wanted` ones in that order.

    Raises:
        SpecError: a sequence, map, optional or sparse tensor, or an element type that Triton does not have.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {tensor.values.name for tensor in model.graph.sparse_initializer}
    inputs = tuple(_port(value, "input") for value in model.graph.input if value.name not in constants)
    outputs = {value.name: value for value in model.graph.output}
    return inputs, tuple(_port(outputs[name], "output") for name in wanted or outputs)


def _port(value: Any, side: str) -> Port:  # noqa: ANN401 - onnx.ValueInfoProto
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        word = (kind or "undeclared type").removesuffix("_type").replace("_", " ")
        raise SpecError(
            f"{side} {value.name!r} is a {word}; Triton serves tensors only",
            remedy="leave it out with outputs: [...] in the spec"
            if side == "output"
            else "export a model with tensors",
        )
    tensor = value.type.tensor_type
    if tensor.elem_type not in BY_ONNX:
        raise SpecError(
            f"{side} {value.name!r} has the ONNX element type {tensor.elem_type}, which Triton does not have"
        )
    dtype = BY_ONNX[tensor.elem_type].numpy
    if not tensor.HasField("shape"):
        return Port(value.name, dtype, None)
    dims = tuple(_dim(dim) for dim in tensor.shape.dim)
    literal = any(dim.HasField("dim_value") and dim.dim_value < 1 for dim in tensor.shape.dim)
    return Port(value.name, dtype, dims, literal)


def _dim(dim: Any) -> Dim | None:  # noqa: ANN401 - onnx.TensorShapeProto.Dimension
    if dim.HasField("dim_value"):
        return int(dim.dim_value) if dim.dim_value > 0 else None
    name = str(dim.dim_param).strip()
    return None if name in NO_NAMES else name


def name_axes(ports: Sequence[Port], taken: Iterable[str] = (), batch: str | None = None) -> tuple[Tensor, ...]:
    """Every axis with a size or a name: unnamed first axes share one name when all ports have such an axis.

    `batch` is the name that unnamed first axes get in any case (for outputs).

    Raises:
        SpecError: a port whose rank is not declared.
    """
    used = set(taken) | {dim for port in ports for dim in port.dims or () if isinstance(dim, str)}
    first = batch or batch_name(ports)
    counter = 0
    tensors = []
    for port in ports:
        if port.dims is None:
            raise SpecError(
                f"{port.name!r} declares no shape",
                remedy="give it in the spec: inputs: [{name: " + port.name + f", dtype: {port.dtype}, shape: [...]}}]",
            )
        shape: list[Dim] = []
        for axis, dim in enumerate(port.dims):
            if dim is not None:
                shape.append(dim)
                continue
            if axis == 0 and first is not None:
                shape.append(first)
                continue
            while f"dim_{counter}" in used:
                counter += 1
            shape.append(f"dim_{counter}")
            used.add(f"dim_{counter}")
        tensors.append(Tensor(port.name, port.dtype, tuple(shape)))
    return tuple(tensors)


def batch_name(ports: Sequence[Port]) -> str | None:
    """The name for unnamed first axes when every port has a first axis of any size; None otherwise."""
    firsts = [port.dims[0] if port.dims else 1 for port in ports]
    if not firsts or any(isinstance(dim, int) for dim in firsts):
        return None
    return next((dim for dim in firsts if isinstance(dim, str)), BATCH)
