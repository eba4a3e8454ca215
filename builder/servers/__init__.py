"""Where a repository is served: one module each. Every engine is a context manager yielding an `Endpoint`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

READY_S: Final = 120.0
WAIT_LONGER: Final = "a large model may need longer: --ready-timeout 10m"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Addresses as `HOST:PORT`; None where that protocol is not offered.

    `alive` raises ServeError, with the server's own words, once the server or one of its models has died. `pid` is the
    server's process where it is not the one that listens at the addresses.
    """

    http: str | None
    grpc: str | None
    metrics: str | None
    tls: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    ca_file: str | None = None
    alive: Callable[[], None] = lambda: None
    pid: int | None = None


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Ports of 0 are chosen free. `arguments` go to tritonserver as they are."""

    release: str
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    host: str = "127.0.0.1"
    image: str | None = None
    auto_complete: bool = True
    arguments: tuple[str, ...] = ()
    ready_timeout_s: float = READY_S


class Server(Protocol):
    """A module of this folder that can start a server."""

    def serve(self, repository: Path, options: ServeOptions) -> AbstractContextManager[Endpoint]:
        """Ready when every model is ready.

        Raises MachineError (runtime missing, port taken) or ServeError (a model did not load, with Triton's reason).
        """


SERVERS: Final[dict[str, str]] = {
    "embedded": "builder.servers.embedded",
    "docker": "builder.servers.docker",
}


def server_module(word: str) -> Server:
    """The module for an engine's word."""
    return cast("Server", import_module(SERVERS[word]))
