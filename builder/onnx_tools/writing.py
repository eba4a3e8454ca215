"""Write `model.onnx`, with all external data gathered into the one file `model.onnx.data` beside it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from builder.errors import BuildError
from builder.onnx_tools.reading import ModelProto, data_pieces, external_tensors

EXTERNAL_FROM_BYTES: Final = 1_500_000_000
"""Weights from this size on lie outside the protobuf, whose limit is 2 GiB."""
PAGE: Final = 4096


def data_file(path: Path) -> Path:
    """Where the external data of `path` goes."""
    return path.with_name(f"{path.name}.data")


def write_onnx(model: ModelProto, path: Path, *, origin: Path | None = None) -> None:
    """Write `model` to `path`; `origin` is the file it was read from, whose external data is copied along."""
    import onnx

    if origin is not None and external_tensors(model):
        gather_data(model, origin, data_file(path))
    elif model.ByteSize() >= EXTERNAL_FROM_BYTES:
        name = data_file(path).name
        onnx.save_model(model, str(path), save_as_external_data=True, all_tensors_to_one_file=True, location=name)
        return
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except ValueError as error:
        raise BuildError(f"the model does not fit into one ONNX file: {error}") from error


def gather_data(model: ModelProto, origin: Path, destination: Path) -> None:
    """Append the data files of `origin` to `destination` and point the tensors of `model` there."""
    pieces = data_pieces(model, origin)
    bases: dict[Path, int] = {}
    with destination.open("wb") as stream:
        for file in sorted({piece.file for piece in pieces}):
            stream.seek(-(-stream.tell() // PAGE) * PAGE)
            bases[file] = stream.tell()
            with file.open("rb") as source:
                shutil.copyfileobj(source, stream, 1 << 22)
        os.truncate(stream.fileno(), stream.tell())
    for tensor, piece in zip(external_tensors(model), pieces, strict=True):
        length = piece.file.stat().st_size - piece.offset if piece.length is None else piece.length
        del tensor.external_data[:]
        for key, value in (
            ("location", destination.name),
            ("offset", str(bases[piece.file] + piece.offset)),
            ("length", str(length)),
        ):
            tensor.external_data.add(key=key, value=value)
