"""A stored artefact in its own library: `python -m benchmarks.tuned_artefact JSON`; prints rows a second.

Each run reads other rows of the samples, as the load test sends others: rows that stay in a core's cache are read for
nothing. The JSON names the folders of the export and of the artefact, the target, the way to run it, rows, seconds, and
its cores.
"""

from __future__ import annotations

import json
import os
import sys
import time
from itertools import cycle
from pathlib import Path

from builder.backends import Settings, backend_module
from builder.measurement import EXPORT_FILE, REFERENCE_FILE, ExportReport
from builder.records import read_record
from builder.samples import load_requests
from builder.samples.batch_proof import batch_rows, cut
from builder.work import parse_target

MOST_ROWS = 32
"""Of the samples, as many as the load test sends."""


def main(text: str) -> None:
    """Back to back after a warm-up."""
    asked = json.loads(text)
    os.sched_setaffinity(0, asked["cores"])
    target, export, rows = parse_target(asked["target"]), Path(asked["export"]), int(asked["rows"])
    report = read_record(ExportReport, export / EXPORT_FILE)
    every = batch_rows(load_requests(export / REFERENCE_FILE, report.signature), MOST_ROWS)
    if every is None:
        raise SystemExit("the samples hold no rows")
    there = len(next(iter(every.values())))
    batches = cycle([cut(every, range(start, start + rows)) for start in range(0, max(1, there - rows + 1), rows)])
    settings = Settings(target.precision, asked["way"])
    session = backend_module(target.backend).open_session(Path(asked["artefact"]), report.signature, settings)
    ends = time.perf_counter() + 1.0
    while time.perf_counter() < ends:
        session.run(next(batches))
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < asked["seconds"]:
        session.run(next(batches))
        count += 1
    print(json.dumps({"rows_per_s": count * rows / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(sys.argv[1])
