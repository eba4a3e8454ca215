"""What a spec file alone tells of its ensembles: wires, names, circles, files; and the words filled in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from builder.backends import BACKENDS
from builder.errors import SpecError
from builder.problems import Path as Place
from builder.problems import Problem
from builder.releases import fields_unknown
from builder.spec import EnsembleSpec, RepoSpec
from builder.spec_conflicts import config_problems
from builder.spec_wiring import StepSpec
from builder.triton_config.overrides import SCHEDULERS

ARROW = "->"
NOT_FOR_ENSEMBLES = ("instance_group", "optimization", "model_warmup")
INFLIGHT = "ModelEnsembling.max_inflight_requests"


def completed_ensemble(ensemble: EnsembleSpec, folder: Path) -> EnsembleSpec:
    """With paths made absolute."""
    if ensemble.samples is None:
        return ensemble
    path = Path(os.path.abspath(folder / ensemble.samples.path))  # noqa: PTH100 - Path.resolve follows links
    return ensemble.model_copy(update={"samples": ensemble.samples.model_copy(update={"path": path})})


def ensemble_problems(spec: RepoSpec, folder: Path) -> Iterator[Problem]:
    """Everything that is wrong whatever the models turn out to be."""
    names = {model.name: f"models[{index}]" for index, model in enumerate(spec.models)}
    for index, ensemble in enumerate(spec.ensembles):
        here: Place = ("ensembles", index)
        if ensemble.name in names:
            yield Problem((*here, "name"), f"{ensemble.name!r} is also the name of {names[ensemble.name]}")
        names.setdefault(ensemble.name, f"ensembles[{index}]")
        for word in ("inputs", "outputs"):
            yield from _twice(getattr(ensemble, word), (*here, word))
        for number, step in enumerate(ensemble.steps):
            yield from _step_problems(step, (*here, "steps", number))
        if ensemble.samples is not None and not (folder / ensemble.samples.path).is_file():
            yield Problem((*here, "samples", "path"), f"{folder / ensemble.samples.path}: no such file")
        yield from _config_problems(ensemble, spec.triton, here)
    yield from _circles(spec.ensembles)


def _config_problems(ensemble: EnsembleSpec, release: str, here: Place) -> Iterator[Problem]:
    """What the release, or an ensemble at all, cannot have in its configuration."""
    if ensemble.max_inflight_requests is not None and INFLIGHT in _unknown_fields(release):
        text = f"Triton {release} does not know this field; it came with 25.11"
        yield Problem((*here, "max_inflight_requests"), text, "leave it out, or build for a newer release")
    for word in SCHEDULERS:
        if word in ensemble.config:
            text = "an ensemble is scheduled by its steps"
            yield Problem((*here, "config", word), text, "leave it out; members have schedulers of their own")
    for word in NOT_FOR_ENSEMBLES:
        if word in ensemble.config:
            text = f"Triton refuses {word} in an ensemble: its members have their own"
            yield Problem((*here, "config", word), text, "say it at a member")
    yield from config_problems(ensemble.config, set(BACKENDS), release, (*here, "config"))


def _unknown_fields(release: str) -> tuple[str, ...]:
    try:
        return fields_unknown(release)
    except SpecError:  # the release's own problem
        return ()


def _twice(names: Sequence[str], here: Place) -> Iterator[Problem]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield Problem((*here, index), f"{name!r} is listed twice")


def _step_problems(step: StepSpec, here: Place) -> Iterator[Problem]:
    for wire in step.wires:
        if wire.count(ARROW) != 1 or not all(part.strip() for part in wire.split(ARROW)):
            text = f"{wire!r} is no wire; write FROM -> TO in the direction of the data"
            yield Problem(here, text, f"for names that hold {ARROW!r}: {{inputs: {{…}}, outputs: {{…}}}}")
    taken = list(step.outputs.values())
    for tensor in sorted({name for name in taken if taken.count(name) > 1}):
        yield Problem(here, f"two outputs of {step.member} are both called {tensor!r}")


def _circles(ensembles: Sequence[EnsembleSpec]) -> Iterator[Problem]:
    """Ensembles that are, through their members, members of themselves."""
    members = {ensemble.name: [step.member for step in ensemble.steps] for ensemble in ensembles}
    for index, ensemble in enumerate(ensembles):
        ways, seen = [[ensemble.name]], set[str]()
        while ways:
            way = ways.pop()
            for member in members.get(way[-1], ()):
                if member == ensemble.name:
                    text = f"the ensemble holds itself: {' → '.join((*way, member))}"
                    yield Problem(("ensembles", index, "steps"), text, "take one of the steps out")
                    ways.clear()
                    break
                if member not in seen:
                    seen.add(member)
                    ways.append([*way, member])
