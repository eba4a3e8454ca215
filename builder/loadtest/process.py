"""Locust as a child process: its progress told, its end certain."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from builder.errors import ServeError
from builder.servers import Endpoint

Progress = Callable[[str], None]
START_LIMIT_S: Final = 90.0
END_LIMIT_S: Final = 45.0
POLL_S: Final = 0.5
LINES_KEPT: Final = 20


def run_locust(command: list[str], endpoint: Endpoint, duration_s: float, progress: Progress) -> str:
    """Run Locust to its end, telling its progress; a dead server or a hanging Locust ends it at once."""
    kept: list[str] = []
    limit = time.monotonic() + START_LIMIT_S + duration_s + END_LIMIT_S
    with _process(command) as (process, lines):
        while (line := _next_line(lines)) is not None:
            if line.startswith("progress "):
                progress(_told(json.loads(line.removeprefix("progress ")), duration_s))
            elif line:
                kept.append(line)
            else:
                _watch(endpoint, limit)
        process.wait(END_LIMIT_S)
    return "\n".join(kept[-LINES_KEPT:])


@contextmanager
def _process(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], queue.Queue[str | None]]]:
    """Locust in its own process group, gone when the block is left; its output line by line, None at its end."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1", "LOCUST_SKIP_URLLIB3_PATCH": "1", "GRPC_VERBOSITY": "NONE"},
    )
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    reader.start()
    try:
        yield process, lines
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join(1.0)


def _read_lines(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    for line in cast("Any", process.stdout):
        lines.put(line.rstrip() or " ")
    lines.put(None)


def _next_line(lines: queue.Queue[str | None]) -> str | None:
    """The next line, an empty one when there is none yet, None at the end."""
    try:
        return lines.get(timeout=POLL_S)
    except queue.Empty:
        return ""


def _watch(endpoint: Endpoint, limit: float) -> None:
    endpoint.alive()
    if time.monotonic() > limit:
        raise ServeError("the load test did not end in time and was stopped", remedy="try it with fewer users")


def _told(glance: dict[str, Any], duration_s: float) -> str:
    text = f"load test {glance['elapsed_s']:.0f}/{duration_s:.0f} s: {glance['requests']} requests, "
    return text + f"{glance['requests_per_s']:.0f}/s, {glance['failures']} failed"
