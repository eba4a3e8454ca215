"""The load generator against bare clients: what it costs, whether its search and its latencies are true."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.bare_client import ROW
from benchmarks.figure import Figure
from benchmarks.measuring import PYTHON, ROOT, scratch_folder
from builder.defaults import RELEASE
from builder.loadtest import LoadOptions, LoadResult, LoadSubject, run_load_test
from builder.samples import Request
from builder.servers import Endpoint, ServeOptions
from builder.servers.embedded import serve
from builder.triton_client import PROTOCOLS, SPELLED, Protocol

COST_LIMIT = 0.6
SEARCH_LIMIT_PERCENT = 10.0
SEARCH_LIMIT_S = 90.0
LOG_LIMIT_PERCENT = 2.0
CLIENT_LIMIT_PERCENT = 20.0
SLEEP_S = 0.005
SLO_MS = 40.0
MODEL = """
import time
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        time.sleep({sleep_s})
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("y", pb_utils.get_input_tensor_by_name(item, "x").as_numpy())])
            for item in requests
        ]
"""
CONFIG = """
backend: "python"
max_batch_size: 1
input [{{ name: "x" data_type: TYPE_FP32 dims: [{row}] }}]
output [{{ name: "y" data_type: TYPE_FP32 dims: [{row}] }}]
instance_group [{{ kind: KIND_CPU }}]
"""

Measure = Callable[..., LoadResult]


def run(*, quick: bool) -> list[Figure]:
    """All figures on one server: a model that costs nothing, and one that takes 5 ms whatever the machine does."""
    with scratch_folder() as folder:
        repository = folder / "repository"
        for name, sleep_s in (("nothing", 0.0), ("steady", SLEEP_S)):
            file = repository / name / "1" / "model.py"
            file.parent.mkdir(parents=True)
            file.write_text(MODEL.format(sleep_s=sleep_s), encoding="utf-8")
            (repository / name / "config.pbtxt").write_text(CONFIG.format(row=ROW), encoding="utf-8")
        with serve(repository, ServeOptions(release=RELEASE, auto_complete=False)) as endpoint:
            measure = measuring(endpoint, folder / "report")
            figures = [cost(endpoint, measure, protocol, quick=quick) for protocol in PROTOCOLS]
            found, seconds, searched = search(measure, quick=quick)
            figures += [searched, Figure("load_test", "time of that search", seconds, SEARCH_LIMIT_S, "s", "at most")]
            return [*figures, *truth(endpoint, measure, folder / "report", found / 2, quick=quick)]


def measuring(endpoint: Endpoint, report: Path) -> Measure:
    row = np.ones((1, ROW), np.float32)

    def measure(model: str, **options: object) -> LoadResult:
        chosen = replace(LoadOptions(report), **options)  # type: ignore[arg-type]
        return run_load_test(
            endpoint, [LoadSubject(model, (Request({"x": row}, {}, 1),))], chosen, progress=lambda _: None
        )

    return measure


def bare(endpoint: Endpoint, mode: str, protocol: Protocol, model: str, *numbers: float) -> dict[str, float]:
    address = endpoint.grpc if protocol == "grpc" else endpoint.http
    command = [PYTHON, "-m", "benchmarks.bare_client", mode, protocol, str(address), model, *map(str, numbers)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def cost(endpoint: Endpoint, measure: Measure, protocol: Protocol, *, quick: bool) -> Figure:
    """Requests per CPU second of the sender, in turns."""
    repeats, seconds = (1, 3.0) if quick else (5, 6.0)
    ratios, texts = [], []
    for _ in range(repeats):
        alone = bare(endpoint, "loop", protocol, "nothing", seconds)
        loaded = measure("nothing", protocol=protocol, users=8, duration_s=seconds)
        ours = loaded.requests_per_s / loaded.generator_cores
        ratios.append(ours / alone["requests_per_cpu_s"])
        texts.append(f"{ours:.0f} requests per CPU second, bare {alone['requests_per_cpu_s']:.0f}")
    what = f"requests per CPU second of the load generator over tritonclient in a bare loop, {SPELLED[protocol]}"
    details = (texts[0], f"ratios {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    return Figure("load_test", what, statistics.median(ratios), COST_LIMIT, "", "at least", details)


def search(measure: Measure, *, quick: bool) -> tuple[float, float, Figure]:
    """The rate that `step` finds, how long it took, and how far that is from a sweep's."""
    started = time.monotonic()
    found = measure("steady", shape="step", duration_s=40.0 if quick else 80.0, limits=(("p99", SLO_MS),))
    seconds = time.monotonic() - started
    rate = found.held_rate or 0.0
    swept, details = sweep(measure, rate, quick=quick)
    what = f"rate found by step ({rate:.1f}/s) against a sweep in steps of 4 % ({swept:.1f}/s), difference"
    distance = abs(rate / swept - 1) if swept else 1.0
    return (
        rate,
        seconds,
        Figure("load_test", what, 100 * distance, SEARCH_LIMIT_PERCENT, "%", "at most", tuple(details)),
    )


