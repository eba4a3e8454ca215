"""Load tests: Locust in its own processes (it patches the standard library), its figures as a record."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from builder.errors import SpecError
from builder.loadtest.answers import judge_answers
from builder.loadtest.baseline import baseline_verdicts, compare_baseline, read_baseline
from builder.loadtest.command import address
from builder.loadtest.follow import Progress, carried_out
from builder.loadtest.records import INTERRUPTED, LoadOptions, LoadResult, LoadSubject, Verdict
from builder.loadtest.report import write_report
from builder.loadtest.result import make_result
from builder.loadtest.slo import judge_slo, limits_of, parse_duration, parse_slo, slo_verdicts
from builder.servers import Endpoint
from builder.triton_client import SPELLED

__all__ = [
    "INTERRUPTED",
    "LoadOptions",
    "LoadResult",
    "LoadSubject",
    "Verdict",
    "baseline_verdicts",
    "compare_baseline",
    "judge_slo",
    "limits_of",
    "parse_duration",
    "parse_slo",
    "read_baseline",
    "run_load_test",
    "slo_verdicts",
]

Judge = Callable[[LoadResult], tuple[Verdict, ...]]
"""What an SLO and a baseline say of a result; the report shows it."""

SHAPES: Final = ("constant", "ramp", "step", "spike")
MIX: Final = re.compile(r"[^@=]+(@[1-9]\d*)?(=(?=.*[1-9])\d+(\.\d+)?)?")
LEAST_SEARCH_S: Final = 20.0


def run_load_test(
    endpoint: Endpoint,
    models: Sequence[LoadSubject],
    options: LoadOptions,
    *,
    progress: Progress,
    judge: Judge = lambda _: (),
) -> LoadResult:
    """Send requests for `duration_s` after a short warm-up; the report goes into its folder.

    Ctrl-C and a server that dies end the test early: what was measured until then is the result, and `ended` says so.

    Raises:
        SpecError: an option has no meaning.
        MachineError: Locust is not installed.
        ServeError: the server is gone, Locust failed, or no request was answered.
    """
    _refuse_wrong(endpoint, models, options)
    with carried_out(endpoint, models, options, progress) as course:
        answers = judge_answers(course.log_file.parent, models, endpoint, options.protocol)
        result = make_result(course, models, options, answers)
        return write_report(replace(result, verdicts=judge(result)), course, options)


def _refuse_wrong(endpoint: Endpoint, models: Sequence[LoadSubject], options: LoadOptions) -> None:
    if options.shape not in SHAPES:
        raise SpecError(f"unknown load shape {options.shape!r}", remedy=f"choose one of: {', '.join(SHAPES)}")
    if not models:
        raise SpecError("no model to call", remedy="name one: --model NAME")
    numbers = (options.users, options.duration_s, options.workers, options.request_timeout_s)
    if min(numbers) <= 0 or (options.rate is not None and options.rate <= 0):
        wrong = (
            f"users {options.users}, duration {options.duration_s:g} s, workers {options.workers}, rate {options.rate}"
        )
        raise SpecError(f"nothing would be sent: {wrong}", remedy="all must be above zero")
    for part in options.mix:
        if not MIX.fullmatch(part):
            raise SpecError(f"{part!r} is no part of a mix", remedy="write NAME, NAME=3 or NAME@ROWS=3; above zero")
    _refuse_wrong_shape(options)
    if address(endpoint, options.protocol) is None:
        msg = f"the server offers no {SPELLED[options.protocol]}"
        raise SpecError(msg, remedy="choose the other protocol: --protocol http or grpc")


def _refuse_wrong_shape(options: LoadOptions) -> None:
    if options.shape == "step":
        if not any(name.startswith(("p", "max")) for name, _ in options.limits):
            raise SpecError("shape step needs what must hold", remedy="--slo p99=50ms")
        if options.duration_s < LEAST_SEARCH_S:
            msg = f"shape step cannot find a rate in {options.duration_s:g} s"
            raise SpecError(msg, remedy=f"--duration {LEAST_SEARCH_S:g}s or more; 80s is a good one")
    if options.replay is not None:
        if options.shape != "constant" or options.rate is not None:
            raise SpecError("a replayed trace has its own rate and shape", remedy="leave --rate and --shape out")
        if not options.replay.is_file():
            raise SpecError(f"{options.replay}: no such file", remedy="name a CSV or JSON of arrival times")
