"""One model's search: settings served in waves beside the reference, measured in turns with it, until it is decided."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from builder.cache import Cache
from builder.errors import ServeError
from builder.loadtest.slo import LATENCIES
from builder.progress import Event, Progress
from builder.records import canonical, read_record, to_json, write_record
from builder.tune.estimate import Ratio, Sample, ratio_of, sample_of
from builder.tune.search import Search
from builder.tune.serving import Measured, Tuned, measure, served
from builder.tune.settings import describe
from builder.tuning_records import LoadPoint, Objective, Setting

WAVE: Final = 4
BETWEEN: Final = 2
"""So many settings are measured between two measurements of the reference."""
LEAST_S: Final = 2.5
MOST_S: Final = 8.0
ENOUGH_REQUESTS: Final = 150
OVERHEAD_S: Final = 3.0
"""What a measurement takes besides, the start of its server included."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A measurement in the cache: what an interrupted search goes on from."""

    log_ratio: float
    error: float
    reference: float
    point: LoadPoint
    refused: str = ""


@dataclass(slots=True)
class Race:
    """What is known so far of one model; `speeds` are predicted requests a second, `users` the load that is tried first."""

    tuned: Tuned
    objective: Objective
    search: Search
    cache: Cache
    progress: Progress
    deadline: float
    cap: int
    speeds: Mapping[Setting, float]
    start_users: Callable[[Setting], int]
    identity: str
    points: dict[Setting, LoadPoint] = field(default_factory=dict)
    references: list[float] = field(default_factory=list)
    measurements: int = 0
    reference_users: int | None = None

    @property
    def out_of_time(self) -> bool:
        """No measurement fits into what is left."""
        return time.monotonic() + LEAST_S + OVERHEAD_S > self.deadline

    @property
    def out_of_measurements(self) -> bool:
        """No wave, with the reference in it, fits into what is left."""
        return self.measurements + BETWEEN > self.cap

    @property
    def value(self) -> float:
        """The reference's objective: a mean over the search."""
        logs = [math.log(value) for value in self.references if value > 0]
        return math.exp(sum(logs) / len(logs)) if logs else 0.0

    # From the cache

    def recall(self) -> int:
        """Take what an earlier search measured; how many measurements that were."""
        count = 0
        for setting in self.search.predicted:
            for kept in self._kept(setting):
                count += 1
                self.points[setting] = kept.point
                self.references.append(kept.reference)
                if kept.refused:
                    self.search.refuse(setting, kept.refused)
                elif setting != self.search.reference:
                    self.search.tell(setting, Ratio(kept.log_ratio, kept.error))
        return count

    def _kept(self, setting: Setting) -> list[Kept]:
        found = []
        while (file := self._file(setting, len(found))).is_file():
            found.append(read_record(Kept, file))
        return found

    def _file(self, setting: Setting, number: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 - Path
        parts = {"setting": to_json(setting), "of": self.identity, "number": number}
        return self.cache.root / "tune" / f"{hashlib.sha256(canonical(parts)).hexdigest()[:32]}.json"

    def _keep(self, setting: Setting, kept: Kept) -> None:
        file = self._file(setting, len(self._kept(setting)))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_record(file, kept)

    # On the server

    def run_wave(self, settings: Sequence[Setting]) -> None:
        """Serve them beside the reference; a setting that does not load is refused, the others go on."""
        reference = self.search.reference
        every = [reference, *(setting for setting in settings if setting != reference)]
        for group in [[one] for one in every] if self.objective.word == "memory" else [every]:
            try:
                with served(self.tuned, group, self.cache) as (endpoint, names):
                    self._measure_group(group, lambda one, users, seconds: self._once(endpoint, names, one, users, seconds))  # noqa: B023
            except ServeError as error:
                self._blame(group, error)

    def _blame(self, group: Sequence[Setting], error: ServeError) -> None:
        others = [setting for setting in group if setting != self.search.reference]
        if len(others) == 1:
            self.search.refuse(others[0], error.message)
        elif not others:
            raise error
        else:
            for setting in others:
                self.run_wave([setting])

    def _once(self, endpoint, names, setting: Setting, users: int, seconds: float) -> Measured:  # type: ignore[no-untyped-def]  # noqa: ANN001
        self.measurements += 1
        return measure(
            endpoint, names[setting], self.tuned, setting, users=users, protocol=self.objective.protocol, seconds=seconds
        )

    def _measure_group(self, group: Sequence[Setting], once: Callable[[Setting, int, float], Measured]) -> None:
        """The reference first, then between every two others, and last; ratios are taken when it is known around them."""
        reference = self.search.reference
        waiting: list[tuple[Setting, Sample, Measured]] = []
        anchors: list[Sample] = []
        others = [setting for setting in group if setting != reference]
        try:
            if reference in group:
                anchors.append(self._anchor(once))
            for place, setting in enumerate(others):
                if self.out_of_time or self.measurements >= self.cap + BETWEEN:
                    break
                taken = self._take(setting, once)
                if taken is not None:
                    waiting.append((setting, *taken))
                if reference in group and place % BETWEEN == BETWEEN - 1:
                    anchors.append(self._anchor(once))
        finally:
            anchors = anchors or [Sample(self._score(self.value), 0.0, 0.0)]
            for setting, sample, measured in waiting:
                self._tell(setting, ratio_of(sample, anchors), measured)

    def _anchor(self, once: Callable[[Setting, int, float], Measured]) -> Sample:
        reference = self.search.reference
        taken = self._take(reference, once)
        if taken is None:
            raise ServeError(f"the reference setting ({describe(reference)}) answers nothing under this load")
        sample, measured = taken
        self.references.append(self._value(sample.log_value))
        self.points[reference] = measured.point
        self._keep(reference, Kept(0.0, sample.error, self.references[-1], measured.point, self.search.refused.get(reference, "")))
        return sample

    def _take(self, setting: Setting, once: Callable[[Setting, int, float], Measured]) -> tuple[Sample, Measured] | None:
        """Measured at the most users that hold the SLO; None where it cannot be chosen, which is noted."""
        users = self.start_users(setting)
        if setting == self.search.reference:
            users = self.reference_users or users
        while True:
            begun = time.time()
            self._say(setting, users)
            measured = once(setting, users, self._seconds(setting, users))
            missed = self._missed(measured.point)
            if measured.wrong or not missed or users == 1:
                break
            if setting == self.search.reference and self.reference_users is not None:
                break
            users = max(1, users // 2)
        why = measured.wrong or (f"misses the SLO with one user: {missed}" if missed else "")
        self.points[setting] = measured.point
        sample = self._sample(measured, (begun + time.time()) / 2)
        if setting == self.search.reference:
            self.reference_users = users
            if why:
                self.search.refuse(setting, why)
            return sample, measured
        if why:
            self.search.refuse(setting, why)
            self._keep(setting, Kept(0.0, 0.0, self.value, measured.point, why))
            return None
        return sample, measured

    def _say(self, setting: Setting, users: int) -> None:
        text = f"{describe(setting)}, {users} user{'' if users == 1 else 's'}"
        self.progress(Event("note", f"{self.tuned.name} measurement {self.measurements + 1}", text))

    def _seconds(self, setting: Setting, users: int) -> float:
        speed = self.points[setting].requests_per_s if setting in self.points else self.speeds[setting]
        return min(MOST_S, max(LEAST_S, ENOUGH_REQUESTS / max(speed, 1e-9)))

    def _missed(self, point: LoadPoint) -> str:
        """Which term of the SLO a load did not hold."""
        seen = {"p50": point.p50_ms, "p99": point.p99_ms}
        for name, limit in self.objective.slo:
            if name in LATENCIES and name in seen and seen[name] > limit:
                return f"{name} {seen[name]:.1f} ms, limit {limit:g} ms"
        return ""

    def _sample(self, measured: Measured, at_s: float) -> Sample:
        if self.objective.word == "latency":
            sample = sample_of(measured.latencies_ms, at_s)
            return Sample(-sample.log_value, sample.error, at_s)
        if self.objective.word == "memory":
            return Sample(-math.log(measured.point.server_bytes or 1), 0.0, at_s)
        return sample_of(measured.windows, at_s)

    def _score(self, value: float) -> float:
        """The score of an objective's value."""
        if value <= 0:
            return 0.0
        return math.log(value) if self.objective.rises else -math.log(value)

    def _value(self, score: float) -> float:
        return math.exp(score if self.objective.rises else -score)

    def _tell(self, setting: Setting, ratio: Ratio, measured: Measured) -> None:
        self.search.tell(setting, ratio)
        self._keep(setting, Kept(ratio.log_ratio, ratio.error, self.references[-1], measured.point))
        text = f"{describe(setting)}: {math.exp(ratio.log_ratio):.2f} times the default"
        self.progress(Event("note", self.tuned.name, text))
