"""Scaled dot-product attention, written out in standard operators, becomes onnxruntime's Attention.

The form is that of both of torch's exporters: three projections, Reshape and Transpose into heads, product, scale,
mask, Softmax, product, and back. Heads and sizes are read from the shapes. Where the three projections are of one
tensor they become part of the operator (`Attention`), else it takes them as they are (`MultiHeadAttention`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from builder.onnx_tools.optimise.graph import (
    RUNTIME_DOMAIN,
    attribute,
    broken,
    constants,
    copy_of,
    elements,
    prune,
    reframe,
    shapes_of,
    sort_nodes,
)
from builder.onnx_tools.reading import ModelProto, opset_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIALECT: Final = "onnxruntime"
TO_HEADS: Final = [0, 2, 1, 3]
TO_KEYS: Final = [0, 2, 3, 1]
SWAP_LAST: Final = [0, 1, 3, 2]
SWAP_LAST_FLAT: Final = [0, 2, 1]
SOFTMAX_LAST_AXIS_SINCE: Final = 13
NEAR: Final = 1e-4
RANK: Final = 4
"""Of queries, keys and values in heads."""


@dataclass(frozen=True, slots=True)
class Projection:
    """`source` times a constant matrix plus a constant vector, of which `result` is the name; else only `result`."""

    result: str
    source: str | None = None
    weight: str | None = None
    bias: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One attention: `end` is the node whose output the operator will make."""

    query: Projection
    key: Projection
    value: Projection
    mask: str
    scale: float
    heads: int
    head_size: int
    end: Any


class Graph:
    """Who makes and who reads each name, and the constants; of one graph that is not changed meanwhile."""

    def __init__(self, graph: Any) -> None:  # noqa: ANN401 - onnx.GraphProto
        self.nodes = list(graph.node)
        self.maker = {name: node for node in graph.node for name in node.output if name}
        self.constants: Mapping[str, Any] = constants(graph)
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def made_by(self, name: str, *words: str) -> Any:  # noqa: ANN401 - onnx.NodeProto or None
        """The node that makes `name`, if it is of that kind."""
        node = self.maker.get(name)
        return node if node is not None and node.op_type in words else None

    def read_by(self, name: str, *words: str) -> Any:  # noqa: ANN401 - onnx.NodeProto or None
        """The one reader of that kind; readers of its shape do not count."""
        nodes = [node for node in self.readers.get(name, ()) if node.op_type in words]
        return nodes[0] if len(nodes) == 1 else None

    def array(self, name: str) -> NDArray[np.generic] | None:
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def number(self, name: str) -> float | None:
        """A constant of one element."""
        tensor = self.constants.get(name)
        if tensor is None or elements(tensor.dims) != 1:
            return None
        array = self.array(name)
        return None if array is None else float(array.reshape(-1)[0])


def requires(model: ModelProto) -> bool:
    graph = Graph(model.graph)
    return any(_product_after(graph, node) is not None and _scores(graph, node) for node in _softmaxes(graph, model))


def apply(model: ModelProto) -> ModelProto:
    after = copy_of(model)
    graph = Graph(after.graph)
    matches = [match for node in _softmaxes(graph, model) if (match := _match(graph, node)) is not None]
    masks = _full_masks(after, matches)
    for number, found in enumerate(matches):
        _replace(after, graph, found, masks.get(found.mask, found.mask), f"attention_{number}")
    sort_nodes(after.graph)
    prune(after.graph)
    return reframe(model, after)


def ensures(before: ModelProto, after: ModelProto) -> str | None:
    return broken(before, after, more_domains=(RUNTIME_DOMAIN,))


def _softmaxes(graph: Graph, model: ModelProto) -> Iterator[Any]:
    """Those over the last axis."""
    default = -1 if opset_of(model) >= SOFTMAX_LAST_AXIS_SINCE else 1
    for node in graph.nodes:
        if node.op_type == "Softmax" and attribute(node, "axis", default) in (-1, 3):
            yield node


def _product_after(graph: Graph, softmax: Any) -> Any:  # noqa: ANN401
    """The product with the values; torch replaces NaN by 0 before it, where a row is masked altogether."""
    name = softmax.output[0]
    guard = graph.read_by(name, "Where")
    if guard is not None and graph.made_by(guard.input[0], "IsNaN") is not None and guard.input[2] == name:
        name = guard.output[0]
    product = graph.read_by(name, "MatMul")
    return product if product is not None and product.input[0] == name else None


def _scores(graph: Graph, softmax: Any) -> list[tuple[Any, str, list[Any]]]:  # noqa: ANN401
    """Products that may be query times key: each with the mask added to it (or empty) and the scaling nodes between."""
    name = softmax.input[0]
    add = graph.made_by(name, "Add")
    sides = [(name, "")] if add is None else [tuple(add.input), tuple(reversed(add.input))]
    found = []
    for start, mask in sides:
        below, scalings = _unscaled(graph, start)
        product = graph.made_by(below, "MatMul")
        if product is not None:
            found.append((product, mask, scalings))
    return found


