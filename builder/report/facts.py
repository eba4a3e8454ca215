"""From a repository to the facts of its report: the manifest, and whether the files are still what it says."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from builder.errors import SpecError
from builder.findings import Finding
from builder.machine import machine_differences
from builder.manifest import (
    MANIFEST_FILE,
    EnsembleRecord,
    EnsembleStep,
    Manifest,
    ModelRecord,
    ServedRecord,
    VersionRecord,
    read_manifest,
)
from builder.report import words
from builder.report.cards import cards
from builder.report.choice import headline, why
from builder.report.provenance import changed_files, provenance, tune_command
from builder.report.records import (
    EnsembleFacts,
    FolderFacts,
    ModelFacts,
    RepositoryFacts,
    StepFacts,
    TargetFacts,
    VersionFacts,
)
from builder.report.standing import Standing
from builder.report.targets import target_facts
from builder.tuning_records import TunedModel

PROTOCOLS: Final = {"http": "HTTP", "grpc": "gRPC"}
DOUBTED: Final = ("tuning.changed", "tuning.machine", "report.tuning")
"""Findings that say that what was measured by a tuning may not hold."""


def read_facts(repository: Path) -> RepositoryFacts:
    """All that the repository says of itself; every served file is read once, to see whether it was changed.

    Raises:
        SpecError: no such folder, no manifest, or one that cannot be read.
    """
    if not repository.is_dir():
        what = "is a file, not a folder" if repository.exists() else "no such folder"
        raise SpecError(f"{repository}: {what}", remedy="build-repo build MODEL -o REPO makes a repository")
    manifest = read_manifest(repository)
    if manifest is None:
        raise SpecError(
            f"{repository} has no {MANIFEST_FILE}: nothing is known of how it was made",
            remedy="a report is of a repository that build-repo made; build-repo validate judges any other",
        )
    models = tuple(_model(repository, record, manifest) for record in manifest.models.values())
    ensembles = tuple(_ensemble(repository, record, manifest) for record in manifest.ensembles.values())
    known = set(manifest.served_folders())
    others = tuple(sorted(set(_folders(repository)) - known))
    return RepositoryFacts(
        repository=str(repository),
        headline=_summary(models, ensembles, others, manifest.triton),
        models=models,
        ensembles=ensembles,
        others=others,
        findings=_ranked(_said_of(manifest, names=None)),
        provenance=provenance(str(repository), manifest, models),
    )


def _folders(repository: Path) -> list[str]:
    try:
        return [item.name for item in repository.iterdir() if item.is_dir() and not item.name.startswith(".")]
    except OSError as error:
        raise SpecError(f"{repository} cannot be read: {error}") from error


def _model(repository: Path, record: ModelRecord, manifest: Manifest) -> ModelFacts:
    tuning, stale = _tuning(record, manifest.run.tuning.get(record.name))
    served = next((item for item in record.served if item.folder == record.name), None)
    chosen = str(served.target) if served and served.target else None
    targets = target_facts(record.targets, manifest.run.timings.get(record.name, {}), chosen, tuning)
    folders = tuple(_folder(repository, item, record.live) for item in record.served)
    versions = tuple(_version(record.name, version, chosen, manifest) for version in record.versions)
    said = tuple(_said_of(manifest, {record.name, *(item.folder for item in record.served)}))
    standing = Standing(
        name=record.name,
        targets=targets,
        serve=record.serve,
        objective=record.objective,
        tuning=tuning,
        tune=tune_command(manifest),
        stale=stale,
        older=[target for version in versions for target in version.targets],
        raced=manifest.run.raced.get(record.name),
    )
    return ModelFacts(
        name=record.name,
        headline=headline(standing),
        why=why(standing),
        cards=cards(standing),
        served=chosen,
        folders=folders,
        signature=record.signature.describe(),
        source_format=record.source_format,
        source_digest=record.source_digest,
        route=record.route,
        samples=record.samples,
        export_key=record.export_key,
        gates=record.gates,
        targets=targets,
        tuning=tuning,
        versions=versions,
        notes=tuple(dict.fromkeys((*record.notes, *(note for item in targets for note in item.notes)))),
        findings=_ranked(
            [
                *(finding for target in targets for finding in target.findings),
                *(finding for version in versions for target in version.targets for finding in target.findings),
                *said,
                *_changed(folders),
                *_doubted(record.name, _doubt(tuning, targets, stale=stale), said),
            ]
        ),
    )


def _tuning(record: ModelRecord, tuned: TunedModel | None) -> tuple[TunedModel | None, bool]:
    """A tuning that holds for this very model; and whether there is one that does not."""
    stale = tuned is not None and tuned.export_key != record.export_key
    return (None if stale else tuned), stale


def _doubt(tuning: TunedModel | None, targets: Iterable[TargetFacts], *, stale: bool) -> str:
    """Why what was measured by the tuning may not hold; empty where nothing speaks against it."""
    if stale:
        return "the tuning in the manifest was measured with another model, other samples or other libraries"
    machines = [target.machine for target in targets if target.chosen and target.machine]
    differ = machine_differences(tuning.machine, machines[0], "built on") if tuning and machines else ()
    if not differ:
        return ""
    return f"tuned on another machine than it was built on ({'; '.join(differ)}): other settings may be better here"


def _version(name: str, record: VersionRecord, chosen: str | None, manifest: Manifest) -> VersionFacts:
    timings = manifest.run.timings.get(f"{name}:{record.version}", {})
    return VersionFacts(
        version=record.version,
        source_format=record.source_format,
        source_digest=record.source_digest,
        route=record.route,
        samples=record.samples,
        export_key=record.export_key,
        targets=target_facts(record.targets, timings, chosen, None),
        notes=record.notes,
    )


def _said_of(manifest: Manifest, names: Collection[str] | None) -> Iterator[Finding]:
    """What the build found that no single target has: of a model or its folders, or, without names, of none."""
    known = {*manifest.models, *manifest.ensembles, *manifest.served_folders()}
    for finding in manifest.run.findings:
        if finding.model in names if names is not None else finding.model not in known:
            yield finding


def _doubted(name: str, doubt: str, said: Iterable[Finding]) -> Iterator[Finding]:
    """Where the build that took the tuning file has not said so itself."""
    if doubt and not any(finding.check in DOUBTED for finding in said):
        yield Finding("warning", "report.tuning", doubt, "build-repo tune, then build again", name)


def _ranked(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Errors first; what was said of a target is not said again of its model."""
    every = list(dict.fromkeys(findings))
    of_targets = {(finding.check, finding.message) for finding in every if finding.target}
    kept = [finding for finding in every if finding.target or (finding.check, finding.message) not in of_targets]
    ranks = ("error", "warning", "info")
    return tuple(sorted(kept, key=lambda finding: ranks.index(finding.severity)))


