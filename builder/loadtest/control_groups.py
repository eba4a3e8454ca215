"""CPU limits of a process's control groups, of both versions, and how often they held it back.

https://docs.kernel.org/scheduler/sched-bwc.html: a group that has used up its quota is held back until the next period.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/sys/fs/cgroup")


def cpu_limit(pid: int) -> float:
    """Cores that the process may use: the lowest limit from its own group up to the root; infinity without one."""
    return min((limit(group) for group, limit in _groups(pid)), default=math.inf)


def held_back_s(pids: Iterable[int]) -> dict[Path, float]:
    """Of each group above the processes that has a limit: the seconds that it took from them, of all cores together."""
    found: dict[Path, float] = {}
    for pid in pids:
        for group, limit in _groups(pid):
            with contextlib.suppress(OSError, ValueError):
                if limit(group) < math.inf:
                    found[group] = _throttled_s((group / "cpu.stat").read_text(encoding="ascii"))
    return found


def _throttled_s(text: str) -> float:
    counts = dict(line.split() for line in text.splitlines())
    return int(counts.get("throttled_usec", 0)) / 1e6 + int(counts.get("throttled_time", 0)) / 1e9


def _groups(pid: int) -> Iterator[tuple[Path, Callable[[Path], float]]]:
    """The process's group and all above it, with how the limit of each is read."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from ((group, _limit_of_version_2) for group in _upwards(ROOT, path))
            elif "cpu" in controllers.split(","):
                yield from ((group, _limit_of_version_1) for group in _upwards(ROOT / "cpu", path))


def _upwards(root: Path, path: str) -> list[Path]:
    folder = root / path.lstrip("/")
    return [place for place in (folder, *folder.parents) if place.is_relative_to(root)]


def _limit_of_version_2(group: Path) -> float:
    file = group / "cpu.max"
    quota, period = file.read_text(encoding="ascii").split() if file.is_file() else ("max", "1")
    return math.inf if quota == "max" else int(quota) / int(period)


def _limit_of_version_1(group: Path) -> float:
    file = group / "cpu.cfs_quota_us"
    quota = int(file.read_text(encoding="ascii")) if file.is_file() else -1
    return quota / int((group / "cpu.cfs_period_us").read_text(encoding="ascii")) if quota > 0 else math.inf
