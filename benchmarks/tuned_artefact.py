"""A stored artefact in its own library: `python -m benchmarks.tuned_artefact JSON`; prints rows a second.

The JSON names the folders of the export and of the artefact, target, way to run it, rows, seconds, and its cores.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from builder.backends import Settings, backend_module
from builder.measurement import EXPORT_FILE, REFERENCE_FILE, ExportReport
from builder.records import read_record
from builder.samples import load_requests
from builder.samples.batch_proof import batch_rows, cut
from builder.work import parse_target


def main(text: str) -> None:
    """Back to back after a warm-up."""
    asked = json.loads(text)
    os.sched_setaffinity(0, asked["cores"])
    target, export, rows = parse_target(asked["target"]), Path(asked["export"]), int(asked["rows"])
    report = read_record(ExportReport, export / EXPORT_FILE)
    every = batch_rows(load_requests(export / REFERENCE_FILE, report.signature), rows)
    if every is None:
        raise SystemExit("the samples hold no rows")
    batch = cut(every, range(rows))
    settings = Settings(target.precision, asked["way"])
    session = backend_module(target.backend).open_session(Path(asked["artefact"]), report.signature, settings)
    ends = time.perf_counter() + 1.0
    while time.perf_counter() < ends:
        session.run(batch)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < asked["seconds"]:
        session.run(batch)
        count += 1
    print(json.dumps({"rows_per_s": count * rows / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(sys.argv[1])