def sweep(measure: Measure, around: float, *, quick: bool) -> tuple[float, list[str]]:
    """The highest of ten rates that most of its tries held: up, down and up again, since a level's p99 is of few
    hundred requests, and one disturbance of the machine would decide it."""
    rates = [around * (1 + 0.04 * place) for place in range(-4, 6)]
    tries: dict[float, list[float]] = {tried: [] for tried in rates}
    for order in (rates,) if quick else (rates, rates[::-1], rates):
        for tried in order:
            level = measure("steady", rate=tried, duration_s=3.0 if quick else 8.0)
            tries[tried].append(float("inf") if level.failures else level.p99_ms)
    held = [tried for tried, seen in tries.items() if statistics.median(seen) <= SLO_MS]
    details = [
        f"{tried:.0f}/s {'held' if tried in held else 'missed'}, p99 {', '.join(f'{p99:.1f}' for p99 in seen)} ms"
        for tried, seen in tries.items()
    ]
    return max(held, default=0.0), details


def truth(endpoint: Endpoint, measure: Measure, report: Path, rate: float, *, quick: bool) -> list[Figure]:
    """Reported percentiles against the raw log, and against a client of a few lines, in turns."""
    pairs, seconds = (2, 3.0) if quick else (5, 20.0)
    theirs = {"p50_ms": list[float](), "p99_ms": list[float]()}
    ours = {"p50_ms": list[float](), "p99_ms": list[float]()}
    logged = 0.0
    for pair in range(pairs):
        if pair % 2:
            result = measure("steady", protocol="http", rate=rate, duration_s=seconds)
        other = bare(endpoint, "open", "http", "steady", seconds, rate)
        if not pair % 2:
            result = measure("steady", protocol="http", rate=rate, duration_s=seconds)
        with (report / "requests.csv").open(encoding="utf-8") as stream:
            taken = [float(row["latency_ms"]) for row in csv.DictReader(stream)]
        for name, rank in (("p50_ms", 50), ("p99_ms", 99)):
            mine = float(getattr(result, name))
            ours[name].append(mine)
            theirs[name].append(other[name])
            logged = max(logged, abs(mine / float(np.percentile(taken, rank, method="inverted_cdf")) - 1))
    figures = [
        Figure(
            "load_test",
            "p50 and p99 against the raw log of requests, difference",
            100 * logged,
            LOG_LIMIT_PERCENT,
            "%",
            "at most",
        )
    ]
    for name, values in ours.items():
        mine, other_ms = statistics.median(values), statistics.median(theirs[name])
        what = f"{name.removesuffix('_ms')} against a client of a few lines at half load, {pairs} pairs, difference"
        details = (f"{mine:.2f} ms, the other client {other_ms:.2f} ms, {rate:.0f} requests/s",)
        figures.append(
            Figure("load_test", what, 100 * abs(mine / other_ms - 1), CLIENT_LIMIT_PERCENT, "%", "at most", details)
        )
    return figures
