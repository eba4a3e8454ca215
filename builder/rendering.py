"""A model folder's `config.pbtxt` and the files beside it, kept in the cache by everything that decides them.

Without that, a rebuild with nothing changed would spend half its time on numpy, Jinja and the proto only to write the
same bytes again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from builder.backends import Settings, backend_module
from builder.cache import Cache, publish, session
from builder.digests import file_digest, folder_digests
from builder.findings import Finding
from builder.joint import batch_proven
from builder.judge import ModelState, TargetState
from builder.libraries import all_code_digest, library_versions
from builder.measurement import ExportReport
from builder.records import canonical, read_record, write_record
from builder.releases import DATA_FILE
from builder.resources import resource
from builder.samples import Request
from builder.spec import ModelSpec
from builder.spec_serving import BatchingSpec, InstancesSpec, VersionsSpec
from builder.work import work_key

if TYPE_CHECKING:
    from builder.triton_config import SequenceRequest

LIBRARIES = ("jinja2", "numpy", "protobuf", "tritonclient")
RECORD_FILE = "rendering.json"
FILES = "files"
CONFIGS = "configs"
"""Beside `config.pbtxt`: where Triton looks for what `--model-config-name` names."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """The configuration's text, whether it batches, and what rendering it said."""

    text: str
    batching: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class FolderRequest:
    """One folder to render.

    `label_file` is the labelled output and its file's name, `engines` a file for each compute capability.
    """

    folder: str
    state: ModelState
    target: TargetState
    report: ExportReport
    samples: Path
    label_file: tuple[str, str] | None
    release: str
    engines: Mapping[str, str] = field(default_factory=dict)


def render_folder(request: FolderRequest, cache: Cache) -> tuple[Rendering, dict[str, bytes]]:
    """The configuration, and the warm-up's files by their path in the model's folder.

    Raises:
        SpecError: an override or label file does not fit the model.
        BuildError: the artefact lacks a tensor of the source.
    """
    kept = cache.folder("config", _key(request))
    if not kept.is_dir():
        _keep(cache, kept, *_render(request))
    files = kept / FILES
    extra = {str(path.relative_to(files)): path.read_bytes() for path in sorted(files.rglob("*")) if path.is_file()}
    return read_record(Rendering, kept / RECORD_FILE), extra


def _keep(cache: Cache, kept: Path, rendering: Rendering, extra: dict[str, bytes]) -> None:
    with session(cache) as scratch:
        finished = scratch / "config"
        finished.mkdir()
        for name, content in extra.items():
            path = finished / FILES / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        write_record(finished / RECORD_FILE, rendering)
        publish(finished, kept)


def _render(asked: FolderRequest) -> tuple[Rendering, dict[str, bytes]]:
    from builder.triton_config import (
        ConfigRequest,
        initial_state_files,
        parse_config,
        render_config,
        warmup_files,
        warmup_from_samples,
    )

    if asked.target.converted is None:
        msg = f"{asked.folder}: {asked.target.target} was never converted"
        raise ValueError(msg)
    spec, target = asked.state.spec, asked.target.target
    requests = _warmup_samples(spec, asked.report, asked.samples)
    request = ConfigRequest(
        name=asked.folder,
        backend=target.backend,
        release=asked.release,
        signature=asked.report.signature,
        ports=asked.target.converted.ports,
        batch_proven=batch_proven(asked.state, asked.target),
        batching=spec.batching or BatchingSpec(),
        instances=spec.instances or (InstancesSpec(),),
        label_files=dict([asked.label_file]) if asked.label_file else {},
        warmup=tuple(
            replace(item, count=spec.warmup.count if spec.warmup else 1)
            for item in warmup_from_samples(asked.report.recorded, requests, len(requests))
        ),
        settings=backend_module(target.backend).config_fields(
            Settings(target.precision, json.loads(asked.target.plan.measure.options))
        ),
        cc_model_filenames=asked.engines,
        overrides=spec.config,
        sequence=_sequence(spec, asked.report, asked.samples),
        ragged=asked.report.ragged,
        versions=spec.versions or VersionsSpec(),
        response_cache=spec.response_cache,
    )
    rendered = render_config(request)
    named = {name: replace(request, more=fields) for name, fields in spec.configs.items()}
    others = {name: render_config(other) for name, other in named.items()}
    batching = int(parse_config(rendered.text).get("max_batch_size", 0)) > 0
    files = warmup_files(request)
    if request.sequence is not None:
        files |= initial_state_files(request.sequence)
    files |= {f"{CONFIGS}/{name}.pbtxt": other.text.encode() for name, other in others.items()}
    said = (*rendered.findings, *(finding for other in others.values() for finding in other.findings))
    return Rendering(rendered.text, batching, tuple(dict.fromkeys(said))), files


def _sequence(spec: ModelSpec, report: ExportReport, samples: Path) -> SequenceRequest | None:
    """States start as those of the sample sequences do."""
    if spec.sequence is None or report.sequence is None:
        return None
    from builder.samples import load_requests, sequences_of
    from builder.triton_config import SequenceRequest
    from builder.triton_config.warmup import raw_bytes

    first = sequences_of(load_requests(samples, report.signature))[0][0].inputs
    dtypes = {tensor.name: tensor.dtype for tensor in report.signature.inputs}
    initial = {name: raw_bytes(first[name], dtypes[name]) for name, _ in report.sequence.states}
    return SequenceRequest(
        spec.sequence, report.sequence, {name: content for name, content in initial.items() if any(content)}
    )


def _warmup_samples(spec: ModelSpec, report: ExportReport, samples: Path) -> tuple[Request, ...]:
    if spec.warmup is None or not spec.warmup.samples:
        return ()
    from builder.samples import load_requests

    return load_requests(samples, report.recorded)[: spec.warmup.samples]


def _key(request: FolderRequest) -> str:
    """The export decides signature and samples, the conversion the artefact's ports, the code all decisions."""
    words = {"batching", "instances", "warmup", "config", "configs", "sequence", "versions", "response_cache"}
    parts: dict[str, Any] = {
        "folder": request.folder,
        "export": work_key(request.state.plan.export),
        "convert": work_key(request.target.plan.convert),
        "options": request.target.plan.measure.options,
        "batch_proven": batch_proven(request.state, request.target),
        "spec": request.state.spec.model_dump(mode="json", include=words),
        "label_file": request.label_file,
        "engines": dict(request.engines),
        "release": request.release,
        "releases": file_digest(DATA_FILE),
        "templates": folder_digests(resource("templates") / "config"),
        "libraries": library_versions(LIBRARIES),
        "code": all_code_digest(),
    }
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]
