"""Two Triton repositories compared: folders, files and configurations of any; with manifests, what was measured too."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.diff.configs import config_changes
from builder.diff.records import FigureChange, FileChange, FileInfo, ModelDiff, RepositoryDiff, ValueChange
from builder.digests import file_digest
from builder.errors import SpecError
from builder.manifest import EnsembleRecord, Manifest, ModelRecord, TargetRecord, read_manifest
from builder.measurement import served_signature
from builder.scan import ModelDir, scan_repository
from builder.versions import signature_changes

__all__ = ("FigureChange", "FileChange", "FileInfo", "ModelDiff", "RepositoryDiff", "ValueChange", "diff_repositories")

CONFIG_FILE: Final = "config.pbtxt"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two."""

    path: Path
    manifest: Manifest | None
    models: Mapping[str, ModelDir]


def diff_repositories(before: Path, after: Path, only: str | None = None) -> RepositoryDiff:
    """Everything that differs; `only` looks at one model folder.

    Raises:
        SpecError: a side is no folder or holds no model, its manifest cannot be read, or no side has the model.
    """
    left, right = _side(before), _side(after)
    names = sorted(left.models.keys() | right.models.keys())
    if only is not None and only not in names:
        raise SpecError(f"no model {only!r} in {before} or {after}", remedy=f"name one of: {', '.join(names)}")
    models = tuple(_model(left, right, name) for name in ([only] if only else names))
    made = tuple(_made(left.manifest, right.manifest))
    equal = all(model.status == "equal" for model in models) and not any(change.path == "triton" for change in made)
    return RepositoryDiff(str(before), str(after), equal, made, models)


def _side(path: Path) -> Side:
    if not path.is_dir():
        what = "is a file, not a folder" if path.exists() else "no such folder"
        raise SpecError(f"{path}: {what}", remedy="give the folder that holds the model folders")
    try:
        models = {model.name: model for model in scan_repository(path) if not model.name.startswith(".")}
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error}") from error
    manifest = read_manifest(path)
    if manifest is None and not any(model.config is not None or model.versions for model in models.values()):
        raise SpecError(
            f"{path} is no model repository: no folder in it has a config.pbtxt or a version",
            remedy="give the folder that holds the model folders",
        )
    return Side(path, manifest, models)


def _made(before: Manifest | None, after: Manifest | None) -> Iterator[ValueChange]:
    """What the manifests say of the whole: the release it is for, and the tool."""
    if before is None or after is None:
        return
    for field in ("triton", "build_repo", "spec_digest"):
        was, now = getattr(before, field), getattr(after, field)
        if was != now:
            yield ValueChange(field, was, now)


def _model(left: Side, right: Side, name: str) -> ModelDiff:
    before, after = left.models.get(name), right.models.get(name)
    served = (_served(left, name), _served(right, name))
    if before is None or after is None:
        return ModelDiff(name, "added" if before is None else "removed", served)
    old, new = _record(left, name), _record(right, name)
    config = config_changes(before.config or {}, after.config or {})
    problems = tuple(item.problem for item in (before, after) if item.problem)
    unread = before.problem != after.problem or (problems and before.text != after.text)
    files = tuple(_files(before.path, after.path))
    signature = tuple(_signature(old, new))
    versions = set(before.versions), set(after.versions)
    changed = bool(config or files or signature or unread or served[0] != served[1])
    return ModelDiff(
        name,
        "changed" if changed else "equal",
        served,
        versions_added=tuple(sorted(versions[1] - versions[0])),
        versions_removed=tuple(sorted(versions[0] - versions[1])),
        files=files,
        config=config,
        config_problems=problems,
        signature=signature,
        figures=tuple(_figures(left, right, name)),
        libraries=tuple(_libraries(old, new)),
        config_text=tuple(_text(left, right, before, after)),
    )


def _record(side: Side, name: str) -> ModelRecord | EnsembleRecord | None:
    found = side.manifest.served_folders().get(name) if side.manifest else None
    return found[0] if found else None


def _served(side: Side, name: str) -> str | None:
    """`onnxruntime:fp32 version 2`, `ensemble version 1`; None where no manifest tells."""
    found = side.manifest.served_folders().get(name) if side.manifest else None
    return f"{found[1].target or 'ensemble'} version {found[1].version}" if found else None


