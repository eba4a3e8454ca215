"""Model states → model folders in the staging area, with their configs and the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builder import __version__, defaults
from builder.backends.python import ENVIRONMENT_FILE
from builder.cache import Cache
from builder.defaults import VERSIONS_KEPT
from builder.errors import SpecError
from builder.findings import Finding
from builder.judge import ModelState, TargetState, candidates, served_gates
from builder.manifest import (
    FORMAT,
    EnsembleRecord,
    Manifest,
    ModelRecord,
    Numbers,
    RunRecord,
    ServedRecord,
    TargetRecord,
    TargetTimings,
    VersionRecord,
)
from builder.measurement import REFERENCE_FILE, SERVED_FILE, ExportReport, PrepareReport
from builder.plan import model_gates
from builder.records import canonical, to_json
from builder.rendering import FolderRequest, render_folder
from builder.repository import ModelFolder, OlderVersion, engines_in, joined_engines, stage_model
from builder.samples.stored import store_samples
from builder.spec import ModelSpec, RepoSpec
from builder.spec_serving import ZERO
from builder.tensors import Signature
from builder.work import Work, parse_target, portable, work_key

LABELS_FILE = "labels.txt"


@dataclass(frozen=True, slots=True)
class Staged:
    """A model folder in the staging area, the target state it came from, and what rendering it said."""

    model: str
    record: ServedRecord
    state: TargetState
    findings: tuple[Finding, ...]


def served_states(state: ModelState) -> tuple[tuple[str, TargetState], ...]:
    """(folder, target) of a model: its own name, and with `serve: all` one more per target."""
    best = candidates(state)
    if not best:
        return ()
    own = ((state.spec.name, best[0]),)
    if state.spec.serve != "all":
        return own
    passing = (target for target in state.targets if target.passes)
    return own + tuple((f"{state.spec.name}_{target.target.suffix}", target) for target in passing)


def possible_folders(spec: RepoSpec) -> dict[str, str]:
    """Every model folder that a build of this spec may write and its model, known before any work.

    Raises:
        SpecError: two models would write the same folder.
    """
    owners: dict[str, str] = {}
    for model in spec.models:
        names = [model.name]
        if model.serve == "all":
            names += [f"{model.name}_{parse_target(text).suffix}" for text in model.targets or ()]
        for name in names:
            if name in owners:
                raise SpecError(f"the models {owners[name]!r} and {model.name!r} would both be served as {name!r}")
            owners[name] = model.name
    for ensemble in spec.ensembles:
        if ensemble.name in owners:
            raise SpecError(
                f"the model {owners[ensemble.name]!r} and the ensemble would both be served as {ensemble.name!r}"
            )
        owners[ensemble.name] = ensemble.name
    return owners


def stage_state(  # noqa: PLR0913 - where things lie
    state: ModelState, *, release: str, cache: Cache, staged: Path, current: Path, before: Mapping[str, ServedRecord]
) -> tuple[Staged, ...]:
    """Write every folder of one model."""
    if state.report is None:
        return ()
    samples = _samples(state, cache)
    made = []
    for folder, target in served_states(state):
        old = before.get(folder)
        model, findings = _model_folder(folder, state, target, state.report, samples, old, release=release, cache=cache)
        record = stage_model(staged, current, model, old)
        findings += (*_unserved(record, model), *_unproven(record))
        made.append(Staged(state.spec.name, record, target, findings))
    return tuple(made)


def _model_folder(  # noqa: PLR0913, PLR0917 - what a folder is made of
    folder: str,
    state: ModelState,
    target: TargetState,
    report: ExportReport,
    samples: Path,
    before: ServedRecord | None,
    *,
    release: str,
    cache: Cache,
) -> tuple[ModelFolder, tuple[Finding, ...]]:
    if target.converted is None:
        msg = f"{folder}: {target.target} was never converted"
        raise ValueError(msg)
    spec = state.spec
    labels = _labels(spec, report.served)
    label_file = (labels[0], LABELS_FILE) if labels else None
    recipe = _recipe(target)
    joined = {} if state.older else joined_engines(before, recipe, target.converted.files)
    engines = engines_in((*target.converted.files, *joined))
    request = FolderRequest(folder, state, target, report, samples, label_file, release, engines)
    rendering, rendered = render_folder(request, cache)
    extra: dict[str, bytes | Path] = {**rendered}
    if spec.source.environment is not None:
        extra[ENVIRONMENT_FILE] = spec.source.environment
    if labels:
        extra[LABELS_FILE] = labels[1]
    model = ModelFolder(
        folder=folder,
        target=target.target,
        artefact=cache.folder("convert", work_key(target.plan.convert)),
        files=target.converted.files,
        config=rendering.text,
        batching=rendering.batching,
        samples=samples,
        extra=extra,
        keep=spec.versions.keep if spec.versions else VERSIONS_KEPT,
        joined=joined,
        recipe=recipe,
        serve=spec.versions.serve if spec.versions else "latest",
        version=state.plan.version,
        older=tuple(_older(older, target, cache) for older in state.older),
        checksums=spec.checksums,
    )
    return model, rendering.findings


def _samples(state: ModelState, cache: Cache) -> Path:
    if state.report is None:
        msg = f"{state.spec.name}: nothing was exported"
        raise ValueError(msg)
    report, key = state.report, work_key(state.plan.export)
    return store_samples(cache, "export", key, report.recorded, SERVED_FILE if report.ragged else REFERENCE_FILE)


def _older(state: ModelState, target: TargetState, cache: Cache) -> OlderVersion:
    """The same target of another version."""
    mine = next(item for item in state.targets if item.target == target.target)
    if mine.converted is None or state.plan.version is None:
        msg = f"{state.spec.name}: {target.target} of version {state.plan.version} was never converted"
        raise ValueError(msg)
    artefact = cache.folder("convert", work_key(mine.plan.convert))
    return OlderVersion(state.plan.version, artefact, mine.converted.files, _samples(state, cache))


def _unserved(record: ServedRecord, model: ModelFolder) -> tuple[Finding, ...]:
    """A list of versions without the one that this build made: nobody would be served what was just proven."""
    if not model.pinned or record.version in model.pinned:
        return ()
    listed = ", ".join(map(str, model.pinned))
    return (
        Finding(
            "error",
            "repository.versions",
            f"version {record.version}, which this build makes, is not among the served versions {listed}",
            f"add {record.version} to versions: {{serve: […]}}, or leave serve out",
            model=record.folder,
            file=f"{record.folder}/config.pbtxt",
        ),
    )


def _unproven(record: ServedRecord) -> Iterator[Finding]:
    """Versions that are served and cannot be checked, since what their source answered was not kept."""
    for number, file in record.others.items():
        if file is None:
            yield Finding(
                "warning",
                "live.unchecked",
                f"version {number} is served too and not checked live: the answers of its source were not kept",
                "answers are kept for versions that are built while versions: {serve: …} asks for more than the latest",
                model=record.folder,
            )


def _recipe(target: TargetState) -> str:
    """What an engine is made from, whatever the machine: two of the same recipe may lie in one version."""
    work = target.plan.convert
    if not work.device:
        return ""
    parts = (work.export, str(work.target), work.release, work.options, work.libraries)
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]


def _labels(spec: ModelSpec, signature: Signature) -> tuple[str, bytes] | None:
    """The output whose last axis has as many classes as the file has lines, and the label file."""
    if spec.class_names is None:
        return None
    try:
        names = spec.class_names.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{spec.name}: class_names: {spec.class_names} cannot be read: {error}") from error
    for tensor in signature.outputs:
        if tensor.shape and tensor.shape[-1] == len(names):
            return tensor.name, ("\n".join(names) + "\n").encode()
    sizes = ", ".join(tensor.describe() for tensor in signature.outputs)
    raise SpecError(
        f"{spec.name}: class_names: {spec.class_names} has {len(names)} lines, but no output has that many classes",
        remedy=f"the outputs are {sizes}: give one name a line for the last axis of one of them",
    )


def model_record(state: ModelState, staged: Sequence[Staged], live: Mapping[str, object]) -> ModelRecord:
    """What the manifest says of one model."""
    report = state.report
    if report is None:
        msg = f"{state.spec.name}: nothing was exported"
        raise ValueError(msg)
    return ModelRecord(
        name=state.spec.name,
        signature=report.recorded,
        sequence=report.sequence,
        ragged=report.ragged is not None,
        source_format=state.plan.export.source.format,
        source_digest=state.plan.export.source.digest,
        route=report.route,
        samples=report.samples,
        export_key=work_key(state.plan.export),
        gates=to_json(model_gates(state.spec, "fp32")),
        targets=tuple(_target_record(state, target) for target in state.targets),
        served=tuple(item.record for item in staged),
        notes=report.notes,
        live=dict(live),
        versions=tuple(_version_record(older) for older in state.older),
        serve=state.spec.serve or defaults.SERVE,
        objective=state.objective,
    )


def _version_record(state: ModelState) -> VersionRecord:
    report = state.report
    if report is None or state.plan.version is None:
        msg = f"{state.spec.name}: nothing was exported of version {state.plan.version}"
        raise ValueError(msg)
    return VersionRecord(
        version=state.plan.version,
        source_format=state.plan.export.source.format,
        source_digest=state.plan.export.source.digest,
        route=report.route,
        samples=report.samples,
        export_key=work_key(state.plan.export),
        targets=tuple(_target_record(state, target) for target in state.targets),
        notes=report.notes,
    )


def _target_record(state: ModelState, target: TargetState) -> TargetRecord:
    measured = target.measurement
    numbers = measured and Numbers(
        outputs=measured.outputs,
        batch=measured.batch,
        compute=measured.compute,
        metric=measured.metric,
        notes=measured.notes,
        precision=measured.precision,
    )
    plan = target.plan
    every: tuple[Work | None, ...] = (state.plan.export, plan.packages, plan.prepare, plan.convert, plan.measure)
    works: dict[str, dict[str, Any]] = {work.kind: portable(to_json(work)) for work in every if work is not None}
    return TargetRecord(
        target=target.target,
        status="built" if target.status == "cached" else target.status,
        convert_key=work_key(plan.convert),
        size_bytes=target.converted.size_bytes if target.converted else None,
        numbers=numbers or None,
        findings=tuple(portable_finding(finding) for finding in target.findings),
        works=works,
        prepare=target.prepared and _without_clock(target.prepared),
        gates=to_json(served_gates(state, target.target)),
    )


def _without_clock(prepared: PrepareReport) -> PrepareReport:
    """The same, byte for byte, for the same graph: a transform's latencies, and what they decided, stand in `run`."""
    transforms = (
        item if item.median_ms_before is None else replace(item, reason="", median_ms_before=None, median_ms_after=None)
        for item in prepared.transforms
    )
    return replace(prepared, transforms=tuple(transforms))


