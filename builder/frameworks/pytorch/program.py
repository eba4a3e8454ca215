"""A `torch.export` program: its own inputs, axes and output names; run and exported as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.errors import SpecError
from builder.frameworks.pytorch.network import choose_outputs, flatten, to_numpy, to_torch
from builder.frameworks.pytorch.weights import import_torch
from builder.onnx_tools.conform import conform
from builder.onnx_tools.ports import BATCH
from builder.onnx_tools.reading import read_onnx
from builder.onnx_tools.writing import EXTERNAL_FROM_BYTES, write_proto
from builder.samples import Request
from builder.tensors import BY_NUMPY, Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

Program = Any


@dataclass(frozen=True, slots=True)
class ProgramPorts:
    """Inputs and outputs as the program declares them; `constants` are arguments that are no tensors, by place."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: Mapping[int, Any]


def program_ports(program: Program) -> ProgramPorts:
    """Read the graph's signature; axes that share a symbol share a name.

    Raises:
        SpecError: an element type that Triton does not have.
    """
    values: dict[str, Any] = {node.name: node.meta.get("val") for node in program.graph.nodes}
    constants: dict[int, Any] = {}
    inputs: list[tuple[str, Any]] = []
    user = [item.arg for item in program.graph_signature.input_specs if item.kind.name == "USER_INPUT"]
    for place, argument in enumerate(user):
        value: Any = values.get(getattr(argument, "name", ""))
        if hasattr(argument, "value") or not hasattr(value, "shape"):
            constants[place] = getattr(argument, "value", value)
        else:
            inputs.append((argument.name, value))
    names = _axis_names([(name, value.shape) for name, value in inputs])
    outputs = [
        (item.arg.name, values[item.arg.name])
        for item in program.graph_signature.output_specs
        if item.kind.name == "USER_OUTPUT" and hasattr(values.get(getattr(item.arg, "name", "")), "shape")
    ]
    return ProgramPorts(
        tuple(_tensor(name, value, names) for name, value in inputs),
        tuple(_tensor(name, value, names) for name, value in _named(program, outputs)),
        constants,
    )


def _axis_names(inputs: Sequence[tuple[str, Any]]) -> dict[str, str]:
    """Symbol → name: `batch` for the first axis that all inputs share, else the input and the axis."""
    names: dict[str, str] = {}
    firsts = {str(shape[0]) if len(shape) and not isinstance(shape[0], int) else "" for _, shape in inputs}
    if len(firsts) == 1 and "" not in firsts:
        names[firsts.pop()] = BATCH
    for name, shape in inputs:
        for axis, dim in enumerate(shape):
            if not isinstance(dim, int):
                names.setdefault(str(dim), f"{name}_dim_{axis}")
    return names


def _tensor(name: str, value: Any, names: Mapping[str, str]) -> Tensor:  # noqa: ANN401 - a fake tensor
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in BY_NUMPY:
        raise SpecError(f"{name!r} is {dtype}, which Triton does not have", remedy="cast it inside the model")
    shape: list[Dim] = []
    for axis, dim in enumerate(value.shape):
        shape.append(dim if isinstance(dim, int) else names.get(str(dim), f"{name}_dim_{axis}"))
    return Tensor(name, dtype, tuple(shape))


