"""Spec → plan: every work and its key before anything runs. Pure but for reading files' digests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from builder import defaults
from builder.backends import backend_module, device_bound, refuses_source
from builder.code_digest import callable_digest, path_digest, pickled_code_digest, step_digest
from builder.compare import Gates, gates_of
from builder.errors import MachineError, SpecError
from builder.libraries import code_digest, library_versions
from builder.machine import machine_facts
from builder.measurement import FORMAT_FILES
from builder.plan_devices import lacks_gpu
from builder.plan_options import NO_OPTIONS, backend_options
from builder.plan_packages import packages_here, served_packages
from builder.records import to_json
from builder.releases import get_release
from builder.sources import require, source_module
from builder.spec import AccuracySpec, EnsembleSpec, ModelSpec, QuantizationSpec, RepoSpec
from builder.spec_ragged import KINDS
from builder.spec_serving import ZERO
from builder.tensors import Tensor
from builder.work import (
    Answer,
    Convert,
    EnsembleRef,
    Export,
    FileRef,
    FilledRef,
    Measure,
    OutputShape,
    Packages,
    Prepare,
    Quantization,
    RaggedRef,
    SamplesRef,
    Search,
    SequenceRef,
    SourceRef,
    StateRef,
    Target,
    Work,
    parse_target,
    work_key,
)

EXPORT_LIBRARIES = ("onnx", "onnxruntime", "numpy")
PREPARE_LIBRARIES = ("onnx", "onnxruntime", "numpy", "onnxslim", "sympy")
MEASURE_LIBRARIES = ("numpy",)


@dataclass(frozen=True, slots=True)
class TargetPlan:
    """One target of one model. Where this machine cannot build it, `missing` says what is lacking and what to do."""

    target: Target
    prepare: Prepare | None
    convert: Convert
    measure: Measure
    missing: tuple[str, str] | None = None
    deferred: bool = False
    preflight: Convert | None = None
    packages: Packages | None = None

    @property
    def works(self) -> tuple[Work, ...]:
        """In order; none where the target is not built here, but for the pre-flight of a deferred one."""
        prepared = (self.prepare,) if self.prepare else ()
        if self.preflight is not None:
            return (*prepared, self.preflight)
        if self.missing or self.deferred:
            return ()
        return (*((self.packages,) if self.packages else ()), *prepared, self.convert, self.measure)


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """One model: its export and its targets. Where the spec has several versions: of the newest, with the `older`."""

    spec: ModelSpec
    export: Export
    targets: tuple[TargetPlan, ...]
    packages: Packages | None = None
    version: int | None = None
    older: tuple[ModelPlan, ...] = ()

    @property
    def works(self) -> tuple[Work, ...]:
        """The export first, but for the packages that it needs."""
        first = (self.packages,) if self.packages else ()
        own = (*first, self.export, *(work for target in self.targets for work in target.works))
        return (*own, *(work for older in self.older for work in older.works))


@dataclass(frozen=True, slots=True)
class EnsemblePlan:
    """One ensemble: `inside` are it and the ensembles inside it, `members` the models that answer one after the other.

    `unproven` says why no source can tell its right answers; then there are no works.
    """

    spec: EnsembleSpec
    ref: EnsembleRef
    inside: tuple[EnsembleRef, ...]
    members: tuple[str, ...]
    answers: tuple[Answer, ...]
    unproven: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """All works of a build; the ensembles are planned once it is known what stands in the repository."""

    release: str
    models: tuple[ModelPlan, ...]
    ensembles: tuple[EnsemblePlan, ...] = ()

    def works(self) -> dict[str, Work]:
        """Key → work, in an order in which each follows what it needs; equal works of two models are one."""
        every = (*(work for model in self.models for work in model.works), *self._answers())
        return {work_key(work): work for work in every}

    def _answers(self) -> tuple[Answer, ...]:
        return tuple(work for ensemble in self.ensembles for work in ensemble.answers)


def make_plan(spec: RepoSpec, *, defer: bool = False, strict: bool = False) -> Plan:
    """Every work of the spec.

    Raises:
        SpecError: something is impossible whatever the machine.
        MachineError: this machine lacks what a model cannot do without.
    """
    return Plan(
        spec.triton, tuple(_plan_versions(model, spec.triton, defer=defer, strict=strict) for model in spec.models)
    )


def _plan_versions(model: ModelSpec, release: str, *, defer: bool, strict: bool) -> ModelPlan:
    """The newest version with the others in it, each planned as a model of its own source."""
    plans = [
        replace(
            _plan_model(model.model_copy(update={"source": source}), release, defer=defer, strict=strict),
            version=number,
        )
        for number, source in sorted(model.sources.items())
    ]
    if not plans:
        return _plan_model(model, release, defer=defer, strict=strict)
    return replace(plans[-1], older=tuple(plans[:-1]))


def _plan_model(model: ModelSpec, release: str, *, defer: bool, strict: bool) -> ModelPlan:
    _require_real_samples(model)
    here = packages_here(model, release)
    export = replace(_export(model, release), packages=work_key(here) if here else None)
    targets = tuple(
        _plan_target(model, export, parse_target(text), release, defer=defer) for text in model.targets or ()
    )
    for plan in targets:
        if plan.missing and _needed(plan, model, targets, strict=strict):
            what, remedy = plan.missing
            if _cannot_be_written(model, plan.target):
                raise SpecError(f"{model.name}: {plan.target} cannot be built: {what}", remedy=remedy)
            raise MachineError(f"{model.name}: {plan.target} cannot be built on this machine: {what}", remedy=remedy)
    return ModelPlan(model, export, targets, here)


def _needed(plan: TargetPlan, model: ModelSpec, targets: tuple[TargetPlan, ...], *, strict: bool) -> bool:
    """A target that lacks only an optional library may be left out when another one can be served."""
    asked = strict or model.serve in ("all", str(plan.target))
    others = any(not other.missing and not other.deferred for other in targets)
    return asked or not others or backend_module(plan.target.backend).DEFERS


def _cannot_be_written(model: ModelSpec, target: Target) -> tuple[str, str] | None:
    """Why the source never becomes what the target is converted from, and the remedy; None where it may."""
    source = _format(model)
    reason = refuses_source(target.backend, source, source_module(source).FORMATS)
    return (reason, f"remove {target} from the targets") if reason else None


def _formats(model: ModelSpec) -> tuple[str, ...]:
    """What the targets need, as far as the source's format has it; ONNX first."""
    targets = [parse_target(text) for text in model.targets or ()]
    needed = {backend_module(target.backend).FORMAT for target in targets if not _cannot_be_written(model, target)}
    return tuple(word for word in FORMAT_FILES if word in needed)


