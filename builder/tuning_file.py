"""`models.tuning.yaml`: what `tune` found, in the spec's words for the next build, and as it was measured.

`models` is the layer below the spec's own words, `measured` the evidence: the search, its machine, release and load.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from builder.errors import SpecError
from builder.findings import Finding
from builder.machine import machine_differences, machine_facts
from builder.problems import Problem, spec_error
from builder.records import RecordError, from_json, to_json, write_text
from builder.spec import ModelName, ModelSpec, RepoSpec
from builder.spec_errors import problems_of
from builder.spec_file import is_spec, target_problems
from builder.spec_serving import Part
from builder.spec_tuning import TunedWords
from builder.tuning_records import BETTER, TunedModel
from builder.work import parse_target
from builder.yaml_lines import YamlError, parse_yaml

FORMAT: Final = 1
SUFFIX: Final = ".tuning.yaml"
HEADER: Final = f"""\
# Written by build-repo tune: for each model the setting that was best when it was served and measured.
# The next build of the spec beside it takes `models`, whose words are the spec's own; a word that the spec itself says
# wins. They may be edited. `measured` is the evidence, and holds for its machine: build-repo tune again elsewhere.
# build-repo build --tuning none leaves the file out.
format: {FORMAT}
"""
AGAIN: Final = "build-repo tune again"
WITHOUT: Final = "--tuning none leaves it out"


class TuningSpec(Part):
    """The whole file."""

    format: Literal[1]
    models: dict[ModelName, TunedWords] = Field(default_factory=dict)
    measured: dict[ModelName, dict[str, Any]] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tuning:
    """A file that was read: words and evidence by model."""

    path: Path
    words: Mapping[str, TunedWords]
    measured: Mapping[str, TunedModel]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a build took: `taken` is the evidence of the models for which at least one word was."""

    path: Path
    taken: Mapping[str, TunedModel] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def default_tuning_path(models: list[Path]) -> Path | None:
    """Beside the spec or the model: `models.yaml` → `models.tuning.yaml`; None for several model files, or no name."""
    if len(models) != 1:
        return None
    path = models[0] if models[0].name not in ("", "..") else models[0].resolve()
    if not path.name:
        return None
    plain = path.stem if is_spec(path) or _is_file(path) else path.name
    return path.with_name(f"{plain}{SUFFIX}")


def tuning_beside(models: list[Path]) -> Path | None:
    """The file at the default place, where there is one."""
    path = default_tuning_path(models)
    return path if path is not None and _is_file(path) else None


def _is_file(path: Path) -> bool:
    """False for a name that no file can have, too."""
    try:
        return path.is_file()
    except OSError:
        return False


def write_tuning(path: Path, words: Mapping[str, Mapping[str, Any]], measured: Mapping[str, TunedModel]) -> None:
    """Write the file at once; `words` are the spec's, by model.

    Raises:
        SpecError: the words are none of the spec's, or the file cannot be written.
    """
    import yaml

    document = {
        "models": {name: dict(said) for name, said in sorted(words.items())},
        "measured": {name: to_json(model) for name, model in sorted(measured.items())},
    }
    text = HEADER + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    parse_tuning(path, text)
    try:
        write_text(path, text)
    except OSError as error:
        raise SpecError(f"{path} cannot be written: {error}", remedy="give another place with -o FILE") from error


def read_tuning(path: Path) -> Tuning:
    """Read what `write_tuning` wrote and people may have edited.

    Raises:
        SpecError: the file is missing, no YAML, or wrong; all errors with path and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file", remedy="build-repo tune SPEC writes a tuning file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}", remedy=WITHOUT) from error
    return parse_tuning(path, text)


def parse_tuning(path: Path, text: str) -> Tuning:
    """The file's text as types.

    Raises:
        SpecError: as `read_tuning`.
    """
    try:
        data, lines = parse_yaml(text)
    except YamlError as error:
        raise SpecError(f"{path}: {error}", remedy=f"mend that line; {WITHOUT}") from error
    if not isinstance(data, dict):
        remedy = f"build-repo tune writes one; {WITHOUT}"
        raise SpecError(f"{path}: a tuning file is a mapping with the key 'models'", remedy=remedy)
    try:
        spec = TuningSpec.model_validate(data)
    except ValidationError as error:
        raise spec_error(str(path), problems_of(error, TuningSpec), lines) from None
    problems: list[Problem] = []
    for name, words in spec.models.items():
        if words.serve is not None:
            problems += target_problems((words.serve,), ("models", name, "serve"))
    measured = {}
    for name, record in spec.measured.items():
        try:
            measured[name] = from_json(TunedModel, record, "")
        except RecordError as error:
            place, _, said = str(error).partition(": ")
            problems.append(Problem(("measured", name, *_keys(place)), said, AGAIN))
    if problems:
        raise spec_error(str(path), [_one_target(problem) for problem in problems], lines)
    return Tuning(path, spec.models, measured)


def _keys(place: str) -> tuple[str | int, ...]:
    """`.tried[0].value` → the same as a path."""
    parts = place.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdecimal() else part for part in parts if part)


def _one_target(problem: Problem) -> Problem:
    """`serve` is one target, where the spec's list has several."""
    return Problem(problem.path[:3], problem.message) if problem.path[2:3] == ("serve",) else problem


