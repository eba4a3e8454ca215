"""The spec's ensembles as works: which members there are, in which order they answer, and who cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from builder import defaults
from builder.backends import backend_module
from builder.code_digest import path_digest
from builder.digests import file_digest
from builder.ensembles.members import Members, ensemble_ref, read_config
from builder.libraries import code_digest, library_versions
from builder.manifest import ModelRecord, ServedRecord
from builder.measurement import served_signature
from builder.native_rules import batch_size
from builder.plan import EnsemblePlan, ModelPlan, Plan
from builder.problems import Path as Place
from builder.problems import Problem, nearest
from builder.sources import source_module
from builder.spec import EnsembleSpec, RepoSpec
from builder.work import Answer, EnsembleRef, Export, SamplesRef, StoredRef, work_key

LIBRARIES = ("numpy",)


def plan_ensembles(spec: RepoSpec, plan: Plan, members: Members, repository: Path) -> Plan:
    """The plan with every ensemble's works.

    Raises:
        SpecError: a member is unknown or cannot be one; all of them.
    """
    problems = [
        problem for index, item in enumerate(spec.ensembles) for problem in _problems(item, index, members, repository)
    ]
    if problems:
        raise spec.error(problems)
    return replace(plan, ensembles=tuple(_plan(item, members, repository) for item in spec.ensembles))


def _problems(ensemble: EnsembleSpec, index: int, members: Members, repository: Path) -> Iterator[Problem]:
    for number, step in enumerate(ensemble.steps):
        here = ("ensembles", index, "steps", number)
        model = members.models.get(step.member)
        stored = members.stored.get(step.member)
        if step.member not in members.names:
            text = f"no model or ensemble {step.member!r}{nearest(step.member, members.names)}"
            yield Problem(here, text, "members are models and ensembles of this spec, or stand in the repository")
        elif (model and model.spec.sequence) or (stored and stored[0].sequence):
            yield Problem(here, f"{step.member} keeps states of sequences, and an ensemble has none to send it")
        elif (model and model.spec.ragged) or (stored and stored[0].ragged):
            yield Problem(
                here, f"{step.member} takes requests of unequal sizes (ragged:), and no ensemble is built of it"
            )
        elif stored:
            yield from _changed(stored[1], repository, here)


def _changed(served: ServedRecord, repository: Path, here: Place) -> Iterator[Problem]:
    """What stands for a source must be what was proven against it."""
    for name, digest in served.files.items():
        file = repository / served.folder / name
        if not file.is_file() or file_digest(file) != digest:
            yield Problem(here, f"{served.folder}/{name} is not what build-repo wrote", f"build {served.folder} again")


def _plan(ensemble: EnsembleSpec, members: Members, repository: Path) -> EnsemblePlan:
    ref = ensemble_ref(ensemble)
    refs = tuple(_inside(ref, members))
    leaves = tuple(_leaves(ref, members))
    reason = next((text for text in (*_versions(ensemble, members), *_unasked(leaves, members)) if text), "")
    answers = () if reason else tuple(_answers(ensemble, refs, leaves, members, repository))
    return EnsemblePlan(ensemble, ref, refs, leaves, answers, reason)


def _inside(ref: EnsembleRef, members: Members) -> Iterator[EnsembleRef]:
    """The ensemble and those inside it, each once."""
    found, todo = dict[str, EnsembleRef](), [ref]
    while todo:
        item = todo.pop(0)
        if item.name not in found:
            found[item.name] = item
            todo += [members.ensembles[step.member] for step in item.steps if step.member in members.ensembles]
    yield from found.values()


def _leaves(ref: EnsembleRef, members: Members) -> Iterator[str]:
    """The models in the order of `flat_steps`."""
    for step in ref.steps:
        if step.member in members.ensembles:
            yield from _leaves(members.ensembles[step.member], members)
        else:
            yield step.member


def _versions(ensemble: EnsembleSpec, members: Members) -> Iterator[str]:
    for step in ensemble.steps:
        stored, model = members.stored.get(step.member), members.models.get(step.member)
        known = (stored and stored[1].version, model and model.version)
        if step.model_version is not None and step.model_version not in known:
            yield f"version {step.model_version} of {step.member} is asked for, whose source is not here"


def _unasked(leaves: tuple[str, ...], members: Members) -> Iterator[str]:
    """Members that cannot answer here, whatever they are asked."""
    for name in leaves:
        if name in members.foreign:
            yield f"{name} was not made by build-repo, so that its right answers are not known"
        elif name in members.stored:
            yield _not_run(name, *members.stored[name])


def _not_run(name: str, record: ModelRecord, served: ServedRecord) -> str:
    """Why what stands in the repository cannot be run in this process; empty where it can."""
    target = next(item for item in record.targets if item.target == served.target)
    missing = backend_module(target.target.backend).missing()
    if target.works.get("packages"):
        missing = ("its packages are for the server's Python", "")
    return (
        f"{name} stands in the repository as {target.target}, which cannot be run here: {missing[0]}" if missing else ""
    )


def _answers(
    ensemble: EnsembleSpec, refs: tuple[EnsembleRef, ...], leaves: tuple[str, ...], members: Members, repository: Path
) -> Iterator[Answer]:
    stored = tuple(_stored(name, *members.stored[name], repository) for name in _once(leaves, members.stored))
    exports = tuple((name, work_key(members.models[name].export)) for name in _once(leaves, members.models))
    before: tuple[str, ...] = ()
    for name in leaves:
        export = members.models[name].export if name in members.models else None
        work = Answer(
            ensembles=refs,
            members=leaves,
            before=before,
            exports=exports,
            stored=stored,
            export=export,
            samples=_samples(ensemble),
            max_rows=_max_rows(ensemble, leaves, members, repository),
            libraries=library_versions((*_libraries(export, members.stored.get(name)), *LIBRARIES)),
            code=code_digest(),
        )
        before = (*before, work_key(work))
        yield work


def _once(leaves: tuple[str, ...], known: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in leaves if name in known))


def _libraries(export: Export | None, stored: tuple[ModelRecord, ServedRecord] | None) -> tuple[str, ...]:
    if export is not None:
        return source_module(export.source.format).LIBRARIES
    target = stored[1].target if stored else None
    return backend_module(target.backend).LIBRARIES if target else ()


def _stored(name: str, record: ModelRecord, served: ServedRecord, repository: Path) -> StoredRef:
    if served.target is None:
        msg = f"{name} is no model"
        raise ValueError(msg)
    target = next(item for item in record.targets if item.target == served.target)
    options = str(target.works.get("measure", {}).get("options", json.dumps({})))
    path = repository / name / str(served.version)
    signature = served_signature(record.signature, record.sequence)
    return StoredRef(name, str(path), served.artefact, served.target, options, signature)


def _samples(ensemble: EnsembleSpec) -> SamplesRef | None:
    if ensemble.samples is None:
        return None
    path = ensemble.samples.path
    return SamplesRef(str(path), path_digest(path), None, defaults.SAMPLE_SEED, defaults.MAX_BATCH_SIZE)


def _max_rows(ensemble: EnsembleSpec, leaves: tuple[str, ...], members: Members, repository: Path) -> int:
    """The largest request that every member takes."""
    limits: list[int | None] = [ensemble.max_batch_size]
    for name in leaves:
        if name in members.models:
            limits.append(_wanted_batch(members.models[name]))
        elif name in members.stored:
            limits.append(batch_size(read_config(repository / name)))
    return min(limit for limit in (*limits, defaults.MAX_BATCH_SIZE) if limit)


def _wanted_batch(model: ModelPlan) -> int | None:
    return model.spec.batching.max_batch_size if model.spec.batching else None
