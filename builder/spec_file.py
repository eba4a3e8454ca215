"""`models.yaml` or bare model files → a complete `RepoSpec`: parse → validate → complete, every error at once."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from builder.backends import BACKENDS, backend_module
from builder.errors import SpecError
from builder.problems import Problem, nearest, spec_error
from builder.recognise import find_model, recognise
from builder.releases import get_release
from builder.sources import SOURCES
from builder.spec import LONGEST_NAME, AccuracySpec, ModelSpec, RepoSpec, SourceSpec
from builder.spec_conflicts import conflicts
from builder.spec_ensembles import completed_ensemble, ensemble_problems
from builder.spec_errors import problems_of
from builder.spec_serving import ZERO, SequenceSpec, VersionsSpec
from builder.spec_steps import (
    default_serve,
    default_targets,
    overridden_models,
    read_requirements,
    step_problems,
    with_ready_step,
)
from builder.spec_tuning import TunedWords, marked, with_tuned_words
from builder.work import parse_target
from builder.yaml_lines import Lines, YamlError, parse_yaml

NOT_TUNED = "these words come from the tuning file: edit it, build-repo tune again, or leave it out with --tuning none"
SUFFIXES = (".yaml", ".yml")
SERVE_WORDS = ("best", "all")
LONGEST_FILE_NAME = 255
"""In bytes on every usual file system; asking for a longer one is an error of its own."""


def is_spec(path: Path) -> bool:
    """True for a `.yaml` or `.yml` file."""
    return path.suffix.lower() in SUFFIXES


def load_spec(
    path: Path, overrides: Mapping[str, Any] | None = None, tuned: Mapping[str, TunedWords] | None = None
) -> RepoSpec:
    """Read a spec file; relative paths in it become relative to its folder.

    `overrides` are top-level words or words of every model that the command line sets (`targets`, `serve`, `triton`),
    `tuned` a tuning file's words by model.

    Raises:
        SpecError: the file is missing, no YAML, or wrong; all errors with path and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file", remedy="build-repo init MODEL writes a spec") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from error
    try:
        data, lines = parse_yaml(text)
    except YamlError as error:
        raise SpecError(f"{path}: {error}") from error
    if not isinstance(data, dict):
        raise SpecError(f"{path}: a spec is a mapping with the key 'models'", remedy="build-repo init MODEL writes one")
    return _tuned(_overridden(data, overrides or {}), path.parent, f"{path}", lines, tuned or {})


def spec_from_models(
    models: list[dict[str, Any]], overrides: Mapping[str, Any], tuned: Mapping[str, TunedWords] | None = None
) -> RepoSpec:
    """A spec from what the command line says about bare model files; paths are relative to the working folder."""
    return _tuned(_overridden({"models": models}, overrides), Path(), "command line", {}, tuned or {})


def _tuned(
    data: Mapping[str, Any], folder: Path, origin: str, lines: Lines, tuned: Mapping[str, TunedWords]
) -> RepoSpec:
    """A spec whose own errors come first; one that only tuned words are at odds with says so."""
    filled = with_tuned_words(data, tuned)
    try:
        spec = _complete(filled, folder, origin, lines)
    except SpecError as error:
        if filled != data:
            _complete(data, folder, origin, lines)
            raise SpecError(error.message, remedy=NOT_TUNED) from error
        raise
    return marked(spec, data, tuned)


