"""Source → `model.onnx`, `export.json`, `reference.npz`: after this the source's framework is never needed again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from builder.errors import BuildError, BuildRepoError, SpecError
from builder.measurement import EXPORT_FILE, ONNX_FILE, REFERENCE_FILE, BatchProof, ExportReport
from builder.onnx_tools.first_difference import first_difference
from builder.onnx_tools.reading import opset_of, read_onnx, short
from builder.records import write_record
from builder.samples import Request, save_requests
from builder.samples.batch_probe import NO_BATCH_AXIS, ROWS_CHANGE, Probe, probe_batches, row_difference, take_rows
from builder.samples.batch_proof import batch_rows, cut
from builder.samples.file import read_samples
from builder.samples.making import batch_axes, find_recipe
from builder.samples.observed import fix_declared, fix_first_axis, observe_signature
from builder.samples.requests import FileSamples, RandomSamples, cropped
from builder.sources import LoadedSource, source_module
from builder.tensors import Signature, Tensor
from builder.work import Export, SamplesRef

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]
    Arrays = Mapping[str, Array]

CODE_RAN: Final = "allow_pickle: the file's own code ran"
SAME_ANSWER: Final = 1e-5
"""Largest relative difference between two answers to one request: threads may add in another order."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """Everything learned by running the source; `extras` are answers that are seen but not kept as samples."""

    signature: Signature
    requests: tuple[Request, ...]
    extras: tuple[Request, ...]
    batch: BatchProof
    notes: tuple[str, ...]
    samples: str


def run_export(work: Export, out: Path, *, isolated: bool = False) -> None:
    """Write the export of one source into `out`; `isolated` says that this process has no network.

    Raises:
        SpecError: the spec, the samples or the model's file do not fit together.
        BuildError: the framework could not export or run the model.
    """
    source = source_module(work.source.format).load(work.source, work.inputs, work.outputs)
    reference = _learn(source, work.samples)
    path = out / ONNX_FILE
    route, notes = source.to_onnx(
        path,
        signature=reference.signature,
        requests=(*reference.requests, *reference.extras),
        opset=work.opset,
        ir_version=work.ir_version,
    )
    warnings = _check_onnx(path, route)
    model = read_onnx(path)
    save_requests(out / REFERENCE_FILE, reference.signature, reference.requests)
    report = ExportReport(
        signature=reference.signature,
        route=route,
        opset=opset_of(model),
        ir_version=model.ir_version,
        batch=_with_node(reference.batch, path, reference.requests),
        samples=reference.samples,
        notes=(*_code_notes(work, isolated=isolated), *notes, *warnings, *reference.notes),
        parameters=source.parameters,
    )
    write_record(out / EXPORT_FILE, report)


def _code_notes(work: Export, *, isolated: bool) -> tuple[str, ...]:
    """The opt-in is said again where the file's code could reach the network."""
    if not work.source.allow_pickle:
        return ()
    reach = "without network" if isolated else "WITH the network: this host or --jobs 0 does not isolate it"
    return (f"{CODE_RAN} when it was opened, {reach}",)


def _check_onnx(path: Path, route: str) -> tuple[str, ...]:
    """onnx.checker's verdict: an error for what we made, a note for a user's file that onnxruntime has already run."""
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except Exception as error:
        if route != "copy":
            raise BuildError(f"onnx.checker refuses the exported model: {short(error)}") from error
        return (f"onnx.checker objects, onnxruntime does not: {short(error)}",)
    return ()


def _with_node(proof: BatchProof, path: Path, requests: Sequence[Request]) -> BatchProof:
    """Where rows change with their batch, the first ONNX node at which they do."""
    rows = batch_rows(requests, 2) if proof.reason.startswith(ROWS_CHANGE) else None
    if rows is None:
        return proof
    try:
        return replace(
            proof, node=first_difference(path, cut(rows, range(2)), [cut(rows, [place]) for place in range(2)])
        )
    except BuildError:
        return proof


