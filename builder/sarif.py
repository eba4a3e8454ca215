"""Findings as SARIF 2.1.0, the form in which code hosts show them beside the lines they are about.

The shape is that of the OASIS standard, section 3: one run, a rule per `check`, a result per finding.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from builder import __version__
from builder.findings import Finding

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS: Final = {"error": "error", "warning": "warning", "info": "note"}


def sarif_document(findings: Sequence[Finding]) -> dict[str, Any]:
    """The whole log; file names stay relative to the repository, which is what `%SRCROOT%` stands for."""
    rules = sorted({finding.check for finding in findings})
    driver = {
        "name": "build-repo",
        "version": __version__,
        "rules": [{"id": rule, "name": rule} for rule in rules],
    }
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": [_result(finding, rules) for finding in findings]}],
    }


def _result(finding: Finding, rules: Sequence[str]) -> dict[str, Any]:
    text = finding.message + (f" Try: {finding.remedy}" if finding.remedy else "")
    return {
        "ruleId": finding.check,
        "ruleIndex": rules.index(finding.check),
        "level": LEVELS[finding.severity],
        "message": {"text": text},
        "locations": [_location(finding)],
    }


def _location(finding: Finding) -> dict[str, Any]:
    """A finding about a whole model points to its folder."""
    physical: dict[str, Any] = {
        "artifactLocation": {"uri": _uri(finding.file or finding.model or "."), "uriBaseId": "%SRCROOT%"}
    }
    if finding.line:
        physical["region"] = {"startLine": finding.line}
    return {"physicalLocation": physical}


def _uri(path: str) -> str:
    from urllib.parse import quote

    return quote(os.fsencode(path))
