"""Several loads one after the other by one load generator: what is compared is measured in turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from builder.errors import ServeError
from builder.loadtest.answers import judge_answers
from builder.loadtest.command import DRAIN_S
from builder.loadtest.follow import carried_out
from builder.loadtest.records import INTERRUPTED, AnswerFigures, LoadOptions, LoadResult, LoadSubject, Turn
from builder.loadtest.result import Course, make_result
from builder.servers import Endpoint

LEAD_S = 0.5
"""Between two turns."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A turn's result, and the middle of it, in seconds from the first; None where nothing was answered."""

    turn: Turn
    at_s: float
    result: LoadResult | None


def run_turns(
    endpoint: Endpoint,
    subjects: Sequence[LoadSubject],
    turns: Sequence[Turn],
    options: LoadOptions,
    *,
    progress: Callable[[str], None],
) -> tuple[Taken, ...]:
    """The turns in their order; the answers of a model are judged over all of its turns.

    Raises:
        MachineError: Locust is not installed.
        ServeError: the server is gone, or Locust failed.
        KeyboardInterrupt: the user ended it.
    """
    total_s = sum(turn.seconds + LEAD_S + DRAIN_S for turn in turns)
    options = replace(options, turns=tuple(turns), duration_s=total_s)
    with carried_out(endpoint, subjects, options, progress) as course:
        if course.ended == INTERRUPTED:
            raise KeyboardInterrupt
        if course.ended:
            raise ServeError(course.ended)
        folder = course.log_file.parent
        answers = {subject.name: judge_answers(folder, [subject], endpoint, options.protocol) for subject in subjects}
        found = []
        for place, turn in enumerate(turns):
            part = replace(course, run={**course.run, "chosen": place})
            called = [subject for subject in subjects if subject.name in turn.models]
            own = [answers[subject.name] for subject in called]
            found.append(_taken(part, called, replace(options, turns=(turn,)), _joined(own)))
        return tuple(found)


def _taken(course: Course, called: Sequence[LoadSubject], options: LoadOptions, answers: AnswerFigures) -> Taken:
    (turn,), phase = options.turns, course.phase
    at_s = float(phase["began_s"]) + float(phase["elapsed_s"]) / 2
    try:
        result = make_result(course, called, options, answers)
    except ServeError:
        return Taken(turn, at_s, None)
    return Taken(turn, at_s, result)


def _joined(parts: Sequence[AnswerFigures]) -> AnswerFigures:
    return AnswerFigures(
        seen=sum(part.seen for part in parts),
        compared=sum(part.compared for part in parts),
        wrong=sum(part.wrong for part in parts),
        asked_alone=sum(part.asked_alone for part in parts),
        wrong_alone=sum(part.wrong_alone for part in parts),
        texts=tuple(text for part in parts for text in part.texts),
    )
