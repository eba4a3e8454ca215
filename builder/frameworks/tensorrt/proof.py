"""Which types a network asks for, and which an engine really computes in.

A network is strongly typed, so its layers say what TensorRT must do; the engine inspector says what it did.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from builder.frameworks.tensorrt.network import Network
from builder.measurement import PrecisionProof

NETWORK: Final = "TensorRT network"
ENGINE: Final = "TensorRT engine inspector"
TYPES: Final = {
    "FLOAT": "fp32",
    "HALF": "fp16",
    "BF16": "bf16",
    "FP8": "fp8",
    "FP4": "fp4",
    "INT8": "int8",
    "INT4": "int4",
}
"""TensorRT's names of types → ours."""
STORED: Final = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}
"""Types of the weights that a convolution holds itself, which are numpy's."""
HEAVY: Final = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", "ATTENTION_INPUT")
PASSED: Final = ("SHUFFLE", "IDENTITY", "SQUEEZE", "UNSQUEEZE")
"""Layers that move what was dequantised, in front of the layer that multiplies with it."""
KERNEL: Final = re.compile(r"conv|gemm|matri|fully|mha|einsum", re.IGNORECASE)
"""What the names of an engine's heavy layers hold."""
FORMATS: Final = (
    ("int8", re.compile(r"int8", re.IGNORECASE)),
    ("fp8", re.compile(r"fp8|float8", re.IGNORECASE)),
    ("bf16", re.compile(r"bf16|bfloat16", re.IGNORECASE)),
    ("fp16", re.compile(r"fp16|half", re.IGNORECASE)),
    ("fp32", re.compile(r"fp32|float", re.IGNORECASE)),
)
"""Our types ← the inspector's words (`Half`, `Thirty-two wide channel vectorized row major Int8 format`), in order."""

Shares = tuple[tuple[str, float], ...]


def network_proof(network: Network) -> PrecisionProof:
    """What the parsed graph makes TensorRT compute in."""
    layers = [network.definition.get_layer(index) for index in range(network.definition.num_layers)]
    makers = {layer.get_output(place).name: layer for layer in layers for place in range(layer.num_outputs)}
    compute = (
        (_layer_type(layer, makers), _layer_work(network.library, layer)) for layer in layers if _is_heavy(layer)
    )
    return PrecisionProof(shares(compute), shares(_constants(network.library, layers)), NETWORK)


def _is_heavy(layer: Any) -> bool:  # noqa: ANN401 - ILayer
    return layer.type.name in HEAVY


def _layer_type(layer: Any, makers: Mapping[str, Any]) -> str:  # noqa: ANN401
    """The type of what it multiplies: a value that was dequantised just before is multiplied as it was."""
    held = layer.get_input(0)
    maker = makers.get(held.name)
    while maker is not None and maker.type.name in PASSED:
        held = maker.get_input(0)
        maker = makers.get(held.name)
    if maker is not None and maker.type.name == "DEQUANTIZE":
        held = maker.get_input(0)
    name = str(held.dtype.name)
    return TYPES.get(name, name.lower())


def _layer_work(library: Any, layer: Any) -> float:  # noqa: ANN401
    """Multiplications of one row, with 1 for sizes that are not known: shares hardly depend on it."""
    output = [max(size, 1) for size in _shape(layer.get_output(0))]
    inputs = _shape(layer.get_input(0))
    if layer.type.name in ("CONVOLUTION", "DECONVOLUTION"):
        layer.__class__ = getattr(library, f"I{layer.type.name.title()}Layer")
        outer = output if layer.type.name == "CONVOLUTION" else [max(size, 1) for size in inputs]
        depth = inputs[1] if layer.type.name == "CONVOLUTION" else layer.num_output_maps
        return float(math.prod(outer) * math.prod(layer.kernel_size_nd) * max(depth, 1) / max(layer.num_groups, 1))
    return float(math.prod(output) * max(inputs[-1] if inputs else 1, 1))


def _shape(tensor: Any) -> list[int]:  # noqa: ANN401 - ITensor
    """Empty for a rank that is not known before it runs."""
    try:
        return list(tensor.shape)
    except ValueError:
        return []


def _constants(library: Any, layers: Iterable[Any]) -> Iterator[tuple[str, float]]:  # noqa: ANN401
    """Weights: constants, and those that a convolution holds itself."""
    for layer in layers:
        kind = layer.type.name
        if kind == "CONSTANT":
            tensor = layer.get_output(0)
            word, size = TYPES.get(tensor.dtype.name), math.prod(_shape(tensor))
            if word and size > 1:
                yield word, float(size)
        elif kind in ("CONVOLUTION", "DECONVOLUTION") and layer.num_inputs == 1:
            layer.__class__ = getattr(library, f"I{kind.title()}Layer")
            kernel = layer.kernel
            yield STORED.get(str(kernel.dtype), "fp32"), float(kernel.size)


def engine_proof(information: str) -> PrecisionProof:
    """The inspector's JSON of an engine built with detailed verbosity → shares of its heavy layers and weights.

    Fused layers keep no word for what is in them: a layer counts when its kind, kernel or parameters say that it
    multiplies, with its multiplications where the sizes are known.
    """
    layers = [layer for layer in json.loads(information).get("Layers", ()) if isinstance(layer, dict)]
    heavy = [layer for layer in layers if _multiplies(layer)]
    compute = [(word, _work(layer)) for layer in heavy if (word := _format_of(layer))]
    weights = [(word, count) for layer in layers for word, count in _weights(layer)]
    return PrecisionProof(shares(compute), shares(weights), ENGINE)


def _multiplies(layer: Mapping[str, Any]) -> bool:
    if layer.get("LayerType") == "Reformat":
        return False
    words = (str(layer.get(key, "")) for key in ("LayerType", "ParameterType", "TacticName"))
    return any(KERNEL.search(word) for word in words)


def _format_of(layer: Mapping[str, Any]) -> str:
    """The type of the first input that carries numbers."""
    for port in layer.get("Inputs", ()):
        said = str(port.get("Datatype") or port.get("Format/Datatype") or "")
        word = next((word for word, pattern in FORMATS if pattern.search(said)), "")
        if word:
            return word
    return ""


def _work(layer: Mapping[str, Any]) -> float:
    outputs = layer.get("Outputs", ())
    dims = [max(int(size), 1) for size in (outputs[0].get("Dimensions", ()) if outputs else ())]
    count = sum(amount for _, amount in _weights(layer))
    spatial = math.prod(dims[2:])
    return float(count * spatial if count else math.prod(dims) or 1)


def _weights(layer: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    held = layer.get("Weights")
    if isinstance(held, dict):
        word = next((word for word, pattern in FORMATS if pattern.search(str(held.get("Type", "")))), "")
        if word and held.get("Count"):
            yield word, float(held["Count"])


def shares(parts: Iterable[tuple[str, float]]) -> Shares:
    """Type → share, the largest first; rounded so that a manifest does not hold noise."""
    totals: dict[str, float] = {}
    for word, amount in parts:
        totals[word] = totals.get(word, 0.0) + amount
    every = sum(totals.values())
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return tuple((word, round(amount / every, 4)) for word, amount in ordered if amount)
