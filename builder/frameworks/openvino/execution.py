"""Which types a compiled OpenVINO model really computes in, read from its execution graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
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
RUNS: Final[Mapping[str, str]] = {
    "FullyConnected": "product",
    "MatMul": "product",
    "Convolution": "convolution",
    "Deconvolution": "convolution",
    "RNNSeq": "recurrent",
    "RNNCell": "recurrent",
}
"""`layerType` of the execution graph → what it runs."""
BODIES: Final = {
    "If": ("get_then_body", "get_else_body"),
    "Loop": ("get_function",),
    "TensorIterator": ("get_function",),
}
USUAL_SIZE: Final = 32
"""Size of dynamic axes other than the first, where work is compared: shares hardly depend on it."""


@dataclass(frozen=True, slots=True)
class _Heavy:
    """What one operator has to do, and by what kind of layer it is run."""

    work: float
    kind: str


def precision_proof(compiled: CompiledModel, model: Model) -> PrecisionProof:
    """Shares of the heavy operators' work by the type of the kernel that does it, and of the weights by their type.

    `model` is the model that was compiled, read again: the execution graph knows its operators' names only.
    """
    kernels = [*_kernels(compiled, _heavy(model)), *_kernels_of_bodies(compiled, model)]
    return PrecisionProof(_shares(kernels), _shares(_stored(model)), SOURCE)


def work_of(model: Model) -> dict[str, float]:
    """Operator → multiplications and additions of one request of one row; by its weights where a shape is unknown."""
    return {name: heavy.work for name, heavy in _heavy(model).items()}


def _heavy(model: Model) -> dict[str, _Heavy]:
    sized = model.clone()
    try:
        sized.reshape({port: _usual_shape(port.get_partial_shape()) for port in sized.inputs})
    except RuntimeError:  # sizes that the model does not take
        sized = model
    return {node.get_friendly_name(): _Heavy(_work(node), _kind(node)) for node in sized.get_ops() if _is_heavy(node)}


def _kind(node: Node) -> str:
    name = node.get_type_name()
    return "recurrent" if name in RECURRENT else "convolution" if name in FILTER_AXES else "product"


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


def _kernels(compiled: CompiledModel, heavy: Mapping[str, _Heavy]) -> Iterator[tuple[str, float]]:
    """The layers name the operators that they run, except those that became others on the way.

    (A product with its bias is known by the sum's name, a bidirectional LSTM is run as two.) What is left of a kind of
    work is done by its nameless layers, in equal parts.
    """
    left = dict(heavy)
    nameless: list[tuple[str, str]] = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        facts = node.get_rt_info()
        kernel = KERNELS.get(_text(facts, "primitiveType").rpartition("_")[2])
        if kernel is None:
            continue
        names = [name for name in _text(facts, "originalLayersNames").split(",") if name in left]
        for name in names:
            yield kernel, left.pop(name).work
        kind = RUNS.get(_text(facts, "layerType"))
        if not names and kind is not None:
            nameless.append((kernel, kind))
    for kind in dict.fromkeys(kind for _, kind in nameless):
        kernels = [kernel for kernel, its in nameless if its == kind]
        work = sum(item.work for item in left.values() if item.kind == kind)
        yield from ((kernel, work / len(kernels)) for kernel in kernels)


def runs_in(compiled: CompiledModel, word: str) -> bool:
    """Whether a layer computes in the type (OpenVINO's word) that the plugin may use: it need not do so anywhere.

    What is inside If and Loop is not shown, and may.
    """
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return any(_text(facts, "runtimePrecision") == word or _text(facts, "layerType") in BODIES for facts in layers)


def _kernels_of_bodies(compiled: CompiledModel, model: Model) -> Iterator[tuple[str, float]]:
    """The execution graph does not show what is inside If and Loop: it has the type that floats are computed in."""
    import openvino

    hint = compiled.get_property("INFERENCE_PRECISION_HINT")
    kernel = STORED.get(hint.to_string() if isinstance(hint, openvino.Type) else str(hint), "fp32")
    for body in _bodies(model):
        yield from ((kernel, work) for work in work_of(body).values())


def _bodies(model: Model) -> Iterator[Model]:
    for node in model.get_ops():
        for word in BODIES.get(node.get_type_name(), ()):
            body = getattr(node, word)()
            yield body
            yield from _bodies(body)


def _text(facts: Mapping[str, Any], key: str) -> str:
    return str(facts[key].astype(str)) if key in facts else ""


def _stored(model: Model) -> Iterator[tuple[str, float]]:
    for node in (node for graph in (model, *_bodies(model)) for node in graph.get_ops()):
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
