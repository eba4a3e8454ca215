"""The measured time of a load test: it opens when every user is ready, so no warm-up is in the figures."""

from __future__ import annotations

import json
import time
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent
import gevent.event
from locust.env import Environment
from target import Target

PERCENTILES = (50, 90, 95, 99)
TEXTS_KEPT = 10


class Window:
    """Exact counts and response times between `open` and `close`; without `waits` it is open from the start."""

    def __init__(self) -> None:
        self.waits = False
        self.problem = ""
        self.ready = 0
        self.gate = gevent.event.Event()
        self.seconds = array("d")
        self.rows = 0
        self.failures: Counter[str] = Counter()
        self.started: float | None = None
        self.elapsed: float | None = None
        self.before: dict[str, int] | None = None
        self.after: dict[str, int] | None = None
        self.cpu = self.cpu_s = 0.0

    def enter(self, environment: Environment, users: int, when_all_ready: Callable[[Environment], None]) -> None:
        """Wait for the others; the last one opens the window."""
        if not self.waits:
            return
        self.ready += 1
        if self.ready == users:
            gevent.spawn(when_all_ready, environment)
        self.gate.wait()

    def open(self, before: dict[str, int] | None) -> None:
        self.before = before
        self.started, self.cpu = time.perf_counter(), time.process_time()
        self.gate.set()

    def close(self, after: dict[str, int] | None) -> None:
        self.stop()
        self.after = after

    def stop(self) -> None:
        if self.started is not None and self.elapsed is None:
            self.elapsed = time.perf_counter() - self.started
            self.cpu_s = time.process_time() - self.cpu

    def add(self, seconds: float, rows: int, error: Exception | None) -> None:
        """One finished request; what ends after the window does not count."""
        if self.waits and (self.started is None or self.elapsed is not None):
            return
        if error is None:
            self.seconds.append(seconds)
            self.rows += rows
        else:
            self.failures[str(error) or type(error).__name__] += 1

    def glance(self) -> dict[str, float]:
        elapsed = time.perf_counter() - (self.started or 0.0)
        done = len(self.seconds)
        return {
            "elapsed_s": round(elapsed, 1),
            "requests": done,
            "failures": self.failures.total(),
            "requests_per_s": round(done / elapsed, 1),
        }

    def write(self, file: Path) -> None:
        self.stop()
        ordered = sorted(self.seconds)
        figures = {
            "problem": self.problem,
            "requests": len(ordered),
            "failures": self.failures.total(),
            "failure_texts": self.failures.most_common(TEXTS_KEPT),
            "rows": self.rows,
            "elapsed_s": self.elapsed or 0.0,
            "cpu_s": self.cpu_s,
            "latency_ms": {str(rank): percentile_ms(ordered, rank) for rank in PERCENTILES} if ordered else {},
            "max_ms": ordered[-1] * 1000 if ordered else None,
            "mean_ms": sum(ordered) / len(ordered) * 1000 if ordered else None,
            "before": self.before,
            "after": self.after,
        }
        file.write_text(json.dumps(figures), encoding="utf-8")


def percentile_ms(ordered: Sequence[float], rank: int) -> float:
    """The smallest time that `rank` percent of the requests did not exceed."""
    return ordered[max(0, -(-len(ordered) * rank // 100) - 1)] * 1000


def counters(client: Any, target: Target, models: Sequence[str]) -> dict[str, int] | None:  # noqa: ANN401
    """Triton's own counts of the models together; None where the server has no statistics."""
    total: Counter[str] = Counter()
    try:
        for model in models:
            answer = target.ask(client, "get_inference_statistics", model)
            for version in answer.get("model_stats", []):
                total.update(inferences=int(version.get("inference_count", 0)))
                total.update(executions=int(version.get("execution_count", 0)))
                stats = version.get("inference_stats", {})
                total.update(requests=int(stats.get("success", {}).get("count", 0)))
                for step in ("queue", "compute_input", "compute_infer", "compute_output"):
                    total.update({f"{step}_ns": int(stats.get(step, {}).get("ns", 0))})
    except Exception:
        return None
    return dict(total)
