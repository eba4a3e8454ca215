"""Load tests: Locust in its own processes (it patches the standard library), its figures as a record."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

from builder.errors import MachineError, ServeError, SpecError
from builder.loadtest.answers import judge_answers
from builder.loadtest.baseline import baseline_verdicts, compare_baseline, read_baseline
from builder.loadtest.command import DRAIN_S, address, commands
from builder.loadtest.http_limit import body_words
from builder.loadtest.process import Locust, started
from builder.loadtest.records import INTERRUPTED, LoadOptions, LoadResult, LoadSubject, Verdict
from builder.loadtest.report import write_report
from builder.loadtest.result import Course, make_result
from builder.loadtest.sampling import Sampler, sampling
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

Progress = Callable[[str], None]
Judge = Callable[[LoadResult], tuple[Verdict, ...]]
"""What an SLO and a baseline say of a result; the report shows it."""

SHAPES: Final = ("constant", "ramp", "step", "spike")
MIX: Final = re.compile(r"[^@=]+(@[1-9]\d*)?(=(?=.*[1-9])\d+(\.\d+)?)?")
LEAST_SEARCH_S: Final = 20.0
START_LIMIT_S: Final = 90.0
END_LIMIT_S: Final = 30.0


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
    options.report.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="build-repo-load-") as scratch,
        sampling(endpoint, options.protocol) as sampler,
    ):
        folder = Path(scratch)
        with started(commands(endpoint, models, options, folder)) as locust:
            sampler.generators = [process.pid for process in locust.processes[-options.workers :]]
            ended = _follow(locust, sampler, endpoint, options, progress)
        run = _read_run(folder, locust, ended, models, options)
        answers = judge_answers(folder, models, endpoint, options.protocol)
        course = Course(run, folder / "log.npz", sampler, ended)
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
    if find_spec("locust") is None:
        raise MachineError("Locust is not installed", remedy="pip install 'build-repo[load]'")


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


def _follow(locust: Locust, sampler: Sampler, endpoint: Endpoint, options: LoadOptions, progress: Progress) -> str:
    """Go along with the test until it ends; what ended it before its time."""
    limit = time.monotonic() + START_LIMIT_S + options.duration_s + 2 * DRAIN_S + END_LIMIT_S
    try:
        while (told := locust.told()) is not None:
            _hear(told, sampler, options, progress)
            if not told:
                sampler.look()
                endpoint.alive()
            if time.monotonic() > limit:
                return _stopped(locust, sampler, "the load test did not end in time and was stopped")
    except KeyboardInterrupt:
        return _stopped(locust, sampler, INTERRUPTED)
    except ServeError as error:
        return _stopped(locust, sampler, error.message)
    locust.wait()
    return ""


def _stopped(locust: Locust, sampler: Sampler, why: str) -> str:
    sampler.read()
    locust.stop()
    return why


def _hear(told: dict[str, Any], sampler: Sampler, options: LoadOptions, progress: Progress) -> None:
    what = told.get("what")
    if what in ("phase", "phase_end"):
        sampler.mark(int(told["number"]))
        sampler.read_configs()
    elif what == "progress":
        progress(_told(told, options))
    elif what == "level":
        progress(_told_level(told))


def _told(glance: dict[str, Any], options: LoadOptions) -> str:
    text = f"load test {glance['elapsed_s']:.0f}/{options.duration_s:.0f} s: {glance['requests']} requests, "
    text += f"{glance['failures']} failed"
    return text + (f", {glance['waiting']} waiting to be sent" if glance["waiting"] else "")


def _told_level(level: dict[str, Any]) -> str:
    verdict = "held" if level["held"] else ("missed, the server fell behind" if level["behind"] else "missed")
    p99 = f", p99 {level['p99_ms']:.2f} ms" if level["p99_ms"] is not None else ""
    return f"{level['rate']:.1f} requests/s {verdict}{p99}, {level['errors']:.2f} % failed"


def _read_run(
    folder: Path, locust: Locust, ended: str, models: Sequence[LoadSubject], options: LoadOptions
) -> dict[str, Any]:
    words = "\n".join(locust.kept)
    try:
        run = cast("dict[str, Any]", json.loads((folder / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        if ended == INTERRUPTED:
            raise KeyboardInterrupt from error
        raise ServeError(
            ended or f"Locust failed before it measured anything:\n{words}", remedy="see its words above"
        ) from error
    if run["problem"]:
        msg = f"the load test could not start: {run['problem']}"
        text, remedy = body_words(models, options.protocol)
        raise ServeError(f"{msg}\n{text}".strip(), remedy=remedy or "build-repo check tries one request")
    if not run["phases"]:
        if ended == INTERRUPTED:
            raise KeyboardInterrupt
        raise ServeError(
            ended or f"the load test ended before it measured anything:\n{words}", remedy="see its words above"
        )
    return run
