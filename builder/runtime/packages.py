"""Packages of another virtual environment, through that environment's own pip."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from builder.errors import MachineError


def install_near(python: Path, package: str, version: str, progress: Callable[[str], object]) -> str:
    """Install the version, or the nearest patch release of the same minor; returns the note to record, or nothing."""
    progress(f"installing {package} {version}")
    try:
        pip_install(python, f"{package}=={version}")
    except MachineError as error:
        near = nearest_patch(version, _available(python, package))
        if near is None or near == version:
            msg = f"{package} {version} cannot be installed: {error}"
            raise MachineError(msg, remedy=error.remedy) from error
        note = f"{package} {near} stands for {version}, which the package index does not have for this Python"
        progress(note)
        pip_install(python, f"{package}=={near}")
        return note
    return ""


def nearest_patch(version: str, available: tuple[str, ...]) -> str | None:
    """The release of the same major and minor whose patch number is nearest; the newer of two equally near."""
    wanted = _numbers(version)
    same = [item for item in available if _numbers(item)[:2] == wanted[:2] and re.fullmatch(r"[\d.]+", item)]
    return min(same, key=lambda item: (abs(_patch(item) - _patch(version)), -_patch(item)), default=None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _patch(version: str) -> int:
    numbers = _numbers(version)
    return numbers[2] if len(numbers) > 2 else 0  # noqa: PLR2004 - major, minor, patch


def _available(python: Path, package: str) -> tuple[str, ...]:
    text = run_tool([str(python), "-m", "pip", "index", "versions", package], f"ask the package index for {package}")
    found = re.search(r"Available versions: (.*)", text)
    return tuple(part.strip() for part in found.group(1).split(",")) if found else ()


def pip_install(python: Path, *requirements: str) -> None:
    # No dependencies: the wheel asks for a client stack that the bare server does not use.
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-q", "--no-deps", *requirements]
    run_tool(command, f"install {', '.join(requirements)}")


def installed_versions(python: Path) -> dict[str, str]:
    code = "import importlib.metadata as m\nfor d in m.distributions(): print(d.metadata['Name'], d.version)"
    pairs = (line.split() for line in run_tool([str(python), "-c", code], "list the runtime's packages").splitlines())
    return dict(sorted((name.lower(), version) for name, version in pairs))


def run_tool(command: list[str], purpose: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line or "Error" in line] or lines[-3:]
        msg = f"could not {purpose}: {' '.join(errors)[-600:] or f'exit code {done.returncode}'}"
        raise MachineError(msg, remedy=f"run it by hand to see all of it: {' '.join(command)}")
    return done.stdout
