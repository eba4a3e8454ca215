"""What the embedded server needs of the machine, looked at before anything is started or downloaded."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import MachineError

PYTHONS: Final = ("3.11", "3.12")
GLIBC: Final = (2, 35)
"""The server's wheel is built for manylinux_2_35."""
SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - where the server puts its regions
SHARED_MEMORY_BYTES: Final = 32 << 20
STUB_LOADS: Final = 1
"""Exit code of the stub started without arguments once all its libraries were found."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: whether it is fine, what was seen, and the next thing to type where it is not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def machine_checks() -> tuple[Check, ...]:
    """Everything looked at, in the order in which it is refused."""
    return (
        platform_check(f"{platform.system()} {platform.machine()}"),
        glibc_check(*platform.libc_ver()),
        python_check(own_version()),
        libpython_check(own_version()),
        venv_check(),
        bash_check(),
        shared_memory_check(SHARED_MEMORY),
    )


def require_machine() -> None:
    """Refuse at once what could only fail later.

    Raises:
        MachineError: the first thing that this machine lacks, and the line that installs it.
    """
    for check in machine_checks():
        if not check.ok:
            raise MachineError(check.detail, remedy=check.remedy)


def own_version() -> str:
    """`3.11` for the interpreter that runs this."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def shared_libpython(version: str) -> Path | None:
    """The shared library of Python `X.Y` that the server's stub loads."""
    name = f"libpython{version}.so.1.0"
    return next((folder / name for folder in _library_folders(version) if (folder / name).exists()), None)


def stub_problem(stub: Path, library_path: str) -> str:
    """Start the stub alone; empty where it loads, else what the loader says."""
    environment = os.environ | {"LD_LIBRARY_PATH": library_path}
    try:
        done = subprocess.run([str(stub)], capture_output=True, text=True, check=False, env=environment, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return "" if done.returncode == STUB_LOADS else done.stderr.strip() or f"the stub exits with {done.returncode}"


def _library_folders(version: str) -> list[Path]:
    machine = platform.machine()
    system = [Path(f"/usr/lib/{machine}-linux-gnu"), Path("/usr/lib64"), Path("/usr/lib"), Path("/usr/local/lib")]
    if version != own_version():
        return system
    named = [sysconfig.get_config_var(key) for key in ("LIBDIR", "LIBPL")]
    return [*(Path(folder) for folder in named if folder), Path(sys.base_prefix) / "lib", *system]


def python_check(version: str) -> Check:
    """CPython 3.11 or 3.12: for these the wheel brings a stub, and numpy 1 a wheel."""
    ok = version in PYTHONS and sys.implementation.name == "cpython"
    found = f"{platform.python_implementation()} {version}"
    if ok:
        return Check("python", ok, found)
    detail = f"the embedded server runs with CPython {' or '.join(PYTHONS)}, this is {found}"
    return Check("python", ok, detail, "python3.11 -m venv .venv && .venv/bin/pip install build-repo")


def libpython_check(version: str) -> Check:
    """The shared libpython of the interpreter."""
    library = shared_libpython(version)
    if library is not None:
        return Check("libpython", ok=True, detail=str(library))
    detail = (
        f"libpython{version}.so.1.0 is missing: the Python in {sys.base_prefix} has no shared library, "
        "and without it the embedded server would hang"
    )
    return Check("libpython", ok=False, detail=detail, remedy=_libpython_remedy(version))


def _libpython_remedy(version: str) -> str:
    if "pyenv" in sys.base_prefix:
        full = platform.python_version() if version == own_version() else version
        return f"PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {full}"
    return _install_line(f"libpython{version}", f"python{version}-libs")


def venv_check() -> Check:
    """The standard library's venv with pip, which Debian packs apart."""
    version = own_version()
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return Check("venv", ok=True, detail=f"python{version} -m venv")
    detail = f"python{version} has no venv with pip"
    return Check("venv", ok=False, detail=detail, remedy=_install_line(f"python{version}-venv", f"python{version}"))


def bash_check() -> Check:
    """The server starts each model's process through bash."""
    bash = shutil.which("bash")
    if bash:
        return Check("bash", ok=True, detail=bash)
    detail = "bash is missing: the server starts each model's process through it"
    return Check("bash", ok=False, detail=detail, remedy=_install_line("bash", "bash"))


def shared_memory_check(folder: Path) -> Check:
    """The server and its model processes exchange tensors through shared memory."""
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return Check(
            "shared memory", ok=False, detail=f"{folder} cannot be written", remedy=f"mount a tmpfs on {folder}"
        )
    free = shutil.disk_usage(folder).free
    if free >= SHARED_MEMORY_BYTES:
        return Check("shared memory", ok=True, detail=f"{free >> 20} MiB free in {folder}")
    detail = f"{folder} has {free >> 20} MiB free, the embedded server needs {SHARED_MEMORY_BYTES >> 20} MiB"
    return Check("shared memory", ok=False, detail=detail, remedy="docker run --shm-size=1g, or a larger tmpfs there")


def platform_check(found: str) -> Check:
    """`Linux x86_64` is what the wheel is built for."""
    ok = found == "Linux x86_64"
    if ok:
        return Check("platform", ok, found)
    detail = f"the embedded server is built for Linux x86_64, this is {found}"
    return Check("platform", ok, detail, "use a Linux x86_64 machine")


def glibc_check(library: str, version: str) -> Check:
    """The C library that the wheel's files were linked against."""
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    ok = library == "glibc" and numbers >= GLIBC
    if ok:
        return Check("glibc", ok, version)
    needed = ".".join(map(str, GLIBC))
    detail = f"the embedded server needs glibc {needed} or newer, this machine has {library or 'another'} {version}"
    return Check("glibc", ok, detail.rstrip(), "use Debian 12, Ubuntu 22.04 or newer")


def _install_line(debian: str, fedora: str) -> str:
    if shutil.which("dnf") and not shutil.which("apt-get"):
        return f"dnf install {fedora}"
    return f"apt-get install {debian}"


def main() -> int:
    """`python -m builder.runtime.preflight`: what set-up runs first; it needs only the standard library."""
    lacking = [check for check in machine_checks() if not check.ok]
    for check in lacking:
        sys.stderr.write(f"error: {check.detail}\n  try: {check.remedy}\n")
    return MachineError.exit_code if lacking else 0


if __name__ == "__main__":
    sys.exit(main())
