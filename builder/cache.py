"""The cache: one folder per work, named by its key, complete or absent.

`<root>/<kind>/<key>/` holds a result; `<root>/tmp/<session>/` what a running build has not finished.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.errors import MachineError
from builder.scratch import make_scratch, remove_left_overs

CACHE_VARIABLE: Final = "BUILD_REPO_CACHE"
TAG: Final = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of build-repo; removing it loses only time.\n"
DISK_ERRORS: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What the operating system says when a disk is full, read-only or broken."""


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache folder on this machine."""

    root: Path

    def folder(self, kind: str, key: str) -> Path:
        """Where the result of a work lies once it exists."""
        return self.root / kind / key

    def has(self, kind: str, key: str) -> bool:
        """True when the work is done."""
        return self.folder(kind, key).is_dir()

    def failure(self, key: str) -> Path:
        """Where a failed work leaves its record and log, for the replay command."""
        return self.root / "failures" / key


def default_cache() -> Cache:
    """`BUILD_REPO_CACHE`, else the user's cache folder."""
    configured = os.environ.get(CACHE_VARIABLE)
    if configured:
        return Cache(Path(configured).expanduser().resolve())
    from platformdirs import user_cache_path

    return Cache(user_cache_path("build-repo"))


def open_cache(cache: Cache) -> None:
    """Make the folders, mark them as a cache, and remove what killed builds left.

    Raises:
        MachineError: the folder cannot be written.
    """
    try:
        (cache.root / "tmp").mkdir(parents=True, exist_ok=True)
        tag = cache.root / "CACHEDIR.TAG"
        if not tag.exists():
            tag.write_text(TAG, encoding="utf-8")
    except OSError as error:
        raise disk_error(error, cache.root) from error
    remove_left_overs(cache.root / "tmp", unlocked=True)


@contextmanager
def session(cache: Cache) -> Iterator[Path]:
    """A folder for unfinished work on the cache's file system; it goes when the block ends, or with the next build."""
    where = cache.root / "tmp"
    try:
        folder = make_scratch(where)
    except OSError as error:
        raise disk_error(error, where) from error
    with folder as path:
        yield path


def publish(finished: Path, destination: Path) -> None:
    """Move a finished folder to its place; if another build was faster, its equal result stays."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    for file in finished.rglob("*"):
        if file.is_file():
            _sync(file)
    try:
        finished.rename(destination)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise disk_error(error, destination) from error
        shutil.rmtree(finished, ignore_errors=True)


def _sync(file: Path) -> None:
    """A power cut after the rename must not leave an empty file under a key that says "done"."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def disk_error(error: OSError, where: Path) -> MachineError:
    """An operating system's refusal in the user's words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return MachineError(
            f"the disk is full: no space left to write {where}",
            remedy=f"free some space, or use another disk: {CACHE_VARIABLE}=DIR for the cache, -o for the repository",
        )
    return MachineError(f"cannot write {where}: {error.strerror or error}", remedy=f"check {where} and its permissions")