def portable_finding(finding: Finding) -> Finding:
    """Without the log and replay command, which only mean something on the machine of the build."""
    return replace(finding, remedy=finding.remedy.split("log: ", 1)[0].rstrip("; "))


def timings_of(state: ModelState, before: Mapping[str, TargetTimings]) -> dict[str, TargetTimings]:
    """Target → what depends on the clock; a target from the cache keeps the seconds that building it took."""
    took = {name: timing.seconds for name, timing in before.items()}
    return {
        str(target.target): TargetTimings(
            seconds=round(target.seconds, 3) or took.get(str(target.target), 0.0),
            latency=target.measurement.latency,
            peak_memory_bytes=target.measurement.peak_memory_bytes,
            transforms=target.prepared.transforms if target.prepared else (),
        )
        for target in state.targets
        if target.measurement is not None
    }


def make_manifest(
    spec: RepoSpec,
    models: Mapping[str, ModelRecord],
    ensembles: Mapping[str, EnsembleRecord],
    run: RunRecord,
) -> Manifest:
    """The whole manifest; models and ensembles in the order of their names."""
    return Manifest(
        format=FORMAT,
        build_repo=__version__,
        triton=spec.triton,
        spec_digest=hashlib.sha256(canonical(_portable_spec(spec))).hexdigest(),
        models=dict(sorted(models.items())),
        run=run,
        ensembles=dict(sorted(ensembles.items())),
    )


def _portable_spec(spec: RepoSpec) -> object:
    """The spec as JSON without the folder it lies in."""
    data = spec.model_dump(mode="json")
    for model in data["models"]:
        for source in (model["source"], *model["sources"].values()):
            source.pop("path")
            source.pop("import_root")
            source["files"] = sorted(source["files"])
            source["environment"] = source["environment"] and "given"
        for key in ("samples", "class_names"):
            if model.get(key):
                model[key] = "given"
        for state in (model.get("sequence") or {}).get("states", ()):
            state["initial"] = state["initial"] if state["initial"] == ZERO else "given"
    for ensemble in data["ensembles"]:
        ensemble["samples"] = ensemble["samples"] and "given"
    return data
