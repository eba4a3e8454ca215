"""The packages that a step imports, for the Python that will import them: resolved once, then installed as pinned.

pip does both, with whatever index and proxy it is configured for. Only wheels are taken: nothing is built here. numpy
is the interpreter's own (a second one beside it would be another numpy for half of the code), unless it is asked for.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache as remembered
from pathlib import Path
from typing import Any, Final

from builder.cache import Cache, disk_error
from builder.digests import digest_of
from builder.errors import MachineError, SpecError
from builder.libraries import library_versions
from builder.records import read_record, to_json, write_record
from builder.releases import get_release
from builder.work import Packages, Pin

FOLDER: Final = "packages"
PYTHON_FILE: Final = "PYTHON_VERSION"
NO_DEPENDENCIES: Final = "--no-deps"
"""Among requirements: exactly these, and nothing that they ask for."""
GLIBC: Final = {"3.10": 35, "3.12": 39}
"""Python of a release's image → minor version of its glibc 2 (Ubuntu 22.04, 24.04)."""
OLDEST_GLIBC: Final = 17
SERVER_NUMPY: Final = "numpy<2"
"""What the images of every release up to now hold."""
PATIENCE: Final = ("--timeout", "20", "--retries", "1")
ROUNDS: Final = 5
NETWORK: Final = (
    "NameResolutionError", "NewConnectionError", "ConnectTimeoutError", "ReadTimeoutError", "ProxyError", "SSLError",
    "Max retries exceeded", "Connection aborted", "Temporary failure", "Could not fetch URL", "Failed to establish",
)  # fmt: skip

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python that packages are for.

    `pip` is the interpreter whose pip is asked. Without `platforms` that very interpreter is meant, else another of
    `version` on one of them. `numpy` is the one that it brings, as a requirement.
    """

    pip: str
    version: str
    platforms: tuple[str, ...]
    numpy: str


@dataclass(frozen=True, slots=True)
class _Resolved:
    pins: tuple[Pin, ...]


@remembered
def this_python() -> Interpreter:
    """The one that computes the reference."""
    numpy = library_versions(["numpy"])["numpy"]
    return Interpreter(sys.executable, _minor(), (), f"numpy=={numpy}")


@remembered
def release_python(release: str) -> Interpreter:
    """The one of a release's image, on this machine's architecture."""
    version = get_release(release).python
    return Interpreter(sys.executable, version, older_platforms(GLIBC.get(version, 28)), SERVER_NUMPY)


def older_platforms(newest: int) -> tuple[str, ...]:
    """Of wheels that a glibc 2.`newest` takes, on this machine's architecture."""
    machine = platform.machine()
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(newest, OLDEST_GLIBC - 1, -1)]
    return (*names, f"manylinux2014_{machine}")


def _minor() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def resolve(requirements: Sequence[str], interpreter: Interpreter, cache: Cache, like: Sequence[str] = ()) -> Packages:
    """The work that installs the set: what pip chose the first time, for as long as the cache lives.

    `like` are versions (`pillow==12.3.0`) to take where this Python has them: those of another one.

    Raises:
        SpecError: there is no such package, no wheel for that Python, or versions that exclude each other.
        MachineError: the index cannot be reached, or pip is not installed.
    """
    parts = {"requirements": list(requirements), "interpreter": to_json(interpreter), "like": list(like)}
    file = cache.root / "resolved" / f"{digest_of({word: json.dumps(part) for word, part in parts.items()})[:32]}.json"
    if file.is_file():
        pins = read_record(_Resolved, file).pins
    else:
        pins = _nearest(requirements, interpreter, like)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_record(file, _Resolved(pins))
        except OSError as error:
            raise disk_error(error, file) from error
    return Packages(interpreter.version, interpreter.platforms, pins)


def _nearest(requirements: Sequence[str], interpreter: Interpreter, like: Sequence[str]) -> tuple[Pin, ...]:
    if like:
        with suppress(SpecError):
            return _resolve(requirements, interpreter, like)
    return _resolve(requirements, interpreter, ())


def _resolve(requirements: Sequence[str], interpreter: Interpreter, like: Sequence[str]) -> tuple[Pin, ...]:
    """Pip judges markers by its own Python: what it left out for that reason is added, until nothing is missing."""
    wanted = list(requirements)
    ships_numpy = _asks_for_numpy(requirements)
    constraints = [*like, *([] if ships_numpy else [interpreter.numpy])]
    items: list[Json] = []
    for _ in range(ROUNDS):
        items = _report(wanted, interpreter, constraints)
        missed = sorted(set(_missed(items, interpreter)))
        if not missed or NO_DEPENDENCIES in requirements:
            break
        wanted += missed
    pins = (_pin(item) for item in items if ships_numpy or _name(item) != "numpy")
    return tuple(sorted(pins, key=lambda pin: pin.name))


def _asks_for_numpy(requirements: Sequence[str]) -> bool:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    named = (Requirement(text).name for text in requirements if text != NO_DEPENDENCIES)
    return any(canonicalize_name(name) == "numpy" for name in named)


