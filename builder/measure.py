"""One artefact on the samples, in its own library: errors, task metric, batch proof, latency, size and memory.

Numbers only. What they mean is decided from `measurement.json` later, so a changed tolerance never measures again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from builder.backends import Session, Settings, backend_module
from builder.compare import compare_outputs, merge_errors, output_scales
from builder.errors import BuildError
from builder.measurement import (
    CONVERT_FILE,
    EXPORT_FILE,
    MEASUREMENT_FILE,
    ONNX_FILE,
    REFERENCE_FILE,
    BatchProof,
    ExportReport,
    Latency,
    Measurement,
    OutputError,
    TaskMetric,
)
from builder.onnx_tools.first_difference import first_difference
from builder.records import read_record, write_record
from builder.samples import Request, load_requests
from builder.samples.batch_proof import HALF_TOLERANCE, TOLERANCE, batch_rows, cut, prove_batch
from builder.samples.recut import rows_alone
from builder.task_metrics import task_metric
from builder.tensors import Signature
from builder.work import Measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

METRIC: Final = "top1"
WARM_UP_RUNS: Final = 3
TIMED_RUNS: Final = 30
TIMED_SECONDS: Final = 1.5
MIN_TIMED_RUNS: Final = 3
"""Also of a model so slow that one run takes longer than the time allowed."""
ANSWER_BYTES: Final = 64 << 20
"""Answers held at a time before they are compared and let go."""


def run_measure(work: Measure, export: Path, convert: Path, out: Path) -> None:
    """Write `measurement.json` for the artefact in `convert`, judged by the reference of `export`.

    Raises:
        BuildError: the library does not load the artefact or does not run a sample.
    """
    report = read_record(ExportReport, export / EXPORT_FILE)
    requests = load_requests(export / REFERENCE_FILE, report.signature)
    settings = Settings(work.target.precision, json.loads(work.options))
    session = backend_module(work.target.backend).open_session(convert, report.signature, settings)
    try:
        measurement = _measure(work, session, report, requests)
    finally:
        session.close()
    if report.batch.proven and not measurement.batch.proven:
        batch = _explained(measurement.batch, export / ONNX_FILE, requests)
        measurement = replace(measurement, batch=batch)
    write_record(out / MEASUREMENT_FILE, replace(measurement, size_bytes=artefact_bytes(convert)))


def _measure(work: Measure, session: Session, report: ExportReport, requests: Sequence[Request]) -> Measurement:
    """`size_bytes` is left to the caller."""
    run = _runner(session, str(work.target))
    outputs, metric = accuracy_of(run, report.signature, requests)
    batch = _batch(session, work.target.precision, report, requests)
    if report.batch.proven and not batch.proven and not batch.refused:
        # What a row is answered depends on the rows beside it: right in the samples' batches is not right alone.
        outputs = merge_errors([outputs, *errors_alone(run, report.signature, requests)])
    latency = tuple(_latencies(run, batch, requests))
    peak = peak_memory_bytes()  # before anything is opened once more to look into it
    return Measurement(
        outputs=outputs,
        batch=batch,
        latency=latency,
        size_bytes=0,
        peak_memory_bytes=peak,
        compute=session.compute,
        metric=metric,
        notes=tuple(_notes(session.compute, report, requests)),
        precision=session.precision_proof(),
    )


def _runner(session: Session, target: str) -> Callable[[Arrays], Arrays]:
    def run(inputs: Arrays) -> Arrays:
        try:
            return session.run(inputs)
        except Exception as error:
            said = " ".join(str(error).split())[:500] or type(error).__name__
            shapes = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())
            raise BuildError(
                f"{target} does not run a sample that the source runs ({shapes}): {said}",
                remedy=f"remove {target} from the targets, or give samples of the sizes that will be served",
            ) from error

    return run


def accuracy_of(
    run: Callable[[Arrays], Arrays],
    signature: Signature,
    requests: Sequence[Request],
    scales: Mapping[str, float] | None = None,
) -> tuple[tuple[OutputError, ...], TaskMetric | None]:
    """Every request's answer against the source's, and the task metric where the requests are labelled.

    Errors are relative to `scales`, those of the requests themselves when left out.
    """
    scales = output_scales(signature, [request.outputs for request in requests]) if scales is None else scales
    labelled = bool(requests) and all(request.labels is not None for request in requests)
    kept: list[Arrays] = []
    parts: list[tuple[OutputError, ...]] = []
    for group in _groups(requests):
        answers = [run(request.inputs) for request in group]
        expected = [request.outputs for request in group]
        parts.append(compare_outputs(signature, expected, answers, scales=scales, counted=True))
        if labelled:
            kept += answers
    # An answer of the wrong form is reported by the comparison; a metric on it would mean nothing.
    sound = labelled and not any(error.problem for part in parts for error in part)
    return merge_errors(parts), task_metric(METRIC, signature, requests, kept) if sound else None


def errors_alone(
    run: Callable[[Arrays], Arrays], signature: Signature, requests: Sequence[Request]
) -> Iterator[tuple[OutputError, ...]]:
    """Of the requests' rows, each as a request of its own; nothing where no request has several."""
    alone = rows_alone(requests)
    if alone:
        scales = output_scales(signature, [request.outputs for request in requests])
        yield accuracy_of(run, signature, alone, scales)[0]


