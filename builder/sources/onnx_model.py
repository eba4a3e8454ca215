"""ONNX files: a single file, or with external data beside it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.errors import BuildError, SpecError
from builder.onnx_tools.conform import conform, write_shape
from builder.onnx_tools.limits import check_loadable, fit_limits
from builder.onnx_tools.narrowing import chosen_outputs, narrow
from builder.onnx_tools.ports import Port, batch_name, name_axes, read_ports
from builder.onnx_tools.reading import (
    ModelProto,
    count_operators,
    count_parameters,
    data_pieces,
    external_tensors,
    opset_of,
)
from builder.onnx_tools.running import open_plain, run_plain
from builder.onnx_tools.wire import looks_like_onnx
from builder.onnx_tools.writing import write_onnx
from builder.onnx_tools.zip_maps import read_served
from builder.samples import Request
from builder.sources import Description
from builder.tensors import Dim, Signature, Tensor
from builder.work import SourceRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

LIBRARIES: Final = ("onnx", "onnxruntime", "numpy")
EXTRA: Final = ""
FORMATS: Final = ("onnx",)
SAFE_IR: Final = 10
"""The newest IR version that the oldest supported onnxruntime (1.20) loads."""


def recognise(path: Path) -> bool:
    """By the outermost fields of the protobuf."""
    return path.is_file() and looks_like_onnx(path)


def describe(path: Path) -> Description:
    """From the graph alone; onnxruntime is not asked."""
    model, changed = read_served(path)
    notes = [*changed]
    try:
        if external_tensors(model):
            files = sorted({piece.file.name for piece in data_pieces(model, path)})
            notes.append(f"weights lie in {', '.join(files)}")
        ports = read_ports(model)
        signature = _signature(*ports)
    except SpecError as error:
        signature = None
        notes.append(error.message)
    return Description(
        format="onnx",
        signature=signature,
        opset=opset_of(model),
        ir_version=model.ir_version,
        operators=count_operators(model),
        parameters=count_parameters(model),
        notes=tuple(notes),
    )


def _signature(inputs: tuple[Port, ...], outputs: tuple[Port, ...]) -> Signature | None:
    if any(port.dims is None for port in inputs + outputs):
        return None
    tensors = name_axes(inputs)
    taken = {dim for tensor in tensors for dim in tensor.shape if isinstance(dim, str)}
    return Signature(tensors, name_axes(outputs, taken, batch_name(inputs)))


def screen(source: SourceRef) -> None:
    """Nothing to ask for: no code of the file runs."""


def load(source: SourceRef, inputs: tuple[Tensor, ...], outputs: tuple[str, ...]) -> OnnxSource:
    """Read the graph and settle its ports; the session is opened by the first run.

    Raises:
        SpecError: damaged, outside data, ports that Triton does not have, or a spec that does not fit.
    """
    path = Path(source.path)
    model, _ = read_served(path)
    data_pieces(model, path)
    chosen_outputs([value.name for value in model.graph.output], outputs)
    ports, out_ports = read_ports(model, outputs)
    if not ports:
        raise SpecError(f"{path.name} has no inputs; Triton needs one at least")
    half = next((port.name for port in (*ports, *out_ports) if port.dtype == "bfloat16"), None)
    if half:
        raise SpecError(
            f"{path.name}: {half!r} is bfloat16, which onnxruntime's Python interface cannot pass",
            remedy="put a Cast to float32 at that input or output and export again",
        )
    narrowed = narrow(ports, inputs)
    return OnnxSource(path, narrowed, _follow(ports, narrowed, out_ports), count_parameters(model))


def _follow(ports: Sequence[Port], narrowed: Sequence[Tensor], outputs: Sequence[Port]) -> tuple[Port, ...]:
    """Output axes named like an input axis that the spec fixed or renamed."""
    renamed: dict[Dim | None, Dim] = {}
    for port, tensor in zip(ports, narrowed, strict=True):
        renamed |= {was: now for was, now in zip(port.dims or (), tensor.shape, strict=False) if isinstance(was, str)}
    return tuple(
        replace(port, dims=tuple(renamed.get(dim, dim) for dim in port.dims)) if port.dims is not None else port
        for port in outputs
    )


class OnnxSource:
    """An ONNX file in onnxruntime, optimisations off."""

    def __init__(self, path: Path, inputs: tuple[Tensor, ...], outputs: tuple[Port, ...], parameters: int) -> None:
        self.inputs = inputs
        self.declared_outputs = outputs
        self.parameters = parameters
        self._path = path
        self._session: Any = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(port.name for port in self.declared_outputs)

    @property
    def declared_shapes(self) -> Mapping[str, tuple[Dim | None, ...]]:
        return {port.name: port.dims for port in self.declared_outputs if port.dims is not None}

    def run(self, inputs: Arrays) -> tuple[NDArray[np.generic], ...]:
        """What onnxruntime answers."""
        if self._session is None:
            try:
                self._session = self._open()
            except BuildError:
                check_loadable(read_served(self._path)[0], self._path.name)
                raise
        return run_plain(self._session, self.output_names, inputs)

    def _open(self) -> Any:  # noqa: ANN401 - onnxruntime.InferenceSession
        """The file itself where onnxruntime takes it, else a copy without what it refuses."""
        model, changed = read_served(self._path)
        lowered = model.ir_version > SAFE_IR and _lowered(model)
        ports, _ = read_ports(model, self.output_names)
        wrong = {port.name for port in ports if port.literal_dims or port.dims is None}
        if not (lowered or wrong or changed):
            return open_plain(self._path)
        for tensor in self.inputs:
            if tensor.name in wrong:
                write_shape(model, tensor)
        if not external_tensors(model):
            return open_plain(model.SerializeToString())
        self._folder = tempfile.TemporaryDirectory(prefix="build-repo-")
        copy = Path(self._folder.name) / "model.onnx"
        write_onnx(model, copy, origin=self._path)
        return open_plain(copy)

    def to_onnx(
        self,
        path: Path,
        *,
        signature: Signature,
        requests: Sequence[Request],  # noqa: ARG002 - a copy is the source itself
        opset: int,
        ir_version: int,
    ) -> tuple[str, tuple[str, ...]]:
        """A copy, byte for byte where nothing has to change."""
        model, changed = read_served(self._path)
        notes = (*changed, *fit_limits(model, opset=opset, ir_version=ir_version), *conform(model, signature))
        if notes or external_tensors(model):
            write_onnx(model, path, origin=self._path)
        else:
            shutil.copyfile(self._path, path)
        return "copy", notes


def _lowered(model: ModelProto) -> bool:
    """Whether the IR version could be lowered to what every onnxruntime of this package loads."""
    try:
        return bool(fit_limits(model, opset=opset_of(model), ir_version=SAFE_IR))
    except SpecError:
        return False