def _unscaled(graph: Graph, name: str) -> tuple[str, list[Any]]:
    """What a scaling by a constant is applied to, and the node that does it (or none)."""
    node = graph.made_by(name, "Mul", "Div")
    if node is None:
        return name, []
    if node.input[1] in graph.constants:
        return node.input[0], [node]
    if node.op_type == "Mul" and node.input[0] in graph.constants:
        return node.input[1], [node]
    return name, []


def _factor(graph: Graph, scalings: list[Any]) -> float | None:
    """All scalings as one number; None where one of them is not a single number."""
    factor = 1.0
    for node in scalings:
        constant = node.input[1] if node.input[1] in graph.constants else node.input[0]
        number = graph.number(constant)
        if not number:
            return None
        factor = factor * number if node.op_type == "Mul" else factor / number
    return factor


def _match(graph: Graph, softmax: Any) -> Found | None:  # noqa: ANN401
    after = _product_after(graph, softmax)
    end = None if after is None else _merged(graph, after.output[0])
    value = None if after is None else _heads(graph, after.input[1], TO_HEADS)
    if end is None or value is None:
        return None
    for product, mask, scalings in _scores(graph, softmax):
        query_name, query_scalings = _unscaled(graph, product.input[0])
        query = _heads(graph, query_name, TO_HEADS)
        key, key_scalings = _key(graph, product.input[1])
        factor = _factor(graph, [*scalings, *query_scalings, *key_scalings])
        if query is None or key is None or factor is None:
            continue
        sizes = _sizes(graph, query, key, value)
        if sizes is not None:
            first, second, third = (_projection(graph, node.input[0]) for node in (query, key, value))
            heads, size = sizes
            return Found(first, second, third, mask, factor, heads, size, end)
    return None


def _key(graph: Graph, name: str) -> tuple[Any, list[Any]]:
    """The Reshape into heads of the transposed key, which one or two Transposes and a scaling may follow."""
    name, scalings = _unscaled(graph, name)
    node = _heads(graph, name, TO_KEYS)
    if node is not None:
        return node, scalings
    below = _before_swap(graph, name)
    if below is None:
        return None, []
    name, more = _unscaled(graph, below)
    return _heads(graph, name, TO_HEADS), [*scalings, *more]


def _before_swap(graph: Graph, name: str) -> str | None:
    """What the last two axes of are exchanged: by one Transpose, or by one of rank 3 between two Reshapes."""
    outer = graph.made_by(name, "Reshape")
    swap = graph.made_by(name if outer is None else outer.input[0], "Transpose")
    if swap is None or attribute(swap, "perm") != (SWAP_LAST if outer is None else SWAP_LAST_FLAT):
        return None
    inner = None if outer is None else graph.made_by(swap.input[0], "Reshape")
    if outer is None:
        return str(swap.input[0])
    return None if inner is None else str(inner.input[0])


def _heads(graph: Graph, name: str, order: list[int]) -> Any:  # noqa: ANN401 - onnx.NodeProto or None
    """The Reshape [batch, rows, hidden] → [batch, rows, heads, size] before the Transpose that makes `name`."""
    transpose = graph.made_by(name, "Transpose")
    if transpose is None or attribute(transpose, "perm") != order:
        return None
    return graph.made_by(transpose.input[0], "Reshape")


def _merged(graph: Graph, name: str) -> Any:  # noqa: ANN401 - onnx.NodeProto or None
    """The Reshape that puts the heads together again."""
    again = graph.read_by(name, "Reshape")
    if again is not None:
        name = again.output[0]
    transpose = graph.read_by(name, "Transpose")
    if transpose is None or attribute(transpose, "perm") != TO_HEADS:
        return None
    return graph.read_by(transpose.output[0], "Reshape")


def _sizes(graph: Graph, query: Any, key: Any, value: Any) -> tuple[int, int] | None:  # noqa: ANN401
    """Heads and size of a head, where all three agree."""
    sizes = {_head_shape(graph, node) for node in (query, key, value)}
    return sizes.pop() if len(sizes) == 1 else None


def _head_shape(graph: Graph, reshape: Any) -> tuple[int, int] | None:  # noqa: ANN401
    """The last two numbers of the shape; one that is left open follows from the width of the projection."""
    heads, size = _last_two(graph, reshape.input[1])
    width = _width(graph, reshape.input[0])
    if heads <= 0 and size > 0 and width % size == 0:
        heads = width // size
    elif size <= 0 and heads > 0 and width % heads == 0:
        size = width // heads
    return (heads, size) if heads > 0 and size > 0 else None


def _last_two(graph: Graph, name: str) -> tuple[int, int]:
    """-1 for what is not a constant."""
    array = graph.array(name)
    if array is not None:
        return (int(array[2]), int(array[3])) if array.size == RANK else (-1, -1)
    concat = graph.made_by(name, "Concat")
    if concat is None or len(concat.input) != RANK:
        return -1, -1
    numbers = [graph.number(part) for part in concat.input[2:]]
    heads, size = (-1 if number is None else int(number) for number in numbers)
    return heads, size


