"""One model in one library and nothing else: `python -m benchmarks.bare_session LIBRARY FILE ROWS SECONDS [ANSWERS]`.

Prints JSON: rows a second, CPU seconds a second, the largest resident size; no rows: the model is only loaded. ANSWERS
is a `.npy` file for the first output. It runs in the embedded runtime's interpreter too, so it imports nothing of
build-repo.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
Loaded = tuple[Run, tuple[int, ...], str]
"""What runs a batch, the shape of a row, the library's version."""


def onnxruntime_run(path: str) -> Loaded:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    port = session.get_inputs()[0]
    return lambda rows: session.run(None, {port.name: rows})[0], tuple(port.shape[1:]), onnxruntime.__version__


def openvino_run(path: str) -> Loaded:
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(core.read_model(path), "CPU")
    request = compiled.create_infer_request()
    shape = tuple(dim.get_length() for dim in list(compiled.input(0).get_partial_shape())[1:])
    return lambda rows: request.infer([rows])[0], shape, openvino.__version__


LIBRARIES = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def main(library: str, path: str, rows: str, seconds: str, answers: str = "") -> None:
    """Run batches of ROWS back to back for SECONDS after a warm-up."""
    run, shape, version = LIBRARIES[library](path)
    batch = np.random.default_rng(0).standard_normal((int(rows), *shape)).astype(np.float32)
    for _ in range(2 if len(batch) else 0):
        answer = run(batch)
        if answers:
            np.save(answers, answer)
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
