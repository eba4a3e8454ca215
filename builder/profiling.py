"""An artefact in its own library at growing batches, by each way to run it: what a search for settings starts from.

Wall time alone would not do: instances share the cores, so what a run costs in CPU time decides how many can be fed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from builder.backends import Settings, backend_module
from builder.measurement import EXPORT_FILE, REFERENCE_FILE, ExportReport
from builder.records import read_record, write_record
from builder.samples import Request, load_requests
from builder.samples.batch_proof import batch_rows, cut
from builder.work import Profile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.generic]]

PROFILE_FILE: Final = "profile.json"
WARM_UP_S: Final = 0.15
TIMED_S: Final = 0.35
"""For one batch size; a run that takes longer is timed `LEAST_RUNS` times."""
LEAST_RUNS: Final = 3
MOST_RUNS: Final = 200
GAIN: Final = 1.02
"""A larger batch that is not so many times as fast a row is the last one tried."""


@dataclass(frozen=True, slots=True)
class ProfiledRun:
    """`rows` in one run (0: the model has no batch axis): median wall and mean CPU time, milliseconds."""

    rows: int
    wall_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class ProfiledWay:
    """One way to run the artefact, in the backend's words of the spec, as canonical JSON."""

    way: str
    runs: tuple[ProfiledRun, ...]


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """`profile.json`."""

    ways: tuple[ProfiledWay, ...]


def run_profile(work: Profile, export: Path, convert: Path, out: Path) -> None:
    """Write `profile.json`.

    Raises:
        BuildError: the library does not load the artefact.
    """
    report = read_record(ExportReport, export / EXPORT_FILE)
    requests = load_requests(export / REFERENCE_FILE, report.signature)
    backend = backend_module(work.target.backend)
    ways = []
    for way in work.ways:
        session = backend.open_session(convert, report.signature, Settings(work.target.precision, json.loads(way)))
        try:
            ways.append(ProfiledWay(way, tuple(_runs(session.run, requests, work))))
        finally:
            session.close()
    write_record(out / PROFILE_FILE, ProfileReport(tuple(ways)))


def _runs(run: Callable[[Arrays], Arrays], requests: Sequence[Request], work: Profile) -> Iterator[ProfiledRun]:
    rows = batch_rows(requests, work.largest) if work.rows else None
    if rows is None:
        yield _timed(run, 0, requests[0].inputs)
        return
    size, before = work.rows, 0.0
    while size <= work.largest:
        timed = _timed(run, size, cut(rows, range(size)))
        yield timed
        speed = size / timed.wall_ms
        if speed < GAIN * before:
            return
        size, before = 2 * size, speed


def _timed(run: Callable[[Arrays], Arrays], rows: int, inputs: Arrays) -> ProfiledRun:
    ends = time.perf_counter() + WARM_UP_S
    run(inputs)
    while time.perf_counter() < ends:
        run(inputs)
    times: list[float] = []
    cpu, started = time.process_time(), time.perf_counter()
    while len(times) < LEAST_RUNS or (len(times) < MOST_RUNS and time.perf_counter() - started < TIMED_S):
        before = time.perf_counter()
        run(inputs)
        times.append(time.perf_counter() - before)
    cpu = time.process_time() - cpu
    times.sort()
    return ProfiledRun(rows, round(1e3 * times[len(times) // 2], 4), round(1e3 * cpu / len(times), 4))
