"""Fused attention whose mask is added to its scores, in parts that int8 has.

onnxruntime's QAttention has no input for such a mask, and its quantiser drops it without a word: padding is then read
like text. The large product in front is an ordinary one, and what follows stays fused as MultiHeadAttention.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from builder.onnx_tools.nodes import replace_nodes
from builder.onnx_tools.optimise.graph import attribute
from builder.onnx_tools.reading import ModelProto

FUSED: Final = "com.microsoft"
MASK_INDEX, PAST, ADDED = 3, 4, 5
"""Places of Attention's inputs: a mask by lengths, earlier keys and values, and what is added to the scores."""
KEPT: Final = ("num_heads", "scale", "mask_filter_value")
"""Attributes that both operators have."""


def adds_to_scores(node: Any) -> bool:  # noqa: ANN401 - onnx.NodeProto
    """Whether it is an Attention with a mask, or a position's bias, that QAttention would drop."""
    return bool(node.op_type == "Attention" and node.domain == FUSED and _input(node, ADDED))


def part_attention(model: ModelProto) -> ModelProto:
    """The same graph, in place, with each such Attention as a product of its name and a MultiHeadAttention."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[Any] = []
    for node in model.graph.node:
        nodes.extend(_parts(model, node, constants[node.input[1]]) if _can_part(node, constants) else [node])
    if len(nodes) > len(model.graph.node):
        replace_nodes(model.graph, nodes)
    return model


def _input(node: Any, place: int) -> str:  # noqa: ANN401
    return str(node.input[place]) if place < len(node.input) else ""


def _can_part(node: Any, constants: dict[str, Any]) -> bool:  # noqa: ANN401
    if not adds_to_scores(node) or len(node.output) > 1 or _input(node, MASK_INDEX) or _input(node, PAST):
        return False
    others = {item.name for item in node.attribute} - set(KEPT) - {"unidirectional", "do_rotary"}
    if others or attribute(node, "unidirectional", 0) or attribute(node, "do_rotary", 0):
        return False
    weights = constants.get(node.input[1])
    return weights is not None and _input(node, 2) in constants and weights.dims[1] % 3 == 0


def _parts(model: ModelProto, node: Any, weights: Any) -> Iterator[Any]:  # noqa: ANN401
    import numpy as np
    from onnx import helper, numpy_helper

    name = node.name
    sizes = numpy_helper.from_array(np.full(3, weights.dims[1] // 3, np.int64), f"{name}/sizes")
    model.graph.initializer.append(sizes)
    parts = [f"{name}/{word}" for word in ("query", "key", "value")]
    yield helper.make_node("MatMul", [node.input[0], node.input[1]], [f"{name}/product"], name=name)
    yield helper.make_node("Split", [f"{name}/product", sizes.name], parts, name=f"{name}/split", axis=2)
    heads = helper.make_node(
        "MultiHeadAttention",
        [*parts, node.input[2], "", node.input[ADDED]],
        list(node.output),
        name=f"{name}/heads",
        domain=FUSED,
    )
    heads.attribute.extend(item for item in node.attribute if item.name in KEPT)
    yield heads
