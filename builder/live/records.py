"""The nouns of the live check: what is checked, under which conditions, and what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from builder.findings import Finding
from builder.measurement import OutputError, Sequencing, served_signature
from builder.samples import Request
from builder.servers import Endpoint
from builder.tensors import Signature, Sizes
from builder.triton_client import SPELLED, Protocol, Statistics

Mode = Literal["sequential", "concurrent", "shared memory"]


@dataclass(frozen=True, slots=True)
class LiveSubject:
    """A served model and what its source answered. Row by row comparison in a crowd needs a proven batch axis.

    `version` is the one to ask, the newest when empty. `signature` is the source's; with `sequence` clients see less
    of it, and `requests` are steps of sequences.
    """

    signature: Signature
    requests: tuple[Request, ...]
    batch_proven: bool = False
    target: str | None = None
    sequence: Sequencing | None = None
    version: str = ""

    @property
    def served(self) -> Signature:
        """What clients see."""
        return served_signature(self.signature, self.sequence)


@dataclass(frozen=True, slots=True)
class LiveTask:
    """A subject at its place: where it is served, under which name; `scales` are what its errors are relative to."""

    endpoint: Endpoint
    subject: LiveSubject
    model: str
    scales: Mapping[str, float]


def _deviation(output: OutputError) -> float:
    if output.problem or output.new_nonfinite:
        return math.inf
    unequal = output.mismatches / output.elements if output.elements else 0.0
    return max(output.max_relative, unequal)


@dataclass(frozen=True, slots=True)
class LiveCondition:
    """The worst deviation under one protocol, one way of sending and one batch size (0: no batch axis)."""

    protocol: Protocol
    mode: Mode
    rows: int
    requests: int
    outputs: tuple[OutputError, ...]

    @property
    def deviation(self) -> float:
        """The worst output's largest error as a share of its magnitude; of what must be equal, the unequal share."""
        return max((_deviation(output) for output in self.outputs), default=0.0)

    @property
    def described(self) -> str:
        """`gRPC, 8 rows, concurrent`."""
        rows = f"{self.rows} row{'s' if self.rows != 1 else ''}, " if self.rows else ""
        return f"{SPELLED[self.protocol]}, {rows}{self.mode}"


@dataclass(frozen=True, slots=True)
class LiveResult:
    """What was sent, what came back, and the verdict.

    `protocols` were checked in full; `skipped` says in words what was not. `requests`, `inferences` (rows),
    `executions` and `batches` (size, runs) are the server's own counts for the concurrent phase.
    """

    model: str
    target: str | None
    protocols: tuple[str, ...]
    skipped: tuple[str, ...]
    conditions: tuple[LiveCondition, ...]
    requests: int
    inferences: int
    executions: int
    batches: tuple[tuple[int, int], ...]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def worst(self) -> LiveCondition | None:
        """The condition under which the largest deviation appeared; None where nothing was compared or none differs."""
        wrong = [condition for condition in self.conditions if condition.deviation > 0]
        return max(wrong, key=lambda condition: condition.deviation, default=None)


@dataclass(frozen=True, slots=True)
class Served:
    """What the server's config says of the model's batching, and of tensors that it reshapes: name → (dims, shape)."""

    max_batch_size: int
    batches: bool
    reshapes: Mapping[str, tuple[Sizes, Sizes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Phase:
    """What one phase of the check gave; `complete` are the protocols over which every sample was answered."""

    conditions: tuple[LiveCondition, ...] = ()
    findings: tuple[Finding, ...] = ()
    complete: tuple[Protocol, ...] = ()
    statistics: Statistics = field(default_factory=Statistics)
