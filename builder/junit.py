"""Findings as JUnit XML, the form that every CI system reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from builder.findings import Finding
from builder.records import write_text


@dataclass(frozen=True, slots=True)
class Case:
    """One test case; `skipped` says why it was not judged."""

    name: str
    findings: tuple[Finding, ...]
    seconds: float = 0.0
    skipped: str = ""


def write_junit(path: Path, suite: str, cases: Iterable[Case]) -> None:
    """Write one test suite into a file."""
    write_text(path, junit_text(suite, cases))


def junit_text(suite: str, cases: Iterable[Case]) -> str:
    """One test suite; error findings are failures, a case that was not judged is skipped."""
    every = list(cases)
    root = ET.Element("testsuite", name=suite, tests=str(len(every)))
    failures = 0
    for case in every:
        element = ET.SubElement(
            root, "testcase", classname=suite, name=_printable(case.name), time=f"{case.seconds:.3f}"
        )
        if case.skipped:
            ET.SubElement(element, "skipped", message=_printable(case.skipped))
        errors = [finding for finding in case.findings if finding.severity == "error"]
        failures += bool(errors)
        for finding in errors:
            failure = ET.SubElement(element, "failure", type=finding.check, message=_printable(finding.message))
            failure.text = _printable(finding.remedy)
    root.set("failures", str(failures))
    root.set("skipped", str(sum(bool(case.skipped) for case in every)))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    """XML 1.0 has no control characters."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)