def _report(requirements: Sequence[str], interpreter: Interpreter, constraints: Sequence[str]) -> list[Json]:
    with tempfile.TemporaryDirectory(prefix="build-repo-pip-") as scratch:
        file, report = Path(scratch, "constraints.txt"), Path(scratch, "report.json")
        file.write_text("\n".join(constraints), encoding="utf-8")
        words = ["--dry-run", "--ignore-installed", "--report", str(report), "--constraint", str(file)]
        _pip(interpreter, [*words, "--target", str(Path(scratch, "none")), *requirements], ", ".join(requirements))
        items: list[Json] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return items


def _name(item: Json) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(item["metadata"]["name"])


def _pin(item: Json) -> Pin:
    hashes = item["download_info"].get("archive_info", {}).get("hashes", {})
    return Pin(_name(item), item["metadata"]["version"], hashes.get("sha256", ""))


def _missed(items: Sequence[Json], interpreter: Interpreter) -> Iterator[str]:
    from packaging.markers import default_environment
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found = {_name(item) for item in items}
    environment: dict[str, Any] = {**default_environment(), "python_version": interpreter.version}
    environment["python_full_version"] = f"{interpreter.version}.0"
    for item in items:
        for text in item["metadata"].get("requires_dist", ()):
            requirement = Requirement(text)
            extras = item.get("requested_extras") or ("",)
            applies = requirement.marker is None or any(
                requirement.marker.evaluate({**environment, "extra": extra}) for extra in extras
            )
            if applies and canonicalize_name(requirement.name) not in found:
                requirement.marker = None
                yield str(requirement)


def install_packages(work: Packages, out: Path, pip: str = sys.executable) -> None:
    """Install the pinned wheels into `out/packages`, each as it was when they were resolved.

    Raises:
        MachineError: the index cannot be reached, or has another file under that name.
    """
    folder = out / FOLDER
    pinned = [f"{pin.name}=={pin.version}" for pin in work.pins]
    with tempfile.TemporaryDirectory(prefix="build-repo-pip-") as scratch:
        lock = Path(scratch, "requirements.txt")
        hashed = all(pin.sha256 for pin in work.pins)
        digests = [f" --hash=sha256:{pin.sha256}" if hashed else "" for pin in work.pins]
        lock.write_text("".join(f"{name}{digest}\n" for name, digest in zip(pinned, digests, strict=True)))
        interpreter = Interpreter(pip, work.python, work.platforms, "")
        words = ["--no-deps", "--no-compile", "--target", str(folder), "--requirement", str(lock)]
        try:
            _pip(interpreter, words, ", ".join(pinned))
        except SpecError as error:
            raise MachineError(
                f"packages that were chosen before are no longer to be had: {error.message}",
                remedy="remove the folder resolved/ of the cache, so that others are chosen",
            ) from error
    # Programs start with the path of the interpreter that installed them.
    shutil.rmtree(folder / "bin", ignore_errors=True)
    (folder / PYTHON_FILE).write_text(f"{work.python}\n", encoding="utf-8")


def _pip(interpreter: Interpreter, words: Sequence[str], what: str) -> None:
    """Run `pip install`.

    Raises:
        SpecError: pip found no such set.
        MachineError: pip could not look.
    """
    command = [interpreter.pip, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "-q", *PATIENCE]
    command += ["--only-binary=:all:", *words]
    if interpreter.platforms:
        command += ["--python-version", interpreter.version, "--implementation", "cp"]
        command += [word for name in interpreter.platforms for word in ("--platform", name)]
    dropped = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV")
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise _refusal(done.stderr or done.stdout, what, interpreter)


def _refusal(text: str, what: str, interpreter: Interpreter) -> SpecError | MachineError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return MachineError(
            f"{interpreter.pip} has no pip, which installs a step's packages", remedy="python -m ensurepip"
        )
    if any(word in line for line in lines for word in NETWORK):
        return MachineError(
            f"the packages of a step ({what}) cannot be had: pip does not reach its index",
            remedy="connect to the network, or point pip to an index that can be reached (PIP_INDEX_URL, pip config)",
        )
    told = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")] or lines[-3:]
    where = f"Python {interpreter.version} on {platform.machine()}"
    return SpecError(
        f"the packages of a step ({what}) cannot be had as wheels for {where}: {' '.join(told)[:500]}",
        remedy="change requirements: to versions that have a wheel for that Python and fit each other "
        f"(numpy there is {interpreter.numpy.removeprefix('numpy').lstrip('=')})",
    )


def ensure_packages(work: Packages, key: str, cache: Cache, pip: str) -> Path:
    """The folder of an installed set outside of a build: made now where the cache lacks it.

    Raises:
        MachineError: as `install_packages`.
    """
    from builder.cache import publish, session

    kept = cache.folder(work.kind, key)
    if not kept.is_dir():
        with session(cache) as scratch:
            out = scratch / key
            out.mkdir()
            install_packages(work, out, pip)
            publish(out, kept)
    return kept / FOLDER
