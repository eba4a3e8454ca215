"""In which types an ONNX graph stores its weights and does its work, weighted by multiply-adds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from builder.log import get_logger
from builder.measurement import PrecisionProof
from builder.onnx_tools.precision.blocks import computes_in_integers
from builder.onnx_tools.reading import ModelProto, graphs, read_onnx, tensors

WORDS: Final = {1: "fp32", 10: "fp16", 16: "bf16", 11: "fp64", 2: "int8", 3: "int8", 21: "int4", 22: "int4"}
"""`TensorProto.DataType` → the word for it; sizes, indices and flags are no weights and have none."""
INTEGERS: Final = frozenset(
    {
        "QLinearConv",
        "QLinearMatMul",
        "ConvInteger",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "QGemm",
        "QAttention",
    }
)
CONVOLUTIONS: Final = frozenset({"Conv", "FusedConv", "NhwcFusedConv", "ConvInteger", "QLinearConv", "DeformConv"})
PRODUCTS: Final = frozenset(
    {
        "MatMul",
        "Gemm",
        "FusedMatMul",
        "FusedGemm",
        "QLinearMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QGemm",
    }
)
BY_WEIGHTS: Final = frozenset(
    {
        "Attention",
        "MultiHeadAttention",
        "GroupQueryAttention",
        "QAttention",
        "LSTM",
        "GRU",
        "RNN",
        "DynamicQuantizeLSTM",
        "Einsum",
        "MatMulNBits",
    }
)
"""Heavy operators whose work is counted by the elements of their weights."""
HEAVY: Final = CONVOLUTIONS | PRODUCTS | BY_WEIGHTS | {"ConvTranspose"}
SECOND_OPERAND: Final = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}
MOVES: Final = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
"""What may stand between a DequantizeLinear and the operator it feeds."""


@dataclass(frozen=True, slots=True)
class _Value:
    """What is known of a tensor: the number of its type, and its sizes (1 where they are not fixed)."""

    kind: int
    dims: tuple[int, ...] | None


def prove(stored: Path, run: Path | None = None, *, source: str = "ONNX graph") -> PrecisionProof:
    """The weights as the file `stored` has them, and the work as it stands in `run` (else in `stored`).

    In `run` a library has already made integer operators of what it computes in integers, so that a float operator
    between DequantizeLinear and QuantizeLinear is a float operator. In a file alone it counts as int8.
    """
    model = read_onnx(stored)
    compute = _compute(model, quantized=True) if run is None else _compute(read_onnx(run), quantized=False)
    return PrecisionProof(_shares(compute), _shares(_weights(model)), source)


def prove_as_run(path: Path, providers: Sequence[str]) -> PrecisionProof:
    """The weights of the file, and the work in the graph that onnxruntime makes of it for these providers.

    That graph holds the casts where a provider lacks a type, and integer operators only where it really has them. Where
    onnxruntime does not write it down, the file's own types count.
    """
    with TemporaryDirectory() as folder:
        try:
            run: Path | None = _written_by_onnxruntime(path, Path(folder), providers)
        except Exception:
            get_logger().debug("onnxruntime does not write the graph that it runs", exc_info=True)
            run = None
        source = "ONNX graph" if run is None else f"ONNX graph as {providers[0]} runs it"
        return prove(path, run, source=source)


def _written_by_onnxruntime(path: Path, folder: Path, providers: Sequence[str]) -> Path:
    """With the optimisations that choose operators, without those that only change the layout of tensors."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / path.name)
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", f"{path.name}.data")
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    return folder / path.name


