"""A name for every node, so that a node can be kept in fp32, and reported, by it."""

from __future__ import annotations

from builder.onnx_tools.reading import ModelProto


def name_nodes(model: ModelProto) -> bool:
    """Give unnamed nodes of the main graph `OPERATOR_PLACE`, and repeated names a number; the same names every time.

    Returns whether there were any.
    """
    taken: set[str] = {node.name for node in model.graph.node if node.name}
    seen: set[str] = set()
    changed = False
    for place, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = _free(node.name or f"{node.op_type}_{place}", taken)
            taken.add(node.name)
            changed = True
        seen.add(node.name)
    return changed


def _free(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
