"""Words of the spec that a step in Python reads differently from a model, and what cannot stand beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from builder.frameworks.python.code import init_arguments, parse
from builder.frameworks.python.packages import NO_DEPENDENCIES
from builder.spec import ModelSpec, RepoSpec, SourceSpec, TensorSpec
from builder.steps import STEPS, step_file

FORMAT: Final = "python"
TARGET: Final = "python:native"
WORDS: Final = ("step", "function", "files", "shapes", "requirements", "environment")
"""Words of a source that only a step has."""
FOREIGN_WORDS: Final = ("model", "signature", "allow_pickle", "import_root")
"""Words of a source that a step has no use for."""

Place = tuple[str | int, ...]


def is_step(source: SourceSpec) -> bool:
    """Whether the source is Python code."""
    return source.step is not None or source.format == FORMAT or (not source.format and source.path.suffix == ".py")


def overridden_models(models: Sequence[object], words: Mapping[str, Any]) -> list[object]:
    """Models as the file has them, with the command line's words: a step beside others has no choice of targets."""
    dicts = [model for model in models if isinstance(model, dict)]
    alone = all(map(_names_step, dicts))
    chosen = {word: value for word, value in words.items() if word != "targets" and not _is_target(word, value)}
    return [
        {**model, **(words if alone or not _names_step(model) else chosen)} if isinstance(model, dict) else model
        for model in models
    ]


def _names_step(model: Mapping[str, Any]) -> bool:
    source = model.get("source")
    if not isinstance(source, dict):
        return False
    return "step" in source or source.get("format") == FORMAT or str(source.get("path", "")).endswith(".py")


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
    yield from _ready_problems(source)
    for word in FOREIGN_WORDS:
        if word in source.model_fields_set:
            remedy = "a step is its file's function: source: {path: FILE.py, function: NAME, args: {…}}"
            yield ("source", word), "a step in Python has no such word", remedy
    yield from _beside_problems(model)
    yield from _file_problems(source, folder)
    yield from _requirement_problems(source, folder)


def _ready_problems(source: SourceSpec) -> Iterator[tuple[Place, str, str]]:
    """A ready step that there is not, or what it does not take or cannot do without."""
    if source.step is None:
        return
    if source.step not in STEPS:
        yield ("source", "step"), f"no step {source.step!r}; known: {', '.join(STEPS)}", ""
        return
    ready = STEPS[source.step]
    takes, needs = init_arguments(parse(step_file(source.step)), ready.function)
    files = (*ready.files, *ready.optional)
    constants = [name for name in takes if name not in files]
    for word in ("function", "format"):
        if word in source.model_fields_set:
            yield ("source", word), f"the step {source.step} has its own", "leave it out"
    yield from _argument_problems(source, source.step, constants, files)
    for name in needs:
        if name not in source.args and name not in source.files:
            kind = "files" if name in files else "args"
            yield ("source",), f"the step {source.step} needs {kind}: {{{name}: …}}", ""


def _argument_problems(
    source: SourceSpec, step: str, constants: Sequence[str], files: Sequence[str]
) -> Iterator[tuple[Place, str, str]]:
    for name in source.args:
        if name not in constants:
            where = f"files: {{{name}: PATH}}" if name in files else f"known: {', '.join(constants)}"
            yield ("source", "args", name), f"the step {step} takes no {name!r} here; {where}", ""
    for name in source.files:
        if name not in files:
            yield ("source", "files", name), f"the step {step} takes no file {name!r}", ""


def with_ready_step(model: ModelSpec, folder: Path) -> ModelSpec:
    """The model with what its ready step knows already; what the spec says wins."""
    source = model.source
    if source.step is None:
        return model
    ready = STEPS[source.step]
    known: dict[str, object] = {"path": step_file(source.step), "function": ready.function}
    if "requirements" not in source.model_fields_set:
        known["requirements"] = ready.requirements
    inputs = model.inputs
    if not inputs:
        tensors = ready.inputs({name: folder / path for name, path in source.files.items()})
        inputs = tuple(TensorSpec(name=item.name, dtype=item.dtype, shape=item.shape) for item in tensors)
    return model.model_copy(update={"source": source.model_copy(update=known), "inputs": inputs})


def _beside_problems(model: ModelSpec) -> Iterator[tuple[Place, str, str]]:
    for name in model.source.shapes:
        if model.outputs and name not in model.outputs:
            message = f"{name!r} is not among the outputs {', '.join(model.outputs)}"
            yield ("source", "shapes", name), message, ""
    for index, text in enumerate(model.targets or ()):
        if text.partition(":")[0] != FORMAT:
            message = f"{text} cannot serve a step in Python: only Triton's python backend runs code"
            yield ("targets", index), message, f"leave targets out, or write {TARGET}"
    if model.sequence is not None:
        yield ("sequence",), "Triton's python backend keeps no implicit state for a model", "leave it out"
    if model.ragged is not None:
        yield ("ragged",), "Triton's python backend joins no requests: the code gets each by itself", "leave it out"


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
        if text == NO_DEPENDENCIES:
            continue
        try:
            by_url = Requirement(text).url
        except InvalidRequirement:
            yield here, f"{text!r} is no package as pip names them", "for example pillow==13.0.0"
            continue
        if by_url:
            remedy = "modules of your own belong beside the step's file"
            yield here, f"{text!r} is a URL: packages come from pip's index", remedy


def _file_problems(source: SourceSpec, folder: Path) -> Iterator[tuple[Place, str, str]]:
    if source.environment is not None and not (folder / source.environment).is_file():
        message = f"{folder / source.environment}: no such file"
        yield ("source", "environment"), message, "conda-pack writes one: conda pack -o environment.tar.gz"
    for name, path in source.files.items():
        if not (folder / path).exists():
            yield ("source", "files", name), f"{folder / path}: no such file or folder", ""
        if name in source.args:
            yield ("source", "files", name), f"{name!r} is also one of args", "give it once"
