"""The server's own view while the load runs: its statistics, its metrics, and its processes."""

from __future__ import annotations

import contextlib
import http.client
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from builder.errors import ServeError
from builder.loadtest.control_groups import held_back_s
from builder.loadtest.server_processes import Usage, allowed_cores, machine_times, server_pids, usage_of
from builder.servers import Endpoint
from builder.triton_client import Client, Protocol, Statistics, difference, open_client

INTERVAL_S: Final = 0.5
ANSWER_S: Final = 2.0
PENDING: Final = re.compile(r"^nv_inference_pending_request_count\{[^}]*\} ([\d.e+]+)", re.MULTILINE)
GPU: Final = re.compile(r"^nv_gpu_utilization\{[^}]*\} ([\d.e+-]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Reading:
    """One look: counters since the server's start; `pending` requests wait in it, `gpu` is the busiest one's share."""

    at_s: float
    models: Mapping[str, Statistics]
    server: Usage
    generators: tuple[Usage, ...]
    busy_s: float
    steal_s: float
    pending: float | None
    gpu: float | None
    held_back_s: Mapping[Path, float] = field(default_factory=dict)


@dataclass(slots=True)
class Sampler:
    """Takes readings; `marks` pairs a phase with its first and last one."""

    endpoint: Endpoint
    client: Client
    pids: tuple[int, ...]
    generators: Sequence[int] = ()
    readings: list[Reading] = field(default_factory=list)
    marks: dict[int, list[int]] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def mark(self, phase: int) -> None:
        """A phase begins or ends now."""
        self.read()
        self.marks.setdefault(phase, []).append(len(self.readings) - 1)

    def look(self) -> None:
        """A reading, if it is time for one."""
        if not self.readings or time.monotonic() - self.readings[-1].at_s >= INTERVAL_S:
            self.read()

    def read(self) -> None:
        """A reading now; of a server that does not answer only what this machine knows."""
        models: Mapping[str, Statistics] = {}
        with contextlib.suppress(ServeError):
            models = self.client.all_statistics()
        pending, gpu = _metrics(self.endpoint.metrics)
        generators = tuple(usage_of([pid], family=False) for pid in self.generators)
        busy, steal = machine_times()
        self.readings.append(
            Reading(
                *(time.monotonic(), models, usage_of(self.pids), generators, busy, steal, pending, gpu),
                held_back_s=held_back_s(self.pids),
            )
        )

    def between(self, phase: int) -> tuple[Reading, Reading] | None:
        """The phase's first and last reading; the last of all where it was broken off."""
        marks = self.marks.get(phase)
        if not marks:
            return None
        last = marks[1] if len(marks) > 1 else len(self.readings) - 1
        return (self.readings[marks[0]], self.readings[last]) if last > marks[0] else None

    def served(self, phase: int) -> dict[str, Statistics]:
        """What happened in the server's models during the phase; only models that did something."""
        pair = self.between(phase)
        if pair is None:
            return {}
        before, after = pair
        happened = {
            name: difference(counts, before.models.get(name, Statistics())) for name, counts in after.models.items()
        }
        return {name: counts for name, counts in happened.items() if counts.requests > 0}

    def read_configs(self) -> None:
        """The configurations of the models that were called, while the server still answers."""
        for name in self.readings[-1].models if self.readings else ():
            if name not in self.configs:
                with contextlib.suppress(ServeError):
                    self.configs[name] = self.client.config(name)

    @property
    def allowed(self) -> float | None:
        """Cores that the server may use."""
        return allowed_cores(self.pids)


@contextmanager
def sampling(endpoint: Endpoint, protocol: Protocol) -> Iterator[Sampler]:
    """A sampler with a client of this thread."""
    with open_client(endpoint, protocol, timeout_s=ANSWER_S) as client:
        yield Sampler(endpoint, client, server_pids(endpoint))


def _metrics(address: str | None) -> tuple[float | None, float | None]:
    if address is None:
        return None, None
    connection = http.client.HTTPConnection(address, timeout=ANSWER_S)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode("utf-8", "replace")
        pending, gpus = PENDING.findall(text), GPU.findall(text)
        return sum(map(float, pending)) if pending else None, max(map(float, gpus)) if gpus else None
    return None, None
