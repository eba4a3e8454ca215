"""Estimates, and the search on machines whose truth is known."""

from __future__ import annotations

import math
import random
import statistics
from pathlib import Path

import pytest
from tune.spaces import CANDIDATES, LOAD, law, model_spec, whole_space

from builder.spec import ModelSpec
from builder.tune.estimate import Ratio, Sample, combine, ratio_of, reference_at, sample_of
from builder.tune.model import CURVES, FINALISTS, SHARE
from builder.tune.predict import Overhead, behaviour, predict
from builder.tune.race import WAVE
from builder.tune.search import Search, why_stopped
from builder.tune.space import default_setting
from builder.tuning_records import Setting


def test_drift_of_the_machine_is_cancelled() -> None:
    """Both lose a third of their speed while they are measured; one is twice as fast as the other."""
    speed = {at: 100.0 - at for at in range(0, 34, 3)}
    reference = [Sample(math.log(speed[at]), 0.01, float(at)) for at in (0, 15, 33)]
    ratios = [ratio_of(Sample(math.log(2 * speed[at]), 0.01, float(at)), reference) for at in (6, 9, 24, 27)]
    found = combine(ratios)
    assert found.ratio == pytest.approx(2.0, rel=0.01)
    assert found.low < 2.0 < found.high
    assert reference_at(reference, -5.0).log_value == reference[0].log_value
    assert reference_at(reference, 99.0).log_value == reference[-1].log_value


def test_a_neighbour_in_some_windows_does_not_move_a_measurement() -> None:
    calm = sample_of([100.0] * 10, 0.0)
    disturbed = sample_of([100.0] * 8 + [40.0, 55.0], 0.0)
    assert math.exp(disturbed.log_value) == pytest.approx(math.exp(calm.log_value), rel=0.01)
    with pytest.raises(ValueError, match="nothing was answered"):
        sample_of([0.0] * 10, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_answers_in_bursts_are_all_counted(seed: int) -> None:
    """A batch of eight every 0.3 s, in windows of 0.08 s: most are empty."""
    chance = random.Random(seed)
    start = chance.uniform(0.0, 0.3)
    ends = [start + 0.3 * number for number in range(100)]
    for length in (0.8, 2.4):
        width = length / 10
        windows = [8 * sum(place * width <= end < (place + 1) * width for end in ends) / width for place in range(10)]
        found = sample_of(windows, 0.0)
        assert math.exp(found.log_value) == pytest.approx(sum(windows) / 10, rel=0.25 if length < 1 else 0.15)


def test_measurements_that_disagree_widen_the_interval() -> None:
    same = combine([Ratio(0.1, 0.01)] * 3)
    other = combine([Ratio(0.0, 0.01), Ratio(0.1, 0.01), Ratio(0.3, 0.01)])
    assert other.error > 5 * same.error
    assert other.log_ratio == pytest.approx(0.1), "the median: one that was disturbed does not decide"
    assert combine([Ratio(0.2, 0.03)]).error == pytest.approx(0.03)


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

    def measure(self, settings: list[Setting]) -> None:
        self.measurements += 1 + len(settings)
        for item in settings:
            true = self.truth[item] - self.truth[self.search.reference]
            self.search.tell(item, Ratio(true + self.chance.gauss(0, 0.03), 0.03))

    def run(self) -> tuple[float, float]:
        """What share of the best the choice reaches, and what share of the space was measured."""
        cap = int(SHARE * len(self.truth)) - CURVES
        while (wave := self.search.wave(WAVE)) and self.measurements + 1 < cap - FINALISTS:
            self.measure(wave[: cap - FINALISTS - self.measurements - 1])
        while (again := self.search.finalists(FINALISTS)) and self.measurements + 1 < cap:
            self.measure(again[: cap - self.measurements - 1])
        best = max(self.truth.values())
        return math.exp(self.truth[self.search.best()] - best), (self.measurements + CURVES) / len(self.truth)


def _threads(setting: Setting) -> int:
    return 1 if setting.hint == "throughput" else setting.threads or 2


def test_the_search_finds_nearly_the_best_with_few_measurements(tmp_path: Path) -> None:
    spec = model_spec(tmp_path)
    found = [Machine(spec, seed).run() for seed in range(40)]
    shares = sorted(share for share, _ in found)
    assert statistics.median(shares) >= 0.95
    assert shares[4] >= 0.88, "nine times in ten"
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


def test_nothing_is_tried_twice_and_nothing_that_cannot_win(tmp_path: Path) -> None:
    search = fresh(model_spec(tmp_path))
    first = search.wave(WAVE)
    for setting in first:
        search.tell(setting, Ratio(0.0, 0.01))
    kinds = {search.behaviours[setting] for setting in first}
    assert not kinds & {search.behaviours[setting] for setting in search.wave(100)}
    search.tell(first[0], Ratio(5.0, 0.01))
    search.tell(first[0], Ratio(5.0, 0.01))
    assert all(search.expected(setting)[0] < 5.0 or setting.target == first[0].target for setting in search.wave(100))


def test_of_equals_the_simplest_is_chosen_and_a_refused_one_never(tmp_path: Path) -> None:
    search = fresh(model_spec(tmp_path))
    simple = Setting("openvino:fp32", instances=1, threads=1)
    busy = Setting("openvino:fp32", instances=4, threads=1)
    search.tell(simple, Ratio(0.500, 0.01))
    search.tell(busy, Ratio(0.505, 0.01))
    assert search.best() == simple
    search.refuse(simple, "its answers were wrong")
    assert search.best() == busy
    search.refuse(busy, "too")
    assert search.best() == search.reference


def test_the_best_is_measured_again_and_a_rival_within_noise_too(tmp_path: Path) -> None:
    search = fresh(model_spec(tmp_path))
    one, near, far = (Setting("openvino:fp32", instances=count, threads=1) for count in (1, 2, 4))
    search.tell(one, Ratio(0.50, 0.02))
    search.tell(near, Ratio(0.48, 0.02))
    search.tell(far, Ratio(0.10, 0.02))
    assert search.finalists(3) == [one, near]
    for _ in range(2):
        search.tell(one, Ratio(0.50, 0.001))
        search.tell(near, Ratio(0.40, 0.001))
    assert search.finalists(3) == []


def test_why_it_stopped_is_one_sentence() -> None:
    assert "no setting" in why_stopped([], out_of_time=False, out_of_measurements=False)
    left = [Setting("openvino:fp32")] * 3
    assert "time was over with 3" in why_stopped(left, out_of_time=True, out_of_measurements=True)
    assert "spent with 3" in why_stopped(left, out_of_time=False, out_of_measurements=True)
