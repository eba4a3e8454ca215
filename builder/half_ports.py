"""A source whose float32 inputs and outputs travel as float16: `io: fp16` of the spec, for any format.

The network stays as it is, and so do its precisions: a Cast stands at each end of the graph. Every target has the same
ports, so that serving another one changes nothing for clients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from builder.errors import SpecError
from builder.onnx_tools.nodes import replace_nodes
from builder.onnx_tools.renaming import rename_ports
from builder.onnx_tools.writing import write_onnx
from builder.samples import Request
from builder.samples.casting import cast_floats
from builder.sources import LoadedSource, source_module
from builder.tensors import Dim, Signature, Tensor
from builder.work import Export

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

FULL, HALF = "float32", "float16"
LARGEST_HALF = 65504


def open_source(work: Export) -> LoadedSource:
    """The source of an export, with the ports that it asks for.

    Raises:
        SpecError: the user must mend something.
        BuildError: the framework refuses it.
    """
    source = source_module(work.source.format).load(work.source, work.inputs, work.outputs)
    return HalfPorts(source) if work.io == "fp16" else source


class HalfPorts:
    """`source` with float16 in the place of float32 at its ports; it takes what a loaded source takes.

    Raises:
        SpecError: no input is float32.
    """

    def __init__(self, source: LoadedSource) -> None:
        self._source = source
        self._widened = frozenset(tensor.name for tensor in source.inputs if tensor.dtype == FULL)
        if not self._widened:
            kinds = ", ".join(f"{tensor.name} {tensor.dtype}" for tensor in source.inputs)
            raise SpecError(f"io: fp16 changes float32 inputs, and the model has none: {kinds}", remedy="leave io out")

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(replace(item, dtype=HALF) if item.name in self._widened else item for item in self._source.inputs)

    @property
    def output_names(self) -> tuple[str, ...] | None:
        return self._source.output_names

    @property
    def declared_shapes(self) -> Mapping[str, tuple[Dim | None, ...]]:
        return self._source.declared_shapes

    @property
    def parameters(self) -> int | None:
        return self._source.parameters

    def run(self, inputs: Arrays) -> tuple[Array, ...]:
        """The source's answers to the halves.

        Raises:
            SpecError: one of them is too large for a half.
        """
        return tuple(self._narrowed(place, array) for place, array in enumerate(self._source.run(self._wide(inputs))))

    def to_onnx(
        self, path: Path, *, signature: Signature, requests: Sequence[Request], opset: int, ir_version: int
    ) -> tuple[str, tuple[str, ...]]:
        """The source's own graph between casts; an exporter's result is compared with what it was in float32."""
        whole = [self._exact(request) for request in requests]
        answers = zip(requests[0].outputs.items(), whole[0].outputs.values(), strict=True)
        halves = self._widened | {name for (name, half), exact in answers if half.dtype != exact.dtype}
        full = Signature(
            *(
                tuple(replace(tensor, dtype=FULL) if tensor.name in halves else tensor for tensor in side)
                for side in (signature.inputs, signature.outputs)
            )
        )
        route, notes = self._source.to_onnx(path, signature=full, requests=whole, opset=opset, ir_version=ir_version)
        _cast_ends(path, halves)
        return route, (*notes, "io: fp16: float32 inputs and outputs travel as float16, cast at both ends of the graph")

    def _wide(self, inputs: Arrays) -> dict[str, Array]:
        return {name: array.astype(FULL) if name in self._widened else array for name, array in inputs.items()}

    def _narrowed(self, place: int, array: Array) -> Array:
        if array.dtype != FULL:
            return array
        half, lost = cast_floats(array, HALF)
        if lost:
            name = repr(self.output_names[place]) if self.output_names else str(place)
            raise SpecError(
                f"output {name} reaches {lost:.6g}, and io: fp16 carries {LARGEST_HALF} at most",
                remedy="leave io out, or scale that output inside of the model",
            )
        return half

    def _exact(self, request: Request) -> Request:
        inputs = self._wide(request.inputs)
        return replace(
            request, inputs=inputs, outputs=dict(zip(request.outputs, self._source.run(inputs), strict=True))
        )


def _cast_ends(path: Path, names: frozenset[str]) -> None:
    """Make the ports of these names halves; what they were is read and written under another name."""
    import onnx
    from onnx import TensorProto, helper

    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    inputs = [port for port in graph.input if port.name in names]
    outputs = [port for port in graph.output if port.name in names]
    shown = [port.name for port in (*inputs, *outputs)]
    rename_ports(model, {name: f"{name}/{FULL}" for name in shown})
    before = [
        helper.make_node("Cast", [name], [port.name], to=TensorProto.FLOAT)
        for name, port in zip(shown, inputs, strict=False)
    ]
    after = [
        helper.make_node("Cast", [port.name], [name], to=TensorProto.FLOAT16)
        for name, port in zip(shown[len(inputs) :], outputs, strict=True)
    ]
    for name, port in zip(shown, (*inputs, *outputs), strict=True):
        port.name, port.type.tensor_type.elem_type = name, TensorProto.FLOAT16
    replace_nodes(graph, [*before, *graph.node, *after])
    write_onnx(model, path)