def _plan_target(model: ModelSpec, export: Export, target: Target, release: str, *, defer: bool) -> TargetPlan:
    backend = backend_module(target.backend)
    options = backend_options(model, target.backend)
    bound = device_bound(target.backend)
    missing = _cannot_be_written(model, target) or backend.missing() or lacks_gpu(model, target.backend)
    if missing is None and bound is not None:
        missing = bound.mismatch(release, json.loads(options))
    deferred = defer and missing is not None and backend.DEFERS
    prepare = None
    if backend.FORMAT == "onnx":
        prepare = _prepare(model, export, backend.GRAPHS[target.precision], backend.DIALECT)
    packages = served_packages(model, release) if target.backend == "python" else None
    convert = Convert(
        export=work_key(export),
        prepare=work_key(prepare) if prepare else None,
        target=target,
        release=release,
        options=options if backend.OPTIONS_DECIDE else NO_OPTIONS,
        libraries=library_versions(backend.LIBRARIES),
        code=code_digest(),
        device=dict(bound.device_facts()) if bound else {},
        packages=work_key(packages) if packages else None,
    )
    measure = Measure(
        export=work_key(export),
        convert=work_key(convert),
        target=target,
        options=options,
        machine=machine_facts(),
        libraries=library_versions((*backend.LIBRARIES, *MEASURE_LIBRARIES)),
        code=code_digest(),
        packages=export.packages,
    )
    preflight = None
    if deferred and bound is not None and bound.can_preflight():
        libraries = library_versions(bound.PREFLIGHT_LIBRARIES)
        preflight = replace(convert, libraries=libraries, device={}, preflight=True)
    return TargetPlan(target, prepare, convert, measure, None if deferred else missing, deferred, preflight, packages)


def _prepare(model: ModelSpec, export: Export, precision: str, dialect: str) -> Prepare:
    """What of the spec decides the graph, and nothing else: targets that need the same graph share the work."""
    lower = precision != "fp32"
    return Prepare(
        export=work_key(export),
        precision=precision,
        dialect=dialect,
        optimize=model.optimize == "auto",
        quantization=_quantization(model) if precision == "int8" else None,
        search=_search(model, precision) if lower else None,
        opset=export.opset,
        ir_version=export.ir_version,
        machine=machine_facts(),
        libraries=library_versions(PREPARE_LIBRARIES),
        code=code_digest(),
    )


def _quantization(model: ModelSpec) -> Quantization:
    spec = model.quantization or QuantizationSpec()
    return Quantization(spec.mode, spec.calibrator, spec.per_channel)