def _changed(folders: Iterable[FolderFacts]) -> list[Finding]:
    remedy = "build again, or take the files from where they were changed on purpose"
    return [
        Finding(
            "warning",
            "report.changed",
            f"{words.count(len(folder.changed), 'file')} not as the build left them: {', '.join(folder.changed)}; "
            "what was measured is not what is served",
            remedy,
            folder.folder,
            folder.target,
        )
        for folder in folders
        if folder.changed
    ]


def _folder(repository: Path, served: ServedRecord, live: Mapping[str, Any]) -> FolderFacts:
    return FolderFacts(
        folder=served.folder,
        target=str(served.target) if served.target else None,
        version=served.version,
        other_versions=tuple(served.others),
        batching=served.batching,
        files=served.files,
        changed=changed_files(repository / served.folder, served.files),
        live=_live(live.get(served.folder)),
    )


def _live(verdict: Any) -> str:  # noqa: ANN401 - the manifest's JSON
    if not isinstance(verdict, dict) or not verdict.get("checked"):
        reasons = verdict.get("unchecked") if isinstance(verdict, dict) else None
        return f"not done{': ' + '; '.join(map(str, reasons)) if reasons else ''}"
    asked = words.listed([PROTOCOLS.get(word, str(word)) for word in verdict.get("protocols", ())])
    left = f"; not checked there: {', '.join(map(str, verdict['unchecked']))}" if verdict.get("unchecked") else ""
    return f"every answer right, over {asked}{left}"


def _ensemble(repository: Path, record: EnsembleRecord, manifest: Manifest) -> EnsembleFacts:
    folders = tuple(_folder(repository, item, record.live) for item in record.served)
    chain = " → ".join(step.member for step in record.steps)
    proof = f"unproven: {record.unproven}" if record.unproven else "its answers are held against its members' sources"
    return EnsembleFacts(
        name=record.name,
        headline=f"One request through {chain}; {proof}.",
        signature=record.signature.describe(),
        samples=record.samples,
        reference=record.reference,
        unproven=record.unproven,
        gates=record.gates,
        steps=tuple(map(_step, record.steps)),
        folders=folders,
        notes=record.notes,
        findings=_ranked([*_said_of(manifest, {record.name}), *_changed(folders)]),
    )


def _step(step: EnsembleStep) -> StepFacts:
    wires = [
        tuple(own if own == outer else f"{own} = {outer}" for own, outer in side)
        for side in (step.inputs, step.outputs)
    ]
    return StepFacts(step.member, step.version, *wires)


def _summary(
    models: tuple[ModelFacts, ...], ensembles: tuple[EnsembleFacts, ...], others: tuple[str, ...], triton: str
) -> str:
    parts = [words.count(len(models), "model")]
    if ensembles:
        parts.append(words.count(len(ensembles), "ensemble"))
    targets = [target for model in models for target in model.targets]
    lost = [
        f"{number} {status}"
        for status in ("failed", "rejected", "deferred")
        if (number := sum(target.status == status for target in targets))
    ]
    tuned = sum(model.tuning is not None for model in models)
    outdated = sum(model.tuning is None and any(item.check in DOUBTED for item in model.findings) for model in models)
    of = f"{words.count(len(targets), 'target')}{', ' if lost else ''}{', '.join(lost)}"
    said = f"{words.listed(parts)} for Triton {triton}; {of}; {tuned} of {len(models)} tuned"
    said += f", {outdated} by an outdated tuning." if outdated else "."
    return said + (f" {words.count(len(others), 'other folder')} nobody here made." if others else "")
