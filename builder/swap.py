"""Replace a repository by a staged one: a reader sees the old or the new, and a kill at any moment loses neither.

One hidden folder stands beside the output while a build runs: it holds the lock and the staged repository. Where the
output is a mount point, or its parent cannot be written, the hidden folder lies inside the output instead.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from builder.cache import disk_error
from builder.errors import MachineError

LOCK: Final = "lock"
STAGED: Final = "staged"
MOVED: Final = "moved"
"""What is being replaced item by item, until its successor stands."""
REMOVED: Final = "removed"
AT_FDCWD: Final = -100
RENAME_EXCHANGE: Final = 2
NO_EXCHANGE: Final = (errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EBUSY, errno.EPERM, errno.EACCES)


@dataclass(frozen=True, slots=True)
class Staging:
    """An output that this process may replace: `staged` is empty and lies on the output's file system."""

    output: Path
    workshop: Path

    @property
    def staged(self) -> Path:
        """Where the new repository is put together."""
        return self.workshop / STAGED

    @property
    def inside(self) -> bool:
        """True when the workshop lies inside the output, which can then not be exchanged as a whole."""
        return self.workshop.parent == self.output


@contextmanager
def staging(output: Path) -> Iterator[Staging]:
    """Lock the output and give an empty staging folder; whatever a killed build left there is removed.

    Raises:
        MachineError: another build holds the output, or nothing can be written there.
    """
    output = output.resolve()
    try:
        workshop = _workshop(output)
        lock = _lock(workshop, output)
    except OSError as error:
        raise disk_error(error, output.parent) from error
    made_output = workshop.parent == output
    try:
        _recover(workshop, output)
        yield Staging(output, workshop)
    finally:
        shutil.rmtree(workshop, ignore_errors=True)
        os.close(lock)
        if made_output:
            with suppress(OSError):
                output.rmdir()


def _recover(workshop: Path, output: Path) -> None:
    """Clear what a killed build left; what it had moved out of the output and not yet replaced goes back first."""
    moved = workshop / MOVED
    try:
        for item in sorted(moved.iterdir()) if moved.is_dir() else ():
            if not os.path.lexists(output / item.name):
                item.rename(output / item.name)
        for item in workshop.iterdir():
            if item.name != LOCK:
                remove(item)
    except OSError as error:
        raise disk_error(error, workshop) from error


def _workshop(output: Path) -> Path:
    outside = not os.path.ismount(output)
    parent = output.parent
    if outside:
        parent.mkdir(parents=True, exist_ok=True)
        outside = os.access(parent, os.W_OK)
    folder = (parent if outside else output) / f".build-repo-{output.name}"
    folder.mkdir(exist_ok=True)
    return folder


def _lock(workshop: Path, output: Path) -> int:
    """An exclusive lock on a file that still stands where it was opened: the holder before may have removed it."""
    while True:
        workshop.mkdir(exist_ok=True)
        try:
            handle = os.open(workshop / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise MachineError(
                f"another build is writing {output}", remedy="wait for it to end, or give another output with -o"
            ) from None
        with suppress(FileNotFoundError):
            if os.stat(workshop / LOCK).st_ino == os.fstat(handle).st_ino:
                return handle
        os.close(handle)


def swap(place: Staging) -> None:
    """Put the staged repository where the output stands; the old one is removed afterwards.

    Raises:
        MachineError: the file system refused; the old repository still stands.
    """
    try:
        if place.output.exists():
            shutil.copymode(place.output, place.staged)
        _sync_tree(place.staged)
        if place.inside:
            _swap_items(place)
        elif not place.output.exists():
            place.staged.rename(place.output)
        elif not _exchange(place.staged, place.output):
            _swap_items(place)
        _sync_folder(place.output.parent)
    except OSError as error:
        raise disk_error(error, place.output) from error


def _exchange(staged: Path, output: Path) -> bool:
    """Swap two folders in one step; False where this kernel or file system has no such step (renameat2(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):
        return False
    result = libc.renameat2(AT_FDCWD, os.fsencode(staged), AT_FDCWD, os.fsencode(output), RENAME_EXCHANGE)
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number in NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(output))


def _swap_items(place: Staging) -> None:
    """Model folder by model folder, the manifest last: a kill in between leaves whole models, old or new."""
    from builder.manifest import MANIFEST_FILE

    place.output.mkdir(exist_ok=True)
    moved, removed = place.workshop / MOVED, place.workshop / REMOVED
    moved.mkdir()
    removed.mkdir()
    new = sorted(place.staged.iterdir(), key=lambda item: item.name == MANIFEST_FILE)
    names = {item.name for item in new}
    for item in new:
        current = place.output / item.name
        if current.is_dir() and not current.is_symlink():
            if _exchange(item, current):
                continue
            current.rename(moved / item.name)
        os.replace(item, current)
    for item in list(place.output.iterdir()):
        if item.name not in names and item != place.workshop:
            item.rename(removed / item.name)


def _sync_tree(folder: Path) -> None:
    for root, _, files in os.walk(folder):
        for name in files:
            _sync_file(Path(root, name))
        _sync_folder(Path(root))


def _sync_file(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
