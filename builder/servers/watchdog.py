"""Runs tritonserver and sees to it that nothing outlives the process that asked for it.

Started as `python -I -S watchdog.py …`; standard library only. The parent holds the write end of this process's stdin:
a byte or the end of file there means "stop". A child that the parent forked may hold that end too, so the parent itself
is watched as well. If this process is killed, the kernel kills the server.

    watchdog.py PARENT PREFIX LOCK SCRATCH GRACE_S -- COMMAND…

PREFIX begins the names of the server's shared memory; LOCK is held as long as this process lives, so that a later start
recognises left-overs; SCRATCH is the server's temporary folder, and `server.pid` is written there.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where the server puts its regions
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
POLL_MS = 200
PID_FILE = "server.pid"
ENVIRONMENTS = Path("/tmp")  # noqa: S108 - fixed in Triton's Python backend, whatever TMPDIR says
CLOCK_ROOM_S = 0.02
"""The kernel tells a process's start in hundredths of a second."""


def remove_shared_memory(prefix: str) -> None:
    """Delete the regions whose names begin with `prefix`."""
    for region in SHARED_MEMORY.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            region.unlink()


def remove_environments(since_s: float) -> None:
    """Delete the empty folders that Triton's Python backend makes as it loads, and leaves when it is killed.

    Its place is fixed and its name tells no owner, so only what is younger than `since_s` (our server's start) and
    older than every server that lives can be a dead server's. Folders are listed before processes: who made one that
    is listed is seen if it still lives.
    """
    folders = [(folder, age) for folder in ENVIRONMENTS.glob("python_env_*") if (age := _made_s(folder)) >= since_s]
    if folders:
        oldest_s = min(server_starts(), default=float("inf")) - CLOCK_ROOM_S
        for folder, made_s in folders:
            if made_s < oldest_s:
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _made_s(folder: Path) -> float:
    """When our own folder was made, since the epoch; -inf for anything else. Nothing is written into an empty one."""
    with contextlib.suppress(OSError):
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            return found.st_mtime
    return float("-inf")


def server_starts() -> Iterator[float]:
    """When each living Triton was started, since the epoch."""
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, _, fields = (process / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")
            state, *numbers = fields.split()
            if name.partition("(")[2] == "tritonserver" and state not in "ZX":
                yield booted + int(numbers[18]) / os.sysconf("SC_CLK_TCK")


def hold(path: Path) -> int:
    """Make the file and hold its lock, also when a start beside this one is just looking whether it is a left-over."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)


def lock(path: Path) -> int | None:
    """Hold the file's lock; None where somebody lives who holds it."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def remove_left_overs(folder: Path) -> None:
    """Clean up after servers whose watchdog no longer lives: `PREFIX.lock` files that nobody holds."""
    for file in folder.glob("*.lock"):
        handle = lock(file)
        if handle is None:
            continue
        remove_shared_memory(file.stem)
        remove_environments(file.stat().st_mtime)
        scratch = file.read_text(encoding="utf-8").strip()
        if Path(scratch).name == file.stem:
            kill_started_from(scratch)
            shutil.rmtree(scratch, ignore_errors=True)
        file.unlink(missing_ok=True)
        os.close(handle)


def kill_started_from(scratch: str) -> None:
    """End the model processes that outlived their server: now and then one waits for it for ever."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().startswith(os.fsencode(f"{scratch}/")):
                os.kill(int(process.name), signal.SIGKILL)


def die_with_parent() -> None:
    """In the child, before exec: its own process group, and SIGKILL when the watchdog goes."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def kill_group(group: int, number: int) -> None:
    """Send the signal to what is left of the group."""
    with contextlib.suppress(OSError):
        os.killpg(group, number)


def watch(server: subprocess.Popen[bytes], parent: int) -> bool:
    """Wait; True when the parent wants the server stopped or is gone, False when the server ended by itself."""
    poll = select.poll()
    poll.register(0, select.POLLIN | select.POLLHUP)
    while server.poll() is None:
        if poll.poll(POLL_MS) or os.getppid() != parent:
            return True
    return False


def stop(server: subprocess.Popen[bytes], grace_s: float) -> None:
    """Ask, wait for the time of grace, then kill the whole group."""
    deadline = time.monotonic() + grace_s
    if grace_s > 0:
        kill_group(server.pid, signal.SIGTERM)
    while server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    kill_group(server.pid, signal.SIGKILL)
    server.wait()
    reap_orphans()


def reap_orphans(limit_s: float = 2.0) -> None:
    """Wait for the model processes, which fell to us when the server died."""
    deadline = time.monotonic() + limit_s
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.005)


def main() -> int:
    """Run the command of the command line; its exit code, 128 + the signal's number where one ended it."""
    parent, prefix, lock_file, scratch, grace_s = sys.argv[1:6]
    command = sys.argv[7:]
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    handle = hold(Path(lock_file))
    os.write(handle, scratch.encode())
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    # This process has one thread, so code between fork and exec is safe.
    started_s = time.time()
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)  # noqa: PLW1509
    asked = True
    try:
        temporary = Path(scratch, f".{PID_FILE}")
        temporary.write_text(str(server.pid), encoding="utf-8")
        temporary.replace(Path(scratch, PID_FILE))
        asked = watch(server, int(parent))
    finally:
        stop(server, float(grace_s) if asked else 0.0)
        remove_shared_memory(prefix)
        remove_environments(started_s)
        if asked:
            shutil.rmtree(scratch, ignore_errors=True)
            Path(lock_file).unlink(missing_ok=True)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


if __name__ == "__main__":
    sys.exit(main())
