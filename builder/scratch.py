"""Folders for unfinished work: gone when their block ends, or, where the process was killed, when the next one is made.

Each holds the lock of a file inside while its process lives. It gets its name only then, so that whoever looks for what
was left behind never takes a fresh one for it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

LOCK: Final = "lock"
UNNAMED: Final = ".build-repo-new-"


@contextmanager
def temporary_folder(purpose: str) -> Iterator[Path]:
    """A folder among the system's temporary ones; what killed processes left of this purpose is removed first."""
    where, prefix = Path(tempfile.gettempdir()), f"build-repo-{purpose}-"
    remove_left_overs(where, prefix)
    with make_scratch(where, prefix) as folder:
        yield folder


def make_scratch(where: Path, prefix: str = "") -> AbstractContextManager[Path]:
    """A new folder, made at once; it goes when the block ends.

    Raises:
        OSError: it cannot be made.
    """
    unnamed = Path(tempfile.mkdtemp(prefix=UNNAMED, dir=where))
    lock = FileLock(unnamed / LOCK)
    lock.acquire()
    folder = where / f"{prefix}{os.getpid()}-{unnamed.name.removeprefix(UNNAMED)}"
    unnamed.rename(folder)
    return _held(folder, lock)


@contextmanager
def _held(folder: Path, lock: FileLock) -> Iterator[Path]:
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()


def remove_left_overs(where: Path, prefix: str = "", *, unlocked: bool = False) -> None:
    """Remove the folders whose process has ended; others, and those of other users, are left alone.

    `unlocked` asks for those without the file of a lock too, where nobody else makes folders.
    """
    for folder in where.glob(f"{prefix}*"):
        if not folder.name.startswith(UNNAMED) and (unlocked or (folder / LOCK).exists()):
            _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    try:
        with FileLock(folder / LOCK).acquire(blocking=False):
            shutil.rmtree(folder, ignore_errors=True)
    except (Timeout, OSError):
        return
