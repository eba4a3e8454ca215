"""tf2onnx for large graphs, protobuf's limit and beyond: their weights go to a file while the graph is converted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from builder.errors import BuildError
from builder.frameworks.tensorflow.framework import import_tensorflow
from builder.onnx_tools.writing import EXTERNAL_FROM_BYTES, SMALL_BYTES, append, point

LARGE_FROM_BYTES: Final = EXTERNAL_FROM_BYTES
"""Weights from this size on go this way, which does without TensorFlow's own optimiser and so knows fewer graphs."""
DATA: Final = "weights.data"
"""The exporter's own file; what is served is gathered from it in the order of the finished graph."""


def variable_bytes(variables: Any) -> int:  # noqa: ANN401 - tf.Variables
    """What the variables take, from their shapes."""
    return sum((variable.shape.num_elements() or 0) * variable.dtype.size for variable in variables)


def constant_bytes(definition: Any) -> int:  # noqa: ANN401 - GraphDef
    """What the constants of a frozen graph take, from their shapes."""
    return sum(_constants(definition))


def _constants(definition: Any) -> Iterator[int]:  # noqa: ANN401
    tf = import_tensorflow()
    for node in definition.node:
        if node.op == "Const":
            shape = tf.TensorShape(node.attr["value"].tensor.tensor_shape)
            yield (shape.num_elements() or 0) * tf.dtypes.as_dtype(node.attr["dtype"].type).size


def convert_large(frozen: Any, folder: Path, **options: Any) -> Any:  # noqa: ANN401 - GraphDef, onnx.ModelProto
    """The graph as ONNX, its weights in `folder`; what `_convert_common(large_model=True)` does.

    That one keeps all weights in memory, and asks numpy for a function that numpy 2 no longer has.

    Raises:
        BuildError: the graph looks words up in tables, which only the usual way resolves.
    """
    from tf2onnx import optimizer
    from tf2onnx.tf_utils import compress_graph_def
    from tf2onnx.tfonnx import process_tf_graph

    tf = import_tensorflow()
    functions = [node for function in frozen.library.function for node in function.node_def]
    if any(node.op.startswith("LookupTable") for node in (*frozen.node, *functions)):
        raise BuildError(
            f"it cannot take tables of words together with {constant_bytes(frozen) / 1e9:.1f} GB of weights"
        )
    values = compress_graph_def(frozen)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        found = process_tf_graph(graph, const_node_values=values, **options)
        values.clear()
        # Catching errors would copy the graph, weights and all, before each optimiser.
        with _constants_left_alone():
            found = optimizer.optimize_graph(found, catch_errors=False)
    with (folder / DATA).open("wb") as stream:
        return found.make_model("converted from model", external_tensor_storage=_Storage(stream))


@contextlib.contextmanager
def _constants_left_alone() -> Iterator[None]:
    """tf2onnx writes every node anew after each of its two dozen optimisers, and protobuf frees none of the old bytes.

    Nothing reads a constant's node: it becomes an initialiser by `get_value_attr`.
    """
    from tf2onnx.graph import Node

    original = Node.update_proto

    def update_proto(node: Any, storage: Any = None) -> None:  # noqa: ANN401
        if not node.is_const():
            original(node, storage)

    Node.update_proto = update_proto
    try:
        yield
    finally:
        Node.update_proto = original


class _Storage:
    """In place of tf2onnx's ExternalTensorStorage: it is asked for the `value` of every node that has one."""

    def __init__(self, stream: BinaryIO) -> None:
        self.node_to_modified_value_attr = self
        self._stream = stream
        self._moved: dict[int, Any] = {}

    def __contains__(self, node: object) -> bool:
        return True

    def __getitem__(self, node: Any) -> Any:  # noqa: ANN401 - tf2onnx's Node → onnx.AttributeProto
        value = node.attr["value"]
        if not value.HasField("t") or len(value.t.raw_data) < SMALL_BYTES:
            return value
        if id(node) not in self._moved:
            self._moved[id(node)] = self._move(value)
        return self._moved[id(node)]

    def _move(self, value: Any) -> Any:  # noqa: ANN401
        moved = type(value)(name=value.name, type=value.type)
        moved.t.dims.extend(value.t.dims)
        moved.t.data_type = value.t.data_type
        moved.t.name = value.t.name
        content = value.t.raw_data
        point(moved.t, DATA, append(self._stream, content), len(content))
        return moved
