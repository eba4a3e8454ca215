"""Write `model.onnx`, with all external data gathered into the one file `model.onnx.data` beside it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import BinaryIO, Final

from builder.errors import BuildError
from builder.onnx_tools.reading import (
    DataPiece,
    ModelProto,
    TensorProto,
    data_pieces,
    external_tensors,
    graphs,
    short,
)

EXTERNAL_FROM_BYTES: Final = 1_500_000_000
"""Weights from this size on lie outside the protobuf, whose limit is 2 GiB."""
SMALL_BYTES: Final = 1024
"""Smaller tensors stay in the protobuf: shapes and axes are read from there."""
PAGE: Final = 4096
"""Where a tensor of a page or more starts, so that it can be mapped; smaller ones at a cache line."""
LINE: Final = 64
CHUNK_BYTES: Final = 1 << 22


def data_file(path: Path) -> Path:
    """Where the external data of `path` goes."""
    return path.with_name(f"{path.name}.data")


def write_onnx(model: ModelProto, path: Path, *, origin: Path | None = None) -> None:
    """Write `model` to `path`; `origin` is the file it was read from, whose external data is copied along.

    Without it external data has to lie beside `path` already.

    Raises:
        BuildError: it is larger than a protobuf can be, without weights that could lie outside.
    """
    if external_tensors(model):
        if origin is not None:
            gather_data(model, origin, data_file(path))
    elif stored_bytes(model) >= EXTERNAL_FROM_BYTES:
        move_outside(model, data_file(path))
    write_proto(model, path)


def write_proto(model: ModelProto, path: Path) -> None:
    """The protobuf alone, the same bytes every time.

    Raises:
        BuildError: it is larger than a protobuf can be.
    """
    from google.protobuf.message import EncodeError

    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except (EncodeError, ValueError) as error:
        raise BuildError(f"the model does not fit into one ONNX file: {short(error)}") from error


def stored_bytes(model: ModelProto) -> int:
    """Bytes of the initialisers inside the protobuf, from their shapes: its own count would encode them all."""
    from onnx.helper import tensor_dtype_to_np_dtype

    return sum(
        math.prod(tensor.dims) * tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for graph in graphs(model)
        for tensor in graph.initializer
        if tensor.data_location != 1
    )


def move_outside(model: ModelProto, destination: Path) -> None:
    """Write the initialisers to `destination` and point the model there."""
    with destination.open("wb") as stream:
        for graph in graphs(model):
            for tensor in graph.initializer:
                if tensor.HasField("raw_data") and len(tensor.raw_data) >= SMALL_BYTES:
                    content = tensor.raw_data
                    tensor.ClearField("raw_data")
                    point(tensor, destination.name, append(stream, content), len(content))


def append(stream: BinaryIO, content: bytes) -> int:
    """Write `content` where a tensor of its size may start; returns the offset."""
    offset = _next(stream, len(content))
    stream.write(content)
    return offset


def _next(stream: BinaryIO, length: int) -> int:
    step = PAGE if length >= PAGE else LINE
    offset = -(-stream.tell() // step) * step
    stream.seek(offset)
    return offset


def point(tensor: TensorProto, location: str, offset: int, length: int) -> None:
    """Say that the tensor's values lie in another file."""
    tensor.data_location = 1
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def gather_data(model: ModelProto, origin: Path, destination: Path) -> None:
    """Copy what the tensors of `model` need from the data files of `origin`, in their order, and point them there."""
    places: dict[tuple[Path, int, int], int] = {}
    pieces = data_pieces(model, origin)
    with destination.open("wb") as stream:
        for tensor, piece in zip(external_tensors(model), pieces, strict=True):
            length = piece.file.stat().st_size - piece.offset if piece.length is None else piece.length
            # Tied weights stay one.
            place = (piece.file, piece.offset, length)
            if place not in places:
                places[place] = _copy(piece, length, stream)
            point(tensor, destination.name, places[place], length)
        stream.truncate()


def _copy(piece: DataPiece, length: int, stream: BinaryIO) -> int:
    offset = _next(stream, length)
    with piece.file.open("rb") as source:
        source.seek(piece.offset)
        while length:
            content = source.read(min(length, CHUNK_BYTES))
            if not content:
                raise BuildError(f"{piece.location} became shorter while it was read", remedy="build again")
            stream.write(content)
            length -= len(content)
    return offset


def settle_data(model: ModelProto, path: Path) -> None:
    """Bring external data that an exporter wrote beside `path` into the one file; its own files go."""
    files = {piece.file for piece in data_pieces(model, path)}
    wanted = data_file(path)
    if not files or files == {wanted.resolve()}:
        return
    part = path.with_name(f"{path.name}.part")
    gather_data(model, path, part)
    for file in files:
        file.unlink()
    part.replace(wanted)
    for tensor in external_tensors(model):
        next(entry for entry in tensor.external_data if entry.key == "location").value = wanted.name
