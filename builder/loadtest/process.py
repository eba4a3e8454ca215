"""Locust as child processes: their words, their end for certain."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

POLL_S: Final = 0.25
STOP_LIMIT_S: Final = 12.0
LINES_KEPT: Final = 20
TOLD: Final = "told "


@dataclass(slots=True)
class Locust:
    """The master, or the only process, comes first; `kept` are its last words that were meant for people."""

    processes: list[subprocess.Popen[str]]
    lines: queue.Queue[str | None] = field(default_factory=queue.Queue)
    kept: list[str] = field(default_factory=list)

    def told(self) -> dict[str, Any] | None:
        """What the first process tells next; empty when there is nothing new, None at its end."""
        try:
            line = self.lines.get(timeout=POLL_S)
        except queue.Empty:
            return {}
        if line is None:
            return None
        if line.startswith(TOLD):
            with contextlib.suppress(ValueError):
                return cast("dict[str, Any]", json.loads(line.removeprefix(TOLD)))
        self.kept = [*self.kept, line][-LINES_KEPT:]
        return {}

    def stop(self) -> None:
        """Ask the first process to end; it writes what it has, and takes its workers along."""
        with contextlib.suppress(OSError):
            self.processes[0].send_signal(signal.SIGTERM)
        self.wait()

    def wait(self) -> None:
        """Until every process is gone, a while at most."""
        limit = time.monotonic() + STOP_LIMIT_S
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, limit - time.monotonic()))


@contextmanager
def started(commands: Sequence[list[str]]) -> Iterator[Locust]:
    """Each command in a process group of its own, gone when the block is left."""
    locust = Locust([])
    try:
        for command in commands:
            locust.processes.append(_start(command))
        readers = [_reader(process, locust, place) for place, process in enumerate(locust.processes)]
        yield locust
    finally:
        for process in locust.processes:
            if process.poll() is None:
                with contextlib.suppress(OSError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for reader in readers:
        reader.join(1.0)


def _start(command: list[str]) -> subprocess.Popen[str]:
    """A session of its own: Ctrl-C reaches this program alone, which then ends Locust in good order."""
    quiet = {"PYTHONUNBUFFERED": "1", "LOCUST_SKIP_URLLIB3_PATCH": "1", "GRPC_VERBOSITY": "NONE"}
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env=os.environ | quiet,
    )


def _reader(process: subprocess.Popen[str], locust: Locust, place: int) -> threading.Thread:
    def read() -> None:
        for line in cast("Any", process.stdout):
            if line.strip() and (place == 0 or not line.startswith(TOLD)):
                locust.lines.put(line.rstrip())
        if place == 0:
            locust.lines.put(None)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread
