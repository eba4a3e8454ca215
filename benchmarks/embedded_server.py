"""The embedded Triton under eight clients against its own onnxruntime in process, at the same request batch."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
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
from builder.servers import Endpoint, ServeOptions
from builder.verify import serving

LIMIT = 0.7
CLIENTS = 8
ROWS = 8
"""The model's max_batch_size: a request fills a run, so both sides run the same batches."""
OTHER_ROWS = (1, 4)


@dataclass(frozen=True, slots=True)
class Round:
    """The server between two runs in process, whose mean stands for the moment between them."""

    bare_rows_per_s: float
    bare_cores: float
    served: LoadResult

    @property
    def ratio(self) -> float:
        return self.served.rows_per_s / self.bare_rows_per_s


@dataclass(frozen=True, slots=True)
class _Place:
    """Where both sides run, and for how long."""

    endpoint: Endpoint
    repository: Path
    report: Path
    seconds: float


def run(*, quick: bool) -> list[Figure]:
    """Rounds of both; smaller request batches, which the server merges, are told beside the figure."""
    repeats, seconds = (1, 5.0) if quick else (5, 6.0)
    made = demo()
    options = ServeOptions(release=RELEASE, auto_complete=False)
    with serving(made.repository, [NAME], options) as (endpoint, _), scratch_folder() as folder:
        place = _Place(endpoint, made.repository, folder, seconds)
        rounds = _rounds(place, ROWS, repeats)
        others = {} if quick else {rows: _rounds(place, rows, 1)[0] for rows in OTHER_ROWS}
    ratio = statistics.median(item.ratio for item in rounds)
    what = f"embedded server with {CLIENTS} gRPC clients over onnxruntime in process, {ROWS} rows a request"
    details = [*_details(rounds), *(_other(rows, item) for rows, item in others.items())]
    return [Figure("embedded_server", what, ratio, LIMIT, "", "at least", tuple(details))]


def _details(rounds: Sequence[Round]) -> list[str]:
    middle = sorted(rounds, key=lambda item: item.ratio)[len(rounds) // 2]
    served = middle.served
    share = served.generator_cores / served.machine_cores
    ratios = ", ".join(f"{item.ratio:.2f}" for item in rounds)
    queue, compute = served.queue_ms or 0, served.compute_ms or 0
    failed = f"{served.failures} of {served.requests} requests failed"
    generator = f"{served.generator_cores:.2f} of {served.machine_cores} cores"
    alone = f"in process the library alone used {middle.bare_cores:.2f} cores"
    batch = f"{served.batch_mean or 0:.1f} rows a run"
    return [
        f"{served.rows_per_s:.1f} rows/s served, {middle.bare_rows_per_s:.1f} in process (ratios {ratios}); {failed}",
        f"load generator: {share:.0%} of the machine's CPU ({generator}); {alone}",
        "client and server share the machine: what the generator takes, the model does not get;",
        f"with a client on another machine the ratio would come to about {middle.ratio / (1 - share):.2f}",
        f"server: {batch}, {queue:.0f} ms queue and {compute:.0f} ms compute a request, p99 {served.p99_ms:.0f} ms",
    ]


def _other(rows: int, item: Round) -> str:
    batch = f"{item.served.batch_mean or 0:.1f} rows a run"
    return f"at {rows} rows a request: {item.ratio:.2f} ({item.served.rows_per_s:.1f} rows/s, the server made {batch})"


def _rounds(place: _Place, rows: int, repeats: int) -> list[Round]:
    """In process, served, in process, served, …, in process."""
    batch = np.random.default_rng(0).standard_normal((rows, 3, 224, 224)).astype(np.float32)
    subject = LoadSubject(NAME, (Request({"image": batch}, {}, rows),))
    options = LoadOptions(report=place.report, protocol="grpc", users=CLIENTS, duration_s=place.seconds)
    bare, served = [_bare(place, rows)], []
    for _ in range(repeats):
        served.append(run_load_test(place.endpoint, [subject], options, progress=lambda _: None))
        bare.append(_bare(place, rows))
    return [
        Round((one["rows_per_s"] + two["rows_per_s"]) / 2, (one["cores"] + two["cores"]) / 2, between)
        for (one, two), between in zip(pairwise(bare), served, strict=True)
    ]


def _bare(place: _Place, rows: int) -> dict[str, float]:
    """The served file in the server's own library and interpreter."""
    folder = place.repository / NAME
    version = max(int(item.name) for item in folder.iterdir() if item.name.isdigit())
    model = folder / str(version) / "model.onnx"
    python = runtime.require(RELEASE).python
    command = [str(python), bare_session.__file__, "onnxruntime", str(model), str(rows), str(place.seconds / 2)]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures
