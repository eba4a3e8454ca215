"""TensorFlow SavedModels: one signature of the folder, by its name."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.frameworks.tensorflow.bundle import count_weights, read_index
from builder.frameworks.tensorflow.framework import EXTRA as TENSORFLOW
from builder.frameworks.tensorflow.framework import import_tensorflow, libraries, silent
from builder.frameworks.tensorflow.model import CallForm, Graph, SessionModel, TensorFlowModel
from builder.frameworks.tensorflow.reaching import refuse_reaching
from builder.frameworks.tensorflow.routes import export_session
from builder.frameworks.tensorflow.saved_model_file import (
    DEFAULT,
    SavedModelFile,
    SignatureInfo,
    choose_signature,
    is_saved_model,
    read_saved_model,
)
from builder.onnx_tools.narrowing import narrow, still_declared
from builder.onnx_tools.ports import Port, batch_name, name_axes
from builder.onnx_tools.reading import short
from builder.sources import Description
from builder.tensors import Dim, Signature, Tensor
from builder.work import SourceRef

LIBRARIES: Final = libraries()
EXTRA: Final = TENSORFLOW
FORMATS: Final = ("onnx",)
REACHING_SHOWN: Final = 3
INDEX: Final = "variables/variables.index"


def recognise(path: Path) -> bool:
    """A folder with `saved_model.pb`."""
    return is_saved_model(path)


def describe(path: Path) -> Description:
    """From the folder's own protobuf; TensorFlow is not asked."""
    found = read_saved_model(path)
    listed = "; ".join(f"{name}: {_shown(info)}" for name, info in found.signatures.items())
    notes = [f"signatures: {listed or 'none'}", f"written by TensorFlow {found.version or '?'}"]
    if found.reaching:
        shown = ", ".join(f"{operator} ({name})" for operator, name in found.reaching[:REACHING_SHOWN])
        notes.append(f"reaches files, the network or Python code by {shown}: needs allow_pickle: true")
    signature, names = None, tuple(found.signatures)
    try:
        # Without a default the first is shown, and init writes its name into the spec.
        name, info = choose_signature(path, found, _shown_name(found))
        signature = _signature(info)
        names = (name, *(other for other in names if other != name))
        if len(names) > 1:
            notes.append(f"shown is {name!r}; another one: source: {{signature: NAME}}")
    except SpecError as error:
        notes.append(error.message)
    return Description(
        "tf_saved_model",
        signature,
        operators=found.operators,
        parameters=_count(path),
        notes=tuple(notes),
        signatures=names,
    )


def _shown_name(found: SavedModelFile) -> str | None:
    usable = [name for name, info in found.signatures.items() if not info.problem]
    return None if DEFAULT in usable or not usable else usable[0]


def _shown(info: SignatureInfo) -> str:
    return f"{', '.join(port.name for port in info.inputs)} → {', '.join(port.name for port in info.outputs)}"


def _signature(info: SignatureInfo) -> Signature | None:
    if any(port.dims is None for port in (*info.inputs, *info.outputs)):
        return None
    inputs, outputs = info.inputs, _served(info)
    tensors = name_axes(inputs)
    taken = {dim for tensor in tensors for dim in tensor.shape if isinstance(dim, str)}
    return Signature(tensors, name_axes(outputs, taken, batch_name(inputs)))


def _served(info: SignatureInfo) -> tuple[Port, ...]:
    """The outputs under names that no input has."""
    inputs = {port.name for port in info.inputs}
    return tuple(
        Port(f"{port.name}_out" if port.name in inputs else port.name, port.dtype, port.dims) for port in info.outputs
    )


def _count(path: Path) -> int | None:
    return count_weights(read_index(path / INDEX)) if (path / INDEX).is_file() else None


def screen(source: SourceRef) -> None:
    """Raises SpecError for operators that reach beyond the graph, where the spec does not allow them."""
    path = Path(source.path)
    if not source.allow_pickle:
        refuse_reaching(path, read_saved_model(path).reaching)


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> TensorFlowModel | SessionModel:
    """The signature in TensorFlow 2, or in a TF1 session where that does not load it.

    Raises:
        SpecError: damaged, no such signature, or a spec that does not fit.
    """
    path = Path(source.path)
    found = read_saved_model(path)
    screen(source)
    name, info = choose_signature(path, found, source.signature)
    settled = narrow(info.inputs, inputs)
    tf = import_tensorflow()
    try:
        with silent():
            loaded = tf.saved_model.load(str(path), tags=list(found.tags))
            function = loaded.signatures[name]
    except Exception as error:
        graph = _open_graph(path, found, info, error)
        declared = still_declared(info.inputs, settled, graph.declared)
        return SessionModel(replace(graph, declared=declared), settled, outputs)
    form = CallForm(
        call=partial(_call, function, info),
        owner=loaded,
        names=tuple(port.name for port in _served(info)),
        declared=still_declared(info.inputs, settled, _declared(info)),
        parameters=_count(path),
        more_routes=lambda signature: {"v1 graph": partial(_export_v1, path, found, info, signature)},
    )
    return TensorFlowModel(form, settled, outputs)


def _call(function: Any, info: SignatureInfo, feeds: Any) -> list[Any]:  # noqa: ANN401 - tensors by their names
    answer = function(**feeds)
    return [answer[port.name] for port in info.outputs]


def _declared(info: SignatureInfo) -> dict[str, tuple[Dim | None, ...]]:
    return {port.name: port.dims for port in _served(info) if port.dims is not None}


def _open_graph(path: Path, found: SavedModelFile, info: SignatureInfo, why: Exception | None) -> Graph:
    """The same graph by TensorFlow 1's loader.

    Raises:
        SpecError: that one refuses it too.
    """
    tf = import_tensorflow()
    graph = tf.Graph()
    try:
        with silent(), graph.as_default():
            session = tf.compat.v1.Session(graph=graph)
            tf.compat.v1.saved_model.loader.load(session, list(found.tags), str(path))
    except Exception as error:
        raise SpecError(
            f"{path.name} cannot be loaded by TensorFlow {tf.__version__}: {short(why or error)} | as a TF1 graph: "
            f"{short(error)}",
            remedy="the folder is incomplete, or needs operators that are not in TensorFlow: save it again",
        ) from error
    names = {
        f"output {served.name}": info.tensors[f"output {port.name}"]
        for port, served in zip(info.outputs, _served(info), strict=True)
    }
    tensors = {f"input {port.name}": info.tensors[f"input {port.name}"] for port in info.inputs} | names
    notes = (f"run by TensorFlow 1's loader, because tf.saved_model.load says: {short(why)}",) if why else ()
    served = tuple(port.name for port in _served(info))
    return Graph(session, tensors, served, _declared(info), _count(path), notes)


def _export_v1(path: Path, found: SavedModelFile, info: SignatureInfo, signature: Signature, out: Path) -> None:
    from builder.frameworks.tensorflow.routes import OLDER_OPSET

    graph = _open_graph(path, found, info, None)
    export_session(graph.session, graph.tensors, signature, OLDER_OPSET, out)