def _learn(source: LoadedSource, ref: SamplesRef) -> _Reference:
    """Find samples and batch sizes that the source accepts, and keep its answers."""
    samples = _samples(source, ref)
    inputs = source.inputs
    declared = dict(source.declared_shapes)
    probe = None
    if batch_axes(inputs):
        probe = probe_batches(source.run, samples.pool(), ref.max_batch_size, partial(_output_name, source))
        if probe.fixed is not None:
            declared = fix_declared(declared, batch_axes(inputs), probe.fixed)
            inputs = fix_first_axis(inputs, probe.fixed)
            samples = samples.fixed(inputs, probe.fixed)
    sizes = probe.sizes if probe is not None and probe.fixed is None else ()
    pieces = samples.requests(sizes)
    requests = tuple(_answered(source, arrays, labels) for arrays, labels in pieces)
    _check_steady(source, requests)
    extras = _extras(source, inputs, samples, probe)
    signature = observe_signature(inputs, (*requests, *extras), declared)
    rows = tuple(replace(request, rows=_rows(request, signature)) for request in requests)
    proof = _proof(probe, signature)
    return _Reference(signature, rows, extras, proof, samples.notes, samples.origin)


def _output_name(source: LoadedSource, place: int) -> str:
    """How reasons speak of an output."""
    names = source.output_names
    return f"output {names[place]!r}" if names else f"output {place}"


def _samples(source: LoadedSource, ref: SamplesRef) -> RandomSamples | FileSamples:
    if ref.path is None:
        return RandomSamples(find_recipe(source.run, source.inputs, ref.seed), ref.max_batch_size)
    path = Path(ref.path)
    return FileSamples(path.name, source.inputs, read_samples(path, ref.labels, source.inputs))


def _proof(probe: Probe | None, signature: Signature) -> BatchProof:
    if probe is None:
        return BatchProof(proven=False, reason=NO_BATCH_AXIS)
    if probe.proof.proven and not signature.has_batch_axis:
        return replace(probe.proof, proven=False, reason=NO_BATCH_AXIS)
    return probe.proof


def _rows(request: Request, signature: Signature) -> int:
    return int(request.inputs[signature.inputs[0].name].shape[0]) if signature.has_batch_axis else 0


def _answered(source: LoadedSource, arrays: Arrays, labels: Array | None) -> Request:
    """The request with the source's own answer.

    Raises:
        SpecError: the source refuses it; its own words.
    """
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    try:
        outputs = source.run(arrays)
    except BuildRepoError:
        raise
    except Exception as error:
        raise SpecError(
            f"the model refuses the sample inputs ({shapes}): {short(error)}",
            remedy="give samples that the model accepts, or correct inputs:",
        ) from error
    names = source.output_names or tuple(f"output_{place}" for place in range(len(outputs)))
    if len(names) != len(outputs):
        raise BuildError(f"the model returned {len(outputs)} outputs on inputs {shapes}, {len(names)} before")
    return Request(dict(arrays), dict(zip(names, outputs, strict=True)), labels=labels)


def _check_steady(source: LoadedSource, requests: Sequence[Request]) -> None:
    """Ask the first request again, twice in a row.

    Raises:
        SpecError: the answer changed: the model keeps state between calls or draws random numbers.
    """
    first = requests[0]
    for _ in range(2):
        again = source.run(first.inputs)
        for (name, before), after in zip(first.outputs.items(), again, strict=True):
            if before.shape != after.shape or row_difference(before, after) > SAME_ANSWER:
                raise SpecError(
                    f"the model answers the same request differently (output {name!r}): it keeps state between "
                    "calls or draws random numbers, so a served copy cannot be checked and would mix its clients",
                    remedy="make the state an input and an output of the model, or remove the randomness",
                )


def _extras(
    source: LoadedSource,
    inputs: tuple[Tensor, ...],
    samples: RandomSamples | FileSamples,
    probe: Probe | None,
) -> tuple[Request, ...]:
    """More answers to the user's samples, so that every dynamic axis is seen with two sizes where the source allows."""
    if isinstance(samples, RandomSamples):
        return ()
    sizes: tuple[int, ...] = ()
    extras = []
    if probe is not None and probe.fixed is None:
        sizes = probe.sizes
        names = source.output_names or ()
        for size, outputs in probe.answers.items():
            extras.append(Request(take_rows(samples.pool(), 0, size), dict(zip(names, outputs, strict=True))))
    base, _ = samples.requests(sizes)[0]
    return (*extras, *cropped(lambda arrays: _answered(source, arrays, None), inputs, base))
