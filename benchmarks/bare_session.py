"""One model in one library and nothing else: `python -m benchmarks.bare_session LIBRARY FILE ROWS SECONDS`.

Prints JSON: rows a second, CPU seconds a second, the largest resident size. It runs in the embedded runtime's
interpreter too, so it imports nothing of build-repo.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[np.ndarray], object]


def onnxruntime_run(path: str) -> tuple[Run, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda rows: session.run(None, {name: rows}), onnxruntime.__version__


def openvino_run(path: str) -> tuple[Run, str]:
    import openvino

    core = openvino.Core()
    request = core.compile_model(core.read_model(path), "CPU").create_infer_request()
    return lambda rows: request.infer([rows]), openvino.__version__


LIBRARIES = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(library: str, path: str, rows: str, seconds: str) -> None:
    """Run batches of ROWS back to back for SECONDS after a warm-up."""
    run, version = LIBRARIES[library](path)
    batch = np.random.default_rng(0).standard_normal((int(rows), 3, 224, 224)).astype(np.float32)
    for _ in range(2):
        run(batch)
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < float(seconds):
        run(batch)
        count += 1
    elapsed, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    figures = {
        "version": version,
        "rows_per_s": count * int(rows) / elapsed if count else 0.0,
        "cores": cpu_s / elapsed if count else 0.0,
        "peak_bytes": peak_bytes(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
