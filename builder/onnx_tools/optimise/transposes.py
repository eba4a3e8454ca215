"""Transposes that follow each other become one or none."""

from __future__ import annotations

from typing import Any, Final

from builder.onnx_tools.optimise.graph import attribute, broken
from builder.onnx_tools.optimise.slimming import slim
from builder.onnx_tools.reading import ModelProto, graphs

DIALECT: Final = "onnx"
PATTERNS: Final = (
    "EliminationTranspose",
    "EliminationTransposeViewTranspose",
    "EliminationTransposeAsReshape",
)
VIEWS: Final = ("Reshape", "Squeeze", "Unsqueeze")


def requires(model: ModelProto) -> bool:
    return any(_removable(graph) for graph in graphs(model))


def _removable(graph: Any) -> bool:  # noqa: ANN401 - onnx.GraphProto
    """A Transpose that moves nothing, or two in a row, perhaps with a view between."""
    maker = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type != "Transpose":
            continue
        order = attribute(node, "perm")
        above = maker.get(node.input[0])
        if above is not None and above.op_type in VIEWS:
            above = maker.get(above.input[0])
        if (order is not None and list(order) == sorted(order)) or (above is not None and above.op_type == "Transpose"):
            return True
    return False


def apply(model: ModelProto) -> ModelProto:
    return slim(model, patterns=PATTERNS, rewrites=("graph_fusion", "dead_node_elimination"))


def ensures(before: ModelProto, after: ModelProto) -> str | None:
    return broken(before, after)
