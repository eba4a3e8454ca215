"""An ONNX model on disk: the file itself and the files that hold its weights."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from builder.measurement import (
    CALIBRATION_FILE,
    CALIBRATION_TABLE,
    EXPORT_FILE,
    ONNX_FILE,
    PREPARE_FILE,
    REFERENCE_FILE,
    TORCHSCRIPT_FILE,
)

OWN_FILES: Final = (
    ONNX_FILE,
    TORCHSCRIPT_FILE,
    EXPORT_FILE,
    REFERENCE_FILE,
    CALIBRATION_FILE,
    CALIBRATION_TABLE,
    PREPARE_FILE,
)
"""What an export or a prepared model without external data consists of."""


def link_model(source: Path, target: Path) -> None:
    """Put the model and its external data in another place, under the names it knows them by.

    Raises:
        SpecError: a data file's name leads out of the model's folder, or the file is missing.
    """
    link_file(source, target)
    for location in external_files(source):
        data = target.parent / location
        data.parent.mkdir(parents=True, exist_ok=True)
        link_file(source.parent / location, data)


def external_files(path: Path) -> tuple[str, ...]:
    """Files that hold weights beside a model of ours, as the model names them.

    Raises:
        SpecError: a name leads out of the model's folder, or a file is missing.
    """
    if not any(entry.is_dir() or entry.name not in OWN_FILES for entry in path.parent.iterdir()):
        return ()  # parsing a large model only to learn this would double the memory

    from builder.onnx_tools.reading import data_pieces, read_onnx

    return tuple(sorted({piece.location for piece in data_pieces(read_onnx(path), path)}))


def link_file(source: Path, target: Path) -> None:
    """A hard link where both lie on one file system (artefacts never change), else a copy."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
