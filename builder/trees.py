"""Trees of files: the same one again as links, and whether two hold the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from builder.digests import PYTHON_CACHE, file_digest
from builder.manifest import MANIFEST_FILE


def link_tree(source: Path, destination: Path) -> None:
    """A folder or file again, as hard links where the file system has them, symlinks as they are."""
    if source.is_symlink() or not source.is_dir():
        link(str(source), str(destination))
        return
    shutil.copytree(source, destination, symlinks=True, copy_function=link)


def link(source: str, destination: str) -> None:
    try:
        os.link(source, destination, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, destination, follow_symlinks=False)


def same_content(left: Path, right: Path) -> bool:
    """The same tree of files with the same bytes, the manifest and our own left-overs aside."""
    ours, theirs = _tree(left), _tree(right)
    if ours.keys() != theirs.keys():
        return False
    return all(_same_item(ours[name], theirs[name]) for name in ours)


def _tree(folder: Path) -> dict[str, Path]:
    every = {str(path.relative_to(folder)): path for path in folder.rglob("*")}
    return {
        name: path
        for name, path in every.items()
        if name != MANIFEST_FILE and not name.startswith(".build-repo-") and PYTHON_CACHE not in Path(name).parts
    }


def _same_item(left: Path, right: Path) -> bool:
    """A hard link to the same file needs no reading."""
    if left.is_symlink() or right.is_symlink():
        return left.is_symlink() and right.is_symlink() and os.readlink(left) == os.readlink(right)
    if not left.is_file() or not right.is_file():
        return left.is_dir() and right.is_dir()
    if left.samefile(right):
        return True
    return left.stat().st_size == right.stat().st_size and file_digest(left) == file_digest(right)
