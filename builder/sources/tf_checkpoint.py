"""TensorFlow checkpoints: weights with a callable that builds the objects, or with TensorFlow 1's graph beside them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from builder.callables import call_named
from builder.errors import SpecError
from builder.frameworks.tensorflow.bundle import count_weights
from builder.frameworks.tensorflow.checkpoint_file import CheckpointFile, is_checkpoint, read_checkpoint
from builder.frameworks.tensorflow.framework import EXTRA as TENSORFLOW
from builder.frameworks.tensorflow.framework import import_tensorflow, libraries, silent
from builder.frameworks.tensorflow.keras_model import build_unbuilt, is_keras, run_keras
from builder.frameworks.tensorflow.meta_graph import open_meta_graph
from builder.frameworks.tensorflow.model import CallForm, SessionModel, TensorFlowModel
from builder.frameworks.tensorflow.reaching import reaching_nodes, refuse_reaching
from builder.frameworks.tensorflow.values import port_of
from builder.frameworks.tensorflow.wire import message
from builder.onnx_tools.narrowing import narrow
from builder.onnx_tools.ports import Port
from builder.onnx_tools.reading import short
from builder.sources import Description
from builder.tensors import Tensor
from builder.work import SourceRef

LIBRARIES: Final = libraries("tf_keras")
EXTRA: Final = TENSORFLOW
FORMATS: Final = ("onnx",)
SHOWN: Final = 4
CALL: Final = "__call__"


def recognise(path: Path) -> bool:
    """An index file of a checkpoint, or a folder with one."""
    return is_checkpoint(path)


def describe(path: Path) -> Description:
    """From the index; TensorFlow is not asked."""
    found = read_checkpoint(path)
    weights = [tensor for tensor in found.tensors if tensor.is_weight]
    names = ", ".join(tensor.name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for tensor in weights[:SHOWN])
    how = "of tf.train.Checkpoint" if found.has_objects else "of TensorFlow 1"
    needs = (
        f"the graph is in {found.meta.name}: inputs: and outputs: name its tensors"
        if not found.has_objects and found.meta.is_file()
        else "the model itself is code: source: model: names what builds it"
    )
    notes = (f"checkpoint {found.prefix.name} {how}, {len(weights)} tensors: {names} …", needs)
    return Description("tf_checkpoint", None, parameters=count_weights(found.tensors), notes=notes)


def screen(source: SourceRef) -> None:
    """Raises SpecError for operators of a TensorFlow 1 graph that reach beyond it, where the spec does not allow it."""
    found = read_checkpoint(Path(source.path))
    if source.model is not None or source.allow_pickle or found.has_objects or not found.meta.is_file():
        return
    try:
        nodes = reaching_nodes(message(found.meta.read_bytes(), 2))
    except ValueError:
        return  # `load` says what is wrong with it
    refuse_reaching(found.meta, nodes)


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> TensorFlowModel | SessionModel:
    """The callable's objects with the checkpoint's weights.

    Raises:
        SpecError: no callable and no graph, weights that do not fit, or inputs that nobody tells.
    """
    found = read_checkpoint(Path(source.path))
    screen(source)
    if source.model is None and not found.has_objects:
        return open_meta_graph(found, inputs, outputs)
    if source.model is None:
        raise SpecError(
            f"{found.prefix.name} holds weights without the model's code",
            remedy="name what builds the model: source: {path: ..., model: my_nets:build, args: {...}}",
        )
    tf = import_tensorflow()
    made = call_named(source.model, source.args, source.import_root)
    target = _target(made, source.model, source.signature or CALL)
    if is_keras(target) and source.signature is None:
        build_unbuilt(target, inputs)
        _restore(made, found, source.model)
        return run_keras(target, inputs, outputs)
    method = _method(target, source.signature, source.model)
    settled, call = _call_form(method, inputs, source.signature or CALL)
    _create_variables(call, settled)
    _restore(made, found, source.model)
    parameters = sum(int(tf.size(variable)) for variable in getattr(target, "variables", ()))
    return TensorFlowModel(CallForm(call, target, parameters=parameters or None), settled, outputs)


def _target(made: Any, model: str, method: str) -> Any:  # noqa: ANN401 - a trackable
    """The object that is called: the callable's result, or the one part of a `tf.train.Checkpoint` with the method."""
    tf = import_tensorflow()
    if not isinstance(made, tf.train.Checkpoint):
        return made
    parts = {name: part for name, part in vars(made).items() if callable(getattr(part, method, None))}
    models = {
        name: part for name, part in parts.items() if not name.startswith("_") and not hasattr(part, "apply_gradients")
    }
    if len(models) != 1:
        raise SpecError(
            f"model: {model} returned a Checkpoint with {len(models)} models ({', '.join(models) or 'none'})",
            remedy="return the model itself, or a Checkpoint with one",
        )
    return next(iter(models.values()))


