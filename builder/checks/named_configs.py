"""Configurations beside `config.pbtxt`, which the server reads when it is started with `--model-config-name`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from builder.checks import CHECKS, run_checks
from builder.findings import Finding
from builder.scan import CONFIG_FILE

if TYPE_CHECKING:
    from builder.checks import CheckContext

FOLDER: Final = "configs"
WORDS: Final = tuple(word for word in CHECKS if word not in ("named_configs", "ensembles"))
"""An ensemble is judged with its members, and they with the configurations that are read without a name."""


def check(repository: Path, context: CheckContext) -> Iterator[Finding]:
    """Every other rule, on the model as it would be with that configuration."""
    for folder in sorted(repository.iterdir()):
        files = sorted((folder / FOLDER).glob("*.pbtxt")) if (folder / FOLDER).is_dir() else ()
        for file in (file for file in files if file.is_file()):
            yield from _named(folder, file, context)


def _named(folder: Path, file: Path, context: CheckContext) -> Iterator[Finding]:
    with tempfile.TemporaryDirectory(prefix="build-repo-named-") as scratch:
        copy = Path(scratch) / folder.name
        copy.mkdir()
        for entry in folder.iterdir():
            if entry.name not in (CONFIG_FILE, FOLDER):
                (copy / entry.name).symlink_to(entry.resolve())
        (copy / CONFIG_FILE).symlink_to(file.resolve())
        for finding in run_checks(Path(scratch), context, WORDS):
            if finding.file == f"{folder.name}/{CONFIG_FILE}":
                yield _placed(finding, f"{folder.name}/{FOLDER}/{file.name}", file.stem, context)


def _placed(finding: Finding, file: str, name: str, context: CheckContext) -> Finding:
    """A server that is started without that name loads the model: in a repository that stands this is a warning."""
    severity = "warning" if finding.severity == "error" and context.auto_complete else finding.severity
    message = f"with --model-config-name={name}: {finding.message}"
    return replace(finding, severity=severity, message=message, file=file)
