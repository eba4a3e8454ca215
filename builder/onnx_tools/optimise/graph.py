"""What the transforms share: looking around in a graph, and giving a changed one the frame of the original."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any, Final

from builder.onnx_tools.nodes import replace_nodes
from builder.onnx_tools.reading import ModelProto, graphs, opset_of

STANDARD_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml")
RUNTIME_DOMAIN: Final = "com.microsoft"


def copy_of(model: ModelProto) -> ModelProto:
    """A second one, so that libraries may change theirs."""
    copied = type(model)()
    copied.CopyFrom(model)
    return copied


def has_operators(model: ModelProto, words: Iterable[str]) -> bool:
    """Whether any of these operators occurs, inner graphs included."""
    wanted = frozenset(words)
    return any(node.op_type in wanted for graph in graphs(model) for node in graph.node)


def has_chain(model: ModelProto, first: Iterable[str], second: Iterable[str]) -> bool:
    """Whether a node of the one kind feeds a node of the other."""
    firsts, seconds = frozenset(first), frozenset(second)
    for graph in graphs(model):
        made = {name for node in graph.node if node.op_type in firsts for name in node.output}
        if made and any(node.op_type in seconds and made & set(node.input) for node in graph.node):
            return True
    return False


def adds_constant(model: ModelProto, first: Iterable[str], second: Iterable[str]) -> bool:
    """Whether a node of the one kind feeds a node of the other whose remaining inputs are constants."""
    firsts, seconds = frozenset(first), frozenset(second)
    for graph in graphs(model):
        made = {name for node in graph.node if node.op_type in firsts for name in node.output}
        fixed = {tensor.name for tensor in graph.initializer}
        fixed |= {name for node in graph.node if node.op_type == "Constant" for name in node.output}
        for node in graph.node:
            rest = [name for name in node.input if name not in made]
            if node.op_type in seconds and 0 < len(rest) < len(node.input) and fixed.issuperset(rest):
                return True
    return False


def attribute(node: Any, name: str, default: Any = None) -> Any:  # noqa: ANN401 - onnx.NodeProto, any attribute
    """The value of an attribute."""
    from onnx import helper

    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def node_count(model: ModelProto) -> int:
    """Nodes of the main graph and of every graph inside."""
    return sum(len(graph.node) for graph in graphs(model))


def shapes_of(model: ModelProto) -> dict[str, tuple[int | None, ...]]:
    """The shape of every tensor of the main graph for which inference finds the rank; None is any size."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(without_weights(model))
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    known = {
        value.name: tuple(
            dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
        )
        for value in values
        if value.type.tensor_type.HasField("shape")
    }
    return known | {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}


WEIGHT_ELEMENTS: Final = 1024


def without_weights(model: ModelProto) -> ModelProto:
    """A copy whose large constants are inputs: shapes follow from it, and it is quick to hand over."""
    lean = type(model)()
    lean.ir_version = model.ir_version
    lean.opset_import.extend(model.opset_import)
    lean.functions.extend(model.functions)
    lean.graph.name = model.graph.name
    lean.graph.node.extend(model.graph.node)
    lean.graph.input.extend(model.graph.input)
    lean.graph.output.extend(model.graph.output)
    named = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if elements(tensor.dims) <= WEIGHT_ELEMENTS:
            lean.graph.initializer.append(tensor)
        elif tensor.name not in named:
            value = lean.graph.input.add(name=tensor.name)
            value.type.tensor_type.elem_type = tensor.data_type
            for size in tensor.dims:
                value.type.tensor_type.shape.dim.add().dim_value = size
    return lean


def elements(dims: Iterable[int]) -> int:
    """How many values a tensor of that shape has."""
    count = 1
    for size in dims:
        count *= size
    return count


def constants(graph: Any) -> dict[str, Any]:  # noqa: ANN401 - onnx.GraphProto → name: onnx.TensorProto
    """Initialisers, and the tensors of Constant nodes."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = next((item.t for item in node.attribute if item.name == "value"), None)
            if value is not None:
                known[node.output[0]] = value
    return known


def prune(graph: Any) -> None:  # noqa: ANN401 - onnx.GraphProto
    """Drop nodes and constants of the main graph that no output needs, in place."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(uses(node))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    if len(kept) < len(graph.node):
        replace_nodes(graph, reversed(kept))
    if len(weights) < len(graph.initializer):
        copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in weights]
        del graph.initializer[:]
        graph.initializer.extend(copies)


def tie(graph: Any) -> None:  # noqa: ANN401 - onnx.GraphProto
    """Of equal constants of the main graph keep the first, in place; inner graphs keep what they read."""
    inner = {name for node in graph.node for name in uses(node) if name not in node.input}
    held = inner | {value.name for side in (graph.input, graph.output) for value in side}
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for tensor in graph.initializer:
        if tensor.name not in held:
            nameless = type(tensor).FromString(tensor.SerializeToString())
            nameless.ClearField("name")
            same[tensor.name] = first.setdefault(
                sha256(nameless.SerializeToString(deterministic=True)).digest(), tensor.name
            )
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = same.get(name, name)
    prune(graph)


