"""What a load test is asked for, and its figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builder import defaults
from builder.samples import Request
from builder.triton_client import Protocol


@dataclass(frozen=True, slots=True)
class LoadSubject:
    """A model to call and the requests to call it with; without requests they are made from the server's metadata."""

    name: str
    requests: tuple[Request, ...] = ()


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`rate` is arrivals per second of all users together, planned beforehand; None: each user sends as answers come.

    `report` is the folder for CSV, HTML and JSON.
    """

    report: Path
    protocol: Protocol = "grpc"
    users: int = defaults.LOAD_USERS
    duration_s: float = 30.0
    rate: float | None = None
    shape: str = "constant"
    request_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A load test's figures, warm-up excluded.

    Latencies are of answered requests, exact, as the client saw them. `batch_mean`, `queue_ms` and `compute_ms` are the
    server's: mean rows per run of the model, mean time per request. `generator_cores` is CPU seconds of the load
    generator per second, of the machine's `machine_cores`.
    """

    models: tuple[str, ...]
    protocol: str
    users: int
    rate: float | None
    duration_s: float
    requests: int
    failures: int
    requests_per_s: float
    rows_per_s: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    failure_texts: tuple[str, ...]
    batch_mean: float | None
    queue_ms: float | None
    compute_ms: float | None
    generator_cores: float
    machine_cores: int
    notes: tuple[str, ...]
    html: str
    csv: tuple[str, ...]
    json: str

    @property
    def error_percent(self) -> float:
        """Failed requests, of all."""
        return 100 * self.failures / max(1, self.requests + self.failures)
