"""Spec → plan: every work and its key before anything runs. Pure but for reading files' digests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder import defaults
from builder.backends import backend_module
from builder.code_digest import callable_digest, path_digest, pickled_code_digest
from builder.errors import MachineError
from builder.libraries import code_digest, library_versions
from builder.machine import machine_facts
from builder.releases import get_release
from builder.sources import require, source_module
from builder.spec import ModelSpec, RepoSpec
from builder.tensors import Tensor
from builder.work import Convert, Export, Measure, SamplesRef, SourceRef, Target, Work, parse_target, work_key

EXPORT_LIBRARIES = ("onnx", "onnxruntime", "numpy")
MEASURE_LIBRARIES = ("numpy",)


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """One target of one model. Where this machine cannot build it, `missing` says what is lacking and what to do."""

    target: Target
    convert: Convert
    measure: Measure
    missing: tuple[str, str] | None = None
    deferred: bool = False

    @property
    def works(self) -> tuple[Work, ...]:
        """In order; none where the target is not built here."""
        return () if self.missing or self.deferred else (self.convert, self.measure)


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model: its export and its targets."""

    spec: ModelSpec
    export: Export
    targets: tuple[TargetPlan, ...]

    @property
    def works(self) -> tuple[Work, ...]:
        """The export first."""
        return (self.export, *(work for target in self.targets for work in target.works))


@dataclass(frozen=True, slots=True)
class Plan:
    """All works of a build."""

    release: str
    models: tuple[ModelPlan, ...]

    def works(self) -> dict[str, Work]:
        """Key → work, in an order in which each follows what it needs; equal works of two models are one."""
        return {work_key(work): work for model in self.models for work in model.works}


def make_plan(spec: RepoSpec, *, defer: bool = False, strict: bool = False) -> Plan:
    """Every work of the spec.

    Raises:
        SpecError: something is impossible whatever the machine.
        MachineError: this machine lacks what a model cannot do without.
    """
    return Plan(
        spec.triton, tuple(_plan_model(model, spec.triton, defer=defer, strict=strict) for model in spec.models)
    )


def _plan_model(model: ModelSpec, release: str, *, defer: bool, strict: bool) -> ModelPlan:
    export = _export(model, release)
    targets = tuple(
        _plan_target(parse_target(text), work_key(export), release, defer=defer) for text in model.targets or ()
    )
    for plan in targets:
        if plan.missing and _needed(plan, model, targets, strict=strict):
            what, remedy = plan.missing
            raise MachineError(f"{model.name}: {plan.target} cannot be built on this machine: {what}", remedy=remedy)
    return ModelPlan(model, export, targets)


def _needed(plan: TargetPlan, model: ModelSpec, targets: tuple[TargetPlan, ...], *, strict: bool) -> bool:
    """A target that lacks only an optional library may be left out when another one can be served."""
    asked = strict or model.serve in ("all", str(plan.target))
    others = any(not other.missing and not other.deferred for other in targets)
    return asked or not others or backend_module(plan.target.backend).DEFERS


def _plan_target(target: Target, export: str, release: str, *, defer: bool) -> TargetPlan:
    backend = backend_module(target.backend)
    missing = backend.missing()
    deferred = defer and missing is not None and backend.DEFERS
    convert = Convert(
        export=export,
        target=target,
        release=release,
        libraries=library_versions(backend.LIBRARIES),
        code=code_digest(),
    )
    measure = Measure(
        export=export,
        convert=work_key(convert),
        target=target,
        machine=machine_facts(),
        libraries=library_versions((*backend.LIBRARIES, *MEASURE_LIBRARIES)),
        code=code_digest(),
    )
    return TargetPlan(target, convert, measure, None if deferred else missing, deferred)


def _export(model: ModelSpec, release: str) -> Export:
    limits = get_release(release)
    require(_format(model))
    return Export(
        source=_source(model),
        inputs=tuple(Tensor(tensor.name, tensor.dtype, tensor.shape) for tensor in model.inputs),
        outputs=model.outputs,
        samples=_samples(model),
        opset=limits.max_opset,
        ir_version=limits.max_ir,
        libraries=library_versions((*source_module(_format(model)).LIBRARIES, *EXPORT_LIBRARIES)),
        code=code_digest(),
    )


def _format(model: ModelSpec) -> str:
    if model.source.format is None:
        msg = f"the spec of {model.name} was not completed"
        raise ValueError(msg)
    return model.source.format


def _source(model: ModelSpec) -> SourceRef:
    source = model.source
    root = source.import_root or Path.cwd()
    digest = path_digest(source.path)
    if source.model:
        digest += ":" + callable_digest(source.model, root)
    if source.allow_pickle:
        digest += ":" + pickled_code_digest(source.path, root)
    return SourceRef(
        format=_format(model),
        path=str(source.path),
        digest=digest,
        model=source.model,
        args=json.dumps(source.args, sort_keys=True),
        import_root=str(root),
        allow_pickle=source.allow_pickle,
        signature=source.signature,
    )


def _samples(model: ModelSpec) -> SamplesRef:
    batch = (model.batching.max_batch_size if model.batching else None) or defaults.MAX_BATCH_SIZE
    if model.samples is None:
        return SamplesRef(path=None, digest="", labels=None, seed=defaults.SAMPLE_SEED, max_batch_size=batch)
    path = model.samples.path
    return SamplesRef(
        path=str(path), digest=path_digest(path), labels=model.samples.labels, seed=0, max_batch_size=batch
    )


def changed_fields(old: object, new: object, where: str = "") -> Iterator[str]:
    """What differs between two works as JSON, in words: why a work is not cached."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from changed_fields(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    elif old != new:
        yield f"{where}: {_short(old)} → {_short(new)}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:36]}…"  # noqa: PLR2004
