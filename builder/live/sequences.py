"""The live check of a model with states: whole sequences, one after the other and then from many clients at once.

The server keeps the states. Every step is compared with what the source answered when its own states were fed back, so
a state that is lost, or that another sequence gets, shows in the next step.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

from builder.compare import compare_outputs, merge_errors
from builder.findings import Finding
from builder.live.crowd import CLIENTS, FEW_CLIENTS, GATE_S, LEAST, MOST, SECONDS, SLOW_S
from builder.live.records import LiveCondition, LiveTask, Mode, Phase
from builder.live.wire import ensure_alive, request_finding, settled, shaped_like
from builder.measurement import OutputError
from builder.samples import Request, sequences_of
from builder.triton_client import REQUEST_TIMEOUT_S, Client, Protocol, RequestFailedError, SequenceStep, open_client

ID_LIMIT: Final = 1 << 31
"""Ids are drawn below this: nobody else's sequence on the same server should have one, and it fits every type."""


@dataclass(slots=True)
class _Seen:
    """What one client saw; only that client writes it."""

    protocol: Protocol
    measured: dict[int, list[tuple[OutputError, ...]]] = field(default_factory=dict)
    requests: int = 0
    failure: RequestFailedError | None = None


def check_sequences_alone(task: LiveTask, protocol: Protocol) -> Phase:
    """Every sequence over one protocol, one after the other."""
    seen = _Seen(protocol)
    with open_client(task.endpoint, protocol, version=task.subject.version) as client:
        for steps in sequences_of(task.subject.requests):
            if not _send(task, client, steps, _new_id(task, steps), seen):
                ensure_alive(task.endpoint)
                break
    if seen.failure is None:
        return Phase(_conditions([seen], "sequential"), (), (protocol,))
    finding = request_finding(seen.failure.message, seen.failure.remedy, task.model, task.subject.target)
    return Phase(_conditions([seen], "sequential"), (finding,))


def check_sequence_crowd(task: LiveTask, protocols: tuple[Protocol, ...], pace_s: float) -> Phase:
    """Many clients at once over all protocols, each in the middle of its own sequence.

    Raises:
        ServeError: the server died.
    """
    sequences = sequences_of(task.subject.requests)
    clients = FEW_CLIENTS if pace_s > SLOW_S else CLIENTS[0]
    if _corrid(task):
        # The answers may depend on the id, so each sequence keeps the one it was recorded with.
        clients = min(clients, len(sequences))
    gate = threading.Barrier(clients)
    timeout_s = max(REQUEST_TIMEOUT_S, 4 * clients * max(map(len, sequences)) * pace_s)
    with open_client(task.endpoint, protocols[-1], version=task.subject.version) as watcher:
        before = watcher.statistics(task.model)

        def run(number: int) -> _Seen:
            own = sequences[number::clients] if _corrid(task) else sequences[number:] + sequences[:number]
            return _run_client(task, own, protocols[number % len(protocols)], gate, timeout_s)

        with ThreadPoolExecutor(clients) as pool:
            seen = list(pool.map(run, range(clients)))
        if any(client.failure for client in seen):
            ensure_alive(task.endpoint)
        happened = settled(watcher, task.model, before, sum(client.requests for client in seen))
    failures = [client.failure for client in seen if client.failure is not None]
    findings: tuple[Finding, ...] = ()
    if failures:
        text = f"{len(failures)} of {clients} clients in a sequence were not answered; the first: {failures[0].message}"
        findings = (request_finding(text, failures[0].remedy, task.model, task.subject.target),)
    return Phase(_conditions(seen, "concurrent"), findings, protocols, happened)


def _run_client(
    task: LiveTask,
    sequences: Sequence[Sequence[Request]],
    protocol: Protocol,
    gate: threading.Barrier,
    timeout_s: float,
) -> _Seen:
    """Whole sequences until the time is over; at least a few of them."""
    seen, done = _Seen(protocol), 0
    with open_client(task.endpoint, protocol, timeout_s=timeout_s, version=task.subject.version) as client:
        gate.wait(GATE_S)
        deadline = time.perf_counter() + SECONDS
        for steps in cycle(sequences):
            over = seen.requests >= MOST or time.perf_counter() > deadline
            if (done >= LEAST and over) or not _send(task, client, steps, _new_id(task, steps), seen):
                break
            done += 1
    return seen


def _send(task: LiveTask, client: Client, steps: Sequence[Request], sequence_id: int | str, seen: _Seen) -> bool:
    """One sequence; False where a step was not answered, after which the next ones would mean nothing."""
    served = task.subject.served
    for place, request in enumerate(steps):
        step = SequenceStep(sequence_id, start=place == 0, end=place == len(steps) - 1)
        try:
            answer = client.infer(task.model, served, request.inputs, step)
        except RequestFailedError as error:
            seen.failure = error
            return False
        seen.requests += 1
        got = shaped_like(request.outputs, answer)
        errors = compare_outputs(served, [request.outputs], [got], scales=task.scales)
        seen.measured.setdefault(request.rows, []).append(errors)
    return True


def _new_id(task: LiveTask, steps: Sequence[Request]) -> int | str:
    dtype = _corrid(task)
    number = (steps[0].sequence or 0) + 1 if dtype else 1 + secrets.randbelow(ID_LIMIT - 1)
    # Both kinds of id are used, since clients send both.
    return str(number) if dtype == "string" or (not dtype and number % 2) else number


def _corrid(task: LiveTask) -> str:
    """The type of the input that takes the sequence's id; empty where the model has none."""
    subject = task.subject
    name = dict(subject.sequence.controls).get("corrid") if subject.sequence else None
    return next((tensor.dtype for tensor in subject.signature.inputs if tensor.name == name), "")


def _conditions(seen: Sequence[_Seen], mode: Mode) -> tuple[LiveCondition, ...]:
    gathered: dict[tuple[Protocol, int], list[tuple[OutputError, ...]]] = {}
    for client in seen:
        for rows, errors in client.measured.items():
            gathered.setdefault((client.protocol, rows), []).extend(errors)
    return tuple(
        LiveCondition(protocol, mode, rows, len(errors), merge_errors(errors))
        for (protocol, rows), errors in sorted(gathered.items())
    )
