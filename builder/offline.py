"""Every offline rule over staged model folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from builder.assemble import Staged
from builder.checks import CHECKS, CheckContext, check_module
from builder.findings import Finding


def check_offline(staged: Path, items: Sequence[Staged], *, release: str) -> dict[str, tuple[Finding, ...]]:
    """Folder → what the rules say of it."""
    context = CheckContext(release=release)
    found: dict[str, list[Finding]] = {item.record.folder: [] for item in items}
    targets = {item.record.folder: str(item.record.target) for item in items}
    for word in CHECKS:
        for finding in check_module(word).check(staged, context):
            if finding.model in found:
                found[finding.model].append(replace(finding, target=targets[finding.model]))
    return {folder: tuple(findings) for folder, findings in found.items()}
