"""The embedded Triton under eight clients against its own onnxruntime in process, at the same request batch."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import bare_session
from benchmarks.demo_model import NAME, demo
from benchmarks.figure import Figure
from benchmarks.measuring import scratch_folder
from builder import runtime
from builder.defaults import RELEASE
from builder.loadtest import LoadOptions, LoadResult, LoadSubject, run_load_test
from builder.samples import Request
from builder.servers import Endpoint
from builder.verify import serving

LIMIT = 0.7
CLIENTS = 8
ROWS = 8
"""The model's max_batch_size: a request fills a run, so both sides run the same batches."""
OTHER_ROWS = (1, 4)


@dataclass(frozen=True, slots=True)
class Round:
    """Both sides measured one right after the other."""

    bare: dict[str, float]
    served: LoadResult

    @property
    def ratio(self) -> float:
        return self.served.rows_per_s / self.bare["rows_per_s"]


def run(*, quick: bool) -> list[Figure]:
    """Rounds of both; smaller request batches, which the server merges, are told beside the figure."""
    repeats, seconds = (1, 4.0) if quick else (3, 10.0)
    made = demo()
    with serving(made.repository, [NAME], RELEASE) as (endpoint, _), scratch_folder() as folder:
        rounds = [_round(endpoint, made.repository, ROWS, seconds, folder) for _ in range(repeats)]
        others = {} if quick else {n: _round(endpoint, made.repository, n, seconds, folder) for n in OTHER_ROWS}
    ratio = statistics.median(item.ratio for item in rounds)
    what = f"embedded server with {CLIENTS} gRPC clients over onnxruntime in process, {ROWS} rows a request"
    details = [*_details(rounds), *(_other(rows, item) for rows, item in others.items())]
    return [Figure("embedded_server", what, ratio, LIMIT, "", "at least", tuple(details))]


def _details(rounds: Sequence[Round]) -> list[str]:
    middle = sorted(rounds, key=lambda item: item.ratio)[len(rounds) // 2]
    served, bare = middle.served, middle.bare
    share = served.generator_cores / served.machine_cores
    ratios = ", ".join(f"{item.ratio:.2f}" for item in rounds)
    queue, compute = served.queue_ms or 0, served.compute_ms or 0
    failed = f"{served.failures} of {served.requests} requests failed"
    generator = f"{served.generator_cores:.2f} of {served.machine_cores} cores"
    alone = f"in process the library alone used {bare['cores']:.2f} cores"
    batch = f"{served.batch_mean or 0:.1f} rows a run"
    return [
        f"{served.rows_per_s:.1f} rows/s served, {bare['rows_per_s']:.1f} in process (ratios {ratios}); {failed}",
        f"load generator: {share:.0%} of the machine's CPU ({generator}); {alone}",
        "client and server share the machine: what the generator takes, the model does not get;",
        f"with a client on another machine the ratio would come to about {middle.ratio / (1 - share):.2f}",
        f"server: {batch}, {queue:.0f} ms queue and {compute:.0f} ms compute a request, p99 {served.p99_ms:.0f} ms",
    ]


def _other(rows: int, item: Round) -> str:
    batch = f"{item.served.batch_mean or 0:.1f} rows a run"
    return f"at {rows} rows a request: {item.ratio:.2f} ({item.served.rows_per_s:.1f} rows/s, the server made {batch})"


def _round(endpoint: Endpoint, repository: Path, rows: int, seconds: float, folder: Path) -> Round:
    bare = _bare(repository, rows, seconds)
    batch = np.random.default_rng(0).standard_normal((rows, 3, 224, 224)).astype(np.float32)
    subject = LoadSubject(NAME, (Request({"image": batch}, {}, rows),))
    options = LoadOptions(report=folder, protocol="grpc", users=CLIENTS, duration_s=seconds)
    return Round(bare, run_load_test(endpoint, [subject], options, progress=lambda _: None))


def _bare(repository: Path, rows: int, seconds: float) -> dict[str, float]:
    """The served file in the server's own library and interpreter."""
    place = runtime.require(RELEASE)
    version = max(int(item.name) for item in (repository / NAME).iterdir() if item.name.isdigit())
    model = repository / NAME / str(version) / "model.onnx"
    command = [str(place.python), bare_session.__file__, "onnxruntime", str(model), str(rows), str(seconds)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
