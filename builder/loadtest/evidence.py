"""What was measured of a load test, as its diagnosis reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from builder.loadtest.records import LateStarts, MachineFigures, ModelFigures

FULL: Final = 0.9
"""Share of the cores from which a CPU counts as used up."""
WANTS: Final = 0.5
"""Of the runs at the same time, the cores that a model of computing wants at least."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was measured. Rates are of requests a second, `offered_per_s` is what was planned; None: a closed load.

    `broken_off` is what ended the test before its time, but for the user.
    """

    users: int
    offered_per_s: float | None
    answered_per_s: float
    mean_ms: float
    busiest_generator: float
    late: LateStarts
    machine: MachineFigures
    models: tuple[ModelFigures, ...]
    gpu: float | None = None
    silent_s: float = 0.0
    broken_off: str = ""

    @property
    def answered(self) -> int:
        """Requests of clients that were answered."""
        return sum(model.requests for model in self.models)

    def rate_of(self, model: ModelFigures) -> float:
        """Requests a second that the model served; of an ensemble's member, those of the ensemble."""
        return self.answered_per_s * model.served / self.answered if self.answered else 0.0

    @property
    def slowest(self) -> ModelFigures | None:
        """The model in which requests spend most time; ensembles are judged by their members."""
        found = [model for model in self.models if model.served and not model.ensemble]
        return max(found, key=lambda item: item.served * (item.queue_ms + item.compute_ms), default=None)

    @property
    def busy(self) -> float:
        """Share of the machine's cores in use."""
        return self.machine.busy_cores / self.machine.cores

    @property
    def in_line_ms(self) -> float:
        """Of each request, how long the server stood in line for a core; 0.0 where that is not known."""
        waiting, used = self.machine.server_waiting, self.machine.server_cores
        if waiting is None or used is None or not self.answered_per_s:
            return 0.0
        return 1000 * used * waiting / max(1 - waiting, 1e-3) / self.answered_per_s

    @property
    def held_back_ms(self) -> float:
        """Of each request, how long a limit held the server's threads back, added up."""
        return 1000 * self.machine.server_held_back / self.answered_per_s if self.answered_per_s else 0.0

    @property
    def wanted_cores(self) -> float:
        """What the server used and stood in line for."""
        return (self.machine.server_cores or 0.0) + self.in_line_ms * self.answered_per_s / 1000

    @property
    def computing(self) -> float:
        """Runs of the slowest model at the same time, on average."""
        model = self.slowest
        if model is None:
            return 0.0
        return self.rate_of(model) * model.compute_ms / 1000 * model.executions / model.served

    @property
    def cpu_bound(self) -> bool:
        """No core is free, and the server wants one: a model that sleeps does not."""
        return self.busy >= FULL and self.wanted_cores >= WANTS * min(1.0, self.computing)
