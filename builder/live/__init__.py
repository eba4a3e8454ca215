"""The live check: a served model's answers against the source's, over HTTP and gRPC, alone and in a crowd."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Final

from builder.compare import Gates, accuracy_findings, compare_outputs, merge_errors, output_scales
from builder.errors import ServeError
from builder.findings import Finding
from builder.live.crowd import check_crowd
from builder.live.records import LiveCondition, LiveResult, LiveSubject, LiveTask, Phase, Served
from builder.live.sequences import check_sequence_crowd, check_sequences_alone
from builder.live.shared_memory import check_shared_memory
from builder.live.wire import as_sent, ensure_alive, request_finding, served_batching, shaped_like
from builder.measurement import OutputError
from builder.samples import Request
from builder.samples.recut import joined, split_rows
from builder.samples.strings import array_bytes
from builder.servers import Endpoint
from builder.tensors import Signature, Tensor
from builder.triton_client import PROTOCOLS, SPELLED, Client, Protocol, RequestFailedError, offered, open_client

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

__all__ = ["LiveCondition", "LiveResult", "LiveSubject", "check_live"]

HTTP_BODY_LIMIT: Final = 64 << 20
"""What servers from 25.06 take over HTTP unless --http-max-input-size is raised."""


def check_live(endpoint: Endpoint, subject: LiveSubject, gates: Gates, *, model: str) -> LiveResult:
    """Send every sample over each protocol, one by one and then from many clients at once, and judge the answers.

    A model with states is sent its sequences, step by step.

    Raises:
        ServeError: the server offers no protocol, or died.
    """
    protocols = offered(endpoint)
    if not protocols:
        msg = f"model '{model}' cannot be checked: the server offers neither HTTP nor gRPC"
        raise ServeError(msg, remedy="give --url http://HOST:PORT or --url grpc://HOST:PORT")
    started = time.perf_counter()
    scales = output_scales(subject.served, [request.outputs for request in subject.requests])
    task = LiveTask(endpoint, subject, model, scales)
    alone = _merged(_check_alone(task, protocol) for protocol in protocols)
    pace_s = (time.perf_counter() - started) / max(1, sum(condition.requests for condition in alone.conditions))
    crowd = Phase()
    if alone.complete and subject.requests:
        crowd = (check_sequence_crowd if subject.sequence else check_crowd)(task, alone.complete, pace_s)
    shared, why_not = _check_shared(task, alone.complete)
    conditions = alone.conditions + shared.conditions + crowd.conditions
    findings = alone.findings + shared.findings + crowd.findings + _verdict(conditions, gates, model, subject)
    return LiveResult(
        model=model,
        target=subject.target,
        protocols=alone.complete,
        skipped=(*_skipped(protocols, subject), *((f"shared memory: not checked, {why_not}",) if why_not else ())),
        conditions=conditions,
        requests=crowd.statistics.requests,
        inferences=crowd.statistics.inferences,
        executions=crowd.statistics.executions,
        batches=crowd.statistics.batches,
        findings=tuple(dict.fromkeys(findings)),
        seconds=time.perf_counter() - started,
    )


def _check_shared(task: LiveTask, complete: tuple[Protocol, ...]) -> tuple[Phase, str]:
    """The same memory whatever the protocol, so one of them is enough; a text where there is nothing to compare."""
    if task.subject.sequence is not None:
        return Phase(), "a model with states is checked in sequences"
    if not complete or not task.subject.requests:
        return Phase(), "there is nothing to compare with"
    return check_shared_memory(task, complete[-1])


def _skipped(protocols: tuple[Protocol, ...], subject: LiveSubject) -> tuple[str, ...]:
    absent = [name for name in PROTOCOLS if name not in protocols]
    missing = [f"{SPELLED[name]}: not checked, the server has no address for it" for name in absent]
    if not subject.requests:
        missing.append("answers: not checked, there are no samples")
    return tuple(missing)


def _merged(phases: Iterable[Phase]) -> Phase:
    parts = list(phases)
    return Phase(
        conditions=tuple(chain.from_iterable(part.conditions for part in parts)),
        findings=tuple(chain.from_iterable(part.findings for part in parts)),
        complete=tuple(chain.from_iterable(part.complete for part in parts)),
    )


def _check_alone(task: LiveTask, protocol: Protocol) -> Phase:
    """One protocol, one request after the other."""
    if task.subject.sequence is not None:
        return _check_steps_alone(task, protocol)
    subject, model = task.subject, task.model
    measured: dict[int, list[tuple[OutputError, ...]]] = {}
    findings: list[Finding] = []
    answered = 0
    with open_client(task.endpoint, protocol, version=task.subject.version) as client:
        try:
            findings += _metadata_findings(client, subject, model)
            served = served_batching(client, model)
            for request in subject.requests:
                answer, notes = _answer(client, model, subject, request, served)
                findings += notes
                if answer is not None:
                    errors = compare_outputs(subject.signature, [request.outputs], [answer], scales=task.scales)
                    measured.setdefault(request.rows, []).append(errors)
                    answered += 1
        except RequestFailedError as error:
            ensure_alive(task.endpoint)
            findings.append(request_finding(error.message, error.remedy, model, subject.target))
            answered = -1
    conditions = (
        LiveCondition(protocol, "sequential", rows, len(errors), merge_errors(errors))
        for rows, errors in measured.items()
    )
    complete = answered == len(subject.requests)
    return Phase(tuple(conditions), tuple(findings), (protocol,) if complete else ())


def _check_steps_alone(task: LiveTask, protocol: Protocol) -> Phase:
    with open_client(task.endpoint, protocol, version=task.subject.version) as client:
        try:
            findings = tuple(_metadata_findings(client, task.subject, task.model))
        except RequestFailedError as error:
            ensure_alive(task.endpoint)
            return Phase(findings=(request_finding(error.message, error.remedy, task.model, task.subject.target),))
    phase = check_sequences_alone(task, protocol)
    return replace(phase, findings=(*findings, *phase.findings))


def _answer(
    client: Client, model: str, subject: LiveSubject, request: Request, served: Served
) -> tuple[Arrays | None, list[Finding]]:
    """The answer to one sample; None, with the finding that says so, where HTTP is too small for it."""
    size = _largest_body(request, served)
    if client.protocol != "http" or size <= HTTP_BODY_LIMIT:
        return _send(client, model, subject.signature, request, served), []
    try:
        answer = _send(client, model, subject.signature, request, served)
    except RequestFailedError as error:
        refusal = f"; this one refused it, so it was not checked over HTTP: {error.message}"
        return None, [_body_finding(size, refusal, model, subject)]
    return answer, [_body_finding(size, "", model, subject)]


def _send(client: Client, model: str, signature: Signature, request: Request, served: Served) -> Arrays:
    pieces = split_rows(request, served.max_batch_size)
    answers = [client.infer(model, signature, as_sent(piece, served)) for piece in pieces]
    return shaped_like(request.outputs, joined(answers), served)


def _largest_body(request: Request, served: Served) -> int:
    return max(sum(map(array_bytes, piece.values())) for piece in split_rows(request, served.max_batch_size))


def _body_finding(size: int, refusal: str, model: str, subject: LiveSubject) -> Finding:
    text = (
        f"a sample request of {size / 2**20:.0f} MiB is over what servers from 25.06 take over HTTP (64 MiB){refusal}"
    )
    remedy = f"serve with --http-max-input-size={size + (1 << 20)}, use gRPC, or send smaller batches"
    return Finding("warning", "live.http_body", text, remedy=remedy, model=model, target=subject.target)


def _metadata_findings(client: Client, subject: LiveSubject, model: str) -> Iterator[Finding]:
    announced = client.metadata(model)
    sides = (
        ("inputs", announced.inputs, subject.served.inputs),
        ("outputs", announced.outputs, subject.served.outputs),
    )
    for side, got, expected in sides:
        if _ports(got) != _ports(expected):
            text = f"the server announces the {side} {_ports(got)}; the source has {_ports(expected)}"
            remedy = "names, order and dtypes in config.pbtxt must be the source's; build the model again"
            yield Finding("error", "live.metadata", text, remedy=remedy, model=model, target=subject.target)


def _ports(tensors: tuple[Tensor, ...]) -> str:
    return ", ".join(f"{tensor.name} {tensor.dtype}" for tensor in tensors) or "none"


def _verdict(
    conditions: tuple[LiveCondition, ...], gates: Gates, model: str, subject: LiveSubject
) -> tuple[Finding, ...]:
    """The gates' word on each way of sending; the same complaint under several of them is one finding."""
    groups: dict[tuple[str, str], list[tuple[OutputError, ...]]] = {}
    for condition in conditions:
        groups.setdefault((condition.mode, condition.protocol), []).append(condition.outputs)
    first: dict[tuple[str, str], Finding] = {}
    seen: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for way, outputs in groups.items():
        for error in merge_errors(outputs):
            for finding in accuracy_findings([error], gates, model=model, target=subject.target, check_prefix="live."):
                first.setdefault((finding.check, error.name), finding)
                seen.setdefault((finding.check, error.name), []).append(way)
    return tuple(_placed(finding, seen[key], subject) for key, finding in first.items())


def _placed(finding: Finding, ways: list[tuple[str, str]], subject: LiveSubject) -> Finding:
    """Say where the difference showed; only in a crowd means that users change each other's answers."""
    spelled = " and ".join(dict.fromkeys(SPELLED[protocol] for _, protocol in ways))
    if any(mode == "sequential" for mode, _ in ways):
        return replace(finding, message=f"{finding.message} (over {spelled})")
    if all(mode == "shared memory" for mode, _ in ways):
        remedy = "leave shared memory out, or use another target: its backend reads or writes it wrongly"
        text = f"{finding.message} (only with inputs and outputs in shared memory)"
        return replace(finding, message=text, remedy=remedy)
    text = f"{finding.message} (over {spelled}, only when several clients send at once; alone the answers are right)"
    mixed = "the states of sequences that run at once are mixed up"
    remedy = f"{mixed}: " if subject.sequence else "requests of different users change each other's answers: "
    unbatched = "set batching: {max_batch_size: 0} in the spec"
    remedy += unbatched if subject.batch_proven else "remove this target from the spec"
    return replace(finding, message=text, remedy=remedy)
