"""The ensembles of a build after the exports (wired) and after the works (answered)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from builder.cache import Cache
from builder.ensembles.members import Members, standing_signatures
from builder.ensembles.wiring import Wiring, wire_all
from builder.errors import BuildRepoError
from builder.findings import Finding
from builder.measurement import ENSEMBLE_FILE, EXPORT_FILE, EnsembleReport, ExportReport, served_signature
from builder.plan import EnsemblePlan, Plan
from builder.problems import Problem
from builder.records import read_record
from builder.spec import RepoSpec
from builder.tensors import Signature
from builder.work import EnsembleRef, work_key

UNKNOWN_REMEDY = "write input, output and max_batch_size into its config.pbtxt"


@dataclass(frozen=True, slots=True)
class EnsembleState:
    """One ensemble. `report` is None where no source answered, because of `error` or of `plan.unproven`."""

    plan: EnsemblePlan
    wiring: Wiring
    wirings: Mapping[str, Wiring]
    report: EnsembleReport | None = None
    error: BuildRepoError | None = None

    @property
    def name(self) -> str:
        """As the user wrote it."""
        return self.plan.spec.name

    @property
    def reference_key(self) -> str | None:
        """The key of the work that wrote the reference."""
        return work_key(self.plan.answers[-1]) if self.report is not None else None

    @property
    def needs(self) -> tuple[str, ...]:
        """Every folder that must be served with it."""
        inner = (ref.name for ref in self.plan.inside[1:])
        return tuple(dict.fromkeys((*inner, *self.plan.members)))


def wire_ensembles(spec: RepoSpec, plan: Plan, members: Members, cache: Cache) -> tuple[EnsembleState, ...]:
    """Every ensemble with its tensors, once the exports of its members exist.

    Raises:
        SpecError: wires that do not fit; all of them.
    """
    signatures = standing_signatures(members) | _exported(members, cache)
    refs = {ref.name: ref for item in plan.ensembles for ref in item.inside}
    wirings, problems = wire_all(tuple(refs.values()), signatures)
    found = [
        problem
        for index, item in enumerate(plan.ensembles)
        for problem in (
            *_unknown(item.ref, index, members, signatures),
            *_placed(problems.get(item.ref.name, ()), index),
        )
    ]
    found += _standing(problems, {item.ref.name for item in plan.ensembles})
    if found:
        raise spec.error(found)
    return tuple(EnsembleState(item, wirings[item.ref.name], wirings) for item in plan.ensembles)


def _exported(members: Members, cache: Cache) -> dict[str, Signature]:
    found = {}
    for name, model in members.models.items():
        file = cache.folder("export", work_key(model.export)) / EXPORT_FILE
        if file.is_file():
            report = read_record(ExportReport, file)
            found[name] = served_signature(report.signature, report.sequence)
    return found


def _placed(problems: tuple[Problem, ...], index: int) -> Iterator[Problem]:
    for problem in problems:
        yield replace(problem, path=("ensembles", index, *problem.path))


def _unknown(ref: EnsembleRef, index: int, members: Members, signatures: Mapping[str, Signature]) -> Iterator[Problem]:
    """A member that somebody else made, and whose configuration does not say what it takes and gives."""
    for number, step in enumerate(ref.steps):
        if step.member in members.foreign and step.member not in signatures:
            text = f"what {step.member} takes and gives is not known without running it"
            yield Problem(("ensembles", index, "steps", number), text, UNKNOWN_REMEDY)


def _standing(problems: Mapping[str, tuple[Problem, ...]], ours: set[str]) -> Iterator[Problem]:
    """An ensemble of an earlier build that its members of this build no longer fit."""
    for name, found in problems.items():
        for problem in found if name not in ours else ():
            yield replace(problem, path=("ensembles",), message=f"{name}, in the repository: {problem.message}")


def answered(state: EnsembleState, errors: Mapping[str, BuildRepoError | None], cache: Cache) -> EnsembleState:
    """What the works left; `errors` are those of the works by their keys."""
    keys = [work_key(work) for work in state.plan.answers]
    error = next((errors[key] for key in keys if errors[key] is not None), None)
    if error is not None or not keys:
        return replace(state, error=error)
    return replace(state, report=read_record(EnsembleReport, cache.folder("answer", keys[-1]) / ENSEMBLE_FILE))


def ensemble_findings(state: EnsembleState) -> Iterator[Finding]:
    """What kept the reference from being made, and what the wiring has to say."""
    for note in state.wiring.notes:
        yield Finding("warning", "ensemble.wiring", note, model=state.name)
    if state.error is not None:
        text = f"its sources could not be run one after the other: {state.error.message}"
        yield Finding("error", "ensemble.reference", text, state.error.remedy, model=state.name)
    if state.plan.unproven:
        text = f"loaded only, its answers are not compared with anything: {state.plan.unproven}"
        remedy = "give every member a source in the spec, and build them with it"
        yield Finding("warning", "ensemble.unproven", text, remedy, model=state.name)
