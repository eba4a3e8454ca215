"""What a setting can reach, from in-process measurements: a small queueing model, pure.

Closed load: `users` wait for their answers, so at most so many requests are on the way. Three things bound the
throughput: how fast instances turn batches around, how many CPU seconds the machine has for runs, server and load
generator together, and how soon the same users are back with their next request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Final

from builder.profiling import ProfiledRun
from builder.tune.space import Load
from builder.tuning_records import LoadPoint, Setting
from builder.work import parse_target

LEAST_CPU_S: Final = 0.0001
"""What a request costs the server at least."""
BARRIER: Final = 0.25
"""Of what others compute meanwhile, the share that each further thread of a run waits for the one they held up."""
SPIN: Final = 0.75
"""How much dearer a run of spinning threads is for each time that its threads, and others', outnumber the cores.

Both fitted to a sweep of 156 settings on two cores: predictions miss by 15 % with them, by 21 % without.
"""
SPINNING: Final = ("onnxruntime",)
"""Backends whose threads spin between the parallel parts of a run."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """What a request costs besides its run: CPU seconds of the generator and of the server, and time on the way.

    The values at the start are of the embedded server with a small model; the first measurement replaces them.
    """

    generator_cpu_s: float = 0.0004
    server_cpu_s: float = 0.0006
    way_s: float = 0.0012


def overhead_of(measured: Sequence[tuple[Sequence[ProfiledRun], LoadPoint]], rows: int) -> Overhead:
    """From loads on settings and the profiles of their runs; where nothing was measured, what is usual."""
    usual = Overhead()
    loads = [(runs, point) for runs, point in measured if point.requests_per_s > 0 and not point.failures]
    if not loads:
        return usual
    ways = [
        (point.p50_ms - point.queue_ms - point.compute_ms) / 1e3
        for _, point in loads
        if point.queue_ms is not None and point.compute_ms is not None
    ]
    servers = [
        point.server_cores / point.requests_per_s
        - run_seconds(runs, rows * _merged(point, rows))[1] / _merged(point, rows)
        for runs, point in loads
        if point.server_cores is not None
    ]
    return Overhead(
        generator_cpu_s=median(point.generator_cores / point.requests_per_s for _, point in loads),
        server_cpu_s=max(LEAST_CPU_S, median(servers)) if servers else usual.server_cpu_s,
        way_s=max(LEAST_CPU_S, median(ways)) if ways else usual.way_s,
    )


def _merged(point: LoadPoint, rows: int) -> float:
    """Requests in a run, as the server counted."""
    runs = sum(count for _, count in point.batches)
    return max(1.0, sum(size * count for size, count in point.batches) / runs / max(1, rows)) if runs else 1.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """Requests a second, the median latency of a user, and the requests in a run."""

    requests_per_s: float
    latency_s: float
    merged: float


def predict(setting: Setting, runs: Sequence[ProfiledRun], load: Load, cores: int, overhead: Overhead) -> Prediction:
    """Of a closed load."""
    merged = expected_merge(setting, load)
    rows = merged * load.rows
    wall_s, cpu_s = run_seconds(runs, rows)
    busy = min(setting.instances, load.users / merged)
    helpers = max(0.0, cpu_s / wall_s - 1.0)
    cpu_s *= 1.0 + _spun(setting, busy * cpu_s / wall_s / cores) * min(1.0, helpers)
    # Runs of instances that want more cores than there are take turns.
    stretched = wall_s * max(1.0, busy * cpu_s / wall_s / cores)
    waited = _wait_s(setting, load, merged, overhead)
    besides = (overhead.generator_cpu_s + overhead.server_cpu_s) * (1.0 + BARRIER * helpers)
    speed = min(
        setting.instances * merged / (stretched + waited),
        load.users / (stretched + waited + overhead.way_s),
        cores / (besides + cpu_s / merged),
    )
    return Prediction(speed, load.users / speed, merged)


def expected_merge(setting: Setting, load: Load) -> float:
    """Requests in a run.

    While `k` instances run, those that wait for the next run fill up: users part into k + 1 groups. With a queue delay
    the batcher waits for them, and they part into k groups.
    """
    if not setting.dynamic or setting.max_batch_size == 0:
        return 1.0
    most = setting.max_batch_size // max(1, load.rows)
    if setting.preferred:
        most = min(most, max(setting.preferred) // max(1, load.rows))
    groups = setting.instances + (0 if setting.max_queue_delay_us else 1)
    return max(1.0, min(most, load.users / groups))


def _spun(setting: Setting, crowd: float) -> float:
    """What is burnt in vain where all threads together are `crowd` times the cores."""
    return SPIN * max(0.0, crowd - 1.0) if parse_target(setting.target).backend in SPINNING else 0.0


def _wait_s(setting: Setting, load: Load, merged: float, overhead: Overhead) -> float:
    """A batch that cannot fill up waits its delay out; one that can, until the users are back."""
    if not setting.dynamic or not setting.max_queue_delay_us:
        return 0.0
    delay_s = setting.max_queue_delay_us / 1e6
    full = max(setting.preferred, default=setting.max_batch_size) // max(1, load.rows)
    return min(delay_s, overhead.way_s) if merged >= full else delay_s


def run_seconds(runs: Sequence[ProfiledRun], rows: float) -> tuple[float, float]:
    """Wall and CPU seconds of a run of so many rows; between and beyond the measured sizes in proportion."""
    if len(runs) == 1 or rows <= runs[0].rows:
        factor = rows / runs[0].rows if runs[0].rows and rows > runs[0].rows else 1.0
        return factor * runs[0].wall_ms / 1e3, factor * runs[0].cpu_ms / 1e3
    for small, large in pairwise(runs):
        if rows <= large.rows:
            share = (rows - small.rows) / (large.rows - small.rows)
            wall = small.wall_ms + share * (large.wall_ms - small.wall_ms)
            cpu = small.cpu_ms + share * (large.cpu_ms - small.cpu_ms)
            return wall / 1e3, cpu / 1e3
    factor = rows / runs[-1].rows
    return factor * runs[-1].wall_ms / 1e3, factor * runs[-1].cpu_ms / 1e3


def behaviour(setting: Setting, load: Load) -> Setting:
    """Settings that this load cannot tell apart have the same: a larger batch than the users can fill, and so on."""
    # More instances than users: the others idle.
    same = replace(setting, instances=min(setting.instances, load.users))
    if not setting.dynamic:
        return replace(same, max_batch_size=min(setting.max_batch_size, 1), preferred=(), max_queue_delay_us=0)
    most = min(setting.max_batch_size, load.largest)
    preferred = tuple(size for size in setting.preferred if size < most)
    filled = most == setting.max_batch_size or bool(setting.preferred)
    # One beyond what fills up: such a batch always waits its delay out.
    return replace(
        same, max_batch_size=most if filled or not setting.max_queue_delay_us else most + 1, preferred=preferred
    )
