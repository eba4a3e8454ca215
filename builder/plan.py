"""Spec → plan: every work and its key before anything runs. Pure but for reading files' digests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from builder import defaults
from builder.backends import backend_module
from builder.code_digest import callable_digest, path_digest, pickled_code_digest
from builder.errors import MachineError, SpecError
from builder.libraries import code_digest, library_versions
from builder.machine import machine_facts
from builder.releases import get_release
from builder.sources import require, source_module
from builder.spec import AccuracySpec, ModelSpec, QuantizationSpec, RepoSpec
from builder.tensors import Tensor
from builder.work import (
    Convert,
    Export,
    Measure,
    Prepare,
    Quantization,
    SamplesRef,
    Search,
    SourceRef,
    Target,
    Work,
    parse_target,
    work_key,
)

EXPORT_LIBRARIES = ("onnx", "onnxruntime", "numpy")
PREPARE_LIBRARIES = ("onnx", "onnxruntime", "numpy", "onnxslim", "onnxoptimizer")
MEASURE_LIBRARIES = ("numpy",)


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """One target of one model. Where this machine cannot build it, `missing` says what is lacking and what to do."""

    target: Target
    prepare: Prepare
    convert: Convert
    measure: Measure
    missing: tuple[str, str] | None = None
    deferred: bool = False

    @property
    def works(self) -> tuple[Work, ...]:
        """In order; none where the target is not built here."""
        return () if self.missing or self.deferred else (self.prepare, self.convert, self.measure)


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
    _require_real_samples(model)
    export = _export(model, release)
    targets = tuple(
        _plan_target(model, export, parse_target(text), release, defer=defer) for text in model.targets or ()
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


def _plan_target(model: ModelSpec, export: Export, target: Target, release: str, *, defer: bool) -> TargetPlan:
    backend = backend_module(target.backend)
    missing = backend.missing()
    deferred = defer and missing is not None and backend.DEFERS
    prepare = _prepare(model, export, backend.GRAPHS[target.precision], backend.DIALECT)
    convert = Convert(
        export=work_key(export),
        prepare=work_key(prepare),
        target=target,
        release=release,
        options=_options(model, target.backend),
        libraries=library_versions(backend.LIBRARIES),
        code=code_digest(),
    )
    measure = Measure(
        export=work_key(export),
        convert=work_key(convert),
        target=target,
        options=convert.options,
        machine=machine_facts(),
        libraries=library_versions((*backend.LIBRARIES, *MEASURE_LIBRARIES)),
        code=code_digest(),
    )
    return TargetPlan(target, prepare, convert, measure, None if deferred else missing, deferred)


def _prepare(model: ModelSpec, export: Export, precision: str, dialect: str) -> Prepare:
    """What of the spec decides the graph, and nothing else: targets that need the same graph share the work."""
    lower = precision != "fp32"
    return Prepare(
        export=work_key(export),
        precision=precision,
        dialect=dialect,
        optimize=model.optimize == "auto",
        quantization=_quantization(model) if precision == "int8" else None,
        search=_search(model) if lower else None,
        opset=export.opset,
        ir_version=export.ir_version,
        machine=machine_facts(),
        libraries=library_versions(PREPARE_LIBRARIES),
        code=code_digest(),
    )


def _quantization(model: ModelSpec) -> Quantization:
    spec = model.quantization or QuantizationSpec()
    return Quantization(spec.mode, spec.calibrator, spec.per_channel)


def _search(model: ModelSpec) -> Search:
    spec = model.accuracy or AccuracySpec()
    return Search(spec.model_dump(exclude={"search_budget_s"}), spec.search_budget_s)


def _options(model: ModelSpec, backend: str) -> str:
    """The words of the spec that one backend alone understands, as canonical JSON."""
    return json.dumps({}, sort_keys=True)


def _require_real_samples(model: ModelSpec) -> None:
    """Ranges measured on random numbers would make an int8 model that is wrong on real ones.

    Raises:
        SpecError: a target needs calibration, and the spec has no samples.
    """
    spec = model.quantization or QuantizationSpec()
    asked = [text for text in model.targets or () if parse_target(text).precision == "int8"]
    if asked and model.samples is None and spec.mode != "dynamic":
        raise SpecError(
            f"{model.name}: {', '.join(asked)} needs real samples to calibrate with, and the spec has none",
            remedy="give real inputs with samples: {path: samples.npz} (or --samples FILE.npz), one array for each "
            "input; a transformer can do without: quantization: {mode: dynamic}",
        )


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
    quantized = any(parse_target(text).precision == "int8" for text in model.targets or ())
    calibration = (model.quantization or QuantizationSpec()).samples if quantized else 0
    if model.samples is None:
        return SamplesRef(path=None, digest="", labels=None, seed=defaults.SAMPLE_SEED, max_batch_size=batch)
    path = model.samples.path
    return SamplesRef(
        path=str(path),
        digest=path_digest(path),
        labels=model.samples.labels,
        seed=defaults.SAMPLE_SEED,
        max_batch_size=batch,
        calibration=calibration,
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