def _groups(requests: Sequence[Request]) -> Iterator[list[Request]]:
    group: list[Request] = []
    held = 0
    for request in requests:
        group.append(request)
        held += sum(array.nbytes for array in request.outputs.values())
        if held >= ANSWER_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group


def _batch(session: Session, precision: str, report: ExportReport, requests: Sequence[Request]) -> BatchProof:
    if report.ragged is not None:
        return report.batch  # requests that share a run are among those whose answers are compared
    if not report.batch.proven or not report.signature.has_batch_axis:
        return replace(report.batch, proven=False)
    sizes = report.batch.sizes or (1,)
    rows = batch_rows(requests, max(sizes))
    if rows is None:
        return BatchProof(proven=False, reason="the samples hold no rows to make batches of")
    exact = precision in ("fp32", "native") and session.compute.startswith(("fp32", "Python"))
    tolerance = TOLERANCE if exact else HALF_TOLERANCE
    return prove_batch(session.run, report.signature, rows, sizes, tolerance=tolerance)


def _explained(batch: BatchProof, onnx_path: Path, requests: Sequence[Request]) -> BatchProof:
    """Name the node where a batch and its rows part, or say that the ONNX model is not at fault; where there is one."""
    if not onnx_path.is_file():
        return batch
    try:
        nodes = (_first_difference(onnx_path, requests, count) for count in (2, max(batch.sizes)))
        node = next((node for node in nodes if node), None)
    except BuildError:
        return batch
    if node is None and not batch.refused:
        reason = f"{batch.reason}; the ONNX model keeps its rows apart, so it is this target's compilation"
        return replace(batch, reason=reason)
    return replace(batch, node=node)


def _first_difference(onnx_path: Path, requests: Sequence[Request], count: int) -> str | None:
    rows = batch_rows(requests, count)
    if rows is None:
        return None
    return first_difference(onnx_path, cut(rows, range(count)), [cut(rows, [index]) for index in range(count)])


def _latencies(run: Callable[[Arrays], Arrays], batch: BatchProof, requests: Sequence[Request]) -> Iterator[Latency]:
    """At batch 1 and at the largest proven one; 0 stands for the first request as it is."""
    if not requests:
        return
    rows = batch_rows(requests, max(batch.sizes)) if batch.proven and batch.sizes else None
    if rows is None:
        yield _latency(run, 0, requests[0].inputs)
        return
    for size in sorted({1, max(batch.sizes)}):
        yield _latency(run, size, cut(rows, range(size)))


def _latency(run: Callable[[Arrays], Arrays], size: int, inputs: Arrays) -> Latency:
    start = time.perf_counter()
    for _ in range(WARM_UP_RUNS):
        run(inputs)
        if time.perf_counter() - start > TIMED_SECONDS:
            break
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < MIN_TIMED_RUNS or (len(times) < TIMED_RUNS and time.perf_counter() - start < TIMED_SECONDS):
        before = time.perf_counter()
        run(inputs)
        times.append(1e3 * (time.perf_counter() - before))
    times.sort()
    return Latency(size, _quantile(times, 0.5), _quantile(times, 0.9), len(times), _quantile(times, 0.0))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 4)


def _notes(compute: str, report: ExportReport, requests: Sequence[Request]) -> Iterator[str]:
    if compute.startswith("bf16"):
        yield (
            "OpenVINO computes in bfloat16 on this CPU by default, as Triton's backend will: the errors above hold that"
        )
    if report.batch.proven and sum(request.rows for request in requests) == 1:
        yield "the samples hold one row; its mirror image was the second row of the batch proof"


def artefact_bytes(folder: Path) -> int:
    """The size of the artefact's files, without the record that lies beside them."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name != CONVERT_FILE)


def peak_memory_bytes() -> int:
    """This process's largest resident size.

    `ru_maxrss` would not do: a child inherits it from the parent that started it.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