def _method(target: Any, name: str | None, model: str) -> Any:  # noqa: ANN401 - a callable
    method = getattr(target, name or CALL, None)
    if not callable(method):
        kind = type(target).__name__
        public = [key for key, value in vars(type(target)).items() if callable(value) and not key.startswith("_")]
        known = ", ".join(public)
        raise SpecError(
            f"model: {model} returned a {kind} without the method {name or CALL}; it has {known or 'none'}",
            remedy="name the method in source: signature:, or return an object that can be called",
        )
    return method


def _call_form(method: Any, inputs: tuple[Tensor, ...], name: str) -> tuple[tuple[Tensor, ...], Callable[..., Any]]:  # noqa: ANN401
    """The inputs that the method declares or the spec gives, and the call with them."""
    names = _argument_names(method)
    declared = getattr(method, "input_signature", None)
    ports: tuple[Port, ...] = ()
    if declared:
        ports = tuple(port_of(getattr(spec, "name", None) or names[place], spec) for place, spec in enumerate(declared))
    elif not inputs:
        first = names[0] if names else "x"
        raise SpecError(
            f"{name}({', '.join(names)}) does not tell its inputs; the spec has to",
            remedy=f"add for example inputs: [{{name: {first}, dtype: float32, shape: [batch, 4]}}]",
        )
    settled = narrow(ports, inputs) if ports else inputs
    if not ports and all(tensor.name in names for tensor in settled):
        return settled, lambda feeds: method(**{tensor.name: feeds[tensor.name] for tensor in settled})
    return settled, lambda feeds: method(*[feeds[tensor.name] for tensor in settled])


def _argument_names(method: Any) -> list[str]:  # noqa: ANN401
    python = getattr(method, "python_function", method)
    try:
        names = list(inspect.signature(python).parameters)
    except (TypeError, ValueError):
        return []
    return names[1:] if names[:1] == ["self"] else names


def _create_variables(call: Callable[[Mapping[str, Any]], Any], inputs: Sequence[Tensor]) -> None:
    """Call once on zeros: modules make their variables then. What they refuse shows again in the real run."""
    tf = import_tensorflow()
    shapes = {tensor.name: [dim if isinstance(dim, int) else 2 for dim in tensor.shape] for tensor in inputs}
    try:
        call({tensor.name: tf.zeros(shapes[tensor.name], tensor.dtype) for tensor in inputs})
    except Exception:
        return


def _restore(made: Any, found: CheckpointFile, model: str) -> None:  # noqa: ANN401
    """Put the weights into the objects, which hang at the checkpoint's root or under one of its names.

    Raises:
        SpecError: some of the objects' variables are not in the checkpoint.
    """
    tf = import_tensorflow()
    if isinstance(made, tf.train.Checkpoint):
        holders = [("", made)]
    else:
        names = [name for name in found.roots if name.isidentifier()]
        holders = [("", tf.train.Checkpoint(made)), *((name, tf.train.Checkpoint(**{name: made})) for name in names)]
    reasons = []
    for _, holder in holders:
        try:
            with silent():
                # Not restore(), which asks for the counter that only save() writes.
                status = holder.read(str(found.prefix))
                status.assert_existing_objects_matched()
                status.expect_partial()
        except Exception as error:
            reasons.append(short(error))
            continue
        return
    stored = ", ".join(
        tensor.name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE") for tensor in found.tensors if tensor.is_weight
    )
    raise SpecError(
        f"the weights of {found.prefix.name} do not fit what {model} returns: {reasons[0]}",
        remedy=f"the checkpoint holds {stored[:200]}; return the object that was saved, with the same attributes",
    )
