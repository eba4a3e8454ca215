"""The queueing model, and what measurements say of the cost of a request."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tune.spaces import LOAD, law

from builder.tune.predict import Overhead, behaviour, expected_merge, overhead_of, predict, run_seconds
from builder.tune.space import Load
from builder.tuning_records import LoadPoint, Setting

BATCHED = Setting("onnxruntime:fp32", 8, True, instances=1, threads=2)
FREE = Overhead(0.0, 0.0, 0.0)


def test_one_instance_without_overhead_is_as_fast_as_its_runs() -> None:
    alone = replace(BATCHED, dynamic=False)
    assert predict(alone, law(10.0, 2), LOAD, 2, FREE).requests_per_s == pytest.approx(1000 / 6.0)


def test_users_part_into_those_that_run_and_those_that_wait() -> None:
    assert expected_merge(BATCHED, LOAD) == 4
    assert expected_merge(replace(BATCHED, instances=3), LOAD) == 2
    assert expected_merge(replace(BATCHED, max_queue_delay_us=500), LOAD) == 8
    assert expected_merge(replace(BATCHED, preferred=(2,)), LOAD) == 2
    assert expected_merge(BATCHED, Load(8, 4)) == 2
    assert expected_merge(replace(BATCHED, dynamic=False), LOAD) == 1


def test_merging_pays_where_a_row_in_a_batch_is_cheaper() -> None:
    merged = predict(BATCHED, law(10.0, 2), LOAD, 2, FREE)
    alone = predict(replace(BATCHED, dynamic=False), law(10.0, 2), LOAD, 2, FREE)
    assert merged.requests_per_s > 1.2 * alone.requests_per_s
    assert merged.merged == 4


def test_no_setting_has_more_than_the_machine_has() -> None:
    for instances in (1, 2, 4, 8):
        setting = replace(BATCHED, instances=instances, dynamic=False, threads=1)
        speed = predict(setting, law(10.0, 1), LOAD, 2, FREE).requests_per_s
        assert speed <= 2 / 0.010 * (1 + 1e-9)
        assert predict(setting, law(10.0, 1), LOAD, 4, FREE).requests_per_s >= speed


def test_what_generator_and_server_take_the_model_does_not_get() -> None:
    dear = predict(BATCHED, law(1.0, 2), LOAD, 2, Overhead(0.002, 0.002, 0.001))
    assert dear.requests_per_s < 0.7 * predict(BATCHED, law(1.0, 2), LOAD, 2, FREE).requests_per_s
    assert dear.requests_per_s <= 2 / 0.004


def test_several_threads_lose_more_to_what_is_computed_beside_them() -> None:
    """They wait for the one that was held up."""
    alone, dear = replace(BATCHED, dynamic=False), Overhead(0.001, 0.001, 0.0)
    lost = {}
    for threads in (1, 2):
        setting, runs = replace(alone, instances=2 // threads, threads=threads), law(10.0 * threads, 1)
        runs = tuple(replace(run, wall_ms=run.cpu_ms / threads) for run in runs)
        free, busy = (predict(setting, runs, LOAD, 2, overhead).requests_per_s for overhead in (FREE, dear))
        lost[threads] = 1 / busy - 1 / free
    assert lost[2] > lost[1] > 0


def test_spinning_threads_beyond_the_cores_burn_what_others_need() -> None:
    crowded, runs = replace(BATCHED, dynamic=False, instances=2), law(10.0, 2)
    spinning = predict(crowded, runs, LOAD, 2, FREE).requests_per_s
    assert spinning < 0.7 * predict(replace(crowded, target="openvino:fp32"), runs, LOAD, 2, FREE).requests_per_s
    assert predict(crowded, runs, LOAD, 4, FREE).requests_per_s > 2 * spinning
    # Runs of one thread take turns and burn nothing.
    four = replace(crowded, instances=4, threads=1)
    assert predict(four, law(10.0, 1), LOAD, 2, FREE).requests_per_s == pytest.approx(200)


def test_a_batch_that_cannot_fill_waits_its_delay_out() -> None:
    long = replace(BATCHED, max_queue_delay_us=50_000)
    full = predict(long, law(1.0, 2), LOAD, 2, FREE)
    never = predict(replace(long, max_batch_size=16), law(1.0, 2), LOAD, 2, FREE)
    assert full.requests_per_s > 5 * never.requests_per_s


def test_times_between_and_beyond_measured_batches() -> None:
    runs = law(10.0, 1, largest=4)
    assert run_seconds(runs, 1)[0] == pytest.approx(0.010)
    assert run_seconds(runs, 3)[0] == pytest.approx(0.024)
    assert run_seconds(runs, 8)[0] == pytest.approx(2 * runs[-1].wall_ms / 1e3)
    assert run_seconds(law(10.0, 1, largest=1), 0)[0] == pytest.approx(0.010)


def point(**words: object) -> LoadPoint:
    made = LoadPoint(8, 1000, 0, 100.0, 100.0, 80.0, 90.0, 60.0, 17.0, ((4, 25),), 0.05, 1.85, None)
    return replace(made, **words)  # type: ignore[arg-type]


def test_the_cost_of_a_request_is_what_was_seen() -> None:
    found = overhead_of([(law(10.0, 1), point())], 1)
    assert found.generator_cpu_s == pytest.approx(0.0005)
    assert found.way_s == pytest.approx(0.003)
    # 1.85 cores for 100 requests a second are 18.5 ms each, of which a run of four takes 31 / 4.
    assert found.server_cpu_s == pytest.approx(0.0185 - 0.031 / 4)
    assert overhead_of([], 1) == Overhead()
    assert overhead_of([(law(10.0, 1), point(failures=3))], 1) == Overhead()


def test_settings_that_the_load_cannot_tell_apart_are_one() -> None:
    large = replace(BATCHED, max_batch_size=16)
    assert behaviour(large, LOAD) == behaviour(BATCHED, LOAD)
    assert behaviour(replace(large, max_queue_delay_us=200), LOAD) != behaviour(
        replace(BATCHED, max_queue_delay_us=200), LOAD
    )
    assert behaviour(replace(BATCHED, preferred=(8,)), LOAD) == behaviour(BATCHED, LOAD)
    assert behaviour(replace(BATCHED, preferred=(2,)), LOAD) != behaviour(BATCHED, LOAD)
    few = Load(1, 1)
    assert behaviour(replace(BATCHED, instances=4), few) == behaviour(BATCHED, few)
