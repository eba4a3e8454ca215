"""Versions of a model: which stay, which are served, and what may not change from one to the next."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from builder.findings import Finding
from builder.manifest import SAMPLES_FILE
from builder.tensors import Signature

VERSION: Final = re.compile(r"[1-9][0-9]*")


def versions_in(folder: Path) -> list[int]:
    """The version numbers of a model folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(item.name) for item in folder.iterdir() if VERSION.fullmatch(item.name) and item.is_dir())


def kept_versions(present: list[int], version: int, keep: int, pinned: tuple[int, ...]) -> list[int]:
    """Older versions that stay beside `version`: those that the spec names, then the newest."""
    older = [number for number in present if number != version]
    wanted = [number for number in older if number in pinned]
    rest = [number for number in older if number not in wanted]
    room = max(0, keep - 1 - len(wanted))
    return sorted(wanted + rest[len(rest) - min(room, len(rest)) :])


def served_numbers(serve: str | int | tuple[int, ...], present: Iterable[int]) -> list[int]:
    """The versions that a server loads of those that are there."""
    numbers = sorted(present)
    if isinstance(serve, tuple):
        return [number for number in numbers if number in serve]
    return numbers if serve == "all" else numbers[-(serve if isinstance(serve, int) else 1) :]


def answers_file(version: int) -> str:
    """Where the answers of a version lie that is served beside the newest one."""
    stem, _, suffix = SAMPLES_FILE.partition(".")
    return f"{stem}.{version}.{suffix}"


def signature_changes(old: Signature, new: Signature) -> list[str]:
    """What a client of the old signature would notice, one line each; empty when nothing."""
    changes = []
    for side in ("inputs", "outputs"):
        before = {tensor.name: tensor for tensor in getattr(old, side)}
        after = {tensor.name: tensor for tensor in getattr(new, side)}
        word = side[:-1]
        changes += [f"- {word} {before[name].describe()}" for name in before if name not in after]
        changes += [f"+ {word} {after[name].describe()}" for name in after if name not in before]
        for name in before.keys() & after.keys():
            was, now = before[name], after[name]
            if (was.dtype, was.wire_shape) != (now.dtype, now.wire_shape):
                changes += [f"- {word} {was.describe()}", f"+ {word} {now.describe()}"]
    if not changes and [t.name for t in old.tensors] != [t.name for t in new.tensors]:
        changes.append(f"order: {[t.name for t in old.tensors]} → {[t.name for t in new.tensors]}")
    return changes


def signature_finding(name: str, old: Signature, new: Signature) -> Finding | None:
    """A changed signature under the same name breaks every client: refused."""
    changes = signature_changes(old, new)
    if not changes:
        return None
    return Finding(
        "error",
        "repository.signature",
        f"the signature changed: {'; '.join(changes)}",
        remedy=f"give the new model another name (for example {name}_v2), or build into another folder with -o",
        model=name,
    )
