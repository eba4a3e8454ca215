"""The works of a build run in their order: where there are ensembles, the exports before all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from builder.cache import Cache
from builder.ensembles.members import Members
from builder.ensembles.states import EnsembleState, answered, wire_ensembles
from builder.judge import ModelState
from builder.pipeline import Outcome, run_works
from builder.plan import Plan
from builder.progress import Progress
from builder.settle import BuildOptions
from builder.spec import RepoSpec
from builder.work import Answer, Convert, Export, Packages, Prepare, Work, work_key


def run_plan(  # noqa: PLR0913, PLR0917 - the options of a build
    works: Mapping[str, Work],
    plan: Plan,
    cache: Cache,
    options: BuildOptions,
    progress: Progress,
    known: Mapping[str, Outcome] = MappingProxyType({}),
) -> dict[str, Outcome]:
    """Some of the plan's works, each named for people."""
    return run_works(
        works,
        work_labels(plan),
        cache,
        jobs=options.jobs,
        fail_fast=options.fail_fast,
        progress=progress,
        known=known,
    )


def wire_first(  # noqa: PLR0913, PLR0917 - the options of a build
    spec: RepoSpec, plan: Plan, members: Members, cache: Cache, options: BuildOptions, progress: Progress
) -> tuple[dict[str, Outcome], tuple[EnsembleState, ...]]:
    """Where there are ensembles the exports run first: wires that do not fit are known before anything is converted."""
    if not plan.ensembles:
        return {}, ()
    exports = (work for model in plan.models for work in (model.packages, model.export) if work is not None)
    todo = {key: work for work in exports if not cache.has(work.kind, key := work_key(work))}
    outcomes = run_plan(todo, plan, cache, options, progress)
    if any(outcome.error for outcome in outcomes.values()):
        return outcomes, ()
    return outcomes, wire_ensembles(spec, plan, members, cache)


def answered_ensembles(
    ensembles: Sequence[EnsembleState], states: Sequence[ModelState], outcomes: Mapping[str, Outcome], cache: Cache
) -> list[EnsembleState]:
    """None where a model has no export: that is said already, and keeps the repository as it is."""
    if any(state.report is None for state in states):
        return []
    errors = {key: outcome.error for key, outcome in outcomes.items()}
    return [answered(state, errors, cache) for state in ensembles]


def work_labels(plan: Plan) -> dict[str, str]:
    """Key → what a person calls the work."""
    labels: dict[str, str] = {}
    for model in plan.models:
        for version in (*model.older, model):
            name = version.spec.name if version.version is None else f"{version.spec.name}:{version.version}"
            for work in version.works:
                labels.setdefault(work_key(work), f"{name} {work_label(work)}")
    for ensemble in plan.ensembles:
        for work in ensemble.answers:
            labels.setdefault(work_key(work), f"{ensemble.spec.name} {work_label(work)}")
    return labels


def work_label(work: Work) -> str:
    """`export`, `prepare int8 (onnx)`, `openvino:int8 convert`, `answer of decode`."""
    if isinstance(work, Export):
        return "export"
    if isinstance(work, Packages):
        return f"packages for Python {work.python}{'' if work.platforms else ' here'}"
    if isinstance(work, Prepare):
        return f"prepare {work.precision} ({work.dialect})"
    if isinstance(work, Answer):
        return f"answer {len(work.before) + 1} of {work.member}"
    if isinstance(work, Convert) and work.preflight:
        return f"{work.target} preflight"
    return f"{work.target} {work.kind}"
