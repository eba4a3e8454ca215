"""Every error that reaches a user, and the exit code it ends the command with.

An exception means "could not finish"; a `builder.findings.Finding` means "finished, not good enough".

    BuildRepoError
    ├── SpecError      2   the spec, the plan or the command line is wrong
    ├── BuildError     1   a model could not be built
    ├── GateError      3   a check said no
    ├── MachineError   4   a library, GPU, port, runtime or free disk space is missing
    └── ServeError     5   serve, check against a server, load test or publish failed
"""

from __future__ import annotations

from typing import Final


class BuildRepoError(Exception):
    """What happened, and in `remedy` the next thing to type or change."""

    exit_code = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return self.message


class SpecError(BuildRepoError):
    """The spec, the plan or the command line asks for something wrong or impossible."""

    exit_code = 2


class BuildError(BuildRepoError):
    """A model could not be exported, converted or measured."""

    exit_code = 1


class GateError(BuildRepoError):
    """A check said no."""

    exit_code = 3


class MachineError(BuildRepoError):
    """This machine lacks something: a library, a GPU, a port, disk space, the embedded runtime."""

    exit_code = 4


class ServeError(BuildRepoError):
    """A server did not start, stopped, or did not answer."""

    exit_code = 5


EXIT_OK: Final = 0
EXIT_BUG: Final = 70
EXIT_INTERRUPTED: Final = 130

KINDS: Final[dict[str, type[BuildRepoError]]] = {
    kind.__name__: kind for kind in (SpecError, BuildError, GateError, MachineError, ServeError)
}


def error_to_json(error: BuildRepoError) -> dict[str, str]:
    """The form in which an error crosses a process border."""
    return {"kind": type(error).__name__, "message": error.message, "remedy": error.remedy}


def error_from_json(data: dict[str, str]) -> BuildRepoError:
    """The error a child process wrote; an unknown kind is a `BuildError`."""
    kind = KINDS.get(data.get("kind", ""), BuildError)
    return kind(data.get("message", "no message"), remedy=data.get("remedy", ""))
