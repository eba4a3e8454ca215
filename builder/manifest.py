"""`build-repo.json`: what stands in a repository, from what it was made, and what was measured.

Everything but `run` is the same, byte for byte, for the same spec and the same served choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from builder import defaults
from builder.errors import SpecError
from builder.findings import Finding
from builder.measurement import (
    BatchProof,
    Latency,
    OutputError,
    PrecisionProof,
    PrepareReport,
    Sequencing,
    TaskMetric,
    TransformReport,
)
from builder.records import RecordError, read_record, write_record
from builder.tensors import Signature
from builder.tuning_records import Raced, TunedModel
from builder.work import Target

MANIFEST_FILE: Final = "build-repo.json"
FORMAT: Final = 1
SAMPLES_FILE: Final = "reference.npz"
"""In a model's folder: sample inputs and the source's outputs, for `check` and `loadtest` wherever the folder is."""

Status = Literal["built", "cached", "failed", "deferred", "rejected"]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What was measured of an artefact and does not depend on the clock."""

    outputs: tuple[OutputError, ...]
    batch: BatchProof
    compute: str
    metric: TaskMetric | None = None
    notes: tuple[str, ...] = ()
    precision: PrecisionProof | None = None


@dataclass(frozen=True, slots=True)
class TargetRecord:
    """One target of a model; `works` are the records whose digests are the keys.

    `prepare` is what became of its graph, without what the clock said; `gates` what each of its answers must reach.
    """

    target: Target
    status: Literal["built", "failed", "deferred", "rejected"]
    convert_key: str
    size_bytes: int | None
    numbers: Numbers | None
    findings: tuple[Finding, ...]
    works: dict[str, dict[str, Any]]
    prepare: PrepareReport | None = None
    gates: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServedRecord:
    """One model folder: `files` maps its paths (the version folder's included) to their sha256.

    `recipe` is the digest of what an engine was made from, the machine left out; empty where no machine matters.
    `target` is None for an ensemble.
    `others` are versions that are served beside `version`, each with the file of its answers; None: none were kept.
    """

    folder: str
    target: Target | None
    version: int
    artefact: str
    batching: bool
    files: dict[str, str]
    recipe: str = ""
    others: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionRecord:
    """Another version that the spec has of a model: where it comes from and what was measured of it."""

    version: int
    source_format: str
    source_digest: str
    route: str
    samples: str
    export_key: str
    targets: tuple[TargetRecord, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """One model of the spec and the folders it is served from; `serve` and `objective` are the spec's words."""

    name: str
    signature: Signature
    source_format: str
    source_digest: str
    route: str
    samples: str
    export_key: str
    gates: dict[str, Any]
    targets: tuple[TargetRecord, ...]
    served: tuple[ServedRecord, ...]
    notes: tuple[str, ...] = ()
    live: dict[str, Any] = field(default_factory=dict)
    sequence: Sequencing | None = None
    ragged: bool = False
    """Whether requests of unequal sizes share a run: each is then one row."""
    versions: tuple[VersionRecord, ...] = ()
    serve: str = "best"
    objective: str = defaults.OBJECTIVE


@dataclass(frozen=True, slots=True)
class EnsembleStep:
    """A step as it was wired: pairs of the member's own names and those of the ensemble; `version` None: the newest."""

    member: str
    inputs: tuple[tuple[str, str], ...]
    outputs: tuple[tuple[str, str], ...]
    version: int | None = None


@dataclass(frozen=True, slots=True)
class EnsembleRecord:
    """One ensemble of the spec.

    `reference` says, for each model in the order of the data, what its right answers came from; empty where they are
    not known, which `unproven` explains.
    """

    name: str
    steps: tuple[EnsembleStep, ...]
    signature: Signature
    samples: str
    reference: tuple[str, ...]
    unproven: str
    gates: dict[str, Any]
    served: tuple[ServedRecord, ...]
    notes: tuple[str, ...] = ()
    live: dict[str, Any] = field(default_factory=dict)

    @property
    def sequence(self) -> Sequencing | None:
        """An ensemble is not asked in sequences."""
        return None

    @property
    def targets(self) -> tuple[TargetRecord, ...]:
        """Its members have targets."""
        return ()


@dataclass(frozen=True, slots=True)
class TargetTimings:
    """What depends on the clock and the machine's load."""

    seconds: float
    latency: tuple[Latency, ...]
    peak_memory_bytes: int | None
    transforms: tuple[TransformReport, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What differs from build to build of the same spec; `tuning` is what it took from a tuning file, by model.

    `findings` are those of the build that no single target has: of a model, an ensemble, or (no `model`) of all.
    `raced` is what the live server said of targets that were near each other, by model.
    """

    command: str
    timings: dict[str, dict[str, TargetTimings]]
    tuning: dict[str, TunedModel] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    raced: dict[str, Raced] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole file."""

    format: int
    build_repo: str
    triton: str
    spec_digest: str
    models: dict[str, ModelRecord]
    run: RunRecord
    ensembles: dict[str, EnsembleRecord] = field(default_factory=dict)

    def served_folders(self) -> dict[str, tuple[ModelRecord | EnsembleRecord, ServedRecord]]:
        """Model folder → the model or ensemble it belongs to and its record."""
        every: tuple[ModelRecord | EnsembleRecord, ...] = (*self.models.values(), *self.ensembles.values())
        return {served.folder: (record, served) for record in every for served in record.served}


def read_manifest(repository: Path) -> Manifest | None:
    """The manifest of a repository, None where it has none.

    Raises:
        SpecError: there is one that this version cannot read.
    """
    path = repository / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        manifest = read_record(Manifest, path)
        if manifest.format != FORMAT:
            msg = f"its format is {manifest.format}, this version knows {FORMAT}"
            raise RecordError(msg)  # noqa: TRY301 - the same words for every way of not fitting
    except (RecordError, OSError) as error:
        raise SpecError(
            f"{path} cannot be read: {error}",
            remedy="it was written by another version of build-repo or by hand: build into a new folder with -o",
        ) from error
    return manifest


def write_manifest(repository: Path, manifest: Manifest) -> None:
    """Write the manifest into a repository."""
    write_record(repository / MANIFEST_FILE, manifest)


def all_listed(repository: Path) -> bool:
    """True when every model folder is in the manifest, so that every config is known to be complete."""
    manifest = read_manifest(repository)
    if manifest is None:
        return False
    folders = {item.name for item in repository.iterdir() if item.is_dir() and not item.name.startswith(".")}
    return folders <= set(manifest.served_folders())
