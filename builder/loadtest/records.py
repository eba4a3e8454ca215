"""What a load test is asked for, and its figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from builder import defaults
from builder.compare import Gates
from builder.findings import Finding
from builder.samples import Request
from builder.tensors import Signature
from builder.triton_client import Protocol

INTERRUPTED: Final = "interrupted"
"""What `ended` says after Ctrl-C."""
NOTHING_MEASURED: Final = "interrupted before anything was measured; no report was written"


@dataclass(frozen=True, slots=True)
class LoadSubject:
    """A model to call and the requests to call it with; without requests they are made from the server's metadata.

    With the `signature` that clients see, answers under load are compared with those of `requests` by the `gates`.
    `rows_proven`: rows of a request do not change each other's answers, so requests may be sent with other rows.
    """

    name: str
    requests: tuple[Request, ...] = ()
    signature: Signature | None = None
    gates: Gates = field(default_factory=Gates)
    rows_proven: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One of several loads, one after the other: `users` that each wait for their answer, shared out to the models."""

    models: tuple[str, ...]
    users: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """`rate` is arrivals per second of all users together, planned beforehand; None: each user sends as answers come.

    `report` is the folder for CSV, HTML and JSON; `mix` holds `NAME[@ROWS][=WEIGHT]`; `replay` is a trace of arrival
    times; `turns` are loads one after the other in place of one; `limits` are what shape `step` must hold: (`p99`,
    milliseconds), (`errors`, per cent).
    """

    report: Path
    protocol: Protocol = "grpc"
    users: int = defaults.LOAD_USERS
    duration_s: float = 30.0
    rate: float | None = None
    shape: str = "constant"
    request_timeout_s: float = 30.0
    workers: int = 1
    mix: tuple[str, ...] = ()
    replay: Path | None = None
    arrivals: str = "even"
    limits: tuple[tuple[str, float], ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether arrivals are independent of answers."""
        return self.rate is not None or self.replay is not None or self.shape == "step"


@dataclass(frozen=True, slots=True)
class Window:
    """A tenth of the measured time; None where nothing was answered in it."""

    start_s: float
    requests: int
    failures: int
    requests_per_s: float
    p50_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class LateStarts:
    """Requests sent later than planned; the `generator` itself was late with some of them."""

    planned: int
    late: int
    generator: int
    worst_ms: float


@dataclass(frozen=True, slots=True)
class Level:
    """One rate of shape `step`; `behind`: the server could not keep up."""

    rate: float
    held: bool
    behind: bool
    p99_ms: float | None
    error_percent: float


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """One model, as clients saw it (of those that were called) and as the server counted it (members included).

    `rows` and `batches` of a model that the server does not batch are the clients': the server counts each of its
    requests as one. They are 0 and empty where only ensembles call it. A request without rows counts as one.
    """

    name: str
    requests: int = 0
    failures: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    served: int = 0
    rows: int = 0
    executions: int = 0
    cache_hits: int = 0
    queue_ms: float = 0.0
    compute_ms: float = 0.0
    batches: tuple[tuple[int, int], ...] = ()
    max_batch_size: int = 0
    dynamic_batching: bool = False
    queue_delay_us: int = 0
    instances: int = 0
    ensemble: bool = False
    row_sizes: tuple[int, int] = (0, 0)
    backend: str = ""


@dataclass(frozen=True, slots=True)
class MachineFigures:
    """Cores in use over the measured time. `server_…` is None where the server is not ours and not on this machine.

    `server_waiting` is the share of its wanted CPU time that it stood in line for; `steal_cores` went to other
    machines of the host. `server_held_back` cores are those it wanted when a limit of its control group held it back.
    """

    cores: int
    busy_cores: float
    steal_cores: float
    generator_cores: float
    server_cores: float | None = None
    server_allowed: float | None = None
    server_waiting: float | None = None
    server_held_back: float = 0.0
    server_bytes: tuple[int, int] | None = None

    @property
    def other_cores(self) -> float:
        """What neither the server, as far as it is known, nor the generator uses, the hypervisor's part included."""
        return max(0.0, self.busy_cores - (self.server_cores or 0.0) - self.generator_cores)


@dataclass(frozen=True, slots=True)
class AnswerFigures:
    """Answers under load against the reference; `wrong_alone` of the `asked_alone` were wrong without any load too."""

    seen: int = 0
    compared: int = 0
    wrong: int = 0
    asked_alone: int = 0
    wrong_alone: int = 0
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a gate asked for and what was seen: `seen` against `limit`, in `unit`.

    `source` is `slo` or `baseline`. A baseline's limit is its own value and `noise`, how much worse may be chance.
    """

    source: str
    quantity: str
    held: bool
    seen: float
    limit: float
    unit: str
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A load test's figures, warm-up excluded; of shape `step` those of the highest rate that held.

    `arrivals` is `closed` where each user waits for its answer, else how arrivals were planned.

    Latencies are of answered requests, exact, as the client saw them, from the planned arrival on. `batch_mean`,
    `queue_ms` and `compute_ms` are the server's: mean rows per run (of models whose rows are known), mean time per
    request. `generator_cores` is CPU seconds of the load generator per second, `busiest_generator` those of its busiest
    process. `ended` says what ended the test before its time, `diagnosis` what limits throughput and what to change.
    `verdicts` are those of the SLO and of the baseline.
    """

    models: tuple[str, ...]
    protocol: str
    users: int
    rate: float | None
    arrivals: str
    shape: str
    workers: int
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
    late: LateStarts
    windows: tuple[Window, ...]
    model_figures: tuple[ModelFigures, ...]
    answers: AnswerFigures
    machine: MachineFigures
    batch_mean: float | None
    queue_ms: float | None
    compute_ms: float | None
    generator_cores: float
    busiest_generator: float
    machine_cores: int
    held_rate: float | None = None
    missed_rate: float | None = None
    levels: tuple[Level, ...] = ()
    ended: str = ""
    diagnosis: tuple[Finding, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    html: str = ""
    csv: tuple[str, ...] = ()
    json: str = ""

    @property
    def error_percent(self) -> float:
        """Failed requests, of all."""
        return 100 * self.failures / max(1, self.requests + self.failures)
