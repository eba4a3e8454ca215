"""`model.onnx` of an export → the files of one target, and the ports they declare."""

from __future__ import annotations

from pathlib import Path

from builder.backends import backend_module
from builder.digests import folder_digests
from builder.errors import BuildError
from builder.measurement import CONVERT_FILE, EXPORT_FILE, ONNX_FILE, ConvertReport, ExportReport
from builder.records import read_record, write_record
from builder.work import Convert


def run_convert(work: Convert, export: Path, out: Path) -> None:
    """Write the target's files and `convert.json` into `out`.

    Raises:
        BuildError: the backend cannot serve the signature, or its converter refuses the model.
    """
    report = read_record(ExportReport, export / EXPORT_FILE)
    refusal = refusal_of(work, export)
    if refusal is not None:
        raise refusal
    backend = backend_module(work.target.backend)
    ports = backend.convert(export / ONNX_FILE, report.signature, work.target.precision, work.release, out)
    files = folder_digests(out)
    size = sum((out / name).stat().st_size for name in files)
    write_record(out / CONVERT_FILE, ConvertReport(ports, files, size))


def refusal_of(work: Convert, export: Path) -> BuildError | None:
    """Why Triton's backend cannot serve the signature; known from the export alone, no converter is asked."""
    report = read_record(ExportReport, export / EXPORT_FILE)
    refusal = backend_module(work.target.backend).refuses(report.signature, work.release)
    if not refusal:
        return None
    return BuildError(
        f"Triton's {work.target.backend} backend cannot serve this model: {refusal}",
        remedy=f"remove {work.target} from the targets",
    )
