"""The inputs and outputs of a Keras 3 model from its configuration alone, where that is enough to be sure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from builder.frameworks.tensorflow.values import unique
from builder.onnx_tools.ports import Port
from builder.tensors import BY_NUMPY

Json = dict[str, Any]
Ports = tuple[tuple[Port, ...], tuple[Port, ...]]

SAME_SHAPE: Final = ("Activation", "Softmax", "ReLU", "LeakyReLU", "ELU", "Dropout", "Identity")
"""Layers whose output has the shape of their input."""
TENSOR: Final = "__keras_tensor__"
OWN: Final = "keras"
FLOAT: Final = "float32"


def config_ports(config: Any) -> Ports | None:  # noqa: ANN401 - JSON of a file
    """What Keras itself would say; None where only Keras can tell: other classes, other types, nested structures."""
    try:
        known = {"Functional": _functional, "Sequential": _sequential}
        kind = str(config["class_name"])
        return known[kind](config["config"]) if kind in known else None
    except (KeyError, TypeError, IndexError, ValueError):
        return None


def _functional(config: Json) -> Ports | None:
    layers = {layer["config"]["name"]: layer for layer in config["layers"]}
    inputs = _inputs([layers[name] for name, _, _ in _places(config["input_layers"])])
    places = _places(config["output_layers"])
    shapes = [_functional_shape(layers[name], node) for name, node, _ in places]
    return _ports(inputs, [name for name, _, _ in places], shapes)


def _places(found: Any) -> list[tuple[str, int, int]]:  # noqa: ANN401
    """Layer, node and tensor of each; a model with one has no list around it."""
    single = found and isinstance(found[0], str)
    return [(str(name), int(node), int(tensor)) for name, node, tensor in ([found] if single else found)]


def _functional_shape(layer: Json, node: int) -> tuple[int | None, ...] | None:
    (tensor,) = layer["inbound_nodes"][node]["args"]
    if tensor["class_name"] != TENSOR or tensor["config"]["dtype"] != FLOAT:
        return None
    return _shape(layer, tensor["config"]["shape"])


def _sequential(config: Json) -> Ports | None:
    first, *layers = config["layers"]
    if not layers or first["class_name"] != "InputLayer" or first["config"]["batch_shape"][0] is not None:
        return None
    # The last layer that changes the shape says what it is built for.
    last = next(layer for layer in reversed(layers) if layer["class_name"] not in SAME_SHAPE)
    shape = _shape(last, last["build_config"]["input_shape"])
    plain = all(_is_plain(layer) for layer in layers[layers.index(last) :])
    return _ports(_inputs([first]), [layers[-1]["config"]["name"]], [shape if plain else None])


def _shape(layer: Json, before: Sequence[int | None]) -> tuple[int | None, ...] | None:
    if not _is_plain(layer):
        return None
    if layer["class_name"] == "Dense":
        return (*before[:-1], int(layer["config"]["units"]))
    return tuple(before) if layer["class_name"] in SAME_SHAPE else None


def _is_plain(layer: Json) -> bool:
    """A layer of Keras's own that computes in float32."""
    dtype = layer["config"].get("dtype", FLOAT)
    name = dtype["config"]["name"] if isinstance(dtype, dict) else dtype
    return str(layer["module"]).partition(".")[0] == OWN and name == FLOAT


def _inputs(layers: Sequence[Json]) -> tuple[Port, ...] | None:
    configs = [layer["config"] for layer in layers]
    if any(one["dtype"] not in BY_NUMPY or one.get("sparse") or one.get("ragged") for one in configs):
        return None
    return tuple(Port(one["name"], one["dtype"], tuple(one["batch_shape"])) for one in configs)


def _ports(
    inputs: tuple[Port, ...] | None, names: Sequence[str], shapes: Sequence[tuple[int | None, ...] | None]
) -> Ports | None:
    if not inputs or not names or any(shape is None for shape in shapes):
        return None
    taken = {port.name for port in inputs}
    served = unique([f"{name}_out" if name in taken else name for name in names])
    return inputs, tuple(Port(name, FLOAT, shape) for name, shape in zip(served, shapes, strict=True))
