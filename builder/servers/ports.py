"""The three ports of a server on this machine."""

from __future__ import annotations

import contextlib
import errno
import socket
from dataclasses import dataclass

from builder.errors import MachineError
from builder.servers import ServeOptions


@dataclass(frozen=True, slots=True)
class Ports:
    """`chosen`: at least one was picked free and not given."""

    http: int
    grpc: int
    metrics: int
    chosen: bool


def choose_ports(options: ServeOptions) -> Ports:
    """The given ports, and a free one for each that is 0.

    Raises:
        MachineError: a given port is taken.
    """
    wanted = (("http", options.http_port), ("grpc", options.grpc_port), ("metrics", options.metrics_port))
    with contextlib.ExitStack() as held:
        taken = {name: _bind(held, options.host, name, port) for name, port in wanted}
    return Ports(**taken, chosen=not all(port for _, port in wanted))


def _bind(held: contextlib.ExitStack, host: str, name: str, port: int) -> int:
    """Hold the port until all are chosen, so that no two are the same."""
    probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
        probe.listen(1)
    except OSError as error:
        msg = f"{name} port {port} on {host} cannot be used: {error.strerror or error}"
        taken = error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = (
            f"give another --{name}-port, or 0 for a free one" if taken else "give an address of this machine: --host"
        )
        raise MachineError(msg, remedy=remedy) from error
    return int(probe.getsockname()[1])


def listens(host: str, port: int) -> bool:
    """True when somebody accepts connections there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False
