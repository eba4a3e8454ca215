"""A model running in TensorFlow: an eager call on named tensors, or a TF1 session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.frameworks.tensorflow.framework import import_tensorflow, plain_errors
from builder.frameworks.tensorflow.routes import OLDER_OPSET, export_call, export_session, refusal
from builder.frameworks.tensorflow.values import flatten, output_names, to_array, to_tensor
from builder.onnx_tools.exported import WISHED_OPSET, Exporter, Limits, export_by
from builder.onnx_tools.narrowing import chosen_outputs
from builder.samples import Request
from builder.tensors import Dim, Signature, Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

Call = Callable[[Mapping[str, Any]], Any]
"""Tensors by their names → whatever the model returns."""


@dataclass(frozen=True, slots=True)
class CallForm:
    """What runs: `owner` keeps its variables and tables; `names` are the outputs' where the model names them."""

    call: Call
    owner: Any
    names: tuple[str, ...] | None = None
    declared: Mapping[str, tuple[Dim | None, ...]] = field(default_factory=dict)
    parameters: int | None = None
    notes: tuple[str, ...] = ()
    more_routes: Callable[[Signature], Mapping[str, Exporter]] | None = None


class TensorFlowModel:
    """A call in TensorFlow 2 on the CPU."""

    def __init__(self, form: CallForm, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]) -> None:
        self.inputs = inputs
        self.parameters = form.parameters
        self._form = form
        self._wanted = wanted
        self._names = chosen_outputs(form.names, wanted) if form.names is not None else None

    @property
    def output_names(self) -> tuple[str, ...] | None:
        """Where the model does not name them they are known from the first run on."""
        return self._names

    @property
    def declared_shapes(self) -> Mapping[str, tuple[Dim | None, ...]]:
        return self._form.declared

    def run(self, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        """TensorFlow's own answer."""
        feeds = {tensor.name: to_tensor(inputs[tensor.name], tensor.dtype) for tensor in self.inputs}
        with plain_errors():
            answer = self._answer(feeds)
        if self._names is None:
            self._names = chosen_outputs(tuple(answer), self._wanted)
        return tuple(to_array(answer[name], name) for name in self._names)

    def _answer(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        found = list(flatten(self._form.call(feeds)))
        names = self._form.names or output_names([name for name, _ in found])
        return dict(zip(names, (value for _, value in found), strict=True))

    def to_onnx(
        self, path: Path, *, signature: Signature, requests: Sequence[Request], opset: int, ir_version: int
    ) -> tuple[str, tuple[str, ...]]:
        """The first route whose result answers like TensorFlow."""
        wish = min(opset, WISHED_OPSET)
        export = partial(export_call, self._answer, self._form.owner, signature)
        routes: dict[str, Exporter] = {"tf2onnx": partial(export, wish)}
        if wish > OLDER_OPSET:
            routes[f"tf2onnx (opset {OLDER_OPSET})"] = partial(export, OLDER_OPSET)
        if self._form.more_routes is not None:
            routes |= self._form.more_routes(signature)
        route, reasons, notes = export_by(routes, path, signature, requests, Limits(opset, ir_version))
        if not route:
            raise refusal(reasons)
        return route, (*self._form.notes, *notes)


@dataclass(frozen=True, slots=True)
class Graph:
    """A TF1 graph in a session that holds its variables; `tensors` are the graph's names of the served ones."""

    session: Any
    tensors: Mapping[str, str]
    outputs: tuple[str, ...]
    declared: Mapping[str, tuple[Dim | None, ...]]
    parameters: int | None
    notes: tuple[str, ...] = ()


class SessionModel:
    """A TF1 graph on the CPU."""

    def __init__(self, graph: Graph, inputs: tuple[Tensor, ...], wanted: tuple[str, ...]) -> None:
        self.inputs = inputs
        self.output_names: tuple[str, ...] | None = chosen_outputs(graph.outputs, wanted)
        self.parameters = graph.parameters
        self._graph = graph

    @property
    def declared_shapes(self) -> Mapping[str, tuple[Dim | None, ...]]:
        return self._graph.declared

    def run(self, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        """The session's own answer."""
        tensors = self._graph.tensors
        feeds = {tensors[f"input {tensor.name}"]: inputs[tensor.name] for tensor in self.inputs}
        names = self.output_names or ()
        with plain_errors():
            answer = self._graph.session.run([tensors[f"output {name}"] for name in names], feeds)
        return tuple(to_array(value, name) for name, value in zip(names, answer, strict=True))

    def to_onnx(
        self, path: Path, *, signature: Signature, requests: Sequence[Request], opset: int, ir_version: int
    ) -> tuple[str, tuple[str, ...]]:
        """The first route whose result answers like the session."""
        import_tensorflow()
        wish = min(opset, WISHED_OPSET)
        export = partial(export_session, self._graph.session, self._graph.tensors, signature)
        routes: dict[str, Exporter] = {"tf2onnx": partial(export, wish)}
        if wish > OLDER_OPSET:
            routes[f"tf2onnx (opset {OLDER_OPSET})"] = partial(export, OLDER_OPSET)
        route, reasons, notes = export_by(routes, path, signature, requests, Limits(opset, ir_version))
        if not route:
            raise refusal(reasons)
        return route, (*self._graph.notes, *notes)
