"""The ONNX model of an export, prepared or as it is → the files of one target, and the ports they declare."""

from __future__ import annotations

import json
from pathlib import Path

from builder.backends import Conversion, backend_module
from builder.cache import Cache
from builder.digests import folder_digests
from builder.errors import BuildError
from builder.measurement import CONVERT_FILE, EXPORT_FILE, ONNX_FILE, ConvertReport, ExportReport
from builder.records import read_record, write_record
from builder.work import Convert


def run_convert(work: Convert, cache: Cache, out: Path) -> None:
    """Write the target's files and `convert.json` into `out`.

    Raises:
        BuildError: the backend cannot serve the signature, or its converter refuses the model.
    """
    export = cache.folder("export", work.export)
    refusal = refusal_of(work, export)
    if refusal is not None:
        raise refusal
    job = Conversion(
        model=(cache.folder("prepare", work.prepare) if work.prepare else export) / ONNX_FILE,
        export=export,
        signature=read_record(ExportReport, export / EXPORT_FILE).signature,
        precision=work.target.precision,
        release=work.release,
        options=json.loads(work.options),
        shared=cache.root / "shared",
    )
    ports = backend_module(work.target.backend).convert(job, out)
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
