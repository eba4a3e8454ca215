"""The live check of staged model folders on the embedded Triton, with the verdict kept by what was checked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from builder.cache import Cache
from builder.compare import Gates
from builder.digests import digest_of
from builder.errors import ServeError
from builder.findings import Finding, has_errors
from builder.libraries import all_code_digest
from builder.live.records import LiveResult, LiveSubject
from builder.manifest import SAMPLES_FILE, ServedRecord
from builder.measurement import Sequencing
from builder.progress import Event, Progress
from builder.records import canonical, read_record, to_json, write_record
from builder.samples import load_requests
from builder.scratch import temporary_folder
from builder.servers import Endpoint, ServeOptions
from builder.tensors import Signature


@dataclass(frozen=True, slots=True)
class LiveItem:
    """A staged folder to check and what is expected of it; `needs` are the members of an ensemble, with their files.

    `version` is one that is served beside the record's own, with its `answers`.
    """

    record: ServedRecord
    model: str
    signature: Signature
    gates: Gates
    sequence: Sequencing | None = None
    needs: tuple[tuple[str, str], ...] = ()
    version: int | None = None
    answers: str = SAMPLES_FILE

    @property
    def target(self) -> str | None:
        """As findings name it."""
        return str(self.record.target) if self.record.target else None

    @property
    def folders(self) -> tuple[str, ...]:
        """What must be served."""
        return (self.record.folder, *(name for name, _ in self.needs))

    @property
    def key(self) -> str:
        """The folder; with its number for a version that is served beside the newest one."""
        return self.record.folder if self.version is None else f"{self.record.folder}:{self.version}"


@dataclass(frozen=True, slots=True)
class LiveVerdict:
    """What the live check said of one folder; `result` is None where the server did not load it or has no backend."""

    findings: tuple[Finding, ...]
    result: LiveResult | None = None
    unchecked: tuple[str, ...] = ()


def verify(
    repository: Path, items: Sequence[LiveItem], *, release: str, cache: Cache, progress: Progress
) -> dict[str, LiveVerdict]:
    """Key of an item → verdict. Only folders whose content was not yet judged are served.

    Raises:
        MachineError: the embedded runtime is missing.
    """
    known: dict[str, LiveVerdict] = {}
    todo: list[LiveItem] = []
    for item in items:
        file = _verdict_file(item, release, cache)
        if file.is_file():
            known[item.key] = read_record(LiveVerdict, file)
            progress(Event("cached", f"{item.key} live check"))
        else:
            todo.append(item)
    if todo:
        for item, verdict in _verify_now(repository, todo, release, progress):
            known[item.key] = verdict
            if not has_errors(verdict.findings):
                _keep(verdict, _verdict_file(item, release, cache))
    return known


def _keep(verdict: LiveVerdict, file: Path) -> None:
    """Only a good verdict is kept: a bad one may have been the machine's fault and is asked for again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_record(file, verdict)


def _verdict_file(item: LiveItem, release: str, cache: Cache) -> Path:
    from builder.runtime import require

    parts = {
        "files": digest_of(item.record.files),
        "folder": item.record.folder,
        "needs": item.needs,
        "gates": to_json(item.gates),
        "version": item.version,
        "runtime": to_json(require(release).record),
        "code": all_code_digest(),
    }
    return cache.root / "live" / f"{hashlib.sha256(canonical(parts)).hexdigest()[:32]}.json"


def _verify_now(
    repository: Path, items: Sequence[LiveItem], release: str, progress: Progress
) -> Iterator[tuple[LiveItem, LiveVerdict]]:
    """All folders on one server; when that does not start, each on its own, so that the guilty one is known."""
    label = f"live check of {', '.join(item.key for item in items)}"
    progress(Event("start", label))
    started = time.monotonic()
    try:
        folders = tuple(dict.fromkeys(folder for item in items for folder in item.folders))
        options = ServeOptions(release=release, auto_complete=False)
        with serving(repository, folders, options) as (endpoint, unchecked):
            for item in items:
                yield item, _verdict(repository, item, endpoint, unchecked)
    except ServeError as error:
        if len(items) == 1:
            yield items[0], LiveVerdict((_load_finding(items[0], error),))
        else:
            for item in items:
                yield from _verify_now(repository, [item], release, progress)
    progress(Event("done", label, seconds=time.monotonic() - started))


def _load_finding(item: LiveItem, error: ServeError) -> Finding:
    return Finding("error", "live.load", error.message, error.remedy, item.model, item.target, item.record.folder)


def _verdict(repository: Path, item: LiveItem, endpoint: Endpoint, unchecked: Sequence[str]) -> LiveVerdict:
    folder = item.record.folder
    left = tuple(text for text in unchecked if text.startswith(f"{folder}: "))
    if not (endpoint.http or endpoint.grpc) or any(
        "the embedded server has no" in text or "left out" in text for text in left
    ):
        return LiveVerdict((_unchecked_finding(item, left),), None, left)
    from builder.live import check_live

    samples = repository / folder / item.answers
    requests = load_requests(samples, item.signature) if samples.is_file() else ()
    version = str(item.version or item.record.version)
    subject = LiveSubject(item.signature, requests, item.record.batching, item.target, item.sequence, version)
    result = check_live(endpoint, subject, item.gates, model=folder)
    if item.version is not None:
        said = (replace(one, message=f"version {item.version}: {one.message}") for one in result.findings)
        result = replace(result, findings=tuple(said))
    findings = result.findings if not left else (*result.findings, _unchecked_finding(item, left))
    return LiveVerdict(findings, result, left)


def _unchecked_finding(item: LiveItem, left: Sequence[str]) -> Finding:
    return Finding(
        "info",
        "live.unchecked",
        f"not checked live: {'; '.join(left)}",
        "check it on a server of the release: build-repo check REPO --url grpc://HOST:PORT",
        item.model,
        item.target,
        item.record.folder,
    )


@contextmanager
def serving(
    repository: Path, folders: Sequence[str] | None, options: ServeOptions
) -> Iterator[tuple[Endpoint, tuple[str, ...]]]:
    """The embedded Triton on some (None: all) of a repository's folders, and what it could not take.

    An endpoint without any address stands for "nothing here can be served by it".
    """
    from builder.servers import server_module

    with light_copy(repository, folders, options.release) as (copy, unchecked):
        if not any(copy.iterdir()):
            yield Endpoint(None, None, None), unchecked
            return
        with server_module("embedded").serve(copy, options) as endpoint:
            yield endpoint, unchecked


@contextmanager
def light_copy(repository: Path, folders: Sequence[str] | None, release: str) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Links to a repository's files with configs that the embedded server knows; the repository is not touched."""
    from builder.servers.embedded import lacking, live_copy, packages_for

    with temporary_folder("live") as scratch:
        chosen = repository if folders is None else _chosen(repository, folders, scratch / "chosen")
        unchecked = live_copy(chosen, scratch / "repository", lacking(release), packages_for(release))
        yield scratch / "repository", unchecked


def _chosen(repository: Path, folders: Sequence[str], destination: Path) -> Path:
    destination.mkdir()
    for folder in folders:
        (destination / folder).symlink_to((repository / folder).resolve(), target_is_directory=True)
    return destination
