"""One served artefact in its own library: `python -m benchmarks.artefact REPOSITORY FOLDER ROWS SECONDS`.

Prints JSON: rows a second. The rows are the samples that travel with the repository.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from builder.backends import Settings, backend_module
from builder.manifest import SAMPLES_FILE, read_manifest
from builder.samples import load_requests
from builder.samples.batch_proof import batch_rows, cut


def main(repository: str, folder: str, rows: str, seconds: str) -> None:
    """Run one batch back to back for SECONDS after a warm-up."""
    manifest = read_manifest(Path(repository))
    if manifest is None:
        raise SystemExit(f"{repository} has no manifest")
    model, served = manifest.served_folders()[folder]
    place = Path(repository) / folder
    requests = load_requests(place / SAMPLES_FILE, model.signature)
    every = batch_rows(requests, int(rows))
    if every is None:
        raise SystemExit(f"{folder}: the samples hold no {rows} rows of one size")
    batch = cut(every, range(int(rows)))
    session = backend_module(served.target.backend).open_session(
        place / str(served.version), model.signature, Settings(served.target.precision)
    )
    for _ in range(3):
        session.run(batch)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < float(seconds):
        session.run(batch)
        count += 1
    print(json.dumps({"rows_per_s": count * int(rows) / (time.perf_counter() - started)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