def _search(model: ModelSpec, precision: str) -> Search:
    spec = model.accuracy or AccuracySpec()
    return Search(to_json(model_gates(model, precision)), spec.search_budget_s)


def model_gates(model: ModelSpec, precision: str) -> Gates:
    """The spec's gates for a target of that precision."""
    return gates_of(model.accuracy, precision, labelled=model.samples is not None and model.samples.labels is not None)


def _require_real_samples(model: ModelSpec) -> None:
    """Ranges measured on random numbers would make an int8 model that is wrong on real ones.

    Raises:
        SpecError: a target needs calibration, and the spec has no samples.
    """
    spec = model.quantization or QuantizationSpec()
    asked = [text for text in model.targets or () if parse_target(text).precision == "int8"]
    static = [text for text in asked if backend_module(parse_target(text).backend).DIALECT != "onnxruntime"]
    if static and spec.mode == "dynamic":
        raise SpecError(
            f"{model.name}: {', '.join(static)} takes static int8 only, not quantization: {{mode: dynamic}}",
            remedy="leave the mode out: onnxruntime gets dynamic int8 where that suits the model, the others static; "
            "or remove the target",
        )
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
        sequence=_sequence(model),
        ragged=_ragged(model),
        formats=_formats(model),
        io=model.io,
    )


def _sequence(model: ModelSpec) -> SequenceRef | None:
    """What the export must know; how the server schedules sequences is decided in the configuration."""
    if model.sequence is None:
        return None
    states = tuple(
        StateRef(state.input, state.output)
        if state.initial == ZERO
        else StateRef(state.input, state.output, state.initial, path_digest(Path(state.initial)))
        for state in model.sequence.states
    )
    return SequenceRef(states, tuple(sorted(model.sequence.controls.items())))


def _ragged(model: ModelSpec) -> RaggedRef | None:
    spec = model.ragged
    if spec is None:
        return None
    return RaggedRef(
        tuple(OutputShape(name, shape) for name, shape in sorted(spec.inputs.items())),
        tuple(FilledRef(name, KINDS[item.kind], item.of) for name, item in sorted(spec.filled.items())),
        tuple(sorted(spec.outputs.items())),
    )


def _format(model: ModelSpec) -> str:
    if model.source.format is None:
        msg = f"the spec of {model.name} was not completed"
        raise ValueError(msg)
    return model.source.format


def _source(model: ModelSpec) -> SourceRef:
    source = model.source
    root = source.import_root or Path.cwd()
    found = SourceRef(
        format=_format(model),
        path=str(source.path),
        digest=step_digest(source.path) if _format(model) == "python" else path_digest(source.path),
        model=source.model,
        args=json.dumps(source.args, sort_keys=True),
        import_root=str(root),
        allow_pickle=source.allow_pickle,
        signature=source.signature,
        function=source.function,
        files=tuple(
            FileRef(name, str(path), f"{path.name}:{path_digest(path)}") for name, path in sorted(source.files.items())
        ),
        requirements=source.package_list,
        shapes=tuple(OutputShape(name, shape) for name, shape in sorted(source.shapes.items())),
        environment=path_digest(source.environment) if source.environment else None,
    )
    _screen(model, found)
    if source.model:
        found = replace(found, digest=f"{found.digest}:{_callable(model, source.model, root)}")
    if source.allow_pickle:
        found = replace(found, digest=f"{found.digest}:{pickled_code_digest(source.path, root)}")
    return found


def _callable(model: ModelSpec, callable_: str, root: Path) -> str:
    try:
        return callable_digest(callable_, root)
    except SpecError as error:
        raise SpecError(f"{model.name}: source: {error.message}", remedy=error.remedy) from error


def _screen(model: ModelSpec, source: SourceRef) -> None:
    """Files whose code the spec does not allow to run are refused before any work."""
    try:
        source_module(source.format).screen(source)
    except SpecError as error:
        raise SpecError(f"{model.name}: {error.message}", remedy=error.remedy) from error


def _samples(model: ModelSpec) -> SamplesRef:
    # A tuned batch size is one more way to serve the same model, so it makes no other samples.
    said = model.batching if "batching" not in model.tuned.words else None
    batch = (said.max_batch_size if said else None) or defaults.MAX_BATCH_SIZE
    quantization = model.quantization or QuantizationSpec()
    static = quantization.mode != "dynamic" and any(
        parse_target(text).precision == "int8" for text in model.targets or ()
    )
    calibration = quantization.samples if static else 0
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
        sequence_id=model.samples.sequence_id,
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
