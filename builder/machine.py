"""What of this machine decides a measurement: it enters the key of every measure work."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

CUDA_DRIVER: Final = "libcuda.so.1"
CPU_LIMITS: Final = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
"""Variables by which oneDNN, and OpenVINO with it, leaves instruction sets of the CPU unused."""
VECTORS: Final = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16",),
    "FP16": ("avx512_fp16",),
    "AMX": ("amx_tile",),
}
"""Vector instructions that decide how fast a network runs → the kernel's flags, one of which must be there."""
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
    """CPU model, its vector instructions, the cores this process may use, and the GPU where there is one.

    `instruction_sets` is a digest of all that the CPU can do, for keys; people read `vector_instructions`.
    `cpu_limit` is there where the environment keeps oneDNN from instruction sets that the CPU has.
    """
    model, flags = _cpu()
    found, limits = gpu(), [f"{name}={os.environ[name]}" for name in CPU_LIMITS if os.environ.get(name)]
    vectors = vector_instructions(flags)
    facts = {
        "cpu": model,
        **({"vector_instructions": vectors} if vectors else {}),
        "instruction_sets": hashlib.sha256(flags.encode()).hexdigest()[:16],
        "cores": str(len(os.sched_getaffinity(0))),
    }
    return facts | ({"gpu": found.name} if found else {}) | ({"cpu_limit": limits[0]} if limits else {})


def vector_instructions(flags: str) -> str:
    """`AVX2, AVX-512, VNNI`."""
    there = set(flags.split())
    return ", ".join(name for name, words in VECTORS.items() if there.intersection(words))


def machine_differences(measured: Mapping[str, str], other: Mapping[str, str], word: str) -> tuple[str, ...]:
    """`cores 96, here 2` with the word `here`, for each fact that is not the same; empty on the same machine."""
    differ = [key for key in dict.fromkeys((*measured, *other)) if measured.get(key) != other.get(key)]
    said = [
        f"{key.replace('_', ' ')} {measured.get(key, 'none')}, {word} {other.get(key, 'none')}"
        for key in differ
        if key != "instruction_sets"
    ]
    # A digest tells nobody anything: what it stands for is said where nothing else differs.
    return tuple(said or ["other instruction sets of the CPU"]) if differ else ()


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
