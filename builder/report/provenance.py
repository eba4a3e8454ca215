"""From what a repository was made, whether it is still that, and how to make it again."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from builder.digests import file_digest
from builder.libraries import ABSENT
from builder.manifest import Manifest
from builder.report import words
from builder.report.records import Command, ModelFacts, Provenance, TargetFacts
from builder.tuning_records import Objective

SHARED: Final = ("--targets", "--triton", "--name", "--input", "--samples")
"""Options of `build` that `tune` has too: they say what the model is."""
TAKE_A_VALUE: Final = frozenset((*SHARED, "-o", "--output", "--serve", "--check", "--jobs", "--tuning"))
"""Options of `build` whose next word is no model."""
RELEASED: Final = re.compile(r"[\w.!+]+")
"""A version that pip can be asked for; `1.27.0 (onnxruntime-gpu)` is none."""


def changed_files(folder: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """Files that are missing, or whose content is not what the manifest says."""
    return tuple(name for name, digest in files.items() if not _is(folder / name, digest))


def _is(path: Path, digest: str) -> bool:
    try:
        return file_digest(path) == digest
    except OSError:
        return False


def provenance(repository: str, manifest: Manifest, models: Iterable[ModelFacts]) -> Provenance:
    """Versions and machines of all targets together, and the commands."""
    targets = [target for model in models for target in _targets(model)]
    versions: dict[str, dict[str, None]] = {}
    for target in targets:
        for name, version in target.libraries.items():
            if version == ABSENT:
                continue
            versions.setdefault(name, {})[version] = None
    machines = {tuple(sorted(target.machine.items())): target.machine for target in targets if target.machine}
    libraries = {name: tuple(sorted(found)) for name, found in sorted(versions.items())}
    return Provenance(
        build_repo=manifest.build_repo,
        triton=manifest.triton,
        spec_digest=manifest.spec_digest,
        libraries=libraries,
        machines=tuple(machines.values()),
        commands=tuple(_commands(repository, manifest, libraries)),
    )


def _targets(model: ModelFacts) -> Iterator[TargetFacts]:
    yield from model.targets
    for version in model.versions:
        yield from version.targets


def _commands(repository: str, manifest: Manifest, libraries: Mapping[str, tuple[str, ...]]) -> Iterator[Command]:
    pins = [
        f"{name}=={versions[0]}"
        for name, versions in libraries.items()
        if len(versions) == 1 and RELEASED.fullmatch(versions[0])
    ]
    if pins:
        yield Command("The libraries of this build", shlex.join(["pip", "install", *pins]))
    yield Command("The build that wrote this repository last", manifest.run.command)
    if manifest.models.keys() - manifest.run.tuning.keys():
        yield Command("Measures on the live server what is best; build again afterwards", tune_command(manifest))
    yield from _searches(manifest)
    yield Command("Asks the served models again", shlex.join(["build-repo", "check", repository]))
    yield Command("This report again", shlex.join(["build-repo", "report", repository]))


def _searches(manifest: Manifest) -> Iterator[Command]:
    """What was searched for; models are named where it was not the same for all."""
    tuning = manifest.run.tuning
    objectives = dict.fromkeys(tuned.objective for tuned in tuning.values())
    alike = len(objectives) == 1 and tuning.keys() == manifest.models.keys()
    for objective in objectives:
        names = [name for name, tuned in tuning.items() if tuned.objective == objective]
        for name in [""] if alike else names:
            does = f"Searches for the {objective.word} of {name or words.listed(names)} again"
            yield Command(does, f"{tune_command(manifest)} {shlex.join(_options(objective, name))}")


def _options(objective: Objective, name: str) -> Iterator[str]:
    """Of `tune`, for such a search."""
    yield from ("--objective", objective.word, "--users", str(objective.users))
    if objective.slo:
        limits = [f"{term}={limit:.10f}".rstrip("0").rstrip(".") + "ms" for term, limit in objective.slo]
        yield from ("--slo", ",".join(limits))
    if objective.rows > 1:
        yield from ("--rows", str(objective.rows))
    if objective.protocol != "grpc":
        yield from ("--protocol", objective.protocol)
    if name:
        yield from ("--model", name)


def tune_command(manifest: Manifest) -> str:
    """`build-repo tune models.yaml`, of what the last build was given."""
    try:
        said = shlex.split(manifest.run.command)
    except ValueError:
        said = []
    given: list[str] = []
    options: list[str] = []
    rest = iter(said[2:] if said[1:2] == ["build"] else ())
    for word in rest:
        if word in TAKE_A_VALUE:
            value = next(rest, "")
            options += _of_tune(word, value)
        elif not word.startswith("-"):
            given.append(word)
        else:
            name, _, value = word.partition("=")
            options += _of_tune(name, value)
    return shlex.join(["build-repo", "tune", *(given or ["models.yaml"]), *options])


def _of_tune(word: str, value: str) -> list[str]:
    """What an option of `build` is for `tune`: the file that the build takes is the one to write."""
    if word == "--tuning" and value != "none":
        return ["-o", value]
    return [word, value] if word in SHARED else []
