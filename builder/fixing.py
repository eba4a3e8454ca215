"""`validate --fix`: configurations rewritten where that makes the repository better, and only there.

The repository is judged as it would be, in a folder of links, before anything is written. Each file is then replaced in
one step, so the old or the new one stands whatever happens.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import MachineError
from builder.findings import Finding
from builder.fixes import model_edits, text_edits
from builder.scan import CONFIG_FILE, ModelDir, scan_model, scan_repository
from builder.triton_config.tree import apply
from builder.validate import validate_repository

ROUNDS: Final = 20
"""A rule at a time; a repair of the text may show what else is wrong."""


@dataclass(frozen=True, slots=True)
class Fix:
    """One configuration before and after."""

    model: str
    file: str
    old: str
    new: str

    @property
    def diff(self) -> str:
        """As `diff -u` would show it."""
        lines = difflib.unified_diff(
            self.old.splitlines(keepends=True), self.new.splitlines(keepends=True), f"a/{self.file}", f"b/{self.file}"
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def plan_fixes(repository: Path, release: str, gpus: int = 0) -> tuple[Fix, ...]:
    """Every rewriting after which its model validates better; nothing is written.

    Raises:
        SpecError: the release is unknown, or the folder holds no model folder.
    """
    fixes = {model.name: fix for model in scan_repository(repository) if (fix := _fix(model))}
    if not fixes:
        return ()
    before = _errors(validate_repository(repository, release, gpus))
    after = _errors(_judged(repository, fixes, release, gpus))
    fixes = {name: fix for name, fix in fixes.items() if _better(before.get(name, []), after.get(name, []))}
    after = _errors(_judged(repository, fixes, release, gpus))
    # A model that was right by another's fault, an ensemble for example, must not get wrong.
    worse = [name for name in after if name not in fixes and len(after[name]) > len(before.get(name, []))]
    return () if worse else tuple(fixes[name] for name in sorted(fixes))


def write_fixes(repository: Path, fixes: tuple[Fix, ...]) -> None:
    """Replace each file in one step, on the disk before it gets the name.

    Raises:
        MachineError: a file cannot be written; it stands as it was.
    """
    for fix in fixes:
        try:
            _replace((repository / fix.file).resolve(), fix.new)
        except OSError as error:
            raise _unwritable(fix.file, error) from None


def _unwritable(what: str, error: OSError) -> MachineError:
    remedy = "make room and folders that can be written, then run it again"
    return MachineError(f"{what} cannot be written: {error.strerror}", remedy=remedy)


def _fix(model: ModelDir) -> Fix | None:
    if model.text is None or (model.path / CONFIG_FILE).read_bytes() != model.text.encode():
        return None
    text = model.text
    for _ in range(ROUNDS):
        edits = text_edits(text) if model.problem else model_edits(model)
        if not edits:
            break
        text = apply(text, edits)
        model = scan_model(model.path, text)
    return Fix(model.name, model.config_file, _text_of(model.path), text) if text != _text_of(model.path) else None


def _text_of(folder: Path) -> str:
    return (folder / CONFIG_FILE).read_bytes().decode()


def _errors(findings: tuple[Finding, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for item in findings:
        if item.severity == "error":
            found.setdefault(item.model or "", []).append(item.check)
    return found


def _better(before: list[str], after: list[str]) -> bool:
    """Fewer errors, or a text that can be read at last."""
    readable = "structure.config" in before and "structure.config" not in after
    return len(after) < len(before) or readable


def _judged(repository: Path, fixes: Mapping[str, Fix], release: str, gpus: int) -> tuple[Finding, ...]:
    try:
        folder = tempfile.TemporaryDirectory(prefix="build-repo-fix-")
    except OSError as error:
        raise _unwritable("the folder for temporary files", error) from None
    with folder as scratch:
        for item in repository.iterdir():
            fix = fixes.get(item.name)
            there = Path(scratch) / item.name
            if fix is None:
                there.symlink_to(item.resolve())
                continue
            there.mkdir()
            for part in item.iterdir():
                if part.name != CONFIG_FILE:
                    (there / part.name).symlink_to(part.resolve())
            (there / CONFIG_FILE).write_bytes(fix.new.encode())
        return validate_repository(Path(scratch), release, gpus)


def _replace(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