def _shares(amounts: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    totals: dict[str, float] = {}
    for word, amount in amounts:
        totals[word] = totals.get(word, 0.0) + amount
    whole = sum(totals.values())
    return tuple((word, round(totals[word] / whole, 4)) for word in sorted(totals) if whole)


def _weights(model: ModelProto) -> Iterator[tuple[str, float]]:
    for tensor in tensors(model):
        elements = math.prod(tensor.dims)
        if elements > 1 and tensor.data_type in WORDS:
            yield WORDS[tensor.data_type], elements


def _compute(model: ModelProto, *, quantized: bool) -> Iterator[tuple[str, float]]:
    values = _values(model)
    for graph in graphs(model):
        makers = {name: node for node in graph.node for name in node.output}
        for node in graph.node:
            if node.op_type in HEAVY:
                yield _word(node, values, makers if quantized else {}), float(max(1, _work(node, values)))


def _values(model: ModelProto) -> dict[str, _Value]:
    """Types and sizes, inferred where the file does not say them; an operator unknown to ONNX ends the inference."""
    import onnx

    try:
        known = onnx.shape_inference.infer_shapes(model)
    except Exception:  # the weights of a very large model lie inside the protobuf
        known = model
    values: dict[str, _Value] = {}
    for graph in graphs(known):
        for value in (*graph.input, *graph.output, *graph.value_info):
            values[value.name] = _value(value.type.tensor_type)
        for tensor in graph.initializer:
            values[tensor.name] = _Value(tensor.data_type, tuple(tensor.dims))
    return values


def _value(kind: Any) -> _Value:  # noqa: ANN401 - onnx.TypeProto.Tensor
    dims = tuple(max(dim.dim_value, 1) for dim in kind.shape.dim) if kind.HasField("shape") else None
    return _Value(kind.elem_type, dims)


def _operands(node: Any) -> tuple[str, ...]:  # noqa: ANN401 - onnx.NodeProto
    return tuple(node.input[place] for place in (0, _second(node)) if place < len(node.input))


def _second(node: Any) -> int:  # noqa: ANN401
    return SECOND_OPERAND.get(node.op_type, 1)


def _word(node: Any, values: Mapping[str, _Value], makers: Mapping[str, Any]) -> str:  # noqa: ANN401
    if node.op_type in INTEGERS or computes_in_integers(node):
        return "int8"
    feeds = [_dequantized(name, values, makers) for name in _operands(node)]
    if feeds and all(feeds):
        return "int8"
    kinds = (values[name].kind for name in (*_operands(node), *node.output) if name in values)
    return next((WORDS[kind] for kind in kinds if kind in WORDS), "unknown")


def _dequantized(name: str, values: Mapping[str, _Value], makers: Mapping[str, Any]) -> bool:
    """True where the tensor is an 8-bit one, dequantised."""
    node = makers.get(name)
    while node is not None and node.op_type in MOVES:
        node = makers.get(node.input[0])
    if node is None or node.op_type != "DequantizeLinear":
        return False
    known = (values[source].kind for source in (node.input[0], *node.input[2:3]) if source in values)
    return next((WORDS.get(kind) == "int8" for kind in known if kind), False)


def _work(node: Any, values: Mapping[str, _Value]) -> int:  # noqa: ANN401
    """Multiply-adds; sizes that are not fixed count as 1, for every operator alike."""
    data, weight, made = (_dims(name, values) for name in (node.input[0], _weight_name(node), node.output[0]))
    if node.op_type in CONVOLUTIONS:
        return math.prod((*made[:1], *made[2:], *weight))
    if node.op_type == "ConvTranspose":
        return math.prod((*data[:1], *data[2:], *weight))
    if node.op_type in PRODUCTS:
        return math.prod(made) * _inner(node, data, weight) if made else math.prod(weight)
    return sum(math.prod(_dims(name, values)) for name in node.input[1:3])


def _weight_name(node: Any) -> str:  # noqa: ANN401
    place = _second(node)
    return str(node.input[place]) if place < len(node.input) else ""


def _dims(name: str, values: Mapping[str, _Value]) -> tuple[int, ...]:
    value = values.get(name)
    return value.dims or () if value else ()


def _inner(node: Any, data: tuple[int, ...], weight: tuple[int, ...]) -> int:  # noqa: ANN401
    """The length of the sums that a matrix product adds up."""
    swapped = {attribute.name: attribute.i for attribute in node.attribute if attribute.name in ("transB", "transA")}
    if len(weight) > 1:
        return weight[-1] if swapped.get("transB") else weight[-2]
    if data:
        return data[0] if swapped.get("transA") and len(data) > 1 else data[-1]
    return 1
