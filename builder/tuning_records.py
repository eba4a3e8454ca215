"""What `tune` found: in the tuning file, and in the manifest's `run` once a build took it.

The tuning file says twice what it found: in the spec's own words, which a build takes, and as these records, which a
report shows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

ObjectiveWord = Literal["throughput", "latency", "memory"]
UNITS = {"throughput": "rows/s", "latency": "ms", "memory": "bytes"}
"""Of an objective's values; rows are requests where the model has no batch axis."""
BETTER: Final[dict[ObjectiveWord, str]] = {
    "throughput": "the throughput of",
    "latency": "as quick as",
    "memory": "as small as",
}
"""What a gain counts: `1.4 times as quick as` the default."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What was looked for, under which load.

    `throughput`: the most rows a second of `users` that each wait for their answer; with an `slo` at the largest number
    of users, up to `users`, that holds it. `latency`: the smallest median of `users` (one unless told otherwise).
    `memory`: the smallest resident size of the model's server process(es). `slo` pairs `p99` with milliseconds,
    `rows` are those of a request where the model has a batch axis.
    """

    word: ObjectiveWord
    users: int
    protocol: Literal["grpc", "http"] = "grpc"
    slo: tuple[tuple[str, float], ...] = ()
    rows: int = 1

    @property
    def unit(self) -> str:
        """Of the objective's value."""
        return UNITS[self.word]

    @property
    def rises(self) -> bool:
        """Whether more is better."""
        return self.word == "throughput"


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to serve a model.

    `target` is `onnxruntime:fp32`. `max_batch_size` 0: full dims, no batch axis for Triton. Without `dynamic` no
    requests are merged. `threads` are those of one instance, None: the library's own choice. `hint` is OpenVINO's word
    for a goal, in place of threads.
    """

    target: str
    max_batch_size: int = 0
    dynamic: bool = False
    preferred: tuple[int, ...] = ()
    max_queue_delay_us: int = 0
    instances: int = 1
    threads: int | None = None
    hint: Literal["latency", "throughput"] | None = None


@dataclass(frozen=True, slots=True)
class Raced:
    """Targets of a model that a build served side by side, each as it would be served, to choose among them.

    `values` are the objective's, the one to serve first. Not `surely`: the server did not tell it from all others, and
    of those it is the best in process. `wrong` says why others cannot be chosen, `missed` which of the `values` do not
    hold the objective's SLO, and with what.
    """

    objective: Objective
    values: tuple[tuple[str, float], ...]
    surely: bool
    wrong: tuple[tuple[str, str], ...] = ()
    missed: tuple[tuple[str, str], ...] = ()

    def decides(self, target: str) -> bool:
        """Whether it was served because of this; one that nothing was near to was only asked about its SLO."""
        return target in dict(self.values) and len(self.values) + len(self.wrong) > 1


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """A setting under a load: `users` that each wait for their answer.

    Latencies as the client saw them; `queue_ms` and `compute_ms` are the server's means per request. `batches` pairs
    the rows of a run with how many runs had so many. Cores are CPU seconds per second; `other_cores` are those that
    other programs of the machine used.
    """

    users: int
    requests: int
    failures: int
    requests_per_s: float
    rows_per_s: float
    p50_ms: float
    p99_ms: float
    queue_ms: float | None
    compute_ms: float | None
    batches: tuple[tuple[int, int], ...]
    generator_cores: float
    server_cores: float | None
    server_bytes: int | None
    other_cores: float | None = None


@dataclass(frozen=True, slots=True)
class Tried:
    """A setting that was served and measured, `measurements` times, in turns with the reference setting.

    `value` is the objective's, and `low` to `high` holds it with 95 % confidence, drift of the machine cancelled:
    measured as a ratio to the reference. `predicted` is what in-process measurements let expect. `refused` says why it
    cannot be chosen (wrong answers, failures, a missed SLO); empty where it can. `point` is its load, of all
    measurements together.
    """

    setting: Setting
    value: float
    low: float
    high: float
    predicted: float
    measurements: int
    point: LoadPoint
    refused: str = ""


@dataclass(frozen=True, slots=True)
class TunedModel:
    """The search for one model, and the machine, release, server and load for which it holds.

    `default` is what would be served without tuning, `chosen` the answer; both are among `tried`. `gain` is how many
    times better the chosen one is (dimensionless, 1.0: no better). `space` counts the settings that were considered,
    `stopped` says why the search ended, `default_curve` and `chosen_curve` are empty where there was no time for them.
    `export_key` is that of the model it holds for, `measured_on` the day of the search (2026-07-31, UTC).
    `together` says what decided where several models were called at once; then the gain, alone, may be below 1.
    """

    name: str
    export_key: str
    objective: Objective
    machine: dict[str, str]
    triton: str
    server: str
    default: Setting
    chosen: Setting
    gain: float
    tried: tuple[Tried, ...]
    space: int
    measurements: int
    seconds: float
    stopped: str
    default_curve: tuple[LoadPoint, ...] = ()
    chosen_curve: tuple[LoadPoint, ...] = ()
    notes: tuple[str, ...] = ()
    measured_on: str = ""
    together: str = ""

    @property
    def fewer_users(self) -> bool:
        """Whether settings were measured with different numbers of users: an SLO held with fewer only."""
        return any(item.point.users != self.objective.users for item in self.tried)