def sort_nodes(graph: Any) -> None:  # noqa: ANN401 - onnx.GraphProto
    """Every node after what it reads, else in the order in which they stand, in place."""
    maker = {name: place for place, node in enumerate(graph.node) for name in node.output if name}
    order: list[int] = []
    done: set[int] = set()
    for first in range(len(graph.node)):
        pending = [first]
        while pending:
            place = pending[-1]
            missing = [maker[n] for n in uses(graph.node[place]) if n in maker and maker[n] not in done]
            if missing and place not in done:
                pending.extend(missing)
                continue
            pending.pop()
            if place not in done:
                done.add(place)
                order.append(place)
    if order != sorted(order):
        replace_nodes(graph, [graph.node[place] for place in order])


def uses(node: Any) -> Iterator[str]:  # noqa: ANN401 - onnx.NodeProto
    """Names that a node reads, also from inside its graphs."""
    yield from (name for name in node.input if name)
    for item in node.attribute:
        for inner in ([item.g] if item.HasField("g") else []) + list(item.graphs):
            yield from (value.name for value in inner.output)
            for child in inner.node:
                yield from uses(child)


def reframe(before: ModelProto, after: ModelProto) -> ModelProto:
    """`after` with everything of `before` that is not its nodes and constants, in place.

    Libraries raise the IR version, sign the file, and write sizes that they inferred over the names of dynamic axes.
    """
    opset = opset_of(after)
    after.ir_version = before.ir_version
    after.producer_name, after.producer_version = before.producer_name, before.producer_version
    after.domain, after.model_version, after.doc_string = before.domain, before.model_version, before.doc_string
    _copy(before.metadata_props, after.metadata_props)
    _imports(before, after, opset)
    after.graph.name, after.graph.doc_string = before.graph.name, before.graph.doc_string
    _copy(before.graph.metadata_props, after.graph.metadata_props)
    for ours, theirs in ((before.graph.input, after.graph.input), (before.graph.output, after.graph.output)):
        if {value.name for value in ours} == {value.name for value in theirs}:
            _copy(ours, theirs)
    for graph in graphs(after):
        del graph.value_info[:]
    _name_nodes(after)
    return after


def _copy(source: Any, target: Any) -> None:  # noqa: ANN401 - repeated fields
    del target[:]
    target.extend(source)


def _imports(before: ModelProto, after: ModelProto, opset: int) -> None:
    """The domains in use, and the default one, in one order."""
    used = {node.domain for graph in graphs(after) for node in graph.node}
    used |= {node.domain for function in after.functions for node in function.node}
    versions = {entry.domain: entry.version for entry in (*after.opset_import, *before.opset_import)}
    versions = {domain: version for domain, version in versions.items() if domain not in ("", "ai.onnx")}
    if RUNTIME_DOMAIN in used:
        versions.setdefault(RUNTIME_DOMAIN, 1)  # its own optimiser forgets to import it
    del after.opset_import[:]
    after.opset_import.add(domain="", version=opset)
    kept = {entry.domain for entry in before.opset_import} | used
    for domain in sorted(versions):
        if domain in kept:
            after.opset_import.add(domain=domain, version=versions[domain])


def _name_nodes(model: ModelProto) -> None:
    """Every node gets a name of its own: reports speak of nodes by name."""
    taken: set[str] = set()
    for graph in graphs(model):
        for node in graph.node:
            base = node.name or f"{node.op_type}_{next((name for name in node.output if name), '')}"
            number, name = 1, base
            while name in taken:
                number, name = number + 1, f"{base}_{number + 1}"
            taken.add(name)
            node.name = name


def broken(before: ModelProto, after: ModelProto, *, more_domains: tuple[str, ...] = ()) -> str | None:
    """What every transform must keep: ports, opset, IR version and operator domains."""
    for side, ours, theirs in (
        ("input", before.graph.input, after.graph.input),
        ("output", before.graph.output, after.graph.output),
    ):
        if [value.name for value in ours] != [value.name for value in theirs]:
            return f"the {side}s are {[value.name for value in theirs]}, they were {[value.name for value in ours]}"
        for was, now in zip(ours, theirs, strict=True):
            if was.type != now.type:
                return f"{side} {was.name!r} has another type or shape"
    if opset_of(after) > opset_of(before):
        return f"the opset rose from {opset_of(before)} to {opset_of(after)}"
    if after.ir_version > before.ir_version:
        return f"the IR version rose from {before.ir_version} to {after.ir_version}"
    allowed = {node.domain for graph in graphs(before) for node in graph.node} | {*STANDARD_DOMAINS, *more_domains}
    foreign = {f"{n.domain}:{n.op_type}" for g in graphs(after) for n in g.node if n.domain not in allowed}
    return f"operators of other libraries: {', '.join(sorted(foreign))}" if foreign else None
