"""What a check found: data, judged by severity, never an exception."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of one check.

    `check` is the rule's stable name (`accuracy.cosine`, `native.onnxruntime.shape`), `model` and `target` the
    subject, `file` a path relative to the repository, `line` counted from 1.
    """

    severity: Severity
    check: str
    message: str
    remedy: str = ""
    model: str | None = None
    target: str | None = None
    file: str | None = None
    line: int | None = None


def has_errors(findings: Iterable[Finding]) -> bool:
    """True when at least one finding is an error."""
    return any(finding.severity == "error" for finding in findings)
