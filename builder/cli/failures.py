"""How a command ends when it could not finish: words on stderr, an exit code, and with --json still a document."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from builder.errors import EXIT_BUG, EXIT_INTERRUPTED, BuildRepoError, SpecError


class Interrupted(Exception):  # noqa: N818 - it is no error
    """Ctrl-C or SIGTERM, out of reach of typer, which would turn it into a bare exit code."""


def end(error: BaseException, *, resumes: bool = True) -> tuple[int, dict[str, Any]]:
    """Say on stderr what happened; the exit code, and the finding for a JSON document.

    `resumes`: the command keeps what it finished.
    """
    if isinstance(error, BuildRepoError):
        return _said(error.exit_code, type(error).__name__, error.message, error.remedy)
    if isinstance(error, (KeyboardInterrupt, Interrupted)) or type(error).__name__ == "Abort":
        remedy = "the same command again goes on where it stopped" if resumes else ""
        return _said(EXIT_INTERRUPTED, "Interrupted", str(error) or "interrupted", remedy)
    show = getattr(error, "show", None)  # typer's own usage errors have no public base class
    if show is not None:
        show(file=sys.stderr)
        message = str(getattr(error, "message", "") or "").strip() or "see --help"
        code = int(getattr(error, "exit_code", SpecError.exit_code))
        return code, _finding("UsageError", message, "build-repo --help")
    traceback.print_exception(error)
    message = f"{type(error).__name__}: {error}"
    return _said(EXIT_BUG, "Bug", message, "this is a bug in build-repo; please report it with the lines above")


def _said(code: int, kind: str, message: str, remedy: str) -> tuple[int, dict[str, Any]]:
    sys.stderr.write(f"{message}\n" if kind == "Interrupted" else f"error: {message}\n")
    if remedy:
        sys.stderr.write(f"  try: {remedy}\n")
    return code, _finding(kind, message, remedy)


def _finding(kind: str, message: str, remedy: str) -> dict[str, Any]:
    nowhere = dict.fromkeys(("model", "target", "file", "line"))
    return {"severity": "error", "check": kind, "message": message, "remedy": remedy, **nowhere}


def failure_document(
    finding: dict[str, Any], repository: Path | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """The shape of `build --json` with nothing known but what went wrong."""
    where = str(repository.resolve()) if repository else None
    return {"repository": where, "models": [], "findings": [finding], "seconds": seconds}


@contextmanager
def json_on_failure(repository: Path) -> Iterator[None]:
    """Inside, whatever keeps a command from finishing ends in one JSON document and the right exit code."""
    from builder.cli.show import print_json

    started = time.monotonic()
    try:
        yield
    except typer.Exit:
        raise
    except (KeyboardInterrupt, Exception) as error:
        code, finding = end(error)
        print_json(failure_document(finding, repository, round(time.monotonic() - started, 3)))
        raise typer.Exit(code) from error
