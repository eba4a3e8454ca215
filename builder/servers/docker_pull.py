"""Pulling an image so that one sees it come: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from builder.log import get_logger

LINE_EVERY_S: Final = 10.0
MIB: Final = 2**20

Client = Any
"""docker.DockerClient, which brings no types."""
Show = Callable[["Pulled"], None]


class PullError(Exception):
    """The engine's own words on why an image did not come."""


@dataclass(slots=True)
class Pulled:
    """What came so far. Layers become known one by one, so `total_bytes` grows while it is looked at."""

    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    whole: set[str] = field(default_factory=set)

    def take(self, told: dict[str, Any]) -> None:
        """One message of the engine.

        Raises:
            PullError: the message is an error.
        """
        if "error" in told:
            raise PullError(str(told["error"]))
        layer, status = str(told.get("id") or ""), str(told.get("status") or "")
        detail = told.get("progressDetail") or {}
        if status == "Downloading" and detail.get("total"):
            self.layers[layer] = (int(detail.get("current", 0)), int(detail["total"]))
        elif status == "Pulling fs layer":
            self.layers.setdefault(layer, (0, 0))
        elif status in ("Download complete", "Pull complete", "Already exists"):
            total = self.layers.get(layer, (0, 0))[1]
            self.layers[layer] = (total, total)
            self.whole.add(layer)

    @property
    def got_bytes(self) -> int:
        return sum(got for got, _ in self.layers.values())

    @property
    def total_bytes(self) -> int:
        return sum(total for _, total in self.layers.values())

    def __str__(self) -> str:
        size = f"{self.got_bytes / MIB:.0f} of {self.total_bytes / MIB:.0f} MiB"
        return f"{size}, {len(self.whole)} of {len(self.layers)} layers"


def pull(client: Client, name: str) -> Any:  # noqa: ANN401 - docker's own object
    """The image, pulled.

    Raises:
        PullError: the engine told an error while it pulled.
        docker.errors.DockerException: the engine refused.
    """
    from docker.utils import parse_repository_tag

    repository, tag = parse_repository_tag(name)
    state = Pulled()
    with _shown(name) as show:
        for told in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
            state.take(told)
            show(state)
    return client.images.get(name)


@contextlib.contextmanager
def _shown(name: str) -> Iterator[Show]:
    if not sys.stderr.isatty():
        yield _lines(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(name, total=None)
        yield lambda state: bars.update(task, completed=state.got_bytes, total=state.total_bytes or None)


def _lines(name: str) -> Show:
    last = time.monotonic()

    def show(state: Pulled) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            get_logger().info("pulling %s: %s", name, state)

    return show
