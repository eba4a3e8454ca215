"""Containers know the process that started them, so that what a killed one left is found and removed."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Final

OWNER_LABEL: Final = "build-repo.owner"


def own_label() -> str:
    """`BOOT/NAMESPACE/PID/START`: this process and no other, on this machine since its last start."""
    return f"{_here()}/{os.getpid()}/{_start_of(os.getpid())}"


def owner_is_gone(label: str, *, running: bool) -> bool:
    """True where the process has certainly ended.

    A process of another PID namespace cannot be seen from here, so its running container is left alone.
    """
    boot, _, rest = label.partition("/")
    namespace, _, process = rest.partition("/")
    if f"{boot}/{namespace}" != _here():
        return boot != _here().partition("/")[0] and not running
    pid, _, start = process.partition("/")
    return _start_of(int(pid)) != start if pid.isdigit() else False


def remove_left_overs(client: Any) -> int:  # noqa: ANN401 - docker.DockerClient
    """Remove the containers whose owner is gone; how many there were."""
    from docker.errors import DockerException

    removed = 0
    for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}, ignore_removed=True):
        label = container.labels.get(OWNER_LABEL, "")
        if owner_is_gone(label, running=container.status == "running"):
            with contextlib.suppress(DockerException):
                container.remove(force=True, v=True)
                removed += 1
    return removed


def _here() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]")
    return f"{boot}/{namespace}"


def _start_of(pid: int) -> str:
    """When the process began, in the kernel's own count; empty where there is none, or only its burial is due."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
