"""Words of the spec that a step in Python reads differently from a model, and what cannot stand beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from builder.spec import ModelSpec, RepoSpec, SourceSpec

FORMAT: Final = "python"
TARGET: Final = "python:native"
WORDS: Final = ("function", "files", "requirements")
"""Words of a source that only a step has."""
FOREIGN_WORDS: Final = ("model", "signature", "allow_pickle", "import_root")
"""Words of a source that a step has no use for."""

Place = tuple[str | int, ...]


def is_step(source: SourceSpec) -> bool:
    """Whether the source is Python code."""
    return source.format == FORMAT or (source.format is None and source.path.suffix == ".py")


def without_targets(model: Mapping[str, Any], words: Mapping[str, Any]) -> dict[str, Any]:
    """The command line's words for a model of the file: `--targets` means the others where it is a step."""
    source = model.get("source")
    path = source.get("path", "") if isinstance(source, dict) else ""
    step = isinstance(source, dict) and (source.get("format") == FORMAT or str(path).endswith(".py"))
    if not step:
        return dict(words)
    return {word: value for word, value in words.items() if word != "targets" and not _is_target(word, value)}


def _is_target(word: str, value: object) -> bool:
    return word == "serve" and isinstance(value, str) and ":" in value and value != TARGET


def default_targets(model: ModelSpec, spec: RepoSpec) -> tuple[str, ...]:
    """The targets of a model that names none."""
    return (TARGET,) if is_step(model.source) else spec.defaults.targets


def default_serve(model: ModelSpec, spec: RepoSpec) -> str:
    """What is served of a model that does not say it; a step has one target, whatever the others are served as."""
    return "best" if is_step(model.source) and ":" in spec.defaults.serve else spec.defaults.serve


def step_problems(model: ModelSpec, folder: Path) -> Iterator[tuple[Place, str, str]]:
    """(path in the model, message, remedy) of what a step cannot have, or only a step can."""
    source = model.source
    if not is_step(source):
        for word in WORDS:
            if word in source.model_fields_set:
                yield ("source", word), "belongs to a step in Python (a .py file)", "leave it out"
        return
    for word in FOREIGN_WORDS:
        if word in source.model_fields_set:
            remedy = "a step is its file's function: source: {path: FILE.py, function: NAME, args: {…}}"
            yield ("source", word), "a step in Python has no such word", remedy
    yield from _beside_problems(model)
    yield from _file_problems(source, folder)
    yield from _requirement_problems(source, folder)


def _beside_problems(model: ModelSpec) -> Iterator[tuple[Place, str, str]]:
    for index, text in enumerate(model.targets or ()):
        if text.partition(":")[0] != FORMAT:
            message = f"{text} cannot serve a step in Python: only Triton's python backend runs code"
            yield ("targets", index), message, f"leave targets out, or write {TARGET}"
    if model.sequence is not None:
        yield ("sequence",), "Triton's python backend keeps no implicit state for a model", "leave it out"


def read_requirements(source: SourceSpec, folder: Path) -> tuple[str, ...]:
    """The requirements of the spec, or of the file that it names: one a line, hashes and comments left out.

    Raises:
        OSError: the file cannot be read.
    """
    if not isinstance(source.requirements, str):
        return source.requirements
    text = (folder / source.requirements).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (line.partition(" #")[0].partition(" --hash")[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def _requirement_problems(source: SourceSpec, folder: Path) -> Iterator[tuple[Place, str, str]]:
    from packaging.requirements import InvalidRequirement, Requirement

    here = ("source", "requirements")
    try:
        found = read_requirements(source, folder)
    except (OSError, UnicodeDecodeError) as error:
        yield (
            here,
            f"{folder / str(source.requirements)} cannot be read: {error}",
            "write packages as a list, or a file",
        )
        return
    for text in found:
        try:
            by_url = Requirement(text).url
        except InvalidRequirement:
            yield here, f"{text!r} is no package as pip names them", "for example pillow==13.0.0"
            continue
        if by_url:
            remedy = "modules of your own belong beside the step's file"
            yield here, f"{text!r} is a URL: packages come from pip's index", remedy


def _file_problems(source: SourceSpec, folder: Path) -> Iterator[tuple[Place, str, str]]:
    for name, path in source.files.items():
        if not (folder / path).exists():
            yield ("source", "files", name), f"{folder / path}: no such file or folder", ""
        if name in source.args:
            yield ("source", "files", name), f"{name!r} is also one of args", "give it once"
