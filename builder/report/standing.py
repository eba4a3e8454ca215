"""What a model's targets are compared by: the spec's objective, measured in process, or the live server; pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from builder.report import words
from builder.report.records import TargetFacts
from builder.tuning_records import Raced, Setting, Tried, TunedModel

PLAIN: Final = "onnxruntime:fp32"
"""What others are held against: the model as Triton runs it without anything done to it."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A model's targets and the words that decided between them.

    `serve` and `objective` are the spec's. `older` are the targets of its other versions, which one configuration
    serves together. `stale`: there is a tuning, of another version of the model. `tune` is the command for a new one.
    `raced` is what the live server said of targets near each other, as the build would serve them.
    """

    name: str
    targets: Sequence[TargetFacts]
    serve: str
    objective: str
    tuning: TunedModel | None
    tune: str
    stale: bool = False
    older: Sequence[TargetFacts] = ()
    raced: Raced | None = None

    @property
    def chosen(self) -> TargetFacts | None:
        """What is served under the model's own name."""
        return next((item for item in self.targets if item.chosen), None)

    @property
    def passing(self) -> tuple[TargetFacts, ...]:
        """Those that may be served."""
        return tuple(item for item in self.targets if item.status == "built")

    @property
    def deferred(self) -> tuple[str, ...]:
        """Those of which nothing is known."""
        return tuple(item.target for item in self.targets if item.status == "deferred")

    @property
    def tuned(self) -> TunedModel | None:
        """The tuning, where what it chose is what is served."""
        chosen = self.chosen
        return self.tuning if self.tuning and chosen and chosen.target == self.tuning.chosen.target else None

    @property
    def rival(self) -> TargetFacts | None:
        """What the chosen one is held against: the plain model, else the best of the others that were measured."""
        if self.chosen is None or self.cost(self.chosen) == math.inf:
            return None
        others = [item for item in self.passing if not item.chosen and self.cost(item) < math.inf]
        plain = next((item for item in others if item.target == PLAIN), None)
        return plain or min(others, key=self.cost, default=None)

    def cost(self, target: TargetFacts) -> float:
        """The objective so that less is better, of all versions together; infinite where it was not measured."""
        every = (target, *(item for item in self.older if item.target == target.target))
        return sum(_cost(item, self.objective) for item in every)

    def said(self, target: TargetFacts) -> str:
        """The objective's value in process: `0.02 ms a request`, `1,320 rows/s`, `78 MB of memory`."""
        if self.objective == "throughput":
            return words.rate(target.rows_per_s)
        if self.objective == "memory":
            return f"{words.size(target.memory_bytes)} of memory"
        return f"{words.milliseconds(target.latency_ms)} a request"

    def against(self, target: TargetFacts, other: TargetFacts) -> str:
        """`1.4x as fast as onnxruntime:fp32`, `1.4x the throughput of …`, `takes as much memory as …`."""
        ratio = self.cost(other) / self.cost(target)
        if self.objective == "throughput":
            return f"{words.times(ratio)} the throughput of {other.target}"
        if self.objective == "memory":
            return f"{words.times(1 / ratio)} the memory of {other.target}"
        return words.compared(ratio, "fast", "slow", other.target)


def _cost(target: TargetFacts, objective: str) -> float:
    if objective == "throughput":
        return 1 / target.rows_per_s if target.rows_per_s else math.inf
    value = target.memory_bytes if objective == "memory" else target.latency_ms
    return float(value) if value else math.inf


def tried_for(setting: Setting, tuning: TunedModel) -> Tried | None:
    """What was measured of a setting; the last time counts."""
    return next((item for item in reversed(tuning.tried) if item.setting == setting), None)
