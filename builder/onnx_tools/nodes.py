"""The list of a graph's nodes, changed as protobuf allows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def replace_nodes(graph: Any, nodes: Iterable[Any]) -> None:  # noqa: ANN401 - onnx.GraphProto, onnx.NodeProto
    """Put these nodes in the place of all; some may be the graph's own, which die with the list: so copies."""
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
