"""The live check of a repository that stands: every served model against the samples that travel with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from builder.compare import Gates
from builder.errors import SpecError
from builder.findings import Finding, has_errors
from builder.live import LiveResult, LiveSubject, check_live
from builder.manifest import SAMPLES_FILE, EnsembleRecord, Manifest, ModelRecord, ServedRecord, read_manifest
from builder.progress import Event, Progress
from builder.records import from_json
from builder.repository import is_model_folder
from builder.samples import Request, load_requests
from builder.servers import Endpoint


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """One model folder: `unchecked` was not judged at all, and never counts as passed."""

    folder: str
    status: Literal["passed", "failed", "unchecked"]
    findings: tuple[Finding, ...]
    result: LiveResult | None = None


def folders_of(repository: Path, model: str | None) -> tuple[str, ...]:
    """The model folders to look at.

    Raises:
        SpecError: there is no such folder, or none at all.
    """
    found = tuple(
        item.name
        for item in sorted(repository.iterdir())
        if item.is_dir() and not item.name.startswith(".") and is_model_folder(item)
    )
    if model is not None and model not in found:
        raise SpecError(f"{repository} has no model {model!r}", remedy=f"it has {', '.join(found) or 'none'}")
    if not found:
        raise SpecError(f"{repository} holds no model", remedy="build-repo build MODEL -o REPO makes a repository")
    return found if model is None else (model,)


def check_repository(
    repository: Path, endpoint: Endpoint, unchecked: tuple[str, ...], model: str | None, progress: Progress
) -> Iterator[ModelCheck]:
    """Judge each folder on a server that serves the repository.

    Raises:
        SpecError: the manifest cannot be read.
        ServeError: the server died.
    """
    manifest = read_manifest(repository)
    for folder in folders_of(repository, model):
        reason = _why_not(repository, folder, manifest, unchecked)
        if reason is not None or manifest is None:
            yield ModelCheck(folder, "unchecked", (_unchecked(folder, *(reason or ())),))
            continue
        record, served = manifest.served_folders()[folder]
        for number, answers in _versions(served):
            label = folder if number == served.version else f"{folder} version {number}"
            if answers is None or not (repository / folder / answers).is_file():
                reason = (f"the answers of version {number} were not kept", "build the repository again")
                yield ModelCheck(label, "unchecked", (_unchecked(label, *reason),))
                continue
            progress(Event("start", f"live check of {label}"))
            result = _check(repository, endpoint, record, served, number, answers)
            progress(Event("done", f"live check of {label}", seconds=result.seconds))
            yield ModelCheck(label, "failed" if has_errors(result.findings) else "passed", result.findings, result)


def _versions(served: ServedRecord) -> list[tuple[int, str | None]]:
    """Every version that is served, with the file of its answers; the one that was built last first."""
    return [(served.version, SAMPLES_FILE), *((int(number), file) for number, file in served.others.items())]


def _check(  # noqa: PLR0913, PLR0917 - what is checked by what
    repository: Path,
    endpoint: Endpoint,
    record: ModelRecord | EnsembleRecord,
    served: ServedRecord,
    version: int,
    answers: str,
) -> LiveResult:
    requests = load_requests(repository / served.folder / answers, record.signature)
    # With one version served, the newest is asked: a server may hold it under another number.
    asked = str(version) if served.others else ""
    target = str(served.target) if served.target else None
    subject = LiveSubject(record.signature, requests, served.batching, target, record.sequence, asked)
    return check_live(endpoint, subject, gates_of_folder(record, served), model=served.folder)


def gates_of_folder(record: ModelRecord | EnsembleRecord, served: ServedRecord) -> Gates:
    """What each answer of a served folder must reach."""
    gates = next((target.gates for target in record.targets if target.target == served.target), {})
    return from_json(Gates, gates or record.gates)


def rows_proven(manifest: Manifest, folder: str) -> bool:
    """Whether rows of a request were seen to get the answers that they get alone; of an ensemble, in every member."""
    if folder not in manifest.served_folders():
        return False
    record, served = manifest.served_folders()[folder]
    if isinstance(record, EnsembleRecord):
        return all(rows_proven(manifest, step.member) for step in record.steps)
    numbers = next((target.numbers for target in record.targets if target.target == served.target), None)
    return numbers is not None and numbers.batch.proven


def _why_not(
    repository: Path, folder: str, manifest: Manifest | None, unchecked: tuple[str, ...]
) -> tuple[str, str] | None:
    """Why a folder cannot be judged, and what would make it possible; None when it can."""
    if manifest is None or folder not in manifest.served_folders():
        return "no reference answers: build-repo did not make this model", "build it with build-repo build"
    left = [text for text in unchecked if text.startswith(f"{folder}: ")]
    if any("the embedded server has no" in text or "left out" in text for text in left):
        return "; ".join(left), "check it on a server of its release: --url grpc://HOST:PORT"
    record, _ = manifest.served_folders()[folder]
    if isinstance(record, EnsembleRecord) and record.unproven:
        return (
            f"no reference answers: {record.unproven}",
            "give every member a source in the spec, and build them with it",
        )
    if not (repository / folder / SAMPLES_FILE).is_file():
        return f"{folder}/{SAMPLES_FILE} is missing", "build the repository again"
    return None


def _unchecked(folder: str, reason: str = "", remedy: str = "") -> Finding:
    return Finding("warning", "live.unchecked", f"not checked: {reason}", remedy, folder)


def requests_of(repository: Path, folder: str, manifest: Manifest | None) -> tuple[Request, ...] | None:
    """The stored samples of a folder; None where the repository has none."""
    if manifest is None or folder not in manifest.served_folders():
        return None
    record, _ = manifest.served_folders()[folder]
    path = repository / folder / SAMPLES_FILE
    return load_requests(path, record.signature) if path.is_file() else None
