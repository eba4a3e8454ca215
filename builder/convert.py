"""The model of an export, as ONNX that was prepared or as TorchScript → the files of one target, and their ports."""

from __future__ import annotations

import json
from pathlib import Path

from builder.backends import Conversion, backend_module, device_bound
from builder.cache import Cache
from builder.digests import folder_digests
from builder.errors import BuildError
from builder.measurement import (
    CONVERT_FILE,
    EXPORT_FILE,
    FORMAT_FILES,
    PREFLIGHT_FILE,
    ConvertReport,
    ExportReport,
)
from builder.native_rules import STATELESS
from builder.records import read_record, write_record
from builder.tensors import Signature
from builder.work import Convert, Prepare


def run_convert(work: Convert, cache: Cache, out: Path) -> None:
    """Write the target's files and `convert.json` into `out`; of a pre-flight, `preflight.json` alone.

    Raises:
        BuildError: the backend cannot serve the signature, or its converter refuses the model.
    """
    export = cache.folder("export", work.export)
    refusal = refusal_of(work, export)
    if refusal is not None:
        raise refusal
    backend = backend_module(work.target.backend)
    job = Conversion(
        model=(cache.folder("prepare", work.prepare) if work.prepare else export) / FORMAT_FILES[backend.FORMAT],
        export=export,
        signature=read_record(ExportReport, export / EXPORT_FILE).signature,
        precision=work.target.precision,
        release=work.release,
        options=json.loads(work.options),
        shared=cache.root / "shared",
        packages=cache.folder("packages", work.packages) / "packages" if work.packages else None,
    )
    bound = device_bound(work.target.backend)
    if work.preflight and bound is not None:
        write_record(out / PREFLIGHT_FILE, bound.preflight(job))
        return
    ports = backend.convert(job, out)
    files = folder_digests(out)
    size = sum((out / name).stat().st_size for name in files)
    write_record(out / CONVERT_FILE, ConvertReport(ports, files, size))


def _unnumbered(signature: Signature) -> str:
    """Triton's pytorch backend finds states by the numbers in their names, and then everything beside them too."""
    names = [tensor.name for tensor in signature.tensors if not tensor.name.partition("__")[2].isdigit()]
    if not names:
        return ""
    return (
        f"with states (sequence:) it takes only inputs and outputs named <name>__<index>, not {', '.join(names)}; "
        "onnxruntime takes any names"
    )


def refusal_of(work: Convert | Prepare, export: Path) -> BuildError | None:
    """Why there is nothing to convert, or Triton's backend cannot serve it; known from the export alone."""
    report = read_record(ExportReport, export / EXPORT_FILE)
    needed = "onnx" if isinstance(work, Prepare) else backend_module(work.target.backend).FORMAT
    if needed in report.refused:
        return BuildError(report.refused[needed], remedy="remove this target from the targets")
    if isinstance(work, Prepare):
        return None
    refusal = backend_module(work.target.backend).refuses(report.signature, work.release)
    if not refusal and report.ragged is not None and not work.target.backend.startswith("onnxruntime"):
        refusal = "requests of unequal sizes in one batch (ragged:) are built for the onnxruntime backend only"
    if not refusal and report.sequence is not None and work.target.backend in STATELESS:
        refusal = "it keeps no implicit state (sequence:), only the onnxruntime, tensorrt and pytorch backends do"
    if not refusal and report.sequence is not None and work.target.backend == "pytorch":
        refusal = _unnumbered(report.signature)
    if not refusal:
        return None
    return BuildError(
        f"Triton's {work.target.backend} backend cannot serve this model: {refusal}",
        remedy=f"remove {work.target} from the targets",
    )