def _files(before: Path, after: Path) -> Iterator[FileChange]:
    """Files whose content differs; configurations are compared by what they say."""
    left, right = _tree(before), _tree(after)
    for name in sorted((left.keys() | right.keys()) - {CONFIG_FILE}):
        one, other = left.get(name), right.get(name)
        if one is not None and other is not None and _same(one, other):
            continue
        yield FileChange(name, _info(one) if one else None, _info(other) if other else None)


def _tree(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}


def _same(one: Path, other: Path) -> bool:
    """Hard links to one file need no reading, files of two sizes neither."""
    if one.samefile(other):
        return True
    return one.stat().st_size == other.stat().st_size and file_digest(one) == file_digest(other)


def _info(path: Path) -> FileInfo:
    return FileInfo(file_digest(path), path.stat().st_size)


def _signature(old: ModelRecord | EnsembleRecord | None, new: ModelRecord | EnsembleRecord | None) -> list[str]:
    if old is None or new is None:
        return []
    return signature_changes(
        served_signature(old.signature, old.sequence), served_signature(new.signature, new.sequence)
    )


def _libraries(
    old: ModelRecord | EnsembleRecord | None, new: ModelRecord | EnsembleRecord | None
) -> Iterator[ValueChange]:
    left, right = _versions_of(old), _versions_of(new)
    for name in sorted(left.keys() | right.keys()) if old and new else ():
        if left.get(name) != right.get(name):
            yield ValueChange(name, left.get(name), right.get(name))


def _versions_of(record: ModelRecord | EnsembleRecord | None) -> dict[str, Any]:
    """Library → version, of all works of a model."""
    works = [work for target in record.targets for work in target.works.values()] if record else []
    return {name: version for work in works for name, version in (work.get("libraries") or {}).items()}


def _figures(left: Side, right: Side, name: str) -> Iterator[FigureChange]:
    """Size, errors and latency where both sides have measured; of every target under the model's own name."""
    old, new = _record(left, name), _record(right, name)
    if old is None or new is None:
        return
    before, after = _all_figures(left, old), _all_figures(right, new)
    served = {str(served.target) for record in (old, new) for served in record.served if served.folder == name}
    for key in dict.fromkeys((*before, *after)):
        was, now = before.get(key), after.get(key)
        if was != now and (name in (old.name, new.name) or key[0] in served):
            yield FigureChange(*key, was, now, now / was if was and now is not None else None)


def _all_figures(side: Side, record: ModelRecord | EnsembleRecord) -> dict[tuple[str, str], float]:
    found = _figures_of(side, record.name, record.targets, "")
    for other in record.versions if isinstance(record, ModelRecord) else ():
        found |= _figures_of(side, f"{record.name}:{other.version}", other.targets, f"version {other.version} ")
    return found


def _figures_of(side: Side, name: str, targets: tuple[TargetRecord, ...], prefix: str) -> dict[tuple[str, str], float]:
    """(target, figure) → value; `name` is where the manifest keeps what the clock said."""
    found: dict[tuple[str, str], float] = {}
    for target in targets:
        word = f"{prefix}{target.target}"
        found |= {(word, figure): value for figure, value in _numbers(target)}
        timing = side.manifest.run.timings.get(name, {}).get(str(target.target)) if side.manifest else None
        for latency in timing.latency if timing else ():
            found[word, f"latency_ms batch {latency.batch_size}"] = latency.median_ms
        if timing and timing.peak_memory_bytes is not None:
            found[word, "peak_memory_bytes"] = float(timing.peak_memory_bytes)
    return found


def _numbers(target: TargetRecord) -> Iterator[tuple[str, float]]:
    if target.size_bytes is not None:
        yield "size_bytes", float(target.size_bytes)
    if target.numbers is None:
        return
    for output in target.numbers.outputs:
        yield f"{output.name} max_relative", output.max_relative
        yield f"{output.name} cosine", output.cosine
    if target.numbers.metric is not None:
        yield target.numbers.metric.name, target.numbers.metric.target


def _text(left: Side, right: Side, before: ModelDir, after: ModelDir) -> Iterator[str]:
    """The unified diff of the two texts."""
    names = (str(left.path / before.config_file), str(right.path / after.config_file))
    yield from difflib.unified_diff(
        (before.text or "").splitlines(), (after.text or "").splitlines(), *names, lineterm=""
    )