def _overridden(data: dict[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The command line wins over the file, for the release and for every model."""
    if "triton" in overrides:
        data = {**data, "triton": overrides["triton"]}
    words = {key: value for key, value in overrides.items() if key != "triton"}
    if words and isinstance(data.get("models"), list):
        models = overridden_models(data["models"], words)
        data = {**data, "models": models}
    return data


def _complete(data: Mapping[str, Any], folder: Path, origin: str, lines: Lines) -> RepoSpec:
    try:
        spec = RepoSpec.model_validate(data)
    except ValidationError as error:
        found = problems_of(error, RepoSpec)
        raise spec_error(origin, [item for item in found if not _copied(item.path, data)], lines) from None
    problems = list(_problems(spec, folder))
    if problems:
        raise spec_error(origin, problems, lines)
    models = tuple(_completed(model, spec, folder) for model in spec.models)
    ensembles = tuple(completed_ensemble(ensemble, folder) for ensemble in spec.ensembles)
    return spec.model_copy(update={"models": models, "ensembles": ensembles}).read_from(origin, lines)


def _copied(path: tuple[str | int, ...], data: Mapping[str, Any]) -> bool:
    """The newest of several sources is also the model's: its errors stand where it was written."""
    models = data.get("models")
    if path[:1] != ("models",) or path[2:3] != ("source",) or not isinstance(models, (list, tuple)):
        return False
    model = models[int(path[1])]
    return isinstance(model, dict) and "source" not in model and bool(model.get("sources"))


def _problems(spec: RepoSpec, folder: Path) -> Iterator[Problem]:
    """What types alone cannot see: names used twice, unknown words, files that are not there."""
    try:
        get_release(spec.triton)
    except SpecError as error:
        yield Problem(("triton",), f"{error.message}. {error.remedy}".rstrip(". "))
    yield from target_problems(spec.defaults.targets, ("defaults", "targets"))
    yield from _serve_problems(spec.defaults.serve, None, ("defaults", "serve"))
    seen: dict[str, int] = {}
    for index, model in enumerate(spec.models):
        here = ("models", index)
        if model.name in seen:
            yield Problem((*here, "name"), f"{model.name!r} is also the name of models[{seen[model.name]}]")
        seen.setdefault(model.name, index)
        if not model.sources:
            yield from _source_problems(model.source, folder, (*here, "source"))
        for number, source in model.sources.items():
            yield from _source_problems(source, folder, (*here, "sources", number))
        if model.targets == ():
            yield Problem((*here, "targets"), "the list is empty; leave the key out for the defaults")
        yield from target_problems(model.targets or (), (*here, "targets"))
        targets = model.targets or default_targets(model, spec)
        serve = model.serve or default_serve(model, spec)
        if model.serve is not None or not _is_word(serve):
            yield from _serve_problems(serve, targets, (*here, "serve"))
        yield from (Problem((*here, *place), text, cure) for place, text, cure in step_problems(model, folder))
        yield from _file_problems(model, folder, here)
        yield from conflicts(model, tuple(targets), spec.triton, folder, here)
    yield from ensemble_problems(spec, folder)


def _is_word(serve: str) -> bool:
    return serve in SERVE_WORDS


def target_problems(targets: tuple[str, ...], where: tuple[str | int, ...]) -> Iterator[Problem]:
    """What is no target, or one of a backend or precision that there is not."""
    known: set[str] = set()
    for index, text in enumerate(targets):
        try:
            target = parse_target(text)
        except ValueError as error:
            yield Problem((*where, index), str(error))
            continue
        if target.backend not in BACKENDS:
            yield Problem((*where, index), f"no backend {target.backend!r}{nearest(target.backend, list(BACKENDS))}")
            continue
        precisions = backend_module(target.backend).GRAPHS
        if target.precision not in precisions:
            yield Problem(
                (*where, index),
                f"{target.backend} has no precision {target.precision!r}; it has {', '.join(precisions)}",
            )
        elif str(target) in known:
            yield Problem((*where, index), f"{target} is listed twice")
        known.add(str(target))


def _serve_problems(serve: str, targets: tuple[str, ...] | None, where: tuple[str | int, ...]) -> Iterator[Problem]:
    if _is_word(serve):
        return
    if serve.count(":") > 1 or serve.partition(":")[0] not in BACKENDS:
        yield Problem(where, f"{serve!r} is none of best, all, BACKEND:PRECISION")
        return
    wanted = _normal(serve)
    if targets is not None and wanted not in {_normal(text) for text in targets}:
        yield Problem(where, f"{wanted} is not among the targets {', '.join(targets)}")


def _normal(text: str) -> str:
    """With the precision that a short target means; what is no target stays, and is reported elsewhere."""
    try:
        return str(parse_target(text))
    except ValueError:
        return text


def _source_problems(source: SourceSpec, folder: Path, where: tuple[str | int, ...]) -> Iterator[Problem]:
    if source.step is not None:
        return
    path = folder / source.path
    if len(path.name) > LONGEST_FILE_NAME:
        yield Problem((*where, "path"), f"{path.name[:40]}…: no such file or folder")
        return
    if source.format is not None and source.format not in SOURCES:
        yield Problem((*where, "format"), f"no format {source.format!r}{nearest(source.format, list(SOURCES))}")
    try:
        found = find_model(path)
    except SpecError as error:
        yield Problem((*where, "path"), f"{path}: no such file or folder", error.remedy)
        return
    if source.format is None:
        try:
            recognise(found)
        except SpecError as error:
            yield Problem((*where, "path"), error.message, error.remedy)


def _file_problems(model: ModelSpec, folder: Path, where: tuple[str | int, ...]) -> Iterator[Problem]:
    if model.samples is not None and not (folder / model.samples.path).exists():
        yield Problem((*where, "samples", "path"), f"{folder / model.samples.path}: no such file")
    if model.class_names is not None and not (folder / model.class_names).is_file():
        yield Problem((*where, "class_names"), f"{folder / model.class_names}: no such file")


def _completed(model: ModelSpec, spec: RepoSpec, folder: Path) -> ModelSpec:
    """Every word filled in and every path made absolute, so nothing later asks where the spec file was."""
    given = spec.defaults
    model = with_ready_step(model, folder)
    samples = model.samples
    return model.model_copy(
        update={
            "source": _completed_source(model.source, folder),
            "sources": {number: _completed_source(source, folder) for number, source in sorted(model.sources.items())},
            "samples": samples and samples.model_copy(update={"path": _absolute(folder / samples.path)}),
            "class_names": model.class_names and _absolute(folder / model.class_names),
            "sequence": model.sequence and _completed_sequence(model.sequence, folder),
            "targets": tuple(str(parse_target(text)) for text in model.targets or default_targets(model, spec)),
            "serve": _serve_word(model.serve or default_serve(model, spec)),
            "accuracy": model.accuracy or _default_accuracy(model, spec),
            "objective": model.objective or given.objective,
            "slo": model.slo or given.slo,
            "optimize": model.optimize or given.optimize,
            "quantization": model.quantization or given.quantization,
            "batching": model.batching or given.batching,
            "instances": model.instances or given.instances,
            "versions": _completed_versions(model, model.versions or given.versions),
        }
    )


def _default_accuracy(model: ModelSpec, spec: RepoSpec) -> AccuracySpec | None:
    """A default for labelled models says nothing of the others; where none is labelled it stays, and is warned of."""
    given = spec.defaults.accuracy
    if given is None or given.max_drop is None or _labelled(model) or not any(map(_labelled, spec.models)):
        return given
    return given.model_copy(update={"metric": None, "max_drop": None})


def _labelled(model: ModelSpec) -> bool:
    return model.samples is not None and model.samples.labels is not None


def _completed_source(source: SourceSpec, folder: Path) -> SourceSpec:
    path = _absolute(find_model(folder / source.path))
    return source.model_copy(
        update={
            "path": path,
            "format": source.format or recognise(path),
            "import_root": _absolute(folder / (source.import_root or "")),
            "files": {name: _absolute(folder / path) for name, path in source.files.items()},
            "requirements": read_requirements(source, folder),
            "environment": source.environment and _absolute(folder / source.environment),
        }
    )


def _completed_versions(model: ModelSpec, given: VersionsSpec) -> VersionsSpec:
    """Several sources are there to be served, unless the model itself says otherwise."""
    said = model.versions is not None and "serve" in model.versions.model_fields_set
    return given.model_copy(update={"serve": "all"}) if model.sources and not said else given


def _completed_sequence(sequence: SequenceSpec, folder: Path) -> SequenceSpec:
    states = tuple(
        state if state.initial == ZERO else state.model_copy(update={"initial": str(_absolute(folder / state.initial))})
        for state in sequence.states
    )
    return sequence.model_copy(update={"states": states})


def _absolute(path: Path) -> Path:
    """Without following links: a link's neighbours (external data, say) lie beside the link."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - Path.resolve follows links


def _serve_word(serve: str) -> str:
    return serve if _is_word(serve) else str(parse_target(serve))


def default_name(path: Path) -> str:
    """A model's name from its file name: `PP-OCR v6.onnx` → `PP-OCR_v6`."""
    stem = path.stem if path.is_file() else path.name
    cleaned = "".join(char if (char.isalnum() and char.isascii()) or char in "_-." else "_" for char in stem)
    return re.sub(r"\.{2,}", ".", cleaned).strip(".").lstrip("-")[:LONGEST_NAME] or "model"
