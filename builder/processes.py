"""Child processes of a build: started in their own session, ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from builder.errors import BuildError
from builder.libraries import package_root

PARENT_VARIABLE: Final = "BUILD_REPO_PARENT"
"""Tells a child whose child it is: should that process be gone before the child could ask to die with it."""


@dataclass(slots=True)
class Children:
    """The processes now running, so that an interrupt or a failure ends them all."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)
    stopped: bool = False

    def run(self, command: list[str], log: Path) -> tuple[int, bytes]:
        """Exit code (negative: the signal) and stdout; stderr goes to `log`.

        Raises:
            BuildError: the build was interrupted.
        """
        with log.open("wb") as stream:
            child = self._start(command, stream)
            try:
                answer, _ = child.communicate()
            finally:
                with self.lock:
                    self.running.discard(child)
        if self.stopped and child.returncode == -signal.SIGKILL:
            raise BuildError("interrupted")
        return child.returncode, answer

    def _start(self, command: list[str], stream: IO[bytes]) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "PYTHONPATH": _python_path(),
            "PYTHONUNBUFFERED": "1",
            PARENT_VARIABLE: str(os.getpid()),
        }
        with self.lock:
            if self.stopped:
                raise BuildError("interrupted")
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=environment,
                start_new_session=True,
            )
            self.running.add(child)
        return child

    def stop(self) -> None:
        """End every child and let no other start."""
        with self.lock:
            self.stopped = True
            for child in self.running:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)


def _python_path() -> str:
    """Children import this very package; the user's PYTHONPATH stays behind it."""
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(part for part in (str(package_root()), given) if part)
