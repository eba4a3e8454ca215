"""The slim image of this checkout, built once for every test that runs it, and what such tests look at."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from command_line import ROOT

from builder.errors import MachineError

SUFFIX = hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
"""Of the names of images and projects: another checkout may be tested on the same engine."""
SLIM = f"build-repo/tritonserver-cpu:test-{SUFFIX}"


def docker(*words: str, check: bool = True, timeout: float = 120) -> str:
    """stdout of the docker command."""
    command = ["docker", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=ROOT)
    assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def require_engine() -> None:
    """Skip where no engine answers."""
    from builder.servers.docker_engine import engine_version

    try:
        engine_version()
    except MachineError as error:
        pytest.skip(f"{error.message}; {error.remedy}")


def build_slim_image() -> str:
    """By `make image`, as a user does; the second process to come finds it made."""
    from filelock import FileLock

    with FileLock(Path(tempfile.gettempdir()) / "build-repo-test-image.lock"):
        done = subprocess.run(
            ["make", "image", f"IMAGE={SLIM}"], cwd=ROOT, capture_output=True, text=True, timeout=540, check=False
        )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    return SLIM


def containers(owner: int | None = None) -> set[str]:
    """The containers that a process, this one when left out, has started by build-repo."""
    return set(docker("ps", "-aq", "--filter", f"name=^/?build-repo-{owner or os.getpid()}-").split())


def shared_memory() -> set[str]:
    """Regions of servers that were not told another name, as the embedded one is."""
    return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith("triton_python_backend")}
