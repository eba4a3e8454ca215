"""Rules over a repository: one module each. A new family of rules is one file and one line below.

Every check is offline, reads files only, and yields findings with paths relative to the repository.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

from builder.findings import Finding


@dataclass(frozen=True, slots=True)
class CheckContext:
    """The server that the repository is judged for; 0 `cores` are not known."""

    release: str
    gpus: int = 0
    cores: int = 0
    auto_complete: bool = False


class Check(Protocol):
    """A module of this folder."""

    def check(self, repository: Path, context: CheckContext) -> Iterator[Finding]:
        """What is wrong with the repository."""


CHECKS: Final[dict[str, str]] = {
    "structure": "builder.checks.structure",
    "native": "builder.checks.native",
    "core": "builder.checks.core",
    "warm_up": "builder.checks.warm_up",
    "ensembles": "builder.checks.ensembles",
    "saved_models": "builder.checks.saved_models",
    "release": "builder.checks.release",
    "python_models": "builder.checks.python_models",
    "named_configs": "builder.checks.named_configs",
}


def check_module(word: str) -> Check:
    """The module for a word of `CHECKS`."""
    return cast("Check", import_module(CHECKS[word]))


def run_checks(repository: Path, context: CheckContext, words: Iterable[str] = tuple(CHECKS)) -> tuple[Finding, ...]:
    """All findings of the named checks, in their order."""
    return tuple(finding for word in words for finding in check_module(word).check(repository, context))
