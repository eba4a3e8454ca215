"""Keras models: `.keras` archives and legacy HDF5 files, of Keras 3 and 2; weights alone with a callable."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from builder.callables import call_named
from builder.errors import BuildRepoError, MachineError, SpecError
from builder.frameworks.tensorflow.framework import EXTRA as TENSORFLOW
from builder.frameworks.tensorflow.framework import import_keras, import_tensorflow, import_tf_keras, libraries, silent
from builder.frameworks.tensorflow.keras_config import config_ports
from builder.frameworks.tensorflow.keras_file import (
    KerasFile,
    count_weights,
    foreign_classes,
    keras_kind,
    lambda_layers,
    read_keras,
)
from builder.frameworks.tensorflow.keras_model import build_unbuilt, is_keras, keras_ports, run_keras, with_suffix
from builder.frameworks.tensorflow.model import TensorFlowModel
from builder.onnx_tools.ports import Port, batch_name, name_axes
from builder.onnx_tools.reading import short
from builder.sources import Description
from builder.tensors import Signature, Tensor
from builder.work import SourceRef

LIBRARIES: Final = libraries("tf_keras", "h5py")
EXTRA: Final = TENSORFLOW
FORMATS: Final = ("onnx",)
SUFFIXES: Final = {"archive": ".keras", "hdf5": ".h5"}


def recognise(path: Path) -> bool:
    """A zip with Keras's configuration and weights, or an HDF5 file in one of Keras's layouts."""
    return keras_kind(path) is not None


def describe(path: Path) -> Description:
    """The configuration tells most models' inputs and outputs; for the others Keras itself is asked."""
    found = read_keras(path)
    if found.config is None:
        return Description("keras", None, parameters=count_weights(path), notes=(f"weights only; {WEIGHTS_REMEDY}",))
    written = f"written by Keras {found.version}" if found.version else "written by an unknown Keras"
    try:
        _check_code(path, found)
        ports = config_ports(found.config)
        if ports is not None:
            return Description("keras", _named(*ports), parameters=count_weights(path), notes=(written,))
        model, notes = _open(path, found, allow_code=False)
    except BuildRepoError as error:
        return Description("keras", None, parameters=count_weights(path), notes=(written, error.message))
    return Description("keras", _signature(model), parameters=int(model.count_params()), notes=(written, *notes))


def _signature(model: Any) -> Signature | None:  # noqa: ANN401
    ports = keras_ports(model)
    if not ports:
        return None
    source = run_keras(model, (), ())
    names = source.output_names
    if names is None or any(name not in source.declared_shapes for name in names):
        return None
    dtypes = [str(getattr(tensor.dtype, "name", tensor.dtype)) for tensor in model.outputs]
    outputs = [
        Port(name, dtype, tuple(source.declared_shapes[name])) for name, dtype in zip(names, dtypes, strict=True)
    ]
    return _named(ports, outputs)


def _named(ports: Sequence[Port], outputs: Sequence[Port]) -> Signature:
    """Every axis with a size or a name."""
    inputs = name_axes(ports)
    taken = {dim for tensor in inputs for dim in tensor.shape if isinstance(dim, str)}
    return Signature(inputs, name_axes(outputs, taken, batch_name(ports)))


WEIGHTS_REMEDY: Final = (
    "name what builds the model: source: {path: ..., model: my_nets:build}, or save the whole model: "
    "model.save('model.keras')"
)


def screen(source: SourceRef) -> None:
    """Raises SpecError for Python code in the file that the spec does not allow."""
    path = Path(source.path)
    found = read_keras(path)
    if source.model is None and found.config is not None and not source.allow_pickle:
        _check_code(path, found)


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> TensorFlowModel:
    """The model, or the callable's model with the file's weights.

    Raises:
        SpecError: weights only, code in the file, custom classes, damaged, or a spec that does not fit.
    """
    path = Path(source.path)
    import_tensorflow()
    found = read_keras(path)
    if source.model is not None:
        model = _built(source, path, found, inputs)
        return run_keras(model, inputs, outputs)
    if found.config is None:
        raise SpecError(
            f"{path.name} holds weights without the model's architecture ({_layers(found)})", remedy=WEIGHTS_REMEDY
        )
    model, notes = _open(path, found, allow_code=source.allow_pickle)
    return run_keras(model, inputs, outputs, notes=notes)


def _layers(found: KerasFile) -> str:
    return f"its groups are {', '.join(found.entries[:4])}" if found.entries else "it is empty"


def _built(source: SourceRef, path: Path, found: KerasFile, inputs: tuple[Tensor, ...]) -> Any:  # noqa: ANN401
    model = call_named(str(source.model), source.args, source.import_root)
    if not is_keras(model):
        raise SpecError(
            f"model: {source.model} returned a {type(model).__name__}, not a Keras model",
            remedy="name a function or class that returns the model itself",
        )
    build_unbuilt(model, inputs)
    weights_only = found.config is None and "layer_names" not in found.entries
    suffix = ".weights.h5" if weights_only and {"layers", "vars"} & set(found.entries) else SUFFIXES[found.kind]
    link, folder = with_suffix(path, suffix)
    try:
        with folder, silent():
            model.load_weights(str(link))
    except Exception as error:
        raise SpecError(
            f"the weights of {path.name} do not fit the model of {source.model}: {short(error)}",
            remedy="correct source: args: or the callable; the layers must be those that were saved",
        ) from error
    return model


def _open(path: Path, found: KerasFile, *, allow_code: bool) -> tuple[Any, tuple[str, ...]]:
    """The model in the Keras that wrote it, else in the other one."""
    if not allow_code:
        _check_code(path, found)
    reasons = []
    for name, keras in _candidates(found):
        try:
            link, folder = with_suffix(path, SUFFIXES[found.kind])
            with folder, silent():
                model = keras().models.load_model(str(link), compile=False, safe_mode=not allow_code)
        except MachineError as error:
            reasons.append((name, error.message, error.remedy))
            continue
        except Exception as error:
            reasons.append((name, short(error), ""))
            continue
        notes = tuple(f"opened with {name}, because {first}: {why}" for first, why, _ in reasons)
        return model, notes
    missing = next((remedy for _, _, remedy in reasons if remedy), "")
    raise (MachineError if missing else SpecError)(
        f"{path.name}, written by Keras {found.version or '?'}, cannot be opened: "
        + " | ".join(f"{name}: {why}" for name, why, _ in reasons),
        remedy=missing or "for custom layers name what builds the model: source: {path: ..., model: my_nets:build}",
    )


def _candidates(found: KerasFile) -> tuple[tuple[str, Any], ...]:
    both = (("Keras 3", import_keras), ("Keras 2", import_tf_keras))
    return tuple(reversed(both)) if found.is_keras_2 else both


def _check_code(path: Path, found: KerasFile) -> None:
    """Refuse what would run code on opening, whatever the Keras that opens it checks itself.

    Raises:
        SpecError: Lambda layers, or classes of other modules.
    """
    lambdas = lambda_layers(found.config)
    if lambdas:
        raise SpecError(
            f"{path.name} holds Python code in Lambda layers ({', '.join(lambdas[:3])}): opening it can run any code",
            remedy="replace them by layers, or, if you trust the file, write source: {path: ..., allow_pickle: true}",
        )
    foreign = foreign_classes(found.config)
    if foreign:
        raise SpecError(
            f"{path.name} needs classes that are not Keras's: {', '.join(foreign[:3])}",
            remedy="name what builds the model: source: {path: ..., model: my_nets:build}; the weights are read from "
            "the file",
        )
