"""What of this machine decides a measurement: it enters the key of every measure work."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

CUDA_DRIVER: Final = "libcuda.so.1"
CPU_LIMITS: Final = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables by which oneDNN, and OpenVINO with it, leaves instruction sets of the CPU unused."""
MAJOR: Final = 75
MINOR: Final = 76
"""`CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `_MINOR` of the driver's interface."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first NVIDIA GPU that a process here sees; `compute_capability` is `9.0`."""

    name: str
    compute_capability: str


@cache
def machine_facts() -> dict[str, str]:
    """CPU model, a digest of its instruction sets, the cores this process may use, and the GPU where there is one.

    `cpu_limit` is there where the environment keeps oneDNN from instruction sets that the CPU has.
    """
    model, flags = _cpu()
    found, limits = gpu(), [f"{name}={os.environ[name]}" for name in CPU_LIMITS if os.environ.get(name)]
    facts = {
        "cpu": model,
        "instruction_sets": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "cores": str(len(os.sched_getaffinity(0))),
    }
    return facts | ({"gpu": found.name} if found else {}) | ({"cpu_limit": limits[0]} if limits else {})


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


def gpu_count() -> int:
    """The devices that the kernel driver shows."""
    return len(tuple(Path("/dev").glob("nvidia[0-9]*")))


def has_nvidia_gpu() -> bool:
    """True when the kernel driver shows a device; no library is loaded."""
    return gpu_count() > 0 or Path("/proc/driver/nvidia/version").exists()


@cache
def gpu() -> Gpu | None:
    """Asked from the driver's own library, which brings no context up; None without a driver or a GPU."""
    if not has_nvidia_gpu():
        return None
    try:
        driver = ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return None
    device, major, minor, name = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(256)
    answered = (
        driver.cuInit(0) == 0
        and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
        and driver.cuDeviceGetName(name, len(name), device) == 0
        and driver.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device) == 0
        and driver.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device) == 0
    )
    if not answered:
        return None
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")