def apply_tuning(spec: RepoSpec, tuning: Tuning) -> Applied:
    """What a spec that was loaded with the file's words took of it, and what must be said.

    Where words of the spec stand above the file's, what was measured is not what is served: it is no evidence then.
    """
    models = {model.name: model for model in spec.models}
    taken: dict[str, TunedModel] = {}
    findings: list[Finding] = []
    for name, words in tuning.words.items():
        if name not in models:
            message = f"{tuning.path.name} tunes a model that the spec does not have"
            remedy = f"remove {name} from {tuning.path.name}: tune keeps what it was not asked for"
            findings.append(Finding("warning", "tuning.model", message, remedy, model=name))
            continue
        model, measured = models[name], tuning.measured.get(name)
        own, lost = _own_words(model, words), _lost_target(tuning, model, words)
        measured = measured if not own and not lost else None
        if model.tuned.words or model.tuned.target:
            findings.append(_taken_finding(tuning, model, measured))
        if own:
            message = (
                f"{tuning.path.name} says {', '.join(own)} too: the spec's own stands, and nothing was measured of it"
            )
            remedy = "leave it out of the spec to take the tuned one"
            findings.append(Finding("info", "tuning.own", message, remedy, model=name))
        findings += lost
        if measured is not None:
            taken[name] = measured
            findings += _elsewhere(tuning, measured, spec.triton)
    return Applied(tuning.path, taken, tuple(findings))


def _taken_finding(tuning: Tuning, model: ModelSpec, measured: TunedModel | None) -> Finding:
    words = ", ".join(((f"serve: {model.tuned.target}",) if model.tuned.target else ()) + model.tuned.words)
    gain = ""
    if measured:
        gain = f"; on the live server {measured.gain:.3g} times {BETTER[measured.objective.word]} the default"
    if measured and measured.together:
        gain += f"; with the other models {measured.together}"
    message = f"tuned by {tuning.path.name}: {words}{gain}"
    return Finding("info", "tuning.file", message, WITHOUT, model=model.name)


def _own_words(model: ModelSpec, words: TunedWords) -> tuple[str, ...]:
    """Those that the spec says itself, where they differ."""
    own = tuple(
        word for word in words.said() if word not in model.tuned.words and getattr(model, word) != getattr(words, word)
    )
    target = _target(words)
    return ("serve", *own) if target and model.serve not in ("best", target) else own


def _lost_target(tuning: Tuning, model: ModelSpec, words: TunedWords) -> tuple[Finding, ...]:
    """Said of a tuned target that the spec no longer has."""
    target, targets = _target(words), model.targets or ()
    if not target or model.serve != "best" or target in targets:
        return ()
    message = f"{tuning.path.name} serves {target}, which is not among the targets {', '.join(targets)}"
    return (Finding("warning", "tuning.target", message, f"add it to the targets, or {AGAIN}", model=model.name),)


def _target(words: TunedWords) -> str | None:
    return str(parse_target(words.serve)) if words.serve else None


def _elsewhere(tuning: Tuning, measured: TunedModel, release: str) -> Iterator[Finding]:
    """What the settings were measured on, where that is not what they are built for."""
    name = measured.name
    if differ := machine_differences(measured.machine, machine_facts(), "here"):
        message = f"{tuning.path.name} was measured on another machine ({'; '.join(differ)}): {BEST_THERE}"
        yield Finding("warning", "tuning.machine", message, AGAIN, model=name)
    if measured.triton != release:
        message = (
            f"{tuning.path.name} was measured for Triton {measured.triton}, and this is for {release}: {BEST_THERE}"
        )
        yield Finding("warning", "tuning.release", message, AGAIN, model=name)


BEST_THERE: Final = "its settings are taken, and others may be better here"


def changed_models(applied: Applied, export_keys: Mapping[str, str]) -> Iterator[Finding]:
    """Models that are not those that were tuned; `export_keys` are those of the plan, by model."""
    for name, measured in applied.taken.items():
        if export_keys.get(name, measured.export_key) != measured.export_key:
            what = "another model, other samples, or other versions of build-repo or its libraries"
            message = f"{applied.path.name} was measured with {what}: {BEST_THERE}"
            yield Finding("warning", "tuning.changed", message, AGAIN, model=name)
