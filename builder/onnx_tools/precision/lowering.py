"""Which nodes of a graph compute in 16 bits, and in which form every tensor is then needed.

A node is lowered when its operator has a form for the type, and it is not asked to stay. Nothing else changes: where a
lowered node and another one meet, a cast stands between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from builder.onnx_tools.reading import ModelProto, opset_of

FLOAT: Final = "tensor(float)"
STANDARD: Final = ("", "ai.onnx")
QUANTIZED: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
"""Scales decide the values: a model that comes quantised keeps them."""
RANDOM: Final = frozenset({"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"})
MATRIX: Final = 2
SIZES: Final = frozenset({"Shape", "Size"})
LACKING: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("tensorrt", "fp16"): frozenset({"Celu", "MeanVarianceNormalization"}),
    ("tensorrt", "bf16"): frozenset(
        {
            "Celu",
            "ConvTranspose",
            "GlobalLpPool",
            "HardSwish",
            "LpNormalization",
            "LpPool",
            "MeanVarianceNormalization",
            "Mish",
            "Shrink",
        }
    ),
}
"""(dialect, precision) → operators that ONNX has in the type and the dialect's parser or builder has not."""

NOT_QUANTISED: Final = frozenset({"ConvTranspose", "GRU", "LSTM", "RNN"})
"""Operators that multiply as products do, and that no int8 is made of."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """The ports of one node that carry 16 bits, by their places."""

    inputs: frozenset[int]
    outputs: frozenset[int]


@dataclass(slots=True)
class Lowering:
    """`nodes`: place in the graph → its lowered ports. `made_half`: tensors that lowered nodes write.

    `read_half` and `read_full` are tensors that somebody reads in 16 bits, and in 32.
    """

    nodes: dict[int, Lowered] = field(default_factory=dict)
    made_half: set[str] = field(default_factory=set)
    read_half: set[str] = field(default_factory=set)
    read_full: set[str] = field(default_factory=set)


def lacking_nodes(model: ModelProto, dialect: str, precision: str) -> tuple[Any, ...]:
    """Nodes of the main graph for whose operators there is no form in the precision."""
    lacking = NOT_QUANTISED if precision == "int8" else LACKING.get((dialect, precision), frozenset())
    return tuple(node for node in model.graph.node if node.op_type in lacking and _domain(node) in STANDARD)


def not_lowered(model: ModelProto, dialect: str, precision: str) -> frozenset[str]:
    """Names of nodes that must stay in fp32 because of who will run the graph."""
    names = {node.name for node in lacking_nodes(model, dialect, precision)}
    return frozenset(names | _crashing(model)) if dialect == "onnxruntime" and precision == "fp16" else frozenset(names)


def _crashing(model: ModelProto) -> set[str]:
    """Transposes of the batch in front of a product: of these in fp16 onnxruntime makes one operator, and crashes.

    Its CPU provider puts a cast between the two, and fuses around it (onnxruntime issue 28392; 1.24 to 1.27 at least).
    """
    multiplied = {name for node in model.graph.node if node.op_type == "MatMul" for name in node.input}
    return {
        node.name
        for node in model.graph.node
        if node.op_type == "Transpose" and node.output[0] in multiplied and _moves_the_batch(_permutation(node))
    }


def _moves_the_batch(axes: tuple[int, ...]) -> bool:
    """The first axis becomes one of the last two, and the others keep their order."""
    return len(axes) > MATRIX and 0 in axes[-MATRIX:] and [axis for axis in axes if axis] == list(range(1, len(axes)))


def _permutation(node: Any) -> tuple[int, ...]:  # noqa: ANN401 - onnx.NodeProto
    return next((tuple(item.ints) for item in node.attribute if item.name == "perm"), ())


def plan_lowering(model: ModelProto, types: Mapping[str, str], low: str, keep: frozenset[str]) -> Lowering:
    """Decide for every node of the main graph; `low` is `tensor(float16)` or `tensor(bfloat16)`."""
    lowering = Lowering(read_full={port.name for port in model.graph.output})
    constants = {tensor.name for tensor in model.graph.initializer}
    from_shapes: set[str] = set()
    opsets = {entry.domain: entry.version for entry in model.opset_import} | {"": opset_of(model)}
    for place, node in enumerate(model.graph.node):
        is_size = _computed_from_shapes(node, from_shapes, constants)
        if is_size:
            from_shapes.update(filter(None, node.output))
        ports = None
        if not is_size and node.name not in keep and not holds_graph(node):
            ports = _ports(node, types, low, opsets.get(_domain(node), 1))
        if ports is not None and not ports.outputs and not _reads_half(node, ports, lowering, constants):
            ports = None
        _enter(lowering, place, node, ports, types)
    return lowering


def holds_graph(node: Any) -> bool:  # noqa: ANN401 - onnx.NodeProto
    """True for If, Loop, Scan and their like: what is inside stays in fp32."""
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)


def captured(node: Any) -> Iterator[str]:  # noqa: ANN401
    """Names that the graphs inside a node read, its own among them."""
    for attribute in node.attribute:
        for graph in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from (port.name for port in graph.output)
            for child in graph.node:
                yield from child.input
                yield from captured(child)


def _domain(node: Any) -> str:  # noqa: ANN401
    return "" if node.domain in STANDARD else str(node.domain)


def _computed_from_shapes(node: Any, from_shapes: set[str], constants: set[str]) -> bool:  # noqa: ANN401
    """Arithmetic on sizes and positions: exact in fp32, not beyond 2048 in fp16, and no work worth saving."""
    if node.op_type in SIZES:
        return True
    names = [name for name in node.input if name]
    return any(name in from_shapes for name in names) and all(name in from_shapes | constants for name in names)


def _ports(node: Any, types: Mapping[str, str], low: str, opset: int) -> Lowered | None:  # noqa: ANN401
    """The ports that may carry `low`; None where the operator does not know that type."""
    if node.op_type in QUANTIZED | RANDOM:
        return None
    schema = _schema(node.op_type, _domain(node), opset)
    if schema is None or any(name and name not in types for name in node.input):
        return None
    inputs = {
        place: formal.word
        for place, name in enumerate(node.input)
        if types.get(name) == FLOAT and (formal := _formal(schema.inputs, place)) is not None and low in formal.types
    }
    # A type that no input decides is decided by an attribute: only Cast's is changed along.
    outputs = {
        place
        for place, name in enumerate(node.output)
        if types.get(name) == FLOAT
        and (formal := _formal(schema.outputs, place)) is not None
        and (formal.word in inputs.values() or (node.op_type == "Cast" and low in formal.types))
    }
    return Lowered(frozenset(inputs), frozenset(outputs)) if inputs or outputs else None


def _reads_half(node: Any, ports: Lowered, lowering: Lowering, constants: set[str]) -> bool:  # noqa: ANN401
    """A node that gives no floats (a comparison, a cast to integers) reads what is there and costs no cast."""
    names = [node.input[place] for place in ports.inputs if node.input[place] not in constants]
    return bool(names) and all(name in lowering.made_half for name in names)


def _enter(lowering: Lowering, place: int, node: Any, ports: Lowered | None, types: Mapping[str, str]) -> None:  # noqa: ANN401
    if ports is not None:
        lowering.nodes[place] = ports
        lowering.made_half.update(node.output[index] for index in ports.outputs)
    for index, name in enumerate(node.input):
        if types.get(name) == FLOAT:
            (lowering.read_half if ports and index in ports.inputs else lowering.read_full).add(name)
    lowering.read_full.update(name for name in captured(node) if types.get(name) == FLOAT)


@dataclass(frozen=True, slots=True)
class _Formal:
    """A port as the operator's definition has it: the word of its type, and the types that it may be."""

    word: str
    types: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Schema:
    inputs: tuple[_Formal, ...]
    outputs: tuple[_Formal, ...]


def _formal(formals: tuple[_Formal, ...], place: int) -> _Formal | None:
    """The last one stands for all further ports of an operator that takes any number."""
    return formals[min(place, len(formals) - 1)] if formals else None


@lru_cache(maxsize=1024)
def _schema(operator: str, domain: str, opset: int) -> _Schema | None:
    import onnx

    if onnx.defs.has(operator, max_inclusive_version=opset, domain=domain):
        found = onnx.defs.get_schema(operator, opset, domain)
        return _Schema(*(tuple(_Formal(p.type_str, frozenset(p.types)) for p in side) for side in _sides(found)))
    rows = [row for row in _own_schemas() if (row.domain, row.name) == (domain, operator)]
    row = max(rows, key=lambda item: int(item.since_version), default=None)
    if row is None:
        return None
    return _Schema(*(tuple(_Formal(p.typeStr, frozenset(p.types)) for p in side) for side in _sides(row)))


def _sides(schema: Any) -> tuple[Any, Any]:  # noqa: ANN401
    return schema.inputs, schema.outputs


@lru_cache(maxsize=1)
def _own_schemas() -> tuple[Any, ...]:
    """The operators that onnxruntime adds to the standard."""
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    return tuple(get_all_operator_schema())
