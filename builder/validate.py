"""Any Triton repository, judged offline as the server would judge it at start-up with its own defaults."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from builder.checks import CheckContext, run_checks
from builder.checks.ensembles import Members, is_ensemble
from builder.completion import completed_config
from builder.errors import SpecError
from builder.findings import Finding
from builder.junit import Case
from builder.releases import get_release
from builder.scan import scan_repository
from builder.triton_config.text import config_to_text


def validate_repository(repository: Path, release: str, gpus: int = 0, cores: int = 0) -> tuple[Finding, ...]:
    """Every finding of every rule, models in the order of their names.

    Raises:
        SpecError: the release is unknown, or the folder holds no model folder.
    """
    get_release(release)
    if not model_names(repository):
        raise SpecError(
            f"{repository} holds no model folder: Triton would start and serve nothing",
            remedy="give the folder that holds the model folders, not a model folder itself",
        )
    found = run_checks(repository, CheckContext(release=release, gpus=gpus, cores=cores, auto_complete=True))
    return tuple(sorted(dict.fromkeys(found), key=lambda item: (item.model or "", item.file or "", item.line or 0)))


def completed_texts(repository: Path, release: str, gpus: int = 0) -> Iterator[tuple[str, str, str]]:
    """(model, what is not known and why, the whole configuration as text) for every model that parses.

    Raises:
        SpecError: the release is unknown.
    """
    get_release(release)
    models = scan_repository(repository)
    members = Members({model.name: model for model in models}, CheckContext(release, gpus=gpus, auto_complete=True))
    for model in models:
        if model.problem:
            yield model.name, model.problem, ""
            continue
        done = completed_config(model, gpus=gpus)
        config = members.config(model.name) if is_ensemble(model) else None
        yield model.name, done.note, config_to_text(config or done.config, release=release)


def model_names(repository: Path) -> tuple[str, ...]:
    """What the server would take for models."""
    return tuple(model.name for model in scan_repository(repository))


def junit_cases(repository: Path, findings: Sequence[Finding]) -> tuple[Case, ...]:
    """A case for every model, also for those without findings."""
    names = model_names(repository)
    every = [*names, *sorted({item.model or "repository" for item in findings} - set(names))]
    return tuple(Case(name, tuple(item for item in findings if (item.model or "repository") == name)) for name in every)
