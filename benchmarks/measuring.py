"""Programs timed to their end, one after the other in turns, and the memory of everything that they start."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
PYTHON: Final = sys.executable
SAMPLE_S: Final = 0.01
SERVER_PARTS: Final = {"tritonserver": "server", "triton_python_backend_stub": "server's model process"}


@dataclass(frozen=True, slots=True)
class Timing:
    """Wall clock and CPU seconds of a program, its children included; `peaks` where memory was asked for."""

    seconds: float
    cpu_s: float
    peaks: Mapping[str, int] = field(default_factory=dict)


def build_repo(*arguments: str | Path) -> list[str]:
    """The installed command where there is one, else the module."""
    command = Path(PYTHON).parent / "build-repo"
    start = [str(command)] if command.is_file() else [PYTHON, "-m", "builder"]
    return [*start, *map(str, arguments)]


def run_command(command: Sequence[str], *, cache: Path | None = None, memory: bool = False) -> Timing:
    """Run a program to its end; with its own cache folder where one is given.

    Raises:
        RuntimeError: it failed; the message ends with its last words.
    """
    environment = os.environ | ({"BUILD_REPO_CACHE": str(cache)} if cache else {})
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        with _watched(process.pid, memory=memory) as peaks:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            words = said.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{words}")
    return Timing(seconds, usage.ru_utime + usage.ru_stime, peaks)


def in_turns(repeats: int, *jobs: Callable[[], Timing]) -> list[list[Timing]]:
    """Each job's timings. They alternate, so that a machine growing slower hits all alike; the first round warms up."""
    rounds = [[job() for job in jobs] for _ in range(repeats + 1)][1:]
    return [list(timings) for timings in zip(*rounds, strict=True)]


def median_s(timings: Sequence[Timing]) -> float:
    return statistics.median(timing.seconds for timing in timings)


def median_cpu_s(timings: Sequence[Timing]) -> float:
    return statistics.median(timing.cpu_s for timing in timings)


@contextmanager
def _watched(pid: int, *, memory: bool) -> Iterator[dict[str, int]]:
    """Largest resident bytes of the process and of all below it, by what they are called, looked at while they run."""
    peaks: dict[str, int] = {}
    if not memory:
        yield peaks
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(pid, peaks, done), daemon=True)
    watcher.start()
    try:
        yield peaks
    finally:
        done.set()
        watcher.join()


def _watch(pid: int, peaks: dict[str, int], done: threading.Event) -> None:
    labels: dict[int, str] = {}
    while not done.wait(SAMPLE_S):
        try:
            family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        except psutil.Error:
            continue
        for member in family:
            label = labels.get(member) or _label(member, pid)
            if label:
                # A model process is a copy of the server before it becomes itself.
                if label not in SERVER_PARTS.values():
                    labels[member] = label
                peaks[label] = max(peaks.get(label, 0), peak_bytes(member))


def _label(pid: int, parent: int) -> str:
    """`parent`, or which work a child runs, read from the record that it was given, or its part in the live check."""
    if pid == parent:
        return "parent"
    from builder.step import read_work

    try:
        words = psutil.Process(pid).cmdline()
        if words and Path(words[0]).name in SERVER_PARTS:
            return SERVER_PARTS[Path(words[0]).name]
        work = read_work(Path(words[words.index("builder.step") + 1]))
    except (psutil.Error, ValueError, OSError):
        return ""
    target = getattr(work, "target", None)
    return f"{work.kind} {target}" if target else work.kind


def peak_bytes(pid: int | str) -> int:
    """VmHWM: unlike ru_maxrss it is not inherited from the process that forked."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="build-repo-bench-") as folder:
        yield Path(folder)
