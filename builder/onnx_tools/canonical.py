"""One order and one set of names for a graph, whatever the order and the counters its exporter worked with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

from builder.onnx_tools.reading import ModelProto


class _Names:
    """`Conv_12`, and never a name that a port has."""

    def __init__(self, ports: Iterable[str]) -> None:
        self._ports = frozenset(ports)
        self._number = count()

    def fresh(self, base: str) -> str:
        return next(name for number in self._number if (name := f"{base}_{number}") not in self._ports)


def canonicalise(model: ModelProto) -> None:
    """Sort nodes and constants by use and name them by their place, in place; ports keep their names.

    The exporter's own names are not kept: which of two equal nodes it merges, and so whose name stays, is chance.
    """
    names = _Names(value.name for value in (*model.graph.input, *model.graph.output))
    _graph(model.graph, {}, names)


def _graph(graph: Any, outer: dict[str, str], names: _Names, *, inner: bool = False) -> None:  # noqa: ANN401
    """Names of `outer` are those of the graphs around this one."""
    order = _sorted_nodes(graph)
    table = dict(outer)
    ports = set() if inner else {value.name for value in (*graph.input, *graph.output)}
    table |= {name: name for name in ports}
    if inner:
        table |= {value.name: names.fresh("input") for value in graph.input}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    used: list[Any] = []
    for name in _uses(order, graph):
        if name in weights and name not in ports:
            table[name] = names.fresh("constant")
        if name in weights:
            used.append(weights.pop(name))
    for node in order:
        node.name = names.fresh(node.op_type)
        for place, name in enumerate(node.output):
            if name and name not in ports:
                table[name] = names.fresh(f"{node.name}:{place}")
        for child in _subgraphs(node):
            _settle_copies(child)
            _graph(child, table, names, inner=True)
    if inner:
        graph.name = names.fresh("graph")
    _write(graph, order, used, table)


def _settle_copies(graph: Any) -> None:  # noqa: ANN401
    """Of a value that leaves a loop's body twice an exporter copies either one: here it is the second."""
    maker = {name: node for node in graph.node for name in node.output if name}

    def origin(name: str) -> str:
        node = maker.get(name)
        # What comes from outside a body may leave it through a copy only.
        copied = node is not None and node.op_type == "Identity" and node.input[0] in maker
        return origin(node.input[0]) if node is not None and copied else name

    for node in graph.node:
        node.input[:] = [origin(name) for name in node.input]
    seen: set[str] = set()
    for place, value in enumerate(graph.output):
        value.name = name = origin(value.name)
        if name in seen:
            value.name = f"{name}__again_{place}"
            graph.node.add(op_type="Identity", input=[name], output=[value.name])
        seen.add(name)


def _write(graph: Any, order: list[Any], weights: list[Any], table: dict[str, str]) -> None:  # noqa: ANN401
    for node in order:
        node.input[:] = [table.get(name, name) for name in node.input]
        node.output[:] = [table.get(name, name) for name in node.output]
    for item in (*weights, *graph.input, *graph.output):
        item.name = table.get(item.name, item.name)
    nodes = [type(node).FromString(node.SerializeToString()) for node in order]
    constants = [type(tensor).FromString(tensor.SerializeToString()) for tensor in weights]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constants)


def _subgraphs(node: Any) -> Iterator[Any]:  # noqa: ANN401 - onnx.NodeProto
    for attribute in sorted(node.attribute, key=lambda item: str(item.name)):
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _sorted_nodes(graph: Any) -> list[Any]:  # noqa: ANN401
    """The nodes that the outputs need, each after what it needs, in the order of outputs and inputs."""
    maker = {name: node for node in graph.node for name in node.output if name}
    order: list[Any] = []
    done: set[int] = set()
    pending = [(maker[value.name], False) for value in reversed(graph.output) if value.name in maker]
    while pending:
        node, ready = pending.pop()
        if id(node) in done:
            continue
        if ready:
            done.add(id(node))
            order.append(node)
            continue
        pending.append((node, True))
        needs = [maker[name] for name in _node_uses(node) if name in maker]
        pending.extend((need, False) for need in reversed(needs) if id(need) not in done)
    return order


def _node_uses(node: Any) -> Iterator[str]:  # noqa: ANN401
    """Names that a node reads, also from inside its graphs."""
    yield from (name for name in node.input if name)
    for child in _subgraphs(node):
        yield from _uses(_sorted_nodes(child), child)


def _uses(order: Iterable[Any], graph: Any) -> Iterator[str]:  # noqa: ANN401
    for node in order:
        yield from _node_uses(node)
    yield from (value.name for value in graph.output)
