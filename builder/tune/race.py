"""One model's search: settings served in waves beside the reference, measured in turns with it, until it is decided."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from builder.cache import Cache
from builder.errors import ServeError
from builder.profiling import ProfiledRun
from builder.progress import Event, Progress
from builder.records import canonical, read_record, to_json, write_record
from builder.triton_client import Protocol
from builder.tune.estimate import Estimate, Ratio, Sample, combine, ratio_of, sample_of
from builder.tune.predict import Overhead, Prediction, overhead_of
from builder.tune.search import Search
from builder.tune.serving import Measured, Slot, Tuned, measure, merged, served
from builder.tune.settings import describe
from builder.tuning_records import LoadPoint, Objective, Setting

WAVE: Final = 5
"""So many settings are served at a time, and the reference."""
ROUNDS: Final = 3
LEAST_S: Final = 1.0
"""Of a turn; a measurement is one in each round."""
MOST_S: Final = 3.0
ENOUGH_REQUESTS: Final = 60
"""In a turn, where the time allows."""
BETWEEN_S: Final = 0.6
"""From one turn to the next."""
OVERHEAD_S: Final = 8.0
"""What a wave takes besides: servers and load generator start."""

SEEN: Final = {"p50": "p50_ms", "p99": "p99_ms"}
"""Terms of an SLO that a measurement of some seconds can show → a load's figure."""

