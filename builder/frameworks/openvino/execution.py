"""Which types a compiled OpenVINO model really computes in, read from its execution graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from builder.measurement import PrecisionProof

Model = Any
CompiledModel = Any
Node = Any

SOURCE: Final = "OpenVINO execution graph"
KERNELS: Final = {"I8": "int8", "bf16": "bf16", "f16": "fp16", "f32": "fp32"}
"""Ends of `primitiveType` (`brgconv_avx512_I8`): the type that the kernel multiplies in."""
STORED: Final = {"i8": "int8", "u8": "int8", "i4": "int4", "u4": "int4", "bf16": "bf16", "f16": "fp16", "f32": "fp32"}
FILTER_AXES: Final = {
    "Convolution": 1,
    "GroupConvolution": 2,
    "ConvolutionBackpropData": 1,
    "GroupConvolutionBackpropData": 2,
}
"""Leading axes of the filter that say how many outputs (of the backward kinds: inputs) there are, not work for one."""
RECURRENT: Final = ("LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell")
USUAL_SIZE: Final = 32
"""Size of dynamic axes other than the first, where work is compared: shares hardly depend on it."""


def precision_proof(compiled: CompiledModel, model: Model) -> PrecisionProof:
    """Shares of the heavy operators' work by the type of the kernel that does it, and of the weights by their type.

    `model` is the model that was compiled, read again: the execution graph knows its operators' names only.
    """
    return PrecisionProof(_shares(_kernels(compiled, work_of(model))), _shares(_stored(model)), SOURCE)


def work_of(model: Model) -> dict[str, float]:
    """Operator → multiplications and additions of one request of one row; by its weights where a shape is unknown."""
    sized = model.clone()
    try:
        sized.reshape({port: _usual_shape(port.get_partial_shape()) for port in sized.inputs})
    except RuntimeError:  # sizes that the model does not take
        sized = model
    return {node.get_friendly_name(): _work(node) for node in sized.get_ops() if _is_heavy(node)}


def _usual_shape(shape: Any) -> list[int]:  # noqa: ANN401 - openvino.PartialShape
    return [
        dim.get_length() if dim.is_static else max(dim.get_min_length(), 1 if axis == 0 else USUAL_SIZE)
        for axis, dim in enumerate(shape)
    ]


def _is_heavy(node: Node) -> bool:
    kind = node.get_type_name()
    return kind == "MatMul" or kind in FILTER_AXES or kind in RECURRENT


def _work(node: Node) -> float:
    kind = node.get_type_name()
    if kind in RECURRENT:
        return float(sum(_size(node.input_value(place)) for place in range(node.get_input_size())))
    outer = node.input(0) if kind.endswith("BackpropData") else node.output(0)
    if outer.get_partial_shape().is_dynamic or node.input(1).get_partial_shape().is_dynamic:
        return float(max(_size(node.input_value(0)), _size(node.input_value(1)), 1))
    return float(math.prod(outer.get_shape()) * _inner(node))


def _inner(node: Node) -> int:
    """Multiplications behind one element."""
    kind = node.get_type_name()
    if kind in FILTER_AXES:
        return math.prod(node.input(1).get_shape()[FILTER_AXES[kind] :])
    left = node.input(0).get_shape()
    transposed = node.get_attributes().get("transpose_a", False)
    return int(left[-2] if transposed and len(left) > 1 else left[-1])


def _size(port: Any) -> int:  # noqa: ANN401 - openvino.Output
    """Elements of a tensor of known shape that is no constant's input chain; 0 where the shape is unknown."""
    shape = port.get_partial_shape()
    return 0 if shape.is_dynamic else math.prod(port.get_shape())


def _kernels(compiled: CompiledModel, work: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    left = dict(work)
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kernel = KERNELS.get(_text(facts, "primitiveType").rpartition("_")[2])
        if kernel is None:
            continue
        for name in _text(facts, "originalLayersNames").split(","):
            if name in left:
                yield kernel, left.pop(name)


def _text(facts: Mapping[str, Any], key: str) -> str:
    return str(facts[key].astype(str)) if key in facts else ""


def _stored(model: Model) -> Iterator[tuple[str, float]]:
    for node in model.get_ops():
        if node.get_type_name() != "Constant":
            continue
        word = STORED.get(node.get_element_type().to_string())
        size = math.prod(node.get_output_shape(0))
        if word and size > 1:
            yield word, float(size)


def _shares(parts: Iterable[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    """Type → share, the largest first; rounded so that a manifest does not hold noise."""
    totals: dict[str, float] = {}
    for word, amount in parts:
        totals[word] = totals.get(word, 0.0) + amount
    every = sum(totals.values())
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return tuple((word, round(amount / every, 4)) for word, amount in ordered if amount)
