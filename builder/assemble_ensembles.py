"""Ensembles → their folders in the staging area, beside those of their members, and their part of the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from builder.assemble import Staged
from builder.cache import Cache
from builder.compare import Gates
from builder.ensembles.config import render_ensemble
from builder.ensembles.gates import ensemble_gates
from builder.ensembles.members import Json, Members, read_config, standing_config
from builder.ensembles.states import EnsembleState
from builder.findings import Finding
from builder.judge import ModelState, served_gates
from builder.manifest import EnsembleRecord, EnsembleStep, ModelRecord, ServedRecord, TargetRecord
from builder.records import from_json, to_json
from builder.repository import stage_ensemble_folder
from builder.samples.stored import store_samples
from builder.scan import scan_repository
from builder.tensors import Signature
from builder.work import Target

EXACT = ("fp32", "Python")
"""How what computes nothing away begins to say what it computes in."""


@dataclass(frozen=True, slots=True)
class StagedEnsemble:
    """An ensemble's folder in the staging area; `needs` are the folders of all its members.

    `state` is None for one of an earlier build that stays, with members that this build makes anew.
    """

    name: str
    record: ServedRecord
    signature: Signature
    gates: Gates
    needs: tuple[str, ...]
    state: EnsembleState | None = None
    max_batch_size: int = 0


@dataclass(frozen=True, slots=True)
class _Member:
    """A model as it is staged: the gates of its answers, whether it computes in fp32, whether its rows may mix."""

    gates: Gates
    exact: bool
    mixing: bool


def stage_ensembles(  # noqa: PLR0913 - where things lie
    ensembles: Sequence[EnsembleState],
    models: Sequence[tuple[ModelState, Staged]],
    members: Members,
    *,
    release: str,
    cache: Cache,
    staged: Path,
) -> tuple[StagedEnsemble, ...]:
    """Write every ensemble's folder; the folders of all members are there.

    Raises:
        SpecError: an override does not fit.
    """
    if not ensembles:
        return ()
    known = {item.record.folder: _fresh(state, item) for state, item in models}
    known |= {name: _standing(record, served) for name, (record, served) in members.stored.items()}
    configs = {model.name: standing_config(model) or {} for model in scan_repository(staged)}
    made = []
    for state in _inner_first(ensembles):
        mixing = frozenset(_mixing(state, known, configs))
        text, limit = render_ensemble(state.plan.spec, state.wiring, configs, mixing=mixing, release=release)
        samples = None
        if state.report is not None and state.reference_key is not None:
            samples = store_samples(cache, "answer", state.reference_key, state.report.signature)
        record = stage_ensemble_folder(staged, state.name, text, samples, batching=limit > 0)
        configs[state.name] = read_config(staged / state.name)
        signature, gates = state.wiring.signature, _gates(state, known)
        made.append(StagedEnsemble(state.name, record, signature, gates, state.needs, state, limit))
    return tuple(made)


def limit_finding(item: StagedEnsemble) -> Finding | None:
    """A smaller `max_batch_size` than the spec asks for is said."""
    asked = item.state.plan.spec.max_batch_size if item.state else None
    if not asked or item.max_batch_size >= asked:
        return None
    if item.max_batch_size:
        message = f"max_batch_size {asked} is asked, and a member takes {item.max_batch_size}"
        remedy = f"write batching: {{max_batch_size: {asked}}} at the members"
        return Finding("info", "ensemble.batching", message, remedy, model=item.name)
    message = (
        f"max_batch_size {asked} is asked, and it is served without batching, with full dims: no member batches, a "
        "tensor at its border has no batch axis, or rows of a member without batching may depend on each other"
    )
    remedy = "see what the build says of the members, or leave max_batch_size out of the ensemble"
    return Finding("warning", "ensemble.batching", message, remedy, model=item.name)


def _inner_first(ensembles: Sequence[EnsembleState]) -> Iterator[EnsembleState]:
    todo = {state.name: state for state in ensembles}
    while todo:
        for state in list(todo.values()):
            if not any(step.member in todo for step in state.wiring.steps):
                yield todo.pop(state.name)


def _fresh(state: ModelState, item: Staged) -> _Member:
    measured = item.state.measurement
    exact = _exact(item.state.target, measured.compute if measured else "")
    mixing = not item.record.batching and not item.state.batch_proven
    return _Member(served_gates(state, item.state.target), exact, mixing)


def _standing(record: ModelRecord, served: ServedRecord) -> _Member:
    target = next(item for item in record.targets if item.target == served.target)
    exact = _exact(target.target, target.numbers.compute if target.numbers else "")
    return _Member(from_json(Gates, target.gates or record.gates), exact, _may_mix(served, target))


def _exact(target: Target, compute: str) -> bool:
    return target.precision in ("fp32", "native") and compute.startswith(EXACT)


def _may_mix(served: ServedRecord, target: TargetRecord) -> bool:
    return not served.batching and not (target.numbers and target.numbers.batch.proven)


def _mixing(state: EnsembleState, known: Mapping[str, _Member], configs: Mapping[str, Json]) -> Iterator[str]:
    """Direct members without batching whose rows, or those of a model inside them, are not known to stay apart."""
    inside = {ref.name: [step.member for step in ref.steps] for ref in state.plan.inside}
    for step in state.wiring.steps:
        if configs[step.member].get("max_batch_size", 0):
            continue
        if any(known[name].mixing if name in known else True for name in _models(step.member, inside)):
            yield step.member


def _models(name: str, inside: Mapping[str, Sequence[str]]) -> Iterator[str]:
    if name not in inside:
        yield name
        return
    for member in inside[name]:
        yield from _models(member, inside)


def _gates(state: EnsembleState, known: Mapping[str, _Member]) -> Gates:
    members = [known[name] for name in state.plan.members if name in known]
    lossy = not all(member.exact for member in members)
    rows = state.report.rows if state.report else 0
    return ensemble_gates(state.plan.spec.accuracy, [member.gates for member in members], lossy=lossy, rows=rows)


def ensemble_record(item: StagedEnsemble, members: Members, live: Mapping[str, object]) -> EnsembleRecord:
    """What the manifest says of one ensemble of this build."""
    state = item.state
    if state is None:
        msg = f"{item.name} is not of this build"
        raise ValueError(msg)
    steps = tuple(
        EnsembleStep(step.member, step.inputs, step.outputs, asked.model_version)
        for step, asked in zip(state.wiring.steps, state.plan.spec.steps, strict=True)
    )
    reference = tuple(_origin(name, members) for name in state.plan.members) if state.report else ()
    return EnsembleRecord(
        name=item.name,
        steps=steps,
        signature=item.signature,
        samples=state.report.samples if state.report else "",
        reference=reference,
        unproven=state.plan.unproven,
        gates=to_json(item.gates),
        served=(item.record,),
        notes=state.wiring.notes,
        live=dict(live),
    )


def _origin(name: str, members: Members) -> str:
    """Whose answers stand for a member's."""
    if name in members.models:
        return f"{name}: source ({members.models[name].export.source.format})"
    record, served = members.stored[name]
    return f"{name}: stored artefact ({served.target}, version {served.version}) of {record.name}"
