"""One model's search: settings served in waves beside an anchor, measured in turns with it, until it is decided."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from builder.cache import Cache
from builder.errors import ServeError
from builder.profiling import ProfiledRun
from builder.progress import Event, Progress
from builder.triton_client import Protocol
from builder.tune.belief import Turn
from builder.tune.estimate import Sample, sample_of
from builder.tune.kept import Kept, read_wave, write_wave
from builder.tune.predict import Overhead, Prediction, overhead_of
from builder.tune.search import Search
from builder.tune.serving import Measured, Slot, Tuned, measure, merged, served, there_and_back
from builder.tune.settings import describe
from builder.tuning_records import LoadPoint, Objective, Setting

WAVE: Final = 5
"""So many settings are served at a time, and the anchor."""
ROUNDS: Final = 4
LEAST_ROUNDS: Final = 2
LEAST_S: Final = 1.2
"""Of a turn; a measurement is one in each round of a wave."""
MOST_S: Final = 3.0
ENOUGH_REQUESTS: Final = 60
"""In a turn, where the time allows."""
BETWEEN_S: Final = 0.6
"""From one turn to the next."""
OVERHEAD_S: Final = 8.0
"""What a wave takes besides: servers and load generator start."""
ADDED_S: Final = 40.0
"""For one more setting and its anchor."""

SEEN: Final = {"p50": "p50_ms", "p99": "p99_ms"}
"""Terms of an SLO that a measurement of some seconds can show → a load's figure."""

Load = Callable[[Sequence[Slot], Protocol], tuple[Measured | None, ...]]


