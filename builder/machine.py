"""What of this machine decides a measurement: it enters the key of every measure work."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path


@cache
def machine_facts() -> dict[str, str]:
    """CPU model, a digest of its instruction sets, and the cores this process may use."""
    model, flags = _cpu()
    return {
        "cpu": model,
        "instruction_sets": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "cores": str(len(os.sched_getaffinity(0))),
    }


def _cpu() -> tuple[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine(), ""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found.get("model name", platform.machine()), " ".join(sorted(found.get("flags", "").split()))


def has_nvidia_gpu() -> bool:
    """True when the kernel driver shows a device; no library is loaded."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/proc/driver/nvidia/version").exists()