def _named(program: Program, outputs: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Outputs by the keys of the program's answer where it has keys for all, else by the graph's names."""
    torch = import_torch()
    answer = (
        torch.utils._pytree.tree_unflatten(  # noqa: SLF001 - torch.export's own form of call specs
            [value for _, value in outputs], program.call_spec.out_spec
        )
        if program.call_spec.out_spec.num_leaves == len(outputs)
        else None
    )
    keys = [key for key, _ in flatten(answer)]
    named = len(keys) == len(outputs) and all(keys) and len(set(keys)) == len(keys)
    found = keys if named else [name for name, _ in outputs]
    unique = len(set(found)) == len(found) and not set(found) & set(program.graph_signature.user_inputs)
    return [
        (name if unique else f"output_{place}", value)
        for place, (name, (_, value)) in enumerate(zip(found, outputs, strict=True))
    ]


class ProgramSource:
    """A program on the CPU, called with its own arguments."""

    def __init__(
        self, program: Program, ports: ProgramPorts, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]
    ) -> None:
        self.inputs = inputs
        self.parameters: int | None = sum(weight.numel() for weight in program.state_dict.values())
        self._program = program
        self._module = program.module()
        self._constants = ports.constants
        self._count = len(ports.outputs)
        self._names, self._chosen = choose_outputs([tensor.name for tensor in ports.outputs], wanted)

    @property
    def output_names(self) -> tuple[str, ...] | None:
        return self._names

    @property
    def declared_shapes(self) -> Mapping[str, tuple[Dim | None, ...]]:
        """Nothing: only running tells."""
        return {}

    def run(self, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        """The program's own answer, flattened."""
        torch = import_torch()
        with torch.no_grad():
            answer = self._call([to_torch(inputs[tensor.name]) for tensor in self.inputs])
        return tuple(to_numpy(value) for value in answer)

    def _call(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        torch = import_torch()
        pending = iter(tensors)
        count = len(tensors) + len(self._constants)
        leaves = [self._constants[place] if place in self._constants else next(pending) for place in range(count)]
        arguments, keywords = torch.utils._pytree.tree_unflatten(  # noqa: SLF001 - as above
            leaves, self._program.call_spec.in_spec
        )
        values = [value for _, value in flatten(self._module(*arguments, **keywords))]
        return tuple(values[place] for place in self._chosen)

    def to_onnx(
        self, path: Path, *, signature: Signature, requests: Sequence[Request], opset: int, ir_version: int
    ) -> tuple[str, tuple[str, ...]]:
        """The program itself to ONNX; where that fails or is wrong, its module by tracing."""
        from builder.frameworks.pytorch.export import export_routes, pick_example, trace_to_onnx
        from builder.onnx_tools.exported import WISHED_OPSET, Limits

        highest = min(opset, WISHED_OPSET)
        example = pick_example(requests, signature)
        routes: dict[str, Callable[[Path], None]] = {
            "dynamo": partial(self._convert, signature, highest),
            "torchscript": lambda file: trace_to_onnx(self._flat(), file, signature, example, highest),
        }
        return export_routes(routes, path, signature=signature, requests=requests, limits=Limits(opset, ir_version))

    def to_torchscript(
        self, path: Path, *, signature: Signature, requests: Sequence[Request]
    ) -> tuple[str, tuple[str, ...]]:
        """The program's module, traced."""
        from builder.frameworks.pytorch.export import pick_example
        from builder.frameworks.pytorch.torchscript import script_by, trace

        example = pick_example(requests, signature)
        routes = {"trace": lambda file: trace(self._flat(), file, signature, example)}
        return script_by(routes, path, signature, requests)

    def _flat(self) -> Any:  # noqa: ANN401 - a torch.nn.Module
        torch = import_torch()
        source = self
        # A program has no modes; the exporter asks every module for one.
        self._module.train = lambda _mode=True: self._module

        class Flat(torch.nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.network = source._module

            def forward(self, *tensors: Any) -> tuple[Any, ...]:  # noqa: ANN401
                return source._call(tensors)

        return Flat()

    def _convert(self, signature: Signature, opset: int, path: Path) -> None:
        torch = import_torch()
        size = sum(weight.numel() * weight.element_size() for weight in self._program.state_dict.values())
        served = dict(zip(self._chosen, (tensor.name for tensor in signature.outputs), strict=True))
        torch.onnx.export(
            self._program,
            (),
            str(path),
            dynamo=True,
            input_names=[tensor.name for tensor in signature.inputs],
            output_names=[served.get(place, f"unserved_{place}") for place in range(self._count)],
            opset_version=opset,
            external_data=size >= EXTERNAL_FROM_BYTES,
            verbose=False,
        )
        if tuple(served) != tuple(range(self._count)):
            model = read_onnx(path)
            conform(model, signature, exact=True)
            write_proto(model, path)
