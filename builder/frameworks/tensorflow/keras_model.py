"""A Keras model, of Keras 3 or 2, as a call on named tensors."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from builder.errors import SpecError
from builder.frameworks.tensorflow.framework import import_tensorflow
from builder.frameworks.tensorflow.model import CallForm, TensorFlowModel
from builder.frameworks.tensorflow.routes import OLDER_OPSET
from builder.frameworks.tensorflow.values import port_of, spec_of, unique
from builder.onnx_tools.canonical import canonicalise
from builder.onnx_tools.exported import Exporter
from builder.onnx_tools.narrowing import narrow, still_declared
from builder.onnx_tools.ports import Port
from builder.onnx_tools.reading import read_onnx, short
from builder.onnx_tools.renaming import rename_ports
from builder.tensors import Dim, Signature, Tensor


def is_keras(model: Any) -> bool:  # noqa: ANN401
    """A model of Keras 3 or 2, told without importing either."""
    return any(
        kind.__name__ == "Model" and kind.__module__.startswith(("keras.", "tf_keras.")) for kind in type(model).__mro__
    )


def is_keras_3(model: Any) -> bool:  # noqa: ANN401
    """Keras 2 is the module `tf_keras`."""
    return any(kind.__module__.startswith("keras.") for kind in type(model).__mro__)


def keras_ports(model: Any) -> tuple[Port, ...]:  # noqa: ANN401
    """The declared inputs, none where the model was built without."""
    tensors = getattr(model, "inputs", None) or ()
    names = unique([_layer_name(tensor) for tensor in tensors])
    ports = tuple(port_of(name, tensor) for name, tensor in zip(names, tensors, strict=True))
    if type(model).__name__ != "Sequential":
        return ports
    # A Sequential built by its first call declares that call's batch size, which binds nobody.
    return tuple(replace(port, dims=(None, *port.dims[1:])) if port.dims else port for port in ports)


def _layer_name(tensor: Any) -> str:  # noqa: ANN401 - KerasTensor
    history = getattr(tensor, "_keras_history", None)
    layer = getattr(history, "operation", None) or getattr(history, "layer", None)
    return str(layer.name if layer is not None else tensor.name.partition(":")[0])


def run_keras(
    model: Any,  # noqa: ANN401
    inputs: tuple[Tensor, ...],
    wanted: tuple[str, ...],
    *,
    notes: tuple[str, ...] = (),
) -> TensorFlowModel:
    """The model with the inputs that it declares, or those of the spec.

    Raises:
        SpecError: neither says them, or the spec does not fit.
    """
    ports = keras_ports(model)
    if not ports and not inputs:
        raise SpecError(
            "the Keras model does not tell its inputs; the spec has to",
            remedy="add for example inputs: [{name: image, dtype: float32, shape: [batch, 224, 224, 3]}]",
        )
    settled = narrow(ports, inputs) if ports else inputs
    arrange = _arrangement(model, settled)
    form = CallForm(
        call=lambda feeds: model(arrange([feeds[tensor.name] for tensor in settled]), training=False),
        owner=model,
        names=_output_names(model),
        declared=still_declared(ports, settled, _declared(model)) if ports else {},
        parameters=_count(model),
        notes=notes,
        more_routes=partial(_keras_route, model, arrange) if is_keras_3(model) else None,
    )
    return TensorFlowModel(form, settled, wanted)


def _arrangement(model: Any, inputs: Sequence[Tensor]) -> Callable[[Sequence[Any]], Any]:  # noqa: ANN401
    """A flat list of inputs as the model takes it: alone, a list, or a dict."""
    structure = _structure(model, "inputs")
    if isinstance(structure, Mapping):
        keys = sorted(structure)
        if not any(isinstance(structure[key], (Mapping, list, tuple)) for key in keys):
            return lambda flat: dict(zip(keys, flat, strict=True))
    if len(inputs) == 1:
        alone = isinstance(structure, (list, tuple))
        return lambda flat: list(flat) if alone else flat[0]
    return list


def _structure(model: Any, side: str) -> Any:  # noqa: ANN401
    """How a functional model of Keras 3 or 2 nests its inputs or outputs; None for any other."""
    found = getattr(model, f"_{side}_struct", None)
    return getattr(model, f"_nested_{side}", None) if found is None else found


def _outputs_in_order(model: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """The output tensors in the order in which `values.flatten` finds them, with the keys of a dict."""
    structure = _structure(model, "outputs")
    if isinstance(structure, Mapping):
        return tuple((str(key), structure[key]) for key in sorted(structure, key=str))
    return tuple((_layer_name(tensor), tensor) for tensor in getattr(model, "outputs", None) or ())


def _output_names(model: Any) -> tuple[str, ...] | None:  # noqa: ANN401
    found = _outputs_in_order(model)
    if not found or any(isinstance(tensor, (Mapping, list, tuple)) for _, tensor in found):
        return None
    names = [name for name, _ in found]
    inputs = {port.name for port in keras_ports(model)}
    return unique([f"{name}_out" if name in inputs else name for name in names])


def _declared(model: Any) -> Mapping[str, tuple[Dim | None, ...]]:  # noqa: ANN401
    names = _output_names(model) or ()
    shapes = (getattr(tensor, "shape", None) for _, tensor in _outputs_in_order(model))
    return {
        name: tuple(None if size is None else int(size) for size in shape)
        for name, shape in zip(names, shapes, strict=False)
        if shape is not None
    }


def _count(model: Any) -> int | None:  # noqa: ANN401
    try:
        return int(model.count_params())
    except ValueError:
        return None


def _keras_route(model: Any, arrange: Callable[[Sequence[Any]], Any], signature: Signature) -> dict[str, Exporter]:  # noqa: ANN401
    """Keras's own export, for all outputs of the model."""
    names = _output_names(model)
    if names is None or names != tuple(tensor.name for tensor in signature.outputs):
        return {}

    def export(path: Path) -> None:
        specs = arrange([spec_of(tensor, f"input_{place}") for place, tensor in enumerate(signature.inputs)])
        model.export(str(path), format="onnx", verbose=False, input_signature=[specs], opset_version=OLDER_OPSET)
        made = read_onnx(path)
        canonicalise(made)
        found = [value.name for value in (*made.graph.input, *made.graph.output)]
        rename_ports(made, dict(zip(found, [tensor.name for tensor in signature.tensors], strict=True)))
        path.write_bytes(made.SerializeToString(deterministic=True))

    return {"keras": export}


def build_unbuilt(model: Any, inputs: Sequence[Tensor]) -> None:  # noqa: ANN401
    """Call the model once on zeros, so that its variables exist.

    Raises:
        SpecError: it refuses them.
    """
    if getattr(model, "built", False) and getattr(model, "weights", ()):
        return
    tf = import_tensorflow()
    zeros = [tf.zeros([dim if isinstance(dim, int) else 1 for dim in tensor.shape], tensor.dtype) for tensor in inputs]
    if not zeros:
        return
    try:
        model(_arrangement(model, inputs)(zeros))
    except Exception as error:
        raise SpecError(
            f"the model of the callable refuses the declared inputs: {short(error)}", remedy="correct inputs:"
        ) from error


def with_suffix(path: Path, suffix: str) -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """The file under a name with the suffix by which Keras chooses its reader; the folder must live as long."""
    folder = tempfile.TemporaryDirectory(prefix="build-repo-")
    link = Path(folder.name) / f"model{suffix}"
    link.symlink_to(path.resolve())
    return link, folder
