"""CPU and memory of the server's processes, where it runs on this machine, and of the machine."""

from __future__ import annotations

import contextlib
import math
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from builder.servers import Endpoint

SERVER_NAME: Final = "tritonserver"
CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds used, CPU seconds stood in line for, resident bytes; of some processes together."""

    cpu_s: float = 0.0
    waited_s: float | None = None
    resident_bytes: int = 0


def server_pids(endpoint: Endpoint) -> tuple[int, ...]:
    """The process of the container, or the tritonserver of this machine that listens there; none where neither is."""
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
    return tuple(sorted(pid for pid in found if _is_server(pid)))


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
            limits.append(min(float(len(os.sched_getaffinity(pid))), _quota(pid)))
    return min(limits, default=None)


def _quota(pid: int) -> float:
    """Of both versions of control groups: the lowest limit from the process's own group up to the root."""
    lowest = float(os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                lowest = min(lowest, *_limits(CGROUPS, path, _limit_of_version_2))
            elif "cpu" in controllers.split(","):
                lowest = min(lowest, *_limits(CGROUPS / "cpu", path, _limit_of_version_1))
    return lowest


def _limits(root: Path, path: str, limit: Callable[[Path], float]) -> list[float]:
    folder = root / path.lstrip("/")
    return [limit(place) for place in (folder, *folder.parents) if place.is_relative_to(root)]


def _limit_of_version_2(group: Path) -> float:
    file = group / "cpu.max"
    quota, period = file.read_text(encoding="ascii").split() if file.is_file() else ("max", "1")
    return math.inf if quota == "max" else int(quota) / int(period)


def _limit_of_version_1(group: Path) -> float:
    file = group / "cpu.cfs_quota_us"
    quota = int(file.read_text(encoding="ascii")) if file.is_file() else -1
    return quota / int((group / "cpu.cfs_period_us").read_text(encoding="ascii")) if quota > 0 else math.inf


def machine_times() -> tuple[float, float]:
    """CPU seconds of the machine's cores together: busy (what the hypervisor took included), and that part of it."""
    import psutil

    times: Any = psutil.cpu_times()
    steal = float(getattr(times, "steal", 0.0))
    busy = times.user + times.system + getattr(times, "nice", 0.0)
    return busy + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0) + steal, steal
