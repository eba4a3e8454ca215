"""Read an ONNX file without its weights, and find the data files it points to, before anything trusts them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError

ModelProto = Any
TensorProto = Any
GraphProto = Any

TORCHSCRIPT_HEADLINE: Final = "The following operation failed in the TorchScript interpreter."
"""A traceback of TorchScript follows it, and the error is its last line."""


@dataclass(frozen=True, slots=True)
class DataPiece:
    """Where one external tensor lies: `file` is resolved, `length` None means to the end of the file."""

    tensor: str
    location: str
    file: Path
    offset: int
    length: int | None


def read_onnx(path: Path) -> ModelProto:
    """The model as a protobuf; external weights stay on disk.

    Raises:
        SpecError: the file is missing, damaged, or no ONNX model.
    """
    import onnx

    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except OSError as error:
        raise SpecError(f"cannot read {path.name}: {error.strerror}", remedy="check the path of the source") from error
    except Exception as error:
        raise _unreadable(path, short(error)) from error
    if not model.ir_version or not model.graph.output:
        what = "it holds no graph with outputs" if model.ir_version else "it has no IR version"
        raise _unreadable(path, what)
    return model


def _unreadable(path: Path, reason: str) -> SpecError:
    size = path.stat().st_size
    return SpecError(
        f"{path.name} is not a readable ONNX model: {reason} ({size} bytes)",
        remedy="the file is cut off or is something else: copy or download it again",
    )


def short(error: BaseException | str, limit: int = 300) -> str:
    """The first telling line of a library's message, cut to `limit` characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if text == TORCHSCRIPT_HEADLINE:
        return short(lines[-1], limit)
    if len(lines) > 1 and (len(text) < 40 or text.endswith(":")):  # noqa: PLR2004 - a headline without content
        text = f"{text} {lines[1]}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def graphs(model: ModelProto) -> Iterator[GraphProto]:
    """The main graph and every graph inside its nodes."""
    pending = [model.graph]
    while pending:
        graph = pending.pop()
        yield graph
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _attributes(model: ModelProto) -> Iterator[Any]:
    for graph in graphs(model):
        for node in graph.node:
            yield from node.attribute
    for function in model.functions:
        for node in function.node:
            yield from node.attribute


def tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Every stored tensor: initialisers, and constants inside attributes."""
    for graph in graphs(model):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield sparse.values
            yield sparse.indices
    for attribute in _attributes(model):
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def external_tensors(model: ModelProto) -> tuple[TensorProto, ...]:
    """The tensors whose values lie in another file."""
    return tuple(tensor for tensor in tensors(model) if tensor.data_location == 1)


def data_pieces(model: ModelProto, path: Path) -> tuple[DataPiece, ...]:
    """Every piece of external data, each checked to lie inside the model's folder and inside its file.

    Raises:
        SpecError: a location leaves the folder, or a file is missing or too short.
    """
    return tuple(_piece(tensor, path) for tensor in external_tensors(model))


def _piece(tensor: TensorProto, path: Path) -> DataPiece:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    file = _inside(location, tensor.name, path)
    try:
        offset = int(entries.get("offset", "0") or "0")
        length = int(entries["length"]) if entries.get("length") else None
    except ValueError as error:
        raise SpecError(f"{path.name}: tensor {tensor.name!r} has a malformed offset or length: {error}") from error
    size = file.stat().st_size
    needed = offset + (length if length is not None else 0)
    if offset < 0 or (length or 0) < 0 or needed > size:
        raise SpecError(
            f"{path.name}: tensor {tensor.name!r} lies at bytes {offset}..{needed} of {location!r}, "
            f"which has {size} bytes",
            remedy="the data file is cut off or belongs to another export: copy both files again",
        )
    return DataPiece(tensor.name, location, file, offset, length)


def _inside(location: str, tensor: str, path: Path) -> Path:
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if not location or Path(location).is_absolute() or ".." in Path(location).parts or not file.is_relative_to(folder):
        raise SpecError(
            f"{path.name}: tensor {tensor!r} points to {location!r}, outside the model's folder",
            remedy="external data must lie beside the model: save it again with a plain file name as location",
        )
    if not file.is_file():
        raise SpecError(
            f"{path.name}: tensor {tensor!r} needs the data file {location!r}, which is missing",
            remedy=f"put {location} beside {path.name}",
        )
    return file


def source_files(path: Path) -> tuple[Path, ...]:
    """The file and the data files it points to, sorted; what a digest of the model has to cover.

    Raises:
        SpecError: as `read_onnx` and `data_pieces`.
    """
    return (path, *sorted({piece.file for piece in data_pieces(read_onnx(path), path)}))


def count_operators(model: ModelProto) -> dict[str, int]:
    """How often each operator occurs, inner graphs included, most frequent first."""
    counts: dict[str, int] = {}
    for graph in graphs(model):
        for node in graph.node:
            name = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}"
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def count_parameters(model: ModelProto) -> int:
    """Elements in all stored tensors: some exporters keep the weights in Constant nodes."""
    return sum(math.prod(tensor.dims) for tensor in tensors(model))


def opset_of(model: ModelProto) -> int:
    """The version of the default operator set."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
