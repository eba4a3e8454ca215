"""Along with a load test while it runs, and what it wrote when it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, cast

from builder.errors import MachineError, ServeError, SpecError
from builder.loadtest.command import DRAIN_S, commands
from builder.loadtest.http_limit import body_words
from builder.loadtest.process import Locust, started
from builder.loadtest.records import INTERRUPTED, NOTHING_MEASURED, LoadOptions, LoadSubject
from builder.loadtest.result import Course
from builder.loadtest.sampling import Sampler, sampling
from builder.scratch import temporary_folder
from builder.servers import Endpoint

Progress = Callable[[str], None]

START_LIMIT_S: Final = 90.0
END_LIMIT_S: Final = 30.0


@contextmanager
def carried_out(
    endpoint: Endpoint, models: Sequence[LoadSubject], options: LoadOptions, progress: Progress
) -> Iterator[Course]:
    """Run Locust to its end; its course, whose files lie in a folder that goes with the block.

    Raises:
        SpecError: what is asked for cannot be sent to this server.
        MachineError: Locust is not installed.
        ServeError: the server is gone, or Locust failed.
    """
    if find_spec("locust") is None:
        raise MachineError("Locust is not installed", remedy="pip install 'build-repo[load]'")
    options.report.mkdir(parents=True, exist_ok=True)
    with (
        temporary_folder("load") as folder,
        sampling(endpoint, options.protocol) as sampler,
    ):
        with started(commands(endpoint, models, options, folder)) as locust:
            sampler.generators = [process.pid for process in locust.processes[-options.workers :]]
            ended = _follow(locust, sampler, endpoint, options, progress)
        yield Course(_read_run(folder, locust, ended, models, options), folder / "log.npz", sampler, ended)


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
            raise KeyboardInterrupt(NOTHING_MEASURED) from error
        raise ServeError(
            ended or f"Locust failed before it measured anything:\n{words}", remedy="see its words above"
        ) from error
    if run["problem"]:
        msg = f"the load test could not start: {run['problem']}"
        if run["asked"]:
            raise SpecError(msg, remedy="correct what is asked for; build-repo loadtest --help lists the words")
        text, remedy = body_words(models, options.protocol)
        raise ServeError(f"{msg}\n{text}".strip(), remedy=remedy or "build-repo check tries one request")
    if not run["phases"]:
        if ended == INTERRUPTED:
            raise KeyboardInterrupt(NOTHING_MEASURED)
        raise ServeError(
            ended or f"the load test ended before it measured anything:\n{words}", remedy="see its words above"
        )
    return run
