"""Estimates, and the search on machines whose truth is known."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path
from typing import cast

import pytest
from tune.spaces import CANDIDATES, LOAD, law, model_spec, whole_space

from builder.cache import Cache
from builder.errors import ServeError
from builder.spec import ModelSpec
from builder.tune.belief import Turn, believe, compare
from builder.tune.estimate import Estimate, sample_of
from builder.tune.kept import Kept
from builder.tune.model import CURVES, FINALISTS, SHARE
from builder.tune.predict import Overhead, behaviour, predict
from builder.tune.race import ROUNDS, WAVE, Race
from builder.tune.search import Search, why_stopped
from builder.tune.serving import Tuned
from builder.tune.shares import Tried, best_of, turns_in
from builder.tune.space import default_setting
from builder.tuning_records import LoadPoint, Objective, Setting


def turns_of(scores: dict[str, list[float]], wave: int = 0) -> list[Turn[str]]:
    """A score in each round."""
    return [Turn(item, wave, number, score, 0.01) for item, mine in scores.items() for number, score in enumerate(mine)]


def test_drift_of_the_machine_is_cancelled() -> None:
    """It loses a third of its speed from wave to wave; two settings that never met are compared through the third."""
    chance = random.Random(0)
    truth = {"default": 0.0, "fast": 0.7, "faster": 0.9}
    turns = []
    for wave, there in enumerate((["default", "fast"], ["default", "faster"], ["default", "fast"])):
        drift = -0.3 * wave
        turns += turns_of(
            {item: [truth[item] + drift + chance.gauss(0, 0.02) for _ in range(4)] for item in there}, wave
        )
    found = compare(turns)
    for item in ("fast", "faster"):
        ahead = found.ahead(item, "default")
        assert ahead.log_ratio == pytest.approx(truth[item], abs=0.1)
        assert ahead.low < math.exp(truth[item]) < ahead.high
    assert found.ahead("faster", "fast").log_ratio > 0
    assert found.ahead("fast", "default").count == 2
    assert found.ahead("faster", "default").count == 1
    assert found.ahead("fast", "default").error < found.ahead("faster", "default").error


def test_an_unsteady_setting_does_not_blur_the_others() -> None:
    """The default is never twice the same: what was measured beside it in two waves is still told apart."""
    steady, unsteady = [0.0, 0.01, -0.01, 0.0], [0.3, -0.4, 0.1, -0.2]
    turns = turns_of({"default": unsteady, "one": steady}, 0) + turns_of({"default": unsteady[::-1], "two": steady}, 1)
    found = compare(turns)
    apart = found.ahead("one", "two")
    assert apart.log_ratio == pytest.approx(0.0, abs=0.03)
    assert apart.error < found.ahead("one", "default").error


def test_what_is_believed_of_kin_moves_with_what_was_measured() -> None:
    """Half the speed that was predicted: the same is expected of the one alike, and not of the stranger."""
    predicted = {"measured": 1.0, "alike": 1.1, "stranger": 1.2}
    kin = {"measured": "a", "alike": "a", "stranger": "b"}
    found = believe(
        predicted,
        lambda item: [(kin[item], 0.3), (item, 0.05)],
        [Turn("measured", 0, place, 0.3, 0.01) for place in range(4)],
    )
    assert found.ahead("alike", "measured").log_ratio == pytest.approx(0.1, abs=0.05)
    assert found.ahead("stranger", "measured").log_ratio > 0.8
    assert found.ahead("alike", "measured").error < found.ahead("stranger", "measured").error
    sure = found.after("stranger")
    assert sure.ahead("stranger", "measured").error < found.ahead("stranger", "measured").error
    assert sure.ahead("stranger", "measured").log_ratio == found.ahead("stranger", "measured").log_ratio


def test_a_neighbour_in_some_windows_does_not_move_a_measurement() -> None:
    calm = sample_of([100.0] * 10)
    disturbed = sample_of([100.0] * 8 + [40.0, 55.0])
    assert math.exp(disturbed.log_value) == pytest.approx(math.exp(calm.log_value), rel=0.01)
    with pytest.raises(ValueError, match="nothing was answered"):
        sample_of([0.0] * 10)


@pytest.mark.parametrize("seed", range(5))
def test_answers_in_bursts_are_all_counted(seed: int) -> None:
    """A batch of eight every 0.3 s, in windows of 0.08 s: most are empty."""
    chance = random.Random(seed)
    start = chance.uniform(0.0, 0.3)
    ends = [start + 0.3 * number for number in range(100)]
    for length in (0.8, 2.4):
        width = length / 10
        windows = [8 * sum(place * width <= end < (place + 1) * width for end in ends) / width for place in range(10)]
        found = sample_of(windows)
        assert math.exp(found.log_value) == pytest.approx(sum(windows) / 10, rel=0.25 if length < 1 else 0.15)


def test_measurements_that_disagree_widen_the_interval() -> None:
    calm = compare(turns_of({"default": [0.0] * 4, "other": [0.1, 0.11, 0.09, 0.1]}))
    wild = compare(turns_of({"default": [0.0] * 4, "other": [0.1, 0.4, -0.2, 0.1]}))
    assert wild.ahead("other", "default").error > 1.25 * calm.ahead("other", "default").error


def test_one_disturbed_turn_does_not_decide() -> None:
    found = compare(turns_of({"default": [0.0, 0.01, -0.01, 0.0], "other": [0.1, 0.1, -0.6, 0.1]}))
    assert found.ahead("other", "default").log_ratio == pytest.approx(0.1, abs=0.06), "the mean is -0.075"


class Machine:
    """Its truth is the prediction, off by what is common to a target, to its instances and threads, and a bit more."""

    def __init__(self, spec: ModelSpec, seed: int) -> None:
        self.chance = random.Random(seed)
        settings = whole_space(spec)
        rows_ms = {candidate.target: self.chance.uniform(0.5, 6.0) for candidate in CANDIDATES}
        runs = {item: law(rows_ms[item.target], _threads(item)) for item in settings}
        speeds = {item: predict(item, runs[item], LOAD, 2, Overhead()).requests_per_s for item in settings}
        self.predicted = {item: math.log(speed) for item, speed in speeds.items()}
        off: dict[object, float] = {}
        self.truth = {}
        for item in settings:
            kin = (item.target, item.instances, item.threads, item.hint)
            keys = ((item.target, 0.10), (kin, 0.10), ((kin, item.dynamic), 0.06), (behaviour(item, LOAD), 0.02))
            self.truth[item] = self.predicted[item] + sum(
                off.setdefault((place, key), self.chance.gauss(0, spread)) for place, (key, spread) in enumerate(keys)
            )
        self.search = Search(
            self.predicted,
            {item: behaviour(item, LOAD) for item in settings},
            default_setting(spec, self.chance.choice(CANDIDATES)),
        )
        self.measurements = 0
        self.waves = 0

    def measure(self, settings: list[Setting]) -> None:
        """As loads on two cores were seen: the default, with threads that spin, is the least steady."""
        every = list(dict.fromkeys([self.search.top if self.waves else self.search.reference, *settings]))
        self.measurements += len(every)
        drift = self.chance.gauss(0, 0.04)
        rounds = [drift + self.chance.gauss(0, 0.04) for _ in range(ROUNDS)]
        for item in every:
            noise = 0.14 if item == self.search.reference else 0.06
            launch = self.chance.gauss(0, 0.03)
            scores = [self.truth[item] + launch + shared + self.chance.gauss(0, noise) for shared in rounds]
            self.search.tell([Turn(item, self.waves, number, score, 0.01) for number, score in enumerate(scores)])
        self.waves += 1

    def run(self) -> tuple[float, float]:
        """What share of the best the choice reaches, and what share of the space was measured."""
        cap = int(SHARE * len(self.truth)) - CURVES
        while (wave := self.search.wave(WAVE)) and self.measurements + 1 < cap - FINALISTS:
            self.measure(wave[: cap - FINALISTS - self.measurements - 1])
        while (again := self.search.finalists(FINALISTS)) and self.measurements + 1 < cap:
            self.measure([*again, self.search.reference][: cap - self.measurements - 1])
        best = max(self.truth.values())
        return math.exp(self.truth[self.search.best()] - best), (self.measurements + CURVES) / len(self.truth)


def _threads(setting: Setting) -> int:
    return 1 if setting.hint == "throughput" else setting.threads or 2


def test_the_search_finds_nearly_the_best_with_few_measurements(tmp_path: Path) -> None:
    spec = model_spec(tmp_path)
    found = [Machine(spec, seed).run() for seed in range(60)]
    shares = sorted(share for share, _ in found)
    assert statistics.median(shares) >= 0.98
    assert shares[len(shares) // 10] >= 0.95, "nine times in ten"
    assert shares[0] >= 0.80
    assert max(spent for _, spent in found) <= SHARE


def fresh(spec: ModelSpec) -> Search:
    return Machine(spec, 1).search


def test_a_first_wave_has_every_target_that_may_be_best(tmp_path: Path) -> None:
    search = fresh(model_spec(tmp_path))
    hopeful = {setting.target for setting in search.untried()[:1]}
    wave = search.wave(WAVE)
    assert len(wave) == len(set(wave)) == WAVE
    assert hopeful <= {setting.target for setting in wave}
    assert search.reference not in wave


def tell(search: Search, scores: dict[Setting, float], *, waves: int = 1, noise: float = 0.0) -> None:
    """Scores over the reference's, which is measured in each wave too."""
    last = max((turn.wave for turn in search.turns), default=-1)
    for wave in range(last + 1, last + 1 + waves):
        for setting, score in ({search.reference: 0.0} | scores).items():
            turns = [Turn(setting, wave, number, score + noise * (number % 2 - 0.5), 0.001) for number in range(ROUNDS)]
            search.tell(turns)


