"""Removes a container when the process that asked for it is gone, however that ended.

Started as `python -I -S docker_guard.py SOCKET NAME PARENT`; standard library only. The parent holds the write end of
this process's stdin: its end there means that the container must go. Who is in the middle of making it when the parent
is killed is given a moment.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import signal
import socket
import sys
import time
from typing import Final
from urllib.parse import quote

POLL_MS: Final = 500
LATE_S: Final = 3.0
"""How long a container may take to come to be after its parent was killed."""
ANSWER_S: Final = 30


class _Engine(http.client.HTTPConnection):
    """HTTP over the engine's socket file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(self.path)


def remove(path: str, name: str) -> bool:
    """Remove the container; False where there is none."""
    with contextlib.closing(_Engine(path)) as engine:
        engine.request("DELETE", f"/containers/{quote(name)}?force=1&v=1")
        return engine.getresponse().status != http.client.NOT_FOUND


def wait_for_end(parent: int) -> None:
    """Until stdin ends; a child of the parent may hold it open, so the parent is looked at too."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    while not poll.poll(POLL_MS) and os.getppid() == parent:
        pass


def main() -> None:
    path, name, parent = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    wait_for_end(int(parent))
    deadline = time.monotonic() + LATE_S
    with contextlib.suppress(OSError, http.client.HTTPException):
        while not remove(path, name) and time.monotonic() < deadline:
            time.sleep(0.2)


if __name__ == "__main__":
    main()
