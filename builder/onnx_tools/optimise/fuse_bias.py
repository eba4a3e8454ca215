"""An added bias becomes part of the convolution or matrix product before it: MatMul + Add → Gemm where rank is 2."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from builder.onnx_tools.optimise.graph import adds_constant, broken, copy_of, prune, reframe, shapes_of, uses
from builder.onnx_tools.optimise.slimming import slim
from builder.onnx_tools.reading import ModelProto

DIALECT: Final = "onnx"
PATTERNS: Final = ("FusionConvAdd", "FusionConvTransposeAdd", "FusionGemmAdd")
GEMM_TYPES: Final = (1, 10, 11, 16)
"""float32, float16, float64, bfloat16: what Gemm takes on every backend."""
MATRIX: Final = 2


def requires(model: ModelProto) -> bool:
    if adds_constant(model, ("Conv", "ConvTranspose", "Gemm"), ("Add",)):
        return True
    return bool(_products(model))


def apply(model: ModelProto) -> ModelProto:
    after = copy_of(model)
    _bias_second(after.graph)
    _to_gemm(after)
    return slim(reframe(model, after), patterns=PATTERNS, rewrites=("graph_fusion",))


def ensures(before: ModelProto, after: ModelProto) -> str | None:
    return broken(before, after)


def _bias_second(graph: Any) -> None:  # noqa: ANN401 - onnx.GraphProto
    """`bias + x` → `x + bias`, which is how the patterns of onnxslim are written."""
    weights = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Add" and node.input[0] in weights and node.input[1] not in weights:
            node.input[:] = [node.input[1], node.input[0]]


def _products(model: ModelProto) -> list[tuple[Any, Any, str]]:
    """The pairs whose input is a matrix: Gemm takes no other."""
    pairs = _pairs(model.graph)
    shapes = shapes_of(model) if pairs else {}
    return [pair for pair in pairs if len(shapes.get(pair[0].input[0], ())) == MATRIX]


def _pairs(graph: Any) -> list[tuple[Any, Any, str]]:  # noqa: ANN401 - onnx.GraphProto → (MatMul, Add, bias)
    """A product with a constant matrix, to which alone a constant vector is added."""
    weights = {tensor.name: tensor for tensor in graph.initializer}
    used = Counter(name for node in graph.node for name in uses(node)) + Counter(value.name for value in graph.output)
    products = {node.output[0]: node for node in graph.node if node.op_type == "MatMul"}
    found = []
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for place in (0, 1):
            product, bias = products.get(node.input[place]), weights.get(node.input[1 - place])
            if product is None or bias is None or used[node.input[place]] != 1 or bias.data_type not in GEMM_TYPES:
                continue
            matrix = weights.get(product.input[1])
            if matrix is not None and len(matrix.dims) == MATRIX and list(bias.dims) == [matrix.dims[1]]:
                found.append((product, node, bias.name))
    return found


def _to_gemm(model: ModelProto) -> None:
    for product, add, bias in _products(model):
        add.op_type = "Gemm"
        add.input[:] = [*product.input, bias]
        del add.attribute[:]
    prune(model.graph)