def _width(graph: Graph, name: str) -> int:
    """The size of the last axis of a projection; 0 where it is not known."""
    projection = _projection(graph, name)
    for constant, axis in ((projection.bias, 0), (projection.weight, 1)):
        if constant is not None:
            return int(graph.constants[constant].dims[axis])
    return 0


def _projection(graph: Graph, name: str) -> Projection:
    """The constants behind `name`, as far as there are any."""
    add = graph.made_by(name, "Add")
    bias = None if add is None else next((part for part in add.input if _is_constant(graph, part, 1)), None)
    below = name if add is None or bias is None else next(part for part in add.input if part != bias)
    product = graph.made_by(below, "MatMul")
    if product is None or not _is_constant(graph, product.input[1], 2):
        return Projection(name, bias=bias)
    return Projection(name, product.input[0], product.input[1], bias)


def _is_constant(graph: Graph, name: str, rank: int) -> bool:
    return name in graph.constants and len(graph.constants[name].dims) == rank


def _full_masks(model: ModelProto, matches: list[Found]) -> dict[str, str]:
    """Masks that are the same for every query, made to have a row for each: the operator does not repeat them."""
    masked = {found.mask: found for found in reversed(matches) if found.mask}
    shapes = shapes_of(model) if masked else {}
    names = {}
    for mask, found in masked.items():
        shape = shapes.get(mask)
        if shape is not None and (len(shape) != RANK or 1 in shape[2:]):
            names[mask] = _expanded(model.graph, mask, found)
    return names


def _expanded(graph: Any, mask: str, found: Found) -> str:  # noqa: ANN401 - onnx.GraphProto
    """The name of `mask` repeated to […, …, rows of the query, rows of the key]."""
    import numpy as np
    from onnx import helper

    base = f"{mask}_expanded"
    graph.initializer.extend(
        [_tensor(np.ones(2, np.int64), f"{base}_ones"), _tensor(np.ones(1, np.int64), f"{base}_axis")]
    )
    sizes = []
    for word, part in (("query", found.query), ("key", found.key)):
        shape, rows = f"{base}_{word}_shape", f"{base}_{word}_rows"
        graph.node.append(helper.make_node("Shape", [part.source or part.result], [shape]))
        graph.node.append(helper.make_node("Gather", [shape, f"{base}_axis"], [rows], axis=0))
        sizes.append(rows)
    graph.node.append(helper.make_node("Concat", [f"{base}_ones", *sizes], [f"{base}_shape"], axis=0))
    graph.node.append(helper.make_node("Expand", [mask, f"{base}_shape"], [base]))
    return base


def _replace(model: ModelProto, graph: Graph, found: Found, mask: str, name: str) -> None:
    """Turn the last node of `found` into the operator; what only led there is pruned later."""
    from onnx import helper

    end = found.end
    output = end.output[0]
    parts = (found.query, found.key, found.value)
    packed = _packed(graph, parts)
    if packed is None:
        word, inputs = "MultiHeadAttention", [*(part.result for part in parts), "", "", mask]
    else:
        weight, bias = packed
        model.graph.initializer.extend([_tensor(weight, f"{name}_weight"), _tensor(bias, f"{name}_bias")])
        inputs = [parts[0].source or "", f"{name}_weight", f"{name}_bias", "", "", mask]
        word = "Attention"
    while inputs and not inputs[-1]:
        inputs.pop()
    options: dict[str, Any] = {"num_heads": found.heads}
    if not math.isclose(found.scale, found.head_size**-0.5, rel_tol=NEAR):
        options["scale"] = found.scale
    end.CopyFrom(helper.make_node(word, inputs, [output], name=name, domain=RUNTIME_DOMAIN, **options))


def _packed(graph: Graph, parts: tuple[Projection, ...]) -> tuple[Any, Any] | None:
    """Weights and biases of the three projections side by side, where all are of one tensor.

    A bias that is missing becomes zeros: onnxruntime calls it optional, and its Attention crashes without one (1.27).
    """
    import numpy as np

    if len({(part.source, *_dims(graph, part.weight)) for part in parts}) > 1:
        return None
    weights = [array for part in parts if part.weight and (array := graph.array(part.weight)) is not None]
    if len(weights) < len(parts):
        return None
    given = [graph.array(part.bias) if part.bias else None for part in parts]
    zeros = np.zeros_like(weights[0][0])
    return np.concatenate(weights, axis=1), np.concatenate([zeros if bias is None else bias for bias in given])


def _dims(graph: Graph, name: str | None) -> tuple[int, ...]:
    return () if name is None else tuple(graph.constants[name].dims)


def _tensor(array: Any, name: str) -> Any:  # noqa: ANN401 - numpy.ndarray → onnx.TensorProto
    from onnx import numpy_helper

    return numpy_helper.from_array(array, name)
