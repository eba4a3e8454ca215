"""CPU and memory of the server's processes, where it runs on this machine, and of the machine."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.loadtest.control_groups import cpu_limit
from builder.servers import Endpoint
from builder.servers.docker_engine import publishing_pids

SERVER_NAME: Final = "tritonserver"


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used, CPU seconds stood in line for, resident bytes; of some processes together."""

    cpu_s: float = 0.0
    waited_s: float | None = None
    resident_bytes: int = 0


def server_pids(endpoint: Endpoint) -> tuple[int, ...]:
    """The tritonserver of this machine that listens there, in a container or not; none where it runs elsewhere."""
    import psutil

    if endpoint.pid is not None:
        return (endpoint.pid,) if _is_server(endpoint.pid) else ()
    ports = {port for text in (endpoint.http, endpoint.grpc) if text and (port := _local_port(text))}
    found: set[int] = set()
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections(kind="tcp") if ports else ():
            port = getattr(connection.laddr, "port", None)
            if connection.status == psutil.CONN_LISTEN and port in ports and connection.pid:
                found.add(connection.pid)
    servers = {pid for pid in found if _is_server(pid)}
    # Of a container with a published port the engine's own proxy listens, or nobody.
    return tuple(sorted(servers or (_servers_below(publishing_pids(ports)) if ports else ())))


def _servers_below(pids: Iterable[int]) -> set[int]:
    import psutil

    found: set[int] = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
            found |= {member for member in family if _is_server(member)}
    return found


def _is_server(pid: int) -> bool:
    import psutil

    try:
        return psutil.Process(pid).name().startswith(SERVER_NAME)
    except psutil.Error:
        return False


def _local_port(text: str) -> int | None:
    """The port, where the host is this machine."""
    import psutil

    host, _, port = text.rpartition(":")
    try:
        addresses = {item[4][0] for item in socket.getaddrinfo(host.strip("[]"), int(port))}
    except (OSError, ValueError):
        return None
    ours = {item.address for items in psutil.net_if_addrs().values() for item in items} | {"0.0.0.0", "::"}  # noqa: S104
    return int(port) if addresses & ours else None


def usage_of(pids: Iterable[int], *, family: bool = True) -> Usage:
    """The processes and, with `family`, all below them; what is gone is left out."""
    import psutil

    cpu = waited = 0.0
    resident, known = 0, False
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            first = psutil.Process(pid)
            for process in [first, *(first.children(recursive=True) if family else [])]:
                times = process.cpu_times()
                cpu += times.user + times.system
                resident += process.memory_info().rss
                stood = _waited_s(process.pid)
                known = known or stood is not None
                waited += stood or 0.0
    return Usage(cpu, waited if known else None, resident)


def _waited_s(pid: int) -> float | None:
    """Seconds that the threads were ready to run and not let, from the kernel's scheduler."""
    total = None
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            total = (total or 0.0) + int(task.read_text(encoding="ascii").split()[1]) / 1e9
    return total


def allowed_cores(pids: Iterable[int]) -> float | None:
    """Cores that the processes may use at most: by affinity and by the limits of their control groups."""
    limits: list[float] = []
    for pid in pids:
        with contextlib.suppress(OSError):
            limits.append(min(float(len(os.sched_getaffinity(pid))), cpu_limit(pid)))
    return min(limits, default=None)


def machine_times() -> tuple[float, float]:
    """CPU seconds of the machine's cores together: busy (what the hypervisor took included), and that part of it."""
    import psutil

    times: Any = psutil.cpu_times()
    steal = float(getattr(times, "steal", 0.0))
    busy = times.user + times.system + getattr(times, "nice", 0.0)
    return busy + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0) + steal, steal
