"""One step of an ensemble answered by its member's source, in its own framework.

The end-to-end reference must not come from what was converted: each step's source is run on what the sources of the
steps before it answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from builder.backends import Settings, backend_module
from builder.cache import Cache
from builder.ensembles.flat import flat_steps
from builder.ensembles.requests import REMEDY, fixed_rows, members_inputs, own_inputs
from builder.ensembles.wiring import WiredStep, Wiring, wire_all
from builder.errors import BuildError, BuildRepoError, SpecError
from builder.half_ports import open_source
from builder.manifest import SAMPLES_FILE
from builder.measurement import (
    ENSEMBLE_FILE,
    EXPORT_FILE,
    REFERENCE_FILE,
    TENSORS_FILE,
    EnsembleReport,
    ExportReport,
    served_signature,
)
from builder.onnx_tools.reading import short
from builder.records import read_record, write_record
from builder.samples import Request, load_requests, save_requests
from builder.tensors import Signature, Tensor
from builder.work import Answer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]
    Run = Callable[[Arrays], Arrays]


def run_answer(work: Answer, cache: Cache, out: Path) -> None:
    """Write what this step's source answers; the last step writes the ensemble's reference too.

    Raises:
        SpecError: samples do not fit, or a member refuses what the steps before it gave.
        BuildError: a member cannot be run.
    """
    signatures = _signatures(work, cache)
    wiring, steps = _wired(work, signatures)
    inputs, origin = _inputs(work, wiring, steps, cache, fixed_rows(steps, signatures))
    tensors = [dict(arrays) for arrays in inputs]
    for place, key in enumerate(work.before):
        _add(tensors, _given(steps[place], signatures), cache.folder("answer", key) / TENSORS_FILE)
    step = steps[len(work.before)]
    run = _source(work, signatures[step.member]) if work.export else _stored(work, step.member)
    answers = [_asked(run, step, arrays) for arrays in tensors]
    given = _given(step, signatures)
    save_requests(out / TENSORS_FILE, Signature((), given), [Request({}, answer) for answer in answers])
    if len(work.before) + 1 == len(steps):
        whole = [{**arrays, **answer} for arrays, answer in zip(tensors, answers, strict=True)]
        _write_reference(out, wiring.signature, whole, origin)


def _signatures(work: Answer, cache: Cache) -> dict[str, Signature]:
    found = {item.member: item.signature for item in work.stored}
    for name, key in work.exports:
        report = read_record(ExportReport, cache.folder("export", key) / EXPORT_FILE)
        found[name] = served_signature(report.signature, report.sequence)
    return found


def _wired(work: Answer, signatures: Mapping[str, Signature]) -> tuple[Wiring, tuple[WiredStep, ...]]:
    wirings, problems = wire_all(work.ensembles, signatures)
    name = work.ensembles[0].name
    if problems:
        raise SpecError("; ".join(problem.message for found in problems.values() for problem in found))
    return wirings[name], flat_steps(name, wirings)


def _inputs(
    work: Answer, wiring: Wiring, steps: Sequence[WiredStep], cache: Cache, rows: int | None
) -> tuple[Sequence[Arrays], str]:
    """Every request's inputs, and where they came from."""
    if work.samples is not None:
        arrays = own_inputs(work.samples, wiring.signature, work.max_rows)
        return arrays, f"{Path(work.samples.path or '').name}, {len(arrays)} requests"
    names = {tensor.name for tensor in wiring.signature.inputs}
    first = dict.fromkeys(step.member for step in steps if any(name in names for _, name in step.inputs))
    requests = {member: _samples_of(work, member, cache) for member in first}
    return members_inputs(wiring.signature, steps, requests, work.max_rows, rows), f"samples of {', '.join(first)}"


def _samples_of(work: Answer, member: str, cache: Cache) -> tuple[Request, ...]:
    key = dict(work.exports).get(member)
    if key is not None:
        folder = cache.folder("export", key)
        return load_requests(folder / REFERENCE_FILE, read_record(ExportReport, folder / EXPORT_FILE).signature)
    item = next(item for item in work.stored if item.member == member)
    return load_requests(Path(item.path).parent / SAMPLES_FILE, item.signature)


def _given(step: WiredStep, signatures: Mapping[str, Signature]) -> tuple[Tensor, ...]:
    """What a step gives, by the ensemble's names."""
    ports = {tensor.name: tensor for tensor in signatures[step.member].outputs}
    return tuple(Tensor(name, ports[port].dtype, ports[port].shape) for port, name in step.outputs)


def _add(tensors: Sequence[dict[str, NDArray[np.generic]]], given: tuple[Tensor, ...], path: Path) -> None:
    for arrays, request in zip(tensors, load_requests(path, Signature((), given)), strict=True):
        arrays.update(request.outputs)


def _source(work: Answer, signature: Signature) -> Run:
    """The member in its own framework."""
    export = work.export
    if export is None:
        msg = f"{work.member} has no source here"
        raise ValueError(msg)
    source = open_source(export)
    names = [tensor.name for tensor in signature.outputs]
    return lambda inputs: dict(zip(names, source.run(inputs), strict=True))


def _stored(work: Answer, member: str) -> Run:
    """The artefact of an earlier build, in its own library."""
    item = next(item for item in work.stored if item.member == member)
    settings = Settings(item.target.precision, json.loads(item.options))
    return backend_module(item.target.backend).open_session(Path(item.path), item.signature, settings).run


def _asked(run: Run, step: WiredStep, tensors: Arrays) -> dict[str, NDArray[np.generic]]:
    inputs = {port: tensors[name] for port, name in step.inputs}
    try:
        answer = run(inputs)
    except BuildRepoError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise BuildError(
            f"{step.member} refuses what the steps before it give ({shapes}): {short(error)}",
            remedy=f"correct the wiring, or {REMEDY}",
        ) from error
    return {name: answer[port] for port, name in step.outputs}


def _write_reference(out: Path, signature: Signature, tensors: Sequence[Arrays], origin: str) -> None:
    requests = [
        Request(
            {tensor.name: arrays[tensor.name] for tensor in signature.inputs},
            {tensor.name: arrays[tensor.name] for tensor in signature.outputs},
            rows=len(arrays[signature.inputs[0].name]) if signature.has_batch_axis else 0,
        )
        for arrays in tensors
    ]
    save_requests(out / REFERENCE_FILE, signature, requests)
    rows = sum(max(1, request.rows) for request in requests)
    write_record(out / ENSEMBLE_FILE, EnsembleReport(signature, origin, rows))
