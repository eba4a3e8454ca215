"""Which nodes of a graph int8 is for, by a look at the graph alone."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from builder.onnx_tools.optimise.graph import attribute, uses
from builder.onnx_tools.precision.attention import adds_to_scores
from builder.onnx_tools.reading import ModelProto

FLOAT: Final = "tensor(float)"
MATRIX: Final = 2
CARRIES: Final = frozenset(
    {
        "Relu",
        "LeakyRelu",
        "PRelu",
        "Clip",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Mul",
        "MaxPool",
        "AveragePool",
        "Resize",
        "Pad",
    }
)
"""Operators between convolutions whose results still are images."""
FOLLOWS: Final = frozenset({"Relu", "Clip", "MaxPool"})
"""What onnxruntime takes into an integer convolution, or leads 8 bits through."""
PRODUCTS: Final = ("Conv", "MatMul", "Gemm")
JOINS: Final = frozenset({"Add", "Concat"})


@dataclass(frozen=True, slots=True)
class Quantizable:
    """Names of nodes in the graph's order. `products`: convolutions and matrix products.

    `joins` are the sums and concatenations of images between convolutions: left in fp32, each would part what would
    else stay in int8. `fused` are attentions of onnxruntime's own, which it has in dynamic int8. `matrices` are
    those of `products` that multiply by a constant matrix: what dynamic int8 is for. `weights` are the elements of the
    constants that convolutions, and that matrices and attentions, multiply by. `refused` says of the other products,
    by their names, why int8 is not for them.
    """

    products: tuple[str, ...]
    joins: tuple[str, ...]
    fused: tuple[str, ...]
    matrices: tuple[str, ...]
    convolutions: int
    weights: tuple[int, int]
    refused: tuple[tuple[str, str], ...] = ()


def find_quantizable(model: ModelProto, types: Mapping[str, str]) -> Quantizable:
    """Look at every node of the main graph; `types` are of `value_types`."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    images: set[str] = set()
    products, joins, fused, matrices, refused = [], [], [], [], []
    convolutions = 0
    for node in model.graph.node:
        named = node.op_type in PRODUCTS and node.domain in ("", "ai.onnx")
        reason = _why_not(node, types, constants) if named else ""
        product = named and not reason
        if reason:
            refused.append((f"{node.op_type} '{node.name}'", reason))
        if product:
            products.append(node.name)
            if node.op_type != "Conv" and node.input[1] in constants:
                matrices.append(node.name)
        if _is_fused(node, types, constants):
            fused.append(node.name)
        if node.op_type == "Conv":
            images.update(node.output)
            convolutions += product
        elif node.op_type in CARRIES and any(name in images for name in node.input):
            images.update(node.output)
        elif node.op_type in JOINS and all(name in images for name in node.input):
            images.update(node.output)
            joins.append(node.name)
    sizes = {
        node.name: math.prod(constants[node.input[1]].dims) for node in model.graph.node if _weighs(node, constants)
    }
    weights = (
        sum(sizes.get(name, 0) for name in products if name not in set(matrices)),
        sum(sizes.get(name, 0) for name in (*matrices, *fused)),
    )
    return Quantizable(
        tuple(products), tuple(joins), tuple(fused), tuple(matrices), convolutions, weights, tuple(refused)
    )


def _weighs(node: Any, constants: Mapping[str, Any]) -> bool:  # noqa: ANN401 - onnx.NodeProto
    return len(node.input) > 1 and node.input[1] in constants


def _why_not(node: Any, types: Mapping[str, str], constants: Mapping[str, Any]) -> str:  # noqa: ANN401 - NodeProto
    """What keeps a product from being one that every backend has in int8; empty where nothing does."""
    left, right = node.input[0], node.input[1]
    if any(types.get(name) != FLOAT for name in (left, right)):
        return "is not of float32"
    if left in constants:
        return "multiplies a constant from the left"
    if node.op_type == "MatMul":
        flat = right not in constants or len(constants[right].dims) == MATRIX
        return "" if flat else "has weights that are no matrix"
    if right not in constants:
        return "has no constant weights"
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return "has transA"
    return "has an alpha" if node.op_type == "Gemm" and attribute(node, "alpha", 1.0) != 1.0 else ""


def _is_fused(node: Any, types: Mapping[str, str], constants: Mapping[str, Any]) -> bool:  # noqa: ANN401
    if node.op_type != "Attention" or node.domain != "com.microsoft" or attribute(node, "qkv_hidden_sizes"):
        return False
    if adds_to_scores(node):
        return False
    return types.get(node.input[0]) == FLOAT and node.input[1] in constants and node.input[2] in constants


def activations(model: ModelProto, names: frozenset[str]) -> tuple[str, ...]:
    """The tensors that these nodes read and that no constant is, sorted: what a calibration table must hold."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found = {name for node in model.graph.node if node.name in names for name in _read(node) if name not in constants}
    return tuple(sorted(found))


def conv_results(model: ModelProto, names: frozenset[str]) -> tuple[str, ...]:
    """What comes out of these convolutions, behind the ReLU, Clip or MaxPool that alone reads it, sorted.

    Outputs of the model are none: they are what the source gives.
    """
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in uses(node):
            readers.setdefault(name, []).append(node)
    outputs = {port.name for port in model.graph.output}
    found = set()
    for node in model.graph.node:
        if node.name not in names or node.op_type != "Conv":
            continue
        name = node.output[0]
        while name not in outputs and len(readers.get(name, ())) == 1 and readers[name][0].op_type in FOLLOWS:
            name = readers[name][0].output[0]
        if name not in outputs and name in readers:
            found.add(name)
    return tuple(sorted(found))


def _read(node: Any) -> tuple[str, ...]:  # noqa: ANN401 - onnx.NodeProto
    return tuple(node.input) if node.op_type in JOINS else tuple(node.input[:2])


def part_weights(model: ModelProto, names: frozenset[str], *, alone: bool) -> None:
    """Give nodes that will be quantised a copy of a weight that others read too, in another way or in fp32.

    With `alone` no two of them share one.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        if node.name in names and len(node.input) > 1 and node.input[1] in constants:
            readers.setdefault(node.input[1], []).append(node)
    used = Counter(name for node in model.graph.node for name in uses(node))
    used.update(port.name for port in model.graph.output)
    for weight, nodes in readers.items():
        groups: dict[object, list[Any]] = {}
        for node in nodes:
            groups.setdefault(node.name if alone else _way(node), []).append(node)
        if used[weight] == len(nodes) and len(groups) == 1:
            continue
        for group, name in zip(groups.values(), _free_names(weight, constants), strict=False):
            copy = model.graph.initializer.add()
            copy.CopyFrom(constants[weight])
            copy.name = name
            for node in group:
                node.input[1] = name


def _way(node: Any) -> tuple[str, int]:  # noqa: ANN401 - onnx.NodeProto
    return node.op_type, attribute(node, "transB", 0)


def _free_names(weight: str, taken: Mapping[str, Any]) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        name = f"{weight}__int8_{number}"
        if name not in taken:
            yield name
