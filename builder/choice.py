"""By what the served target was chosen, for the report and the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from builder.findings import Finding
from builder.judge import ModelState, candidates
from builder.objectives import MEANS, UNITS, shown, value_of
from builder.tuning_records import Raced, TunedModel

PRIOR: Final = {
    "tensorrt": "TensorRT is expected to be the best on an NVIDIA GPU",
    "onnxruntime+tensorrt": "TensorRT inside ONNX Runtime is expected to be better than a CPU on an NVIDIA GPU",
}
"""What holds of a target that cannot be measured here, until it is; the likeliest best one first."""


@dataclass(frozen=True, slots=True)
class Choice:
    """`by`: the spec's word, the only target that stands, a measurement in process, or one of the live server.

    `values` are the objective's by target, in `unit`. Those of `server` are of targets near each other, each as it is
    served; those of `tuning` each target's best setting.
    """

    by: Literal["spec", "only", "measurement", "server", "tuning"]
    objective: str | None = None
    unit: str | None = None
    values: tuple[tuple[str, float], ...] = ()


def choice_of(state: ModelState, tuned: TunedModel | None) -> Choice | None:
    """Why the first of the candidates is served; None where there is none."""
    standing = candidates(state)
    if not standing:
        return None
    if state.spec.serve != "best":
        return Choice("spec")
    if state.spec.tuned.target == str(standing[0].target):
        return _tuned(tuned)
    word, raced = state.objective, state.raced
    if raced and raced.decides(str(standing[0].target)) and len(standing) > 1:
        return Choice("server", word, raced.objective.unit, raced.values)
    values = [(str(item.target), value_of(item.measurement, word)) for item in standing]
    known = tuple((target, value) for target, value in values if value is not None)
    return Choice("only" if len(standing) == 1 else "measurement", word, UNITS[word], known)


def _tuned(tuned: TunedModel | None) -> Choice:
    if tuned is None:
        return Choice("tuning")
    best: dict[str, float] = {}
    for item in tuned.tried:
        name, pick = item.setting.target, max if tuned.objective.rises else min
        if not item.refused:
            best[name] = pick(best.get(name, item.value), item.value)
    return Choice("tuning", tuned.objective.word, tuned.objective.unit, tuple(best.items()))


def _said_of(raced: Raced) -> str:
    """By what the live server chose."""
    word, users = raced.objective.word, raced.objective.users
    missed = {target: f" ({text})" for target, text in raced.missed}
    first, *others = [f"{target} {shown(value, word)}{missed.get(target, '')}" for target, value in raced.values]
    held = "".join(f" with {name} ≤ {limit:g} ms" for name, limit in raced.objective.slo)
    said = f"by {word}{held} on the live server with {users} user{'s' * (users > 1)}: {first}"
    if not others:
        return f"{said} is the only one that answered rightly"
    if raced.surely:
        return f"best {said}, before {', '.join(others)}"
    return f"{said}, {', '.join(others)}; of what is too near to be told apart, the best in process is served"


def _wrong_findings(state: ModelState) -> Iterator[Finding]:
    for target, reason in state.raced.wrong if state.raced else ():
        message = f"under load on the live server {reason}, so it was not chosen"
        remedy = "build-repo check says when it is wrong"
        yield Finding("warning", "serve.wrong", message, remedy, state.spec.name, target)


def _slo_findings(state: ModelState, choice: Choice) -> Iterator[Finding]:
    """An SLO that what is served does not hold, or that nobody looked at; a tuning has looked at its own."""
    name, served, raced = state.spec.name, str(candidates(state)[0].target), state.raced
    if state.spec.slo is None or choice.by == "tuning":
        return
    if raced is None or served not in dict(raced.values):
        message = "the SLO was not looked at: nothing was measured on the live server"
        remedy = "build with --check live and pip install 'build-repo[load]', or build-repo tune"
        yield Finding("warning", "serve.slo", message, remedy, name, served)
    elif missed := dict(raced.missed).get(served):
        message = f"with {raced.objective.users} users at a time the SLO is missed: {missed}"
        remedy = "build-repo tune looks for settings, and for a number of users, that hold it"
        yield Finding("warning", "serve.slo", message, remedy, name, served)


def choice_findings(state: ModelState, tuned: Mapping[str, TunedModel]) -> Iterator[Finding]:
    """What `best` was, where there was a choice, and what is expected of a target that could not be measured."""
    choice, name = choice_of(state, tuned.get(state.spec.name)), state.spec.name
    if choice is None:
        return
    served = str(candidates(state)[0].target)
    if choice.by == "server" and state.raced is not None:
        yield Finding(
            "info", "serve.best", _said_of(state.raced), "build-repo tune searches the settings too", model=name
        )
    yield from _wrong_findings(state)
    if choice.by == "measurement":
        word = state.objective
        first, *others = (f"{target} {shown(value, word)}" for target, value in choice.values)
        message = f"best by {word}, {MEANS[word]} in process: {first}, before {', '.join(others)}"
        remedy = "build-repo tune decides by the live server; objective: in the spec says what is sought"
        yield Finding("info", "serve.best", message, remedy, model=name)
    yield from _slo_findings(state, choice)
    waiting = [item.target for item in state.targets if item.status == "deferred" and item.target.backend in PRIOR]
    if waiting and state.spec.serve == "best":
        likeliest = min(waiting, key=lambda target: list(PRIOR).index(target.backend))
        message = (
            f"nothing of {', '.join(map(str, waiting))} could be measured here: {PRIOR[likeliest.backend]}; "
            f"{served} is served until then"
        )
        yield Finding("info", "serve.prior", message, "build on a machine with the GPU", name, str(likeliest))