Load = Callable[[Sequence[Slot], Protocol], tuple[Measured | None, ...]]


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
    """What is known so far of one model.

    `forecast` predicts every setting from the `runs` of its profile and what requests cost besides. `deadline` is a
    moment of the monotonic clock, `cap` the measurements that may be spent. `identity` is what measurements in the
    cache hold for.
    """

    tuned: Tuned
    objective: Objective
    search: Search
    cache: Cache
    progress: Progress
    deadline: float
    cap: int
    forecast: Callable[[Overhead], Mapping[Setting, Prediction]]
    runs: Mapping[Setting, Sequence[ProfiledRun]]
    identity: str
    points: dict[Setting, LoadPoint] = field(default_factory=dict)
    references: list[float] = field(default_factory=list)
    measurements: int = 0
    reference_users: int | None = None
    predictions: Mapping[Setting, Prediction] = field(default_factory=dict)

    def foresee(self) -> None:
        """Predictions with what the measurements so far say of the cost of a request; they replace the search's."""
        overhead = overhead_of([(self.runs[item], point) for item, point in self.points.items()], self.tuned.rows)
        self.predictions = self.forecast(overhead)
        self.search.predicted = {item: self._expected(item) for item in self.predictions}

    def _expected(self, setting: Setting) -> float:
        """The score that is expected."""
        prediction = self.predictions[setting]
        if self.objective.word == "latency":
            return -math.log(prediction.latency_s)
        if self.objective.word == "memory":
            measured = self.tuned.target(setting).measurement
            return -math.log(setting.instances * (measured.peak_memory_bytes if measured else 1))
        return math.log(prediction.requests_per_s * max(1, self.tuned.rows))

    @property
    def room(self) -> int:
        """Settings that a wave may have beside the reference: what is left of the time and of the measurements."""
        return min(self._room_in_time(), self.cap - self.measurements - 1)

    def _room_in_time(self) -> int:
        each_s = ROUNDS * (self._seconds(self.search.reference) + BETWEEN_S)
        return int((self.deadline - time.monotonic() - OVERHEAD_S) / each_s) - 1

    @property
    def out_of_time(self) -> bool:
        """No wave fits into what is left."""
        return self._room_in_time() < 1

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
        found: list[Kept] = []
        while (file := self._file(setting, len(found))).is_file():
            found.append(read_record(Kept, file))
        return found

    def _file(self, setting: Setting, number: int) -> Path:
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
            self._say(group)
            try:
                variants = [(self.tuned, setting) for setting in group]
                with served(variants, self.cache) as (endpoint, names):
                    self._measure_group(group, partial(measure, endpoint, names, variants))
            except ServeError as error:
                self._blame(group, error)

    def _say(self, group: Sequence[Setting]) -> None:
        tried = [setting for setting in group if setting != self.search.reference] or group
        self.progress(Event("note", f"{self.tuned.name} tune", f"serving {'; '.join(map(describe, tried))}"))

    def _blame(self, group: Sequence[Setting], error: ServeError) -> None:
        others = [setting for setting in group if setting != self.search.reference]
        if not others:
            raise error
        if len(others) == 1:
            self._refuse(others[0], f"the server: {error.message.splitlines()[0]}", None)
            return
        for setting in others:
            if not self.out_of_time:
                self.run_wave([setting])

    def _measure_group(self, group: Sequence[Setting], load: Load) -> None:
        """Round after round in turns, there and back, so that drift hits all alike; fewer users where an SLO asks."""
        reference = self.search.reference
        if self.objective.slo and self.reference_users is None and list(group) != [reference]:
            # What the others are compared with must hold the SLO itself, as far as it can.
            self._measure_group([reference], load)
        users = {setting: self._first_users(setting) for setting in group}
        waiting = list(group)
        while waiting and not (self.out_of_time and self.measurements):
            asked = list(dict.fromkeys([*(item for item in group if item == reference), *waiting]))
            taken = self._rounds({item: group.index(item) for item in asked}, users, load)
            self.measurements += len(asked)
            anchors = [sample for item, sample, _ in taken if item == reference]
            waiting = []
            for setting in asked:
                mine = [(sample, measured) for item, sample, measured in taken if item == setting]
                if not self._settle(setting, mine, anchors, users[setting]):
                    users[setting] = max(1, users[setting] // 2)
                    waiting.append(setting)

    def _first_users(self, setting: Setting) -> int:
        known = self.reference_users if setting == self.search.reference else None
        return known or self._hopeful_users(setting)

    def _hopeful_users(self, setting: Setting) -> int:
        """With an SLO: the most users whose latency is not already expected to miss it."""
        users, prediction = self.objective.users, self.predictions[setting]
        limits = [limit for name, limit in self.objective.slo if name in SEEN]
        # A closed load's latency falls with its users until requests no longer wait.
        while limits and users > 1 and 1e3 * users / prediction.requests_per_s > min(limits):
            users //= 2
        return users

    def _rounds(
        self, places: Mapping[Setting, int], users: Mapping[Setting, int], load: Load
    ) -> list[tuple[Setting, Sample, Measured]]:
        rounds = 1 if self.objective.word == "memory" else ROUNDS
        order = [item for number in range(rounds) for item in (list(places) if number % 2 == 0 else list(places)[::-1])]
        slots = [Slot((places[item],), users[item], self._seconds(item)) for item in order]
        found = load(slots, self.objective.protocol)
        silent = {item for item, measured in zip(order, found, strict=True) if measured is None}
        for setting in silent:
            self._refuse(setting, "it answered nothing", None)
        return [
            (item, self._sample(measured), measured)
            for item, measured in zip(order, found, strict=True)
            if measured is not None and item not in silent
        ]

    def _settle(
        self, setting: Setting, mine: Sequence[tuple[Sample, Measured]], anchors: Sequence[Sample], users: int
    ) -> bool:
        """Take what was measured; False where fewer users must be tried."""
        if not mine:
            return True
        point = merged([measured.point for _, measured in mine])
        is_reference = setting == self.search.reference
        wrong = next((measured.wrong for _, measured in mine if measured.wrong), "")
        missed = self._missed(point)
        if missed and not wrong and users > 1 and not (is_reference and self.reference_users):
            return False
        why = wrong or (f"misses the SLO with {users} user{'s' * (users > 1)}: {missed}" if missed else "")
        if is_reference:
            self._anchor(point, anchors, users, why)
        elif why:
            self._refuse(setting, why, point)
        else:
            ratios = [ratio_of(sample, anchors or [self._usual()]) for sample, _ in mine]
            self._tell(setting, combine(ratios), point)
        return True

    def _usual(self) -> Sample:
        """The reference as it was so far, where it is not measured beside the others."""
        return Sample(self._score(self.value), 0.0, 0.0)

    def _anchor(self, point: LoadPoint, anchors: Sequence[Sample], users: int, why: str) -> None:
        reference = self.search.reference
        self.reference_users = users
        score = sum(anchor.log_value for anchor in anchors) / len(anchors)
        self.references.append(math.exp(score if self.objective.rises else -score))
        self.points[reference] = point
        if why:
            self.search.refuse(reference, why)
        self._keep(reference, Kept(0.0, 0.0, self.references[-1], point, why))

    def _refuse(self, setting: Setting, why: str, point: LoadPoint | None) -> None:
        if setting == self.search.reference and point is None:
            raise ServeError(f"the default setting ({describe(setting)}) cannot be measured: {why}")
        self.search.refuse(setting, why)
        if point is not None:
            self.points[setting] = point
            self._keep(setting, Kept(0.0, 0.0, self.value, point, why))
        self.progress(Event("note", f"{self.tuned.name} tune", f"{describe(setting)}: cannot be chosen: {why}"))

    def _seconds(self, setting: Setting) -> float:
        known = self.points.get(setting)
        speed = known.requests_per_s if known else self.predictions[setting].requests_per_s
        return min(MOST_S, max(LEAST_S, ENOUGH_REQUESTS / max(speed, 1e-9)))

    def _missed(self, point: LoadPoint) -> str:
        """Which term of the SLO a load did not hold."""
        for name, limit in self.objective.slo:
            if name in SEEN and (seen := getattr(point, SEEN[name])) > limit:
                return f"{name} {seen:.1f} ms, limit {limit:g} ms"
        return ""

    def _sample(self, measured: Measured) -> Sample:
        if self.objective.word == "latency":
            sample = sample_of(measured.latencies_ms, measured.at_s)
            return Sample(-sample.log_value, sample.error, measured.at_s)
        if self.objective.word == "memory":
            return Sample(-math.log(measured.point.server_bytes or 1), 0.0, measured.at_s)
        return sample_of(measured.windows, measured.at_s)

    def _score(self, value: float) -> float:
        """The score of an objective's value."""
        if value <= 0:
            return 0.0
        return math.log(value) if self.objective.rises else -math.log(value)

    def _tell(self, setting: Setting, found: Estimate, point: LoadPoint) -> None:
        self.search.tell(setting, Ratio(found.log_ratio, found.error))
        self.points[setting] = point
        self._keep(setting, Kept(found.log_ratio, found.error, self.references[-1], point))
        text = f"{describe(setting)}: {found.ratio:.2f} times the default"
        self.progress(Event("note", f"{self.tuned.name} tune", text))
