"""A TensorFlow 1 checkpoint with its graph: the `.meta` file that `tf.compat.v1.train.Saver` writes beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from builder.errors import SpecError
from builder.frameworks.tensorflow.bundle import count_weights
from builder.frameworks.tensorflow.checkpoint_file import CheckpointFile
from builder.frameworks.tensorflow.framework import import_tensorflow, silent
from builder.frameworks.tensorflow.model import Graph, SessionModel
from builder.frameworks.tensorflow.values import port_of
from builder.onnx_tools.narrowing import narrow, still_declared
from builder.onnx_tools.ports import Port
from builder.onnx_tools.reading import short
from builder.tensors import Dim, Tensor

SHOWN: Final = 5


def open_meta_graph(found: CheckpointFile, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> SessionModel:
    """The graph with the checkpoint's weights; `inputs` and `outputs` name its tensors.

    Raises:
        SpecError: no graph, one that does not load, or tensors that it does not have.
    """
    if not found.meta.is_file():
        raise SpecError(
            f"{found.prefix.name} is a TensorFlow 1 checkpoint without its graph: there is no {found.meta.name}",
            remedy=f"put {found.meta.name} beside it, or name what builds the model: source: {{model: my_nets:build}}",
        )
    session = _session(found)
    graph = session.graph
    if not outputs:
        ends = ", ".join(_ends(graph)) or "none"
        raise SpecError(
            f"{found.meta.name} does not tell its outputs; the spec has to",
            remedy=f"outputs: [NAME] with tensors of the graph; nothing follows on {ends}",
        )
    names = [tensor.name for tensor in inputs] or [
        operation.name for operation in graph.get_operations() if operation.type == "Placeholder"
    ]
    found_inputs = {name: _tensor(graph, name, found) for name in names}
    found_outputs = {name: _tensor(graph, name, found) for name in outputs}
    ports = tuple(port_of(name, tensor) for name, tensor in found_inputs.items())
    tensors = {f"input {name}": tensor.name for name, tensor in found_inputs.items()}
    tensors |= {f"output {name}": tensor.name for name, tensor in found_outputs.items()}
    declared = {name: dims for name, tensor in found_outputs.items() if (dims := _dims(name, tensor)) is not None}
    settled = narrow(ports, inputs)
    shapes = still_declared(ports, settled, declared)
    return SessionModel(Graph(session, tensors, tuple(outputs), shapes, count_weights(found.tensors)), settled, outputs)


def _session(found: CheckpointFile) -> Any:  # noqa: ANN401 - tf.compat.v1.Session
    tf = import_tensorflow()
    graph = tf.Graph()
    try:
        with silent(), graph.as_default():
            session = tf.compat.v1.Session(graph=graph)
            saver = tf.compat.v1.train.import_meta_graph(str(found.meta), clear_devices=True)
            saver.restore(session, str(found.prefix))
            session.run(tf.compat.v1.tables_initializer())
    except Exception as error:
        raise SpecError(
            f"{found.meta.name} is no usable graph for {found.prefix.name}: {short(error)}",
            remedy="write it again with tf.compat.v1.train.Saver, or save a SavedModel",
        ) from error
    return session


def _tensor(graph: Any, name: str, found: CheckpointFile) -> Any:  # noqa: ANN401 - tf.Tensor
    try:
        return graph.get_tensor_by_name(name if ":" in name else f"{name}:0")
    except (KeyError, ValueError) as error:
        placeholders = [operation.name for operation in graph.get_operations() if operation.type == "Placeholder"]
        ends = ", ".join(_ends(graph)) or "none"
        raise SpecError(
            f"{found.meta.name} has no tensor {name!r}",
            remedy=f"its placeholders are {', '.join(placeholders[:SHOWN])}; nothing follows on {ends}",
        ) from error


def _ends(graph: Any) -> Sequence[str]:  # noqa: ANN401
    """Operations whose results nobody reads: the likely outputs."""
    passed = ("Assign", "SaveV2", "NoOp", "Const", "Placeholder", "RestoreV2")
    ends = [
        operation.name
        for operation in graph.get_operations()
        if operation.outputs and not any(value.consumers() for value in operation.outputs)
    ]
    kinds = {operation.name: operation.type for operation in graph.get_operations()}
    useful = [name for name in ends if not kinds[name].startswith(passed) and not name.startswith("save/")]
    return useful[:SHOWN]


def _dims(name: str, tensor: Any) -> tuple[Dim | None, ...] | None:  # noqa: ANN401
    port: Port = port_of(name, tensor)
    return port.dims
