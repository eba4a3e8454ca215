"""`model.onnx` of an export → the same optimised, in the asked precision: made once, taken by every backend."""

from __future__ import annotations

from pathlib import Path

from builder.cache import Cache
from builder.measurement import EXPORT_FILE, ONNX_FILE, PREPARE_FILE, ExportReport, PrepareReport
from builder.onnx_tools.files import link_model
from builder.records import read_record, write_record
from builder.work import Prepare


def run_prepare(work: Prepare, cache: Cache, out: Path) -> None:
    """Write `model.onnx` and `prepare.json` into `out`."""
    pass_through(work, cache, out)


def has_nothing_to_do(work: Prepare, cache: Cache) -> bool:
    """True when the exported graph is already what is asked for."""
    if work.precision != "fp32":
        return False
    report = read_record(ExportReport, cache.folder("export", work.export) / EXPORT_FILE)
    return not work.optimize or not report.applicable


def pass_through(work: Prepare, cache: Cache, out: Path) -> None:
    """The exported model itself."""
    link_model(cache.folder("export", work.export) / ONNX_FILE, out / ONNX_FILE)
    write_record(out / PREPARE_FILE, PrepareReport(work.precision, work.dialect))
