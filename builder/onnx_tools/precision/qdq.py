"""Static int8: Q/DQ pairs of measured ranges, in the form that each dialect is fast with.

The pairs stand in front of products (and of the sums and concatenations between convolutions), so that an activation
stays with the product before it. onnxruntime makes an integer kernel of a convolution only where a pair follows it too
(a ReLU or Clip may lie between), so its form has one behind every convolution; OpenVINO needs none there and is faster
without. Weights are signed, one scale a channel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from builder.onnx_tools.exported import quiet
from builder.onnx_tools.nodes import replace_nodes
from builder.onnx_tools.optimise.graph import uses
from builder.onnx_tools.precision.bias_correction import correct, give_biases, mean_outputs
from builder.onnx_tools.precision.calibration import CalibrationTable
from builder.onnx_tools.precision.quantizable import JOINS, activations, conv_results
from builder.onnx_tools.reading import ModelProto

EXTREMES: Final = ("ReduceMax", "ReduceMin")


@dataclass(frozen=True, slots=True)
class Form:
    """How a dialect wants static int8.

    `signed`: activations are int8 around zero, which TensorRT requires; unsigned with a zero point holds twice as many
    steps for what comes out of a ReLU, and is what onnxruntime is fast with. `integer_bias`: as onnxruntime's kernels
    of every release take it; OpenVINO is faster with a bias of floats, TensorRT has no other. `closed`: what comes out
    of a convolution is 8 bits too. `early`: a largest or smallest value that is quantised is taken of 8 bits.
    """

    signed: bool
    integer_bias: bool
    closed: bool
    early: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """Nodes by name: those for int8, in the graph's order within each kind, and those that were to stay in fp32."""

    names: tuple[str, ...]
    kept: frozenset[str]


FORMS: Final[Mapping[str, Form]] = {
    "onnxruntime": Form(signed=False, integer_bias=True, closed=True),
    "onnx": Form(signed=False, integer_bias=False, closed=False, early=True),
    "tensorrt": Form(signed=True, integer_bias=False, closed=False),
}


def measured(model: ModelProto, names: frozenset[str]) -> tuple[str, ...]:
    """The tensors that need a range, whatever the dialect."""
    return tuple(sorted({*activations(model, names), *conv_results(model, names)}))


def quantize(
    model: ModelProto, chosen: Chosen, table: CalibrationTable, form: Form, *, per_channel: bool
) -> tuple[ModelProto, int]:
    """Q/DQ pairs by onnxruntime's quantiser; returns the model and the number of products in int8.

    Nodes that stay in fp32 read what is not quantised, but for the 8-bit results of a closed form.
    """
    names = chosen.names
    wanted = frozenset(names)
    give_biases(model, wanted)
    exact = mean_outputs(model, wanted, table.means)
    inputs = {node.name: node.input[0] for node in model.graph.node if node.name in exact}
    closed = conv_results(model, wanted) if form.closed else ()
    made = _by_onnxruntime(model, names, closed, table, form, per_channel=per_channel)
    _detach(made, chosen.kept, frozenset(closed))
    correct(made, exact, inputs, table.means)
    if form.early:
        quantize_early(made)
    return made, sum(node.name in wanted and node.op_type not in JOINS for node in made.graph.node)


def quantize_early(model: ModelProto) -> None:
    """A pair behind ReduceMax or ReduceMin stands in front of it too: rounding keeps the order, so no number changes.

    With the pair behind it alone OpenVINO (2026.2 at least) gives wrong products of what follows.
    """
    from onnx import helper

    readers = Counter(name for node in model.graph.node for name in uses(node))
    readers.update(port.name for port in model.graph.output)
    pairs = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    nodes = []
    for node in model.graph.node:
        pair = pairs.get(node.output[0]) if node.op_type in EXTREMES else None
        if pair is not None and readers[node.output[0]] == 1:
            scale, held = list(pair.input[1:]), f"{node.output[0]}__held"
            quantized = helper.make_node("QuantizeLinear", [node.input[0], *scale], [f"{held}_8"], name=f"{held}_8")
            back = helper.make_node("DequantizeLinear", [f"{held}_8", *scale], [held], name=held)
            nodes += [quantized, back]
            node.input[0] = held
        nodes.append(node)
    replace_nodes(model.graph, nodes)


def _by_onnxruntime(  # noqa: PLR0913 - what its quantiser has to be told
    model: ModelProto,
    names: Sequence[str],
    closed: Sequence[str],
    table: CalibrationTable,
    form: Form,
    *,
    per_channel: bool,
) -> ModelProto:
    import numpy as np
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    wanted = frozenset(names)
    operators = sorted({node.op_type for node in model.graph.node if node.name in wanted})
    quantizer = QDQQuantizer(
        model,
        per_channel=per_channel,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if form.signed else QuantType.QUInt8,
        tensors_range={
            name: TensorData(lowest=np.float32(table.ranges[name][0]), highest=np.float32(table.ranges[name][1]))
            for name in (*activations(model, wanted), *closed)
            if name in table.ranges
        },
        nodes_to_quantize=list(names),
        nodes_to_exclude=[],
        op_types_to_quantize=operators,
        extra_options={
            "ActivationSymmetric": form.signed,
            "WeightSymmetric": True,
            "QuantizeBias": form.integer_bias,
            "OpTypesToExcludeOutputQuantization": operators,
        },
    )
    with quiet():
        for name in closed:
            if name in table.ranges:
                quantizer.quantize_activation_tensor(name)
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _detach(model: ModelProto, kept: frozenset[str], closed: frozenset[str]) -> None:
    """Nodes that stay in fp32 read the tensor itself, though others read it quantised."""
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    originals: dict[str, Any] = {
        node.output[0]: sources[node.input[0]]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and sources.get(node.input[0], "") not in {"", *closed}
    }
    for node in model.graph.node:
        if node.name in kept:
            for place, name in enumerate(node.input):
                node.input[place] = originals.get(name, name)
