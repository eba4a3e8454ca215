"""Give the ports of a graph other names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from builder.onnx_tools.reading import ModelProto, graphs


def rename_ports(model: ModelProto, names: Mapping[str, str]) -> None:
    """Rename inputs and outputs in place; an inner value that has one of the new names steps aside."""
    ports = {value.name for value in (*model.graph.input, *model.graph.output)}
    inner = {name for graph in graphs(model) for name in _defined(graph)} - ports
    taken = inner | ports | set(names.values())
    table = {old: new for old, new in names.items() if old in ports}
    for name in sorted(inner & set(table.values())):
        number = 1
        while f"{name}__{number}" in taken:
            number += 1
        table[name] = f"{name}__{number}"
        taken.add(table[name])
    for graph in graphs(model):
        _rename(graph, table)


def _defined(graph: Any) -> set[str]:  # noqa: ANN401 - onnx.GraphProto
    names = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    return names | {name for node in graph.node for name in node.output}


def _rename(graph: Any, table: Mapping[str, str]) -> None:  # noqa: ANN401 - onnx.GraphProto
    for item in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.name = table.get(item.name, item.name)
    for node in graph.node:
        for side in (node.input, node.output):
            side[:] = [table.get(name, name) for name in side]