def test_nothing_is_tried_twice_and_nothing_that_cannot_win(tmp_path: Path) -> None:
    search = fresh(model_spec(tmp_path))
    first = search.wave(WAVE)
    tell(search, dict.fromkeys(first, 0.0))
    kinds = {search.behaviours[setting] for setting in first}
    assert not kinds & {search.behaviours[setting] for setting in search.wave(100)}
    search = fresh(model_spec(tmp_path))
    expected = {item: search.predicted[item] - search.predicted[search.reference] for item in first}
    tell(search, expected | {first[0]: max(expected.values()) + 1.5})
    assert [setting for setting in search.untried() if setting.target != first[0].target]
    assert {setting.target for setting in search.hopeful()} <= {first[0].target}, "only its kin may be as good"


def test_of_equals_the_simplest_is_chosen_and_a_refused_one_never(tmp_path: Path) -> None:
    search = fresh(model_spec(tmp_path))
    simple = Setting("openvino:fp32", instances=1, threads=1)
    busy = Setting("openvino:fp32", instances=4, threads=1)
    tell(search, {simple: 0.500, busy: 0.505}, waves=3)
    assert search.best() == simple
    search.refuse(simple, "its answers were wrong")
    assert search.best() == busy
    search.refuse(busy, "too")
    assert search.best() == search.reference
    search.refuse(search.reference, "this one too")
    assert search.best() == search.reference
    assert search.wave(WAVE), "something may still hold"


