"""What a report says of a repository, as data: one record, rendered as a page, as Markdown and as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from builder.findings import Finding
from builder.measurement import BatchProof, Latency, OutputError, PrecisionProof, PrepareReport, TaskMetric
from builder.tuning_records import TunedModel

Tone = Literal["good", "plain", "bad"]
TargetStatus = Literal["built", "failed", "deferred", "rejected"]


@dataclass(frozen=True, slots=True)
class Card:
    """One figure that a reader should see first: its name, the figure with its unit, and what to hold it against."""

    name: str
    value: str
    more: str
    tone: Tone = "plain"


@dataclass(frozen=True, slots=True)
class ServedLoad:
    """What a target reached on the live server at the objective's load, by its best setting that `tune` tried."""

    rows_per_s: float
    p50_ms: float
    p99_ms: float
    users: int
    refused: str


@dataclass(frozen=True, slots=True)
class TargetFacts:
    """One target of a model.

    `latency_ms` is the median of the smallest request in process, `rows_per_s` the best of all batch sizes in process
    (rows are requests where there is no batch axis). `error` is the worst `max_relative` and `cosine` the worst cosine
    of its outputs, `mismatches` the unequal elements of integer and string outputs. `prepare` holds the latencies of
    the transforms too. `verdict` is in words, `libraries` those that made, converted and measured it.
    """

    target: str
    status: TargetStatus
    chosen: bool
    verdict: str
    latency_ms: float | None
    rows_per_s: float | None
    served: ServedLoad | None
    latency: tuple[Latency, ...]
    size_bytes: int | None
    memory_bytes: int | None
    error: float | None
    cosine: float | None
    mismatches: int
    metric: TaskMetric | None
    outputs: tuple[OutputError, ...]
    compute: str
    precision: PrecisionProof | None
    batch: BatchProof | None
    gates: dict[str, Any]
    prepare: PrepareReport | None
    convert_key: str
    build_seconds: float | None
    libraries: dict[str, str]
    machine: dict[str, str]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """A model folder that is served. `files` maps paths to the sha256 of the manifest; `changed` are those that differ.

    `missing` files count as changed. `live` says in words what asking it on a live server showed.
    """

    folder: str
    target: str | None
    version: int
    other_versions: tuple[str, ...]
    batching: bool
    files: dict[str, str]
    changed: tuple[str, ...]
    live: str


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """Another version that the spec has of the model."""

    version: int
    source_format: str
    source_digest: str
    route: str
    samples: str
    export_key: str
    targets: tuple[TargetFacts, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model. `headline` and `why` are sentences; `tuning` is None where it was not tuned, or for another model."""

    name: str
    headline: str
    why: str
    cards: tuple[Card, ...]
    served: str | None
    folders: tuple[FolderFacts, ...]
    signature: str
    source_format: str
    source_digest: str
    route: str
    samples: str
    export_key: str
    gates: dict[str, Any]
    targets: tuple[TargetFacts, ...]
    tuning: TunedModel | None
    versions: tuple[VersionFacts, ...]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class StepFacts:
    """A step of an ensemble: the member, its version (None: the newest), and its wires in words (`logits = scores`)."""

    member: str
    version: int | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EnsembleFacts:
    """One ensemble; `reference` says what its right answers came from, `unproven` why there are none."""

    name: str
    headline: str
    signature: str
    samples: str
    reference: tuple[str, ...]
    unproven: str
    gates: dict[str, Any]
    steps: tuple[StepFacts, ...]
    folders: tuple[FolderFacts, ...]
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Command:
    """A line to type in a shell, quoted, and what it does."""

    does: str
    line: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """From what the repository was made, and how to make it again.

    `libraries` maps a distribution to the versions that took part, several where builds used different ones;
    `machines` are those that measured.
    """

    build_repo: str
    triton: str
    spec_digest: str
    libraries: dict[str, tuple[str, ...]]
    machines: tuple[dict[str, str], ...]
    commands: tuple[Command, ...]


@dataclass(frozen=True, slots=True)
class RepositoryFacts:
    """The whole report. `others` are model folders that the manifest does not know: nothing is said of them.

    `findings` are those of the build that belong to no model.
    """

    repository: str
    headline: str
    models: tuple[ModelFacts, ...]
    ensembles: tuple[EnsembleFacts, ...]
    others: tuple[str, ...]
    findings: tuple[Finding, ...]
    provenance: Provenance
    format: int = 1
