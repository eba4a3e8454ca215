"""Every offline rule over staged model folders, with the verdict kept by what was judged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from builder.cache import Cache
from builder.checks import CHECKS, CheckContext, check_module
from builder.digests import digest_of, file_digest
from builder.findings import Finding
from builder.libraries import all_code_digest, library_versions
from builder.machine import gpu_count
from builder.manifest import ServedRecord
from builder.records import canonical, read_record, write_record
from builder.releases import DATA_FILE

LIBRARIES = ("onnx", "protobuf", "tritonclient")
"""What the rules read files with."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """Folder → findings, as it is kept in the cache."""

    findings: dict[str, tuple[Finding, ...]]


def check_offline(
    staged: Path, items: Sequence[ServedRecord], *, release: str, cache: Cache
) -> Mapping[str, tuple[Finding, ...]]:
    """Folder → what the rules say of it; what was judged before is not read again."""
    file = cache.root / "offline" / f"{_key(staged, items, release)}.json"
    if file.is_file():
        return read_record(_Verdict, file).findings
    verdict = _Verdict(_judge(staged, items, release))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_record(file, verdict)
    return verdict.findings


def _judge(staged: Path, items: Sequence[ServedRecord], release: str) -> dict[str, tuple[Finding, ...]]:
    context = CheckContext(release=release, gpus=gpu_count())
    found: dict[str, list[Finding]] = {item.folder: [] for item in items}
    targets = {item.folder: str(item.target) if item.target else None for item in items}
    for word in CHECKS:
        for finding in check_module(word).check(staged, context):
            if finding.model in found:
                found[finding.model].append(replace(finding, target=targets[finding.model]))
    return {folder: tuple(findings) for folder, findings in found.items()}


def _key(staged: Path, items: Sequence[ServedRecord], release: str) -> str:
    """The files of this build by content, those of older versions by their names and sizes."""
    parts = {
        "files": {item.folder: [str(item.target) if item.target else None, digest_of(item.files)] for item in items},
        "sizes": {str(path.relative_to(staged)): path.lstat().st_size for path in staged.rglob("*") if path.is_file()},
        "release": release,
        "releases": file_digest(DATA_FILE),
        "gpus": gpu_count(),
        "libraries": library_versions(LIBRARIES),
        "code": all_code_digest(),
    }
    return hashlib.sha256(canonical(parts)).hexdigest()[:32]