@dataclass(slots=True)
class Race:
    """What is known so far of one model.

    `forecast` predicts every setting from the `runs` of its profile and what requests cost besides. `deadline` is a
    moment of the monotonic clock, `cap` the measurements that may be spent. `identity` is what measurements in the
    cache hold for. `loads` are those of every wave, `points` what they say together.
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
    loads: dict[Setting, list[LoadPoint]] = field(default_factory=dict)
    references: list[float] = field(default_factory=list)
    waves: int = 0
    measurements: int = 0
    predictions: Mapping[Setting, Prediction] = field(default_factory=dict)

    def foresee(self) -> None:
        """Predictions with what the measurements so far say of the cost of a request; they replace the search's."""
        overhead = overhead_of([(self.runs[item], point) for item, point in self.points.items()], self.tuned.rows)
        self.predictions = self.forecast(overhead)
        self.search.expect({item: self._expected(item) for item in self.predictions})

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
        """Settings that a wave may have beside the anchor: what is left of the time and of the measurements."""
        return min(self._room_in_time(), self.cap - self.measurements - 1)

    def _room_in_time(self) -> int:
        return int(self._turns_left() / self.rounds) - 1

    @property
    def rounds(self) -> int:
        """Of a wave: fewer where little time is left."""
        if self.objective.word == "memory":
            return 1
        return min(ROUNDS, max(LEAST_ROUNDS, int(self._turns_left() / (WAVE + 1))))

    def _turns_left(self) -> float:
        """Turns that the time is left for."""
        left_s = self.deadline - time.monotonic() - OVERHEAD_S
        return left_s / (self._seconds(self.search.reference) + BETWEEN_S)

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
        while settings := read_wave(self.cache, self.identity, self.waves):
            self._take([kept for kept in settings if kept.setting in self.search.predicted])
            count += len(settings)
        return count

    def _keep(self, settings: Sequence[Kept]) -> None:
        if settings:
            write_wave(self.cache, self.identity, self.waves, settings)
            self._take(settings)

    def _take(self, settings: Sequence[Kept]) -> None:
        """A wave into what is known."""
        for kept in settings:
            self._judge(kept)
            if kept.setting == self.search.reference:
                score = sum(score for _, score, _ in kept.turns) / len(kept.turns)
                self.references.append(math.exp(score if self.objective.rises else -score))
        self.search.tell(
            [
                Turn(kept.setting, self.waves, number, score, error)
                for kept in settings
                for number, score, error in kept.turns
            ]
        )
        self.waves += 1

    def _judge(self, kept: Kept) -> None:
        """Whether it can be chosen: a wrong answer decides for good, an SLO is held or missed by all loads together."""
        setting = kept.setting
        self.loads.setdefault(setting, []).append(kept.point)
        point = self.points[setting] = merged(self.loads[setting])
        missed, users = missed_terms(self.objective, point), point.users
        if kept.wrong:
            self.search.refuse(setting, kept.wrong, for_good=True)
        elif missed:
            self.search.refuse(setting, f"misses the SLO with {users} user{'s' * (users > 1)}: {missed}")
        else:
            self.search.admit(setting)

    # On the server

    @property
    def anchor(self) -> Setting:
        """What a wave is measured beside: the default at first, then the best so far, which so is measured again."""
        return self.search.top if self.search.reference in self.points else self.search.reference

    def run_wave(self, settings: Sequence[Setting]) -> None:
        """Serve them beside the anchor; a setting that does not load is refused, the others go on."""
        every = list(dict.fromkeys([self.anchor, *settings]))
        for group in [[one] for one in every] if self.objective.word == "memory" else [every]:
            tried = "; ".join(map(describe, group[1:] or group))
            self.progress(Event("note", f"{self.tuned.name} tune", f"serving {tried}"))
            try:
                variants = [(self.tuned, setting) for setting in group]
                with served(variants, self.cache) as (endpoint, names):
                    self._measure_group(group, partial(measure, endpoint, names, variants))
            except ServeError as error:
                self._blame(group, error)

    def add(self, setting: Setting) -> None:
        """Measure one more, whatever was spent: something other than the search asks for it."""
        self.deadline = max(self.deadline, time.monotonic() + ADDED_S)
        self.cap = max(self.cap, self.measurements + 2)
        self.run_wave([setting])

    def _blame(self, group: Sequence[Setting], error: ServeError) -> None:
        """One of several did not load: each alone beside the anchor says which."""
        if group == [self.search.reference]:
            raise error
        if len(group) <= 2:  # noqa: PLR2004 - the anchor was served before
            self._refuse(group[-1], f"the server: {error.message.splitlines()[0]}")
            return
        for setting in group[1:]:
            if not self.out_of_time:
                self.run_wave([setting])

    def _measure_group(self, group: Sequence[Setting], load: Load) -> None:
        """Round after round in turns, there and back, so that drift hits all alike; fewer users where an SLO asks."""
        reference = self.search.reference
        if self.objective.slo and reference not in self.points and list(group) != [reference]:
            # What the others are compared with must hold the SLO itself, as far as it can.
            self._measure_group([reference], load)
        users = {setting: self._first_users(setting) for setting in group}
        waiting = list(group)
        while waiting and not (self.out_of_time and self.measurements):
            asked = list(dict.fromkeys([group[0], *waiting]))
            taken = self._rounds({item: group.index(item) for item in asked}, users, load)
            self.measurements += len(asked)
            waiting, settled = [], []
            for setting in asked:
                mine = [(number, measured) for number, item, measured in taken if item == setting]
                if not mine:
                    continue
                point = merged([measured.point for _, measured in mine])
                wrong = next((measured.wrong for _, measured in mine if measured.wrong), "")
                if not wrong and self._asks_fewer(setting, point):
                    users[setting] = max(1, users[setting] // 2)
                    waiting.append(setting)
                else:
                    settled.append(Kept(setting, self._scores(mine), point, wrong))
            self._keep(settled)
            self._report(settled)

    def _first_users(self, setting: Setting) -> int:
        return self.points[setting].users if setting in self.points else self._hopeful_users(setting)

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
    ) -> list[tuple[int, Setting, Measured]]:
        """Number of the round, setting, what was measured."""
        order = there_and_back(list(places), self.rounds)
        slots = [Slot((places[item],), users[item], self._seconds(item)) for _, item in order]
        found = list(zip(order, load(slots, self.objective.protocol), strict=True))
        silent = {item for (_, item), measured in found if measured is None}
        for setting in silent:
            self._refuse(setting, "it answered nothing")
        return [
            (number, item, measured)
            for (number, item), measured in found
            if measured is not None and item not in silent
        ]

    def _asks_fewer(self, setting: Setting, point: LoadPoint) -> bool:
        """Whether fewer users must be tried first: the SLO is missed, and how many hold it is not known yet."""
        return point.users > 1 and setting not in self.points and bool(missed_terms(self.objective, point))

    def _scores(self, taken: Sequence[tuple[int, Measured]]) -> tuple[tuple[int, float, float], ...]:
        samples = [(number, sample_for(self.objective, measured)) for number, measured in taken]
        return tuple((number, sample.log_value, sample.error) for number, sample in samples)

    def _report(self, settled: Sequence[Kept]) -> None:
        for kept in settled:
            if why := self.search.refused.get(kept.setting, ""):
                self._say_refused(kept.setting, why)
            elif kept.setting != self.search.reference:
                ratio = self.search.estimate(kept.setting).ratio
                text = f"{describe(kept.setting)}: {ratio:.2f} times as good as the default"
                self.progress(Event("note", f"{self.tuned.name} tune", text))

    def _refuse(self, setting: Setting, why: str) -> None:
        """One that could not be measured at all."""
        if setting == self.search.reference:
            raise ServeError(f"the default setting ({describe(setting)}) cannot be measured: {why}")
        self.search.refuse(setting, why, for_good=True)
        self._say_refused(setting, why)

    def _say_refused(self, setting: Setting, why: str) -> None:
        self.progress(Event("note", f"{self.tuned.name} tune", f"{describe(setting)}: cannot be chosen: {why}"))

    def _seconds(self, setting: Setting) -> float:
        known = self.points.get(setting)
        speed = known.requests_per_s if known else self.predictions[setting].requests_per_s
        return min(MOST_S, max(LEAST_S, ENOUGH_REQUESTS / max(speed, 1e-9)))


def missed_terms(objective: Objective, point: LoadPoint) -> str:
    """Which term of the SLO a load did not hold; empty where it held all."""
    for name, limit in objective.slo:
        if name in SEEN and (seen := getattr(point, SEEN[name])) > limit:
            return f"{name} {seen:.1f} ms, limit {limit:g} ms"
    return ""


def sample_for(objective: Objective, measured: Measured) -> Sample:
    """The score of a turn: more is better."""
    if objective.word == "latency":
        sample = sample_of(measured.latencies_ms)
        return Sample(-sample.log_value, sample.error)
    if objective.word == "memory":
        return Sample(-math.log(measured.point.server_bytes or 1), 0.0)
    return sample_of(measured.windows)
