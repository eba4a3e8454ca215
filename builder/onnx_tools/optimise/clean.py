"""Constant folding, and away with what computes nothing: identities, dropout, dead nodes, duplicates."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from builder.onnx_tools.optimise.graph import broken, uses
from builder.onnx_tools.optimise.slimming import slim
from builder.onnx_tools.reading import ModelProto, graphs

DIALECT: Final = "onnx"
PATTERNS: Final = (
    "EliminationConcat",
    "EliminationReshape",
    "EliminationReshapeAs",
    "EliminationSlice",
    "EliminationUnsqueeze",
    "FusionConcatReshape",
    "FusionReduce",
)
IDLE: Final = ("Identity", "Dropout", "Constant")
VIEWS: Final = ("Reshape", "Unsqueeze", "Slice", "Concat", "Squeeze")
RANDOM: Final = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial")


def requires(model: ModelProto) -> bool:
    return any(_untidy(graph) for graph in graphs(model))


def _untidy(graph: Any) -> bool:  # noqa: ANN401 - onnx.GraphProto
    weights = {tensor.name for tensor in graph.initializer}
    used = Counter(name for node in graph.node for name in uses(node)) + Counter(value.name for value in graph.output)
    if any(name not in used for name in weights):
        return True
    makers = {name: node.op_type for node in graph.node for name in node.output}
    seen: set[tuple[object, ...]] = set()
    for node in graph.node:
        if node.op_type in IDLE or not any(name in used for name in node.output):
            return True
        if node.input and all(name in weights for name in node.input) and node.op_type not in RANDOM:
            return True
        if node.op_type in VIEWS and makers.get(node.input[0]) == node.op_type:
            return True
        same = (node.op_type, node.domain, *node.input, *(item.SerializeToString() for item in node.attribute))
        if same in seen and node.op_type not in RANDOM:
            return True
        seen.add(same)
    return False


def apply(model: ModelProto) -> ModelProto:
    return slim(model, patterns=PATTERNS)


def ensures(before: ModelProto, after: ModelProto) -> str | None:
    return broken(before, after)