def test_one_disturbed_wave_does_not_refuse_what_holds_the_slo(tmp_path: Path) -> None:
    """All its loads together decide; wrong answers do for good."""
    search = fresh(model_spec(tmp_path))
    race = Race(
        tuned=cast("Tuned", None),
        objective=Objective("throughput", 8, slo=(("p99", 50.0),)),
        search=search,
        cache=Cache(tmp_path),
        progress=lambda _: None,
        deadline=0.0,
        cap=0,
        forecast=lambda _: {},
        runs={},
        identity="",
    )
    setting = Setting("openvino:fp32", instances=1, threads=1)

    def wave(p99_ms: float, wrong: str = "") -> None:
        point = LoadPoint(8, 100, 0, 100.0, 100.0, p99_ms / 2, p99_ms, 0.0, 1.0, ((1, 100),), 0.1, 1.0, None)
        race._take([Kept(setting, ((0, 1.0, 0.01),), point, wrong)])

    wave(60.0)
    assert search.refused == {setting: "misses the SLO with 8 users: p99 60.0 ms, limit 50 ms"}
    wave(30.0)
    assert search.refused == {}
    wave(300.0)
    assert "p99 60.0 ms" in search.refused[setting]
    wave(30.0)
    assert search.refused == {}
    assert race.points[setting].requests == 400
    wave(30.0, wrong="1 of 8 answers were wrong")
    wave(30.0)
    assert search.refused == {setting: "1 of 8 answers were wrong"}


def test_a_combination_that_holds_the_slo_comes_first() -> None:
    def one(ratio: float, missed: str = "") -> Tried:
        return Tried(Estimate(math.log(ratio), 0.01, 1), missed)

    assert best_of([one(1.0), one(1.3), one(1.2)]) == 1
    assert best_of([one(1.0), one(1.3, "p99"), one(1.2)]) == 2
    assert best_of([one(1.0), one(1.01)]) == 0
    assert best_of([one(1.0, "p99"), one(0.8), one(0.7)]) == 1
    assert best_of([one(1.0, "p99"), one(1.3, "p99")]) == 1


def test_the_best_is_measured_again_and_a_rival_within_noise_too(tmp_path: Path) -> None:
    search = fresh(model_spec(tmp_path))
    one, near, far = (Setting("openvino:fp32", instances=count, threads=1) for count in (1, 2, 4))
    tell(search, {one: 0.50, near: 0.48, far: 0.10})
    assert search.finalists(3) == [one, near]
    tell(search, {one: 0.50, near: 0.20}, waves=2)
    assert search.finalists(3) == []


def test_why_it_stopped_is_one_sentence() -> None:
    assert "no setting" in why_stopped([], out_of_time=False, out_of_measurements=False)
    left = [Setting("openvino:fp32")] * 3
    over = why_stopped(left, out_of_time=True, out_of_measurements=True)
    assert "time was over with 3" in over
    assert "--budget" in over
    assert "spent with 3" in why_stopped(left, out_of_time=False, out_of_measurements=True)


def test_shares_leave_time_for_what_is_measured_after_them() -> None:
    assert turns_in(100.0, 30.0, 4) == (4, 2.0)
    rounds, seconds = turns_in(50.0, 30.0, 4)
    assert rounds * 4 * (seconds + 0.6) <= 20.0
    assert turns_in(40.0, 30.0, 4)[0] == 2, "fewer rounds where it is short"
    assert turns_in(17.0, 30.0, 4) == (2, 0.5), "the shortest where nothing can be left"
    with pytest.raises(ServeError, match="larger --budget"):
        turns_in(8.0, 0.0, 4)
