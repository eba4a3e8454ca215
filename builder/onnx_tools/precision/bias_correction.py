"""What rounding the weights adds to a layer's mean output is taken off its bias.

The rounding errors of a filter do not cancel out: with nine weights to an output, as depthwise convolutions have, every
channel is shifted, and the shifts add up from layer to layer. The mean of each input channel, measured with the ranges,
says by how much: sum of (rounded - exact) x mean. On EfficientNet-Lite0 that alone lowers the error of the answers
from 21 % to 10 % of their length, at no cost when the model runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from builder.onnx_tools.optimise.graph import attribute, uses
from builder.onnx_tools.reading import ModelProto

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

LAYERS: Final = ("Conv", "Gemm")
"""Products with a bias of their own."""
BIASED: Final = 3
FLOAT: Final = 1


def read_by_layers(model: ModelProto, names: frozenset[str]) -> tuple[str, ...]:
    """The tensors whose means per channel decide the corrections of these nodes, sorted."""
    weights = {tensor.name for tensor in model.graph.initializer}
    return tuple(sorted({node.input[0] for node in _layers(model, names) if node.input[1] in weights}))


def give_biases(model: ModelProto, names: frozenset[str]) -> None:
    """A bias of its own for each of these layers, of zeros where it had none."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    used = Counter(name for node in model.graph.node for name in uses(node))
    for node in _layers(model, names):
        weight, bias = stored.get(node.input[1]), node.input[2] if len(node.input) == BIASED else ""
        if weight is None or (bias and (bias not in stored or used[bias] == 1)):
            continue
        own = model.graph.initializer.add()
        if bias:
            own.CopyFrom(stored[bias])
        else:
            size = _outputs(node, tuple(weight.dims))
            own.data_type, own.raw_data = FLOAT, bytes(4 * size)
            own.dims.append(size)
        own.name = f"{node.output[0]}__bias"
        node.input[:] = [*node.input[:2], own.name]


def mean_outputs(model: ModelProto, names: frozenset[str], means: Mapping[str, Sequence[float]]) -> dict[str, Vector]:
    """Layer → what its weights make of the mean input, for each output channel."""
    from onnx import numpy_helper

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.name: _through(node, numpy_helper.to_array(stored[node.input[1]]), means[node.input[0]])
        for node in _layers(model, names)
        if node.input[1] in stored and node.input[0] in means
    }


def correct(
    model: ModelProto, exact: Mapping[str, Vector], inputs: Mapping[str, str], means: Mapping[str, Sequence[float]]
) -> None:
    """Shift the biases of a quantised model; `exact` is of `mean_outputs`, `inputs` are what each layer read then."""
    import numpy as np

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in _layers(model, frozenset(exact)):
        rounded = _dequantized(makers.get(node.input[1]), stored)
        if rounded is None or len(node.input) < BIASED:
            continue
        error = _through(node, rounded, means[inputs[node.name]]) - exact[node.name]
        if not np.isfinite(error).all():
            continue
        _shift(makers.get(node.input[2]), node.input[2], stored, -error)


def _layers(model: ModelProto, names: frozenset[str]) -> Iterator[Any]:
    for node in model.graph.node:
        if node.name in names and node.op_type in LAYERS and attribute(node, "beta", 1.0) == 1.0:
            yield node


def _outputs(node: Any, dims: tuple[int, ...]) -> int:  # noqa: ANN401 - onnx.NodeProto
    return dims[0] if node.op_type == "Conv" or attribute(node, "transB", 0) else dims[1]


def _through(node: Any, weight: Any, mean: Sequence[float]) -> Vector:  # noqa: ANN401
    """The layer's output where every input channel has its mean everywhere; edges are no concern."""
    import numpy as np

    if node.op_type == "Gemm":
        matrix = weight if attribute(node, "transB", 0) else weight.T
        return np.asarray(matrix.astype(np.float64) @ np.asarray(mean))
    groups = attribute(node, "group", 1)
    taps = weight.astype(np.float64).sum(axis=tuple(range(2, weight.ndim)))
    parts = taps.reshape(groups, -1, taps.shape[1])
    made: Vector = np.einsum("goi,gi->go", parts, np.asarray(mean).reshape(groups, -1)).reshape(-1)
    return made


def _dequantized(maker: Any, stored: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A stored weight as the layer reads it; None where it is not stored in 8 bits."""
    import numpy as np
    from onnx import numpy_helper

    if maker is None or maker.op_type != "DequantizeLinear" or maker.input[0] not in stored:
        return None
    values = numpy_helper.to_array(stored[maker.input[0]]).astype(np.float64)
    return values * _along(numpy_helper.to_array(stored[maker.input[1]]), values.ndim, attribute(maker, "axis", 1))


def _along(scale: Any, rank: int, axis: int) -> Any:  # noqa: ANN401
    return scale if scale.ndim == 0 else scale.reshape([-1 if place == axis else 1 for place in range(rank)])


def _shift(maker: Any, name: str, stored: Mapping[str, Any], by: Vector) -> None:  # noqa: ANN401
    """Add to a bias, be it of floats or of integers with a scale."""
    import numpy as np
    from onnx import numpy_helper

    if name in stored:
        held = numpy_helper.to_array(stored[name])
        if held.shape == by.shape:
            stored[name].CopyFrom(numpy_helper.from_array((held + by).astype(held.dtype), name))
    elif maker is not None and maker.op_type == "DequantizeLinear" and maker.input[0] in stored:
        tensor = stored[maker.input[0]]
        held = numpy_helper.to_array(tensor)
        steps = by / numpy_helper.to_array(stored[maker.input[1]]).astype(np.float64)
        if held.shape == by.shape:
            limits = np.iinfo(held.dtype)
            moved = np.clip(np.rint(held + steps), limits.min, limits.max).astype(held.dtype)
            tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))
