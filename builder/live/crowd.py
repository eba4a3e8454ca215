"""Many clients at once: the batcher merges requests of different users, and each must still get its own answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from builder.compare import compare_outputs, merge_errors
from builder.findings import Finding
from builder.live.records import LiveCondition, LiveSubject, LiveTask, Phase, Served
from builder.live.wire import as_sent, ensure_alive, request_finding, served_batching, settled, shaped_like
from builder.measurement import OutputError
from builder.samples.recut import Job, cut_jobs, row_pools, whole_jobs
from builder.samples.strings import array_bytes
from builder.triton_client import (
    REQUEST_TIMEOUT_S,
    Protocol,
    RequestFailedError,
    Statistics,
    open_client,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

CLIENTS: Final = (8, 16, 32)
"""Clients at once; the next number only while the batcher has not merged anything."""
SECONDS: Final = 0.4
"""How long the clients send; each sends at least `LEAST` requests (a slow model: one) and at most `MOST`."""
LEAST: Final = 2
MOST: Final = 60
SLOW_S: Final = 1.0
"""A model slower than this is asked by fewer clients, once."""
FEW_CLIENTS: Final = 3
IN_FLIGHT_BYTES: Final = 256 << 20
"""Inputs under way at once: a crowd of large requests must not fill the machine's shared memory."""
GATE_S: Final = 30.0
KEPT_BYTES: Final = 8 << 20
"""Answers a client keeps before comparing them: comparing at once would take the pressure off the batcher."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """What every client of the crowd needs to know."""

    task: LiveTask
    served: Served
    limit: int | None
    timeout_s: float
    least: int


@dataclass(slots=True)
class _Findings:
    """What one client saw; only that client writes it."""

    protocol: Protocol
    measured: dict[int, list[tuple[OutputError, ...]]] = field(default_factory=dict)
    waiting: list[tuple[Job, Arrays]] = field(default_factory=list)
    waiting_bytes: int = 0
    requests: int = 0
    failure: RequestFailedError | None = None


def check_crowd(task: LiveTask, protocols: tuple[Protocol, ...], pace_s: float) -> Phase:
    """Send from many clients over all protocols at once; `pace_s` is what one request takes alone.

    Raises:
        ServeError: the server died.
    """
    model, target = task.model, task.subject.target
    seen: list[_Findings] = []
    happened = Statistics()
    with open_client(task.endpoint, protocols[-1], version=task.subject.version) as watcher:
        served = served_batching(watcher, model)
        plan = _plan(task, served, pace_s)
        before = watcher.statistics(model)
        for clients in _crowd_sizes(task.subject, served, pace_s):
            seen += _run_clients(plan, protocols, clients)
            if any(client.failure for client in seen):
                ensure_alive(task.endpoint)
                break
            happened = settled(watcher, model, before, sum(client.requests for client in seen))
            if happened.executions < happened.requests:
                break
    findings = _request_findings(seen, model, target)
    if served.batches and not findings and happened.executions >= happened.requests:
        findings = (_no_merge(happened, model, target),)
    return Phase(_conditions(seen), findings, protocols, happened)


def _plan(task: LiveTask, served: Served, pace_s: float) -> _Plan:
    subject = task.subject
    limit = None
    if subject.batch_proven and all(request.rows for request in subject.requests):
        largest = max(request.rows for request in subject.requests)
        limit = min(largest, max(1, served.max_batch_size // 2)) if served.max_batch_size else largest
        subject = replace(subject, requests=row_pools(subject.requests))
    timeout_s = max(REQUEST_TIMEOUT_S, 4 * CLIENTS[0] * pace_s)
    return _Plan(replace(task, subject=subject), served, limit, timeout_s, 1 if pace_s > SLOW_S else LEAST)


def _crowd_sizes(subject: LiveSubject, served: Served, pace_s: float) -> tuple[int, ...]:
    if pace_s > SLOW_S:
        return (FEW_CLIENTS,)
    largest = max(sum(map(array_bytes, request.inputs.values())) for request in subject.requests)
    room = max(FEW_CLIENTS, IN_FLIGHT_BYTES // max(1, largest))
    return tuple(dict.fromkeys(min(clients, room) for clients in (CLIENTS if served.batches else CLIENTS[:1])))


def _run_clients(plan: _Plan, protocols: tuple[Protocol, ...], clients: int) -> list[_Findings]:
    """All clients start together; their answers are compared in their own threads."""
    gate = threading.Barrier(clients)
    with ThreadPoolExecutor(clients) as pool:
        running = [
            pool.submit(_run_client, plan, protocols[number % len(protocols)], number, gate)
            for number in range(clients)
        ]
        return [client.result() for client in running]


def _run_client(plan: _Plan, protocol: Protocol, number: int, gate: threading.Barrier) -> _Findings:
    seen = _Findings(protocol)
    signature = plan.task.subject.signature
    with open_client(
        plan.task.endpoint, protocol, timeout_s=plan.timeout_s, version=plan.task.subject.version
    ) as client:
        jobs = _jobs(plan, number)
        gate.wait(GATE_S)
        deadline = time.perf_counter() + SECONDS
        while seen.requests < MOST and (seen.requests < plan.least or time.perf_counter() < deadline):
            job = next(jobs)
            try:
                answer = client.infer(plan.task.model, signature, as_sent(job.inputs(), plan.served))
            except RequestFailedError as error:
                seen.failure = error
                break
            seen.requests += 1
            seen.waiting.append((job, answer))
            seen.waiting_bytes += sum(array.nbytes for array in answer.values())
            if seen.waiting_bytes > KEPT_BYTES:
                _compare_waiting(seen, plan)
    _compare_waiting(seen, plan)
    return seen


def _jobs(plan: _Plan, number: int) -> Iterator[Job]:
    if plan.limit is None:
        return whole_jobs(plan.task.subject.requests, number)
    return cut_jobs(plan.task.subject.requests, plan.limit, number)


def _compare_waiting(seen: _Findings, plan: _Plan) -> None:
    for job, answer in seen.waiting:
        source = job.outputs()
        got = shaped_like(source, answer, plan.served)
        errors = compare_outputs(plan.task.subject.signature, [source], [got], scales=plan.task.scales)
        seen.measured.setdefault(job.rows, []).append(errors)
    seen.waiting.clear()
    seen.waiting_bytes = 0


def _conditions(seen: list[_Findings]) -> tuple[LiveCondition, ...]:
    gathered: dict[tuple[Protocol, int], list[tuple[OutputError, ...]]] = {}
    for client in seen:
        for rows, errors in client.measured.items():
            gathered.setdefault((client.protocol, rows), []).extend(errors)
    return tuple(
        LiveCondition(protocol, "concurrent", rows, len(errors), merge_errors(errors))
        for (protocol, rows), errors in sorted(gathered.items())
    )


def _request_findings(seen: list[_Findings], model: str, target: str | None) -> tuple[Finding, ...]:
    failures = [client.failure for client in seen if client.failure is not None]
    if not failures:
        return ()
    text = f"{len(failures)} of {len(seen)} clients sending at once were not answered; the first: {failures[0].message}"
    return (request_finding(text, failures[0].remedy, model, target),)


def _no_merge(happened: Statistics, model: str, target: str | None) -> Finding:
    text = (
        f"the config asks for dynamic batching, but {happened.requests} requests of up to {CLIENTS[-1]} clients "
        f"took {happened.executions} runs of the model: no two requests were merged"
    )
    remedy = "the model may be faster than requests arrive; batching: {max_queue_delay_us: 500} lets the server wait"
    return Finding("warning", "live.no_merge", text, remedy=remedy, model=model, target=target)
