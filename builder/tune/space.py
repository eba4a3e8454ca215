"""Every setting that is considered for a model: only what the native backends take, and what the spec leaves open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from builder import defaults
from builder.spec import ModelSpec
from builder.spec_serving import BatchingSpec, InstancesSpec
from builder.tune.settings import THREADS, said_words
from builder.tuning_records import Objective, Setting
from builder.work import parse_target

DELAYS_US: Final = (0, 200, 1000)
PREFERRED: Final = (2, 4, 8)
HINTS: Final[tuple[Literal["latency", "throughput"], ...]] = ("latency", "throughput")
OVERCOMMIT: Final = 2
"""Threads of all instances together, at most so many times the cores: more only take turns."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A target that passed every gate. `can_batch`: rows were proven independent and the native backend can batch."""

    target: str
    can_batch: bool


@dataclass(frozen=True, slots=True)
class Load:
    """What will be sent: `users` at a time, `rows` in each request (0: no batch axis)."""

    users: int
    rows: int

    @property
    def largest(self) -> int:
        """Rows that are there to be merged at a time."""
        return self.users * max(1, self.rows)


def default_setting(spec: ModelSpec, candidate: Candidate) -> Setting:
    """What a build without tuning serves from that target."""
    batching = spec.batching or BatchingSpec()
    size = defaults.MAX_BATCH_SIZE if batching.max_batch_size is None else batching.max_batch_size
    batched = candidate.can_batch and size > 0
    return Setting(
        target=candidate.target,
        max_batch_size=size if batched else 0,
        dynamic=batched and batching.dynamic,
        preferred=batching.preferred if batched and batching.dynamic else (),
        max_queue_delay_us=(batching.max_queue_delay_us or 0) if batched and batching.dynamic else 0,
        instances=sum(group.count for group in spec.instances or (InstancesSpec(),)),
    )


def space(
    spec: ModelSpec, candidates: Sequence[Candidate], load: Load, objective: Objective, cores: int
) -> tuple[Setting, ...]:
    """All settings, each once; the defaults of every target among them."""
    found: dict[Setting, None] = {}
    for candidate in candidates:
        found[default_setting(spec, candidate)] = None
        for instances, threads, hint in _ways(spec, candidate, objective, cores):
            for batching in _batchings(spec, candidate, load, objective):
                found[_setting(candidate, instances, threads, hint, batching)] = None
    return tuple(found)


Batching = tuple[int, bool, tuple[int, ...], int]


def _setting(
    candidate: Candidate,
    instances: int,
    threads: int | None,
    hint: Literal["latency", "throughput"] | None,
    batching: Batching,
) -> Setting:
    size, dynamic, preferred, delay = batching
    return Setting(candidate.target, size, dynamic, preferred, delay, instances, threads, hint)


def _ways(
    spec: ModelSpec, candidate: Candidate, objective: Objective, cores: int
) -> Iterator[tuple[int, int | None, Literal["latency", "throughput"] | None]]:
    """Instances, the threads of each, and OpenVINO's hint."""
    backend = parse_target(candidate.target).backend
    default = default_setting(spec, candidate).instances
    counts = (1,) if objective.word == "memory" else _doubling(OVERCOMMIT * cores)
    counts = (default,) if said_words(spec, "instances") else counts
    if backend not in THREADS or said_words(spec, backend):
        yield from ((count, None, None) for count in counts)
        return
    for count in counts:
        for threads in _doubling(cores):
            if count * threads <= max(OVERCOMMIT * cores, count):
                yield count, threads, None
    if backend == "openvino":
        yield from ((count, None, word) for count in counts for word in HINTS)


def _doubling(most: int) -> tuple[int, ...]:
    """1, 2, 4 … and `most` itself."""
    found = {1, most}
    size = 2
    while size < most:
        found.add(size)
        size *= 2
    return tuple(sorted(found))


def _batchings(spec: ModelSpec, candidate: Candidate, load: Load, objective: Objective) -> Iterator[Batching]:
    """Largest batch, whether requests are merged, preferred sizes, queue delay in microseconds.

    The largest batch is never below the default's: clients may send so many rows at once. What is merged is kept
    small by preferred sizes instead, which costs them nothing.
    """
    default = default_setting(spec, candidate)
    if said_words(spec, "batching") or not default.max_batch_size:
        yield default.max_batch_size, default.dynamic, default.preferred, default.max_queue_delay_us
        return
    usual = default.max_batch_size
    yield usual, False, (), 0
    if objective.word != "throughput":
        return
    for delay in DELAYS_US:
        yield from ((usual, True, sizes, delay) for sizes in ((), *_smaller(load, usual)))
        yield from ((size, True, (), delay) for size in _doubling(load.largest) if size > usual)


def _smaller(load: Load, default: int) -> Iterator[tuple[int, ...]]:
    """Preferred sizes that this load can fill."""
    yield from ((size,) for size in PREFERRED if size <= min(default, load.largest))
