"""Python models: the parameters that the python backend reads, their environment, and the Python of the release."""

from __future__ import annotations

import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from builder.findings import Finding, Severity
from builder.releases import get_release
from builder.scan import RENAME, ModelDir, backend_of, broken_in_shell, joined, line_of, scan_repository

if TYPE_CHECKING:
    from builder.checks import CheckContext

HERE: Final = "$$TRITON_MODEL_DIRECTORY"
STUB: Final = "triton_python_backend_stub"
ACTIVATE: Final = "bin/activate"
_LIBRARY: Final = re.compile(r"(?:^|/)lib/python(3\.\d+)/")
_COMPILED: Final = re.compile(r"\.cpython-3(\d+)[a-z]*-[\w-]*linux-\w+\.so$")
MEMBERS_READ: Final = 4000
"""Of a packed environment: enough to meet its `lib/python3.X`, and read in a moment."""


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """What the python backend refuses, and code for another Python than the release's."""
    python = get_release(context.release).python
    for model in scan_repository(repository):
        if backend_of(model) == "python":
            yield from _shell(model)
        if model.config is None or backend_of(model) != "python":
            continue
        parameters = {
            key: str(item.get("string_value", "")) for key, item in model.config.get("parameters", {}).items()
        }
        yield from _flags(model, parameters)
        if "EXECUTION_ENV_PATH" in parameters:
            yield from _environment(repository, model, parameters["EXECUTION_ENV_PATH"], context.release, python)
        elif not (model.path / STUB).exists():
            yield from _compiled(model, context.release, python)


def _found(  # noqa: PLR0913, PLR0917 - the parts of a finding
    model: ModelDir, severity: Severity, rule: str, message: str, remedy: str, word: str
) -> Finding:
    where: dict[str, Any] = {"model": model.name, "file": model.config_file, "line": line_of(model, word)}
    return Finding(severity, f"python.{rule}", message, remedy, **where)


def _shell(model: ModelDir) -> Iterator[Finding]:
    if broken := broken_in_shell(model):
        message = (
            f"the python backend starts a model by a shell command, in which {broken}: the model's process never "
            "starts, and the server waits for it for ever"
        )
        yield Finding("error", "python.name", message, RENAME, model=model.name)
    elif not model.name.isascii():
        message = (
            f"the python backend reads paths as ASCII, whatever the server's locale, and the folder is {model.name!r}: "
            "UnicodeEncodeError: 'ascii' codec can't encode characters"
        )
        yield Finding("error", "python.name", message, RENAME, model=model.name)


def _flags(model: ModelDir, parameters: dict[str, str]) -> Iterator[Finding]:
    word = "FORCE_CPU_ONLY_INPUT_TENSORS"
    if word in parameters and parameters[word] not in ("yes", "no"):
        message = f"Incorrect value for {word}: {parameters[word]}'"
        yield _found(model, "error", "parameter", message, 'write "yes" or "no", in small letters', word)


def _environment(repository: Path, model: ModelDir, value: str, release: str, python: str) -> Iterator[Finding]:
    word = "EXECUTION_ENV_PATH"
    if not value:
        return
    if not value.startswith(("/", HERE)):
        message = f"Failed to get the canonical path for {value}. It is looked up where the server was started"
        yield _found(model, "error", "environment", message, f"write {HERE}/ before it", word)
        return
    if not value.startswith(HERE):
        message = f"{word} {value!r} is a path of the machine that serves, and is not judged here"
        remedy = f"put the environment into the model's folder and write {HERE}/NAME.tar.gz"
        yield _found(model, "warning", "environment", message, remedy, word)
        return
    path = joined(model.path, value[len(HERE) :])
    if not path.exists() or not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(repository)):
        message = f"Failed to get the canonical path for {model.name}/{value[len(HERE) :].lstrip('/')}."
        yield _found(model, "error", "environment", message, f"put it into the folder {model.name}", word)
        return
    names = _names(path)
    if names is None:
        message = f"{path.name} is no archive that can be read: archive_read_open_filename() failed."
        yield _found(model, "error", "environment", message, "pack it again with conda-pack", word)
        return
    if ACTIVATE not in names and len(names) < MEMBERS_READ:
        message = f"{path.name} holds no {ACTIVATE}: The Python environment should contain an 'activate' script."
        yield _found(model, "error", "environment", message, "pack a whole environment with conda-pack", word)
    found = {match[1] for name in names if (match := _LIBRARY.search(name))}
    if found and python not in found and not (model.path / STUB).exists():
        message = f"{path.name} is an environment for Python {', '.join(sorted(found))}; Triton {release} has {python}"
        remedy = f"make it with Python {python}, or put a {STUB} for its Python into the folder {model.name}"
        yield _found(model, "error", "version", message, remedy, word)


def _names(path: Path) -> set[str] | None:
    """The files of an environment, or the first of them; None where it cannot be read."""
    if path.is_dir():
        there = {ACTIVATE} if (path / ACTIVATE).exists() else set[str]()
        return there | {f"lib/{item.name}/" for item in path.glob("lib/python3.*")}
    names = set()
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                names.add(member.name.removeprefix("./") + ("/" if member.isdir() else ""))
                if len(names) >= MEMBERS_READ:
                    break
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError):
        return None
    return names


def _compiled(model: ModelDir, release: str, python: str) -> Iterator[Finding]:
    """Extension modules beside the model, which only the Python that they are compiled for imports."""
    minors: dict[str, str] = {}
    for path in sorted(model.path.rglob("*.so")):
        match = _COMPILED.search(path.name)
        if match:
            minors.setdefault(f"3.{match[1]}", str(path.relative_to(model.path.parent)))
    for minor, file in minors.items():
        if minor != python and python not in minors:
            message = f"{file} is compiled for Python {minor}; Triton {release} has {python}, which cannot import it"
            remedy = f"install the packages again: pip install --target … --python-version {python} --only-binary :all:"
            yield Finding("error", "python.version", message, remedy, model=model.name, file=file)
