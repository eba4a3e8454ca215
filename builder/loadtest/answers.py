"""Answers under load against the reference: a fast wrong answer is an error."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from builder.compare import accuracy_findings, compare_outputs, output_scales
from builder.errors import ServeError
from builder.findings import Finding
from builder.live.records import Served
from builder.live.wire import as_sent, served_batching, shaped_like
from builder.loadtest.records import AnswerFigures, LoadSubject, ModelFigures
from builder.samples import LENGTHS, Request, usable
from builder.servers import Endpoint
from builder.tensors import Signature
from builder.triton_client import Client, Protocol, open_client

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = dict[str, NDArray[np.generic]]

ASKED_ALONE: Final = 8
ASKED_ALONE_S: Final = 10.0
WRONG_EXPECTED: Final = 3
"""So many wrong answers are to be expected of requests that are sent alone, before none means something (95 %)."""
TEXTS_KEPT: Final = 6
SERVED_S: Final = 5.0
"""A server that hangs does not hold up the report."""


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of a stored request that one request sent; `rows` 0: all of it."""

    source: int
    first_row: int
    rows: int


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that came under load, `count` times the same; errors are relative to `scales`."""

    subject: LoadSubject
    piece: Piece
    count: int
    outputs: Arrays
    scales: Mapping[str, float]


def judge_answers(
    folder: Path, subjects: Sequence[LoadSubject], endpoint: Endpoint, protocol: Protocol
) -> AnswerFigures:
    """Compare the kept answers; wrong ones are asked for again, alone, now that the load is over."""
    by_name = {subject.name: subject for subject in subjects if subject.signature is not None and subject.requests}
    answers, seen = _read(folder, by_name)
    served = _served({answer.subject.name for answer in answers}, endpoint, protocol)
    judged = [(answer, problems) for answer in answers if (problems := _problems(answer, served)) is not None]
    wrong = [(answer, problems) for answer, problems in judged if problems]
    texts: dict[tuple[str, str], str] = {}
    for answer, problems in wrong:
        for check, text in problems.items():
            texts.setdefault((answer.subject.name, check), f"{answer.subject.name}: {text}")
    compared, bad = (sum(answer.count for answer, _ in some) for some in (judged, wrong))
    often = WRONG_EXPECTED * compared / bad if bad else 0.0
    asked, wrong_alone = _ask_alone([answer for answer, _ in wrong], often, served, endpoint, protocol)
    return AnswerFigures(seen, compared, bad, asked, wrong_alone, tuple(texts.values())[:TEXTS_KEPT])


def _read(folder: Path, subjects: Mapping[str, LoadSubject]) -> tuple[list[Answer], int]:
    import numpy as np

    answers, seen = [], 0
    scales = {
        name: output_scales(subject.signature, [request.outputs for request in subject.requests])
        for name, subject in subjects.items()
        if subject.signature is not None and all(request.outputs for request in subject.requests)
    }
    for file in sorted(folder.glob("answers-*.npz")):
        with np.load(file, allow_pickle=False) as kept:
            seen += sum(int(kept[f"seen/{name}"]) for name in subjects if f"seen/{name}" in kept)
            arrivals = zip(kept["models"], kept["pieces"], kept["counts"], strict=True)
            for index, (model, piece, count) in enumerate(arrivals):
                subject = subjects.get(str(model))
                if subject is not None and subject.signature is not None and piece[0] >= 0:
                    names = {tensor.name: tensor.dtype for tensor in subject.signature.outputs}
                    outputs = {
                        name: _typed(kept, f"{index}/{name}", dtype)
                        for name, dtype in names.items()
                        if f"{index}/{name}" in kept
                    }
                    own = scales.get(subject.name, {})
                    answers.append(Answer(subject, Piece(*map(int, piece)), int(count), outputs, own))
    return answers, seen


def piece_of(request: Request, piece: Piece, side: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """The piece's rows of the request's arrays; rows begin anew where a request was made longer."""
    import numpy as np

    if not piece.rows or not request.rows or (piece.first_row == 0 and piece.rows == request.rows):
        return dict(side)
    chosen = (piece.first_row + np.arange(piece.rows)) % request.rows
    return {name: np.take(array, chosen, axis=0) for name, array in side.items()}


def _served(names: Collection[str], endpoint: Endpoint, protocol: Protocol) -> dict[str, Served]:
    """Model → what decides the form of its tensors on the wire; nothing where the server is gone by now."""
    if not names:
        return {}
    with contextlib.suppress(ServeError), open_client(endpoint, protocol, timeout_s=SERVED_S) as client:
        return {name: served_batching(client, name) for name in names}
    return {}


def _problems(answer: Answer, served: Mapping[str, Served]) -> dict[str, str] | None:
    """What the gates say; None where there is nothing to compare with."""
    subject, piece = answer.subject, answer.piece
    if subject.signature is None or not 0 <= piece.source < len(subject.requests):
        return None
    request = subject.requests[piece.source]
    expected = piece_of(request, piece, request.outputs)
    if any(tensor.name not in expected for tensor in subject.signature.outputs):
        return None
    known = served.get(subject.name)
    got = _shaped(expected, shaped_like(expected, answer.outputs, known) if known else answer.outputs)
    errors = compare_outputs(subject.signature, [expected], [got], scales=answer.scales)
    found = accuracy_findings(errors, subject.gates, model=subject.name, target=None)
    return {finding.check: finding.message.replace("request 0: ", "") for finding in found}


def _typed(kept: Mapping[str, NDArray[np.generic]], name: str, dtype: str) -> NDArray[np.generic]:
    """As it came: a wrong type is for the comparison to say."""
    stored = kept[name].dtype.kind
    lost = (dtype == "string" and f"{LENGTHS}{name}" in kept) or (dtype == "bfloat16" and stored == "u")
    return usable(kept, name, dtype) if lost else kept[name]


def _shaped(expected: Arrays, got: Mapping[str, NDArray[np.generic]]) -> Arrays:
    """With the scalars back that travel as [1], and the vectors of rows that do as [N, 1]."""
    return {
        name: array.reshape(expected[name].shape)
        if name in expected and expected[name].ndim < 2 and array.shape == (*expected[name].shape, 1)  # noqa: PLR2004
        else array
        for name, array in got.items()
    }


def _ask_alone(
    wrong: Sequence[Answer], often: float, served: Mapping[str, Served], endpoint: Endpoint, protocol: Protocol
) -> tuple[int, int]:
    """How many requests for the wrong ones were sent alone, and how many of their answers were wrong then too.

    `often` are enough for as rare a fault to show, if it shows without load at all.
    """
    todo = {(answer.subject.name, answer.piece): answer for answer in wrong if not _stateful(answer.subject)}
    if not todo:
        return 0, 0
    asked = again = 0
    ends = time.monotonic() + ASKED_ALONE_S
    with contextlib.suppress(ServeError), open_client(endpoint, protocol) as client:
        for answer in itertools.cycle(todo.values()):
            if asked >= ASKED_ALONE and (again or asked >= often or time.monotonic() > ends):
                break
            again += bool(_problems(replace(answer, outputs=_asked(client, answer)), served))
            asked += 1
    return asked, again


def _asked(client: Client, answer: Answer) -> Arrays:
    subject, piece = answer.subject, answer.piece
    request = subject.requests[piece.source]
    inputs = as_sent(piece_of(request, piece, request.inputs), served_batching(client, subject.name))
    return client.infer(subject.name, subject.signature or Signature((), ()), inputs)


def _stateful(subject: LoadSubject) -> bool:
    return any(request.sequence is not None for request in subject.requests)


def answer_findings(
    figures: AnswerFigures, models: Sequence[str], counted: Sequence[ModelFigures] = ()
) -> tuple[Finding, ...]:
    """An error where answers were wrong, with when they are; `counted` as the server did."""
    if not figures.wrong:
        return ()
    text = f"{figures.wrong} of {figures.compared} compared answers are wrong"
    check = "answers.wrong"
    remedy = "build-repo check compares every sample; build the model again, or choose another target"
    if figures.wrong_alone:
        text += f", and {figures.wrong_alone} of {figures.asked_alone} where the same requests are sent alone"
    elif figures.asked_alone * figures.wrong >= WRONG_EXPECTED * figures.compared:
        check, remedy = "answers.wrong_when_batched", _when_batched(counted)
        text += f", only under load: sent alone, the same requests are answered rightly ({figures.asked_alone} of them)"
    elif figures.asked_alone:
        text += (
            f"; sent alone, {figures.asked_alone} of these were answered rightly: too few to say whether it takes load"
        )
        remedy = "--users 1 with a longer --duration shows whether they are wrong without other requests beside them"
    text += f"; the first: {figures.texts[0]}" if figures.texts else ""
    return (Finding("error", check, text, remedy=remedy, model=",".join(models)),)


def _when_batched(models: Sequence[ModelFigures]) -> str:
    if models and all(0 < model.served <= model.executions for model in models if not model.ensemble):
        return "the server merged no requests: the model keeps something between them, or its instances share it"
    return "requests of different users change each other's answers when they are merged: set max_batch_size: 0"
