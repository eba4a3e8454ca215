"""tritonclient and nothing else: `python -m benchmarks.bare_client loop|open PROTOCOL ADDRESS MODEL SECONDS [RATE]`.

`loop` sends one request after the other and prints requests per CPU second. `open` sends at planned moments, each from
a thread of its own connection, and prints p50 and p99 in ms, counted from the planned moment.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from importlib import import_module
from typing import Any

import numpy as np

ROW = 16
THREADS = 32


def prepared(protocol: str, address: str) -> tuple[Any, list[Any]]:
    """A client and one row."""
    module = import_module(f"tritonclient.{protocol}")
    sent = module.InferInput("x", [1, ROW], "FP32")
    sent.set_data_from_numpy(np.ones((1, ROW), np.float32))
    return module.InferenceServerClient(address), [sent]


def loop(protocol: str, address: str, model: str, seconds: float) -> dict[str, float]:
    """One after the other."""
    client, inputs = prepared(protocol, address)
    for _ in range(20):
        client.infer(model, inputs)
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        client.infer(model, inputs)
        count += 1
    elapsed, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return {"requests_per_cpu_s": count / cpu_s, "requests_per_s": count / elapsed}


def open_loop(protocol: str, address: str, model: str, seconds: float, rate: float) -> dict[str, float]:
    """At planned moments."""
    work: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    taken: list[float] = []
    ready = threading.Barrier(THREADS + 1)

    def send() -> None:
        client, inputs = prepared(protocol, address)
        client.is_server_live()
        ready.wait()
        while (due := work.get()) is not None:
            client.infer(model, inputs)
            taken.append(time.perf_counter() - due)

    threads = [threading.Thread(target=send) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    ready.wait()
    begun = time.perf_counter()
    for place in range(int(seconds * rate)):
        due = begun + place / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        work.put(due)
    for _ in threads:
        work.put(None)
    for thread in threads:
        thread.join()
    return {f"p{rank}_ms": 1000 * float(np.percentile(taken, rank, method="inverted_cdf")) for rank in (50, 99)}


if __name__ == "__main__":
    mode, protocol, address, model, seconds, *rate = sys.argv[1:]
    if mode == "loop":
        print(json.dumps(loop(protocol, address, model, float(seconds))))
    else:
        print(json.dumps(open_loop(protocol, address, model, float(seconds), float(rate[0]))))
