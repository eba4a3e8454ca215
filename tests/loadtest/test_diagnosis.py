"""Each finding from numbers; the planted servers of test_planted.py show that the numbers come out so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from builder.loadtest.answers import answer_findings
from builder.loadtest.batching import batching_finding, single_share
from builder.loadtest.diagnosis import diagnose
from builder.loadtest.evidence import Evidence
from builder.loadtest.records import AnswerFigures, LateStarts, MachineFigures, ModelFigures

MODEL = ModelFigures(
    "net", requests=1000, served=1000, rows=1000, executions=400, queue_ms=1.0, compute_ms=4.0,
    batches=((1, 100), (2, 150), (4, 150)), max_batch_size=8, dynamic_batching=True, instances=1, row_sizes=(1, 1),
)  # fmt: skip
MACHINE = MachineFigures(4, 2.0, 0.0, 0.5, server_cores=1.4, server_allowed=4.0, server_waiting=0.05)
CALM = Evidence(8, None, 200.0, 6.0, 0.5, LateStarts(1000, 0, 0, 0.1), MACHINE, (MODEL,))


def found(evidence: Evidence) -> dict[str, str]:
    return {finding.check: f"{finding.message}; {finding.remedy}" for finding in diagnose(evidence)}


def with_model(**changes: Any) -> Evidence:
    return replace(CALM, models=(replace(MODEL, **changes),))


def with_machine(evidence: Evidence = CALM, **changes: Any) -> Evidence:
    return replace(evidence, machine=replace(evidence.machine, **changes))


def test_a_server_with_room_says_so() -> None:
    said = found(CALM)
    assert set(said) == {"limit.none"}
    assert "8 users" in said["limit.none"]
    assert "50%" in said["limit.none"]
    assert "200.0 requests/s" in found(replace(CALM, offered_per_s=200.0))["limit.none"]


def test_a_server_that_hangs_has_no_limit() -> None:
    said = found(replace(with_model(queue_ms=18.0), silent_s=3.7))
    assert set(said) == {"server.silent"}
    assert "nothing came back in the last 3.7 s" in said["server.silent"]


def test_a_server_that_died_has_no_limit() -> None:
    """That fewer were answered than arrived is its end's doing, no rate's."""
    died = replace(with_model(queue_ms=18.0), offered_per_s=400.0, broken_off="the embedded server ended\nits log")
    said = found(died)
    assert set(said) == {"limit.unknown"}
    assert "before its time: the embedded server ended;" in said["limit.unknown"]
    leaking = with_machine(died, server_bytes=(200 << 20, 900 << 20))
    assert set(found(leaking)) == {"limit.unknown", "memory.growth"}


def test_few_requests_show_no_limit() -> None:
    """What few answers cannot be blamed for is still said."""
    few = replace(with_model(queue_ms=18.0, requests=5, served=5), answered_per_s=5.0)
    said = found(few)
    assert set(said) == {"limit.unknown"}
    assert "only 5 requests were answered: too few" in said["limit.unknown"]
    assert "--duration 6s" in said["limit.unknown"]
    behind = replace(few, offered_per_s=100.0, late=LateStarts(100, 0, 0, 0.1))
    assert set(found(behind)) == {"limit.unknown", "rate.behind"}
    assert "rate.behind" not in found(replace(behind, late=LateStarts(6, 0, 0, 0.1)))


def test_an_idle_servers_handing_over_is_no_queue() -> None:
    """Five requests a second that each wait for 0.1 ms: nobody waits for the one instance."""
    idle = replace(with_model(queue_ms=0.1, compute_ms=0.05), answered_per_s=5.0, offered_per_s=5.0, mean_ms=0.5)
    assert set(found(idle)) == {"limit.none"}
    assert "limit.instances" in found(replace(idle, answered_per_s=6000.0, offered_per_s=6000.0))


def test_the_rate_of_a_model_is_its_own() -> None:
    """One request in ten of a mix: it is not computed ten times at once."""
    rare = replace(MODEL, name="rare", requests=100, served=100, executions=100, compute_ms=30.0, queue_ms=0.0)
    mixed = replace(CALM, models=(replace(MODEL, requests=900, served=900, compute_ms=0.1, queue_ms=0.0), rare))
    assert mixed.computing == pytest.approx(200.0 * 0.1 * 0.03)


def test_who_falls_behind() -> None:
    behind = replace(CALM, offered_per_s=400.0)
    assert "the server fell behind" in found(behind)["rate.behind"]
    late = replace(behind, late=LateStarts(1000, 900, 400, 900.0))
    assert "the load generator fell behind" in found(late)["rate.behind"]


def test_the_generator_is_the_limit() -> None:
    busy = found(replace(CALM, busiest_generator=0.97))
    assert "the load generator, not the server, is the limit" in busy["limit.generator"]
    assert "0.97" in busy["limit.generator"]
    assert "--workers" in busy["limit.generator"]
    late = found(replace(CALM, late=LateStarts(1000, 300, 100, 40.0)))
    assert "10%" in late["limit.generator"]
    assert set(found(replace(CALM, late=LateStarts(1000, 300, 20, 40.0)))) == {"limit.none"}
    assert "limit.generator" not in found(replace(CALM, late=LateStarts(60, 4, 4, 40.0)))
    full = found(with_machine(replace(CALM, busiest_generator=0.97), busy_cores=3.9, server_cores=3.0))
    assert "another machine" in full["limit.generator"]
    others = found(with_machine(replace(CALM, late=LateStarts(1000, 300, 100, 40.0)), busy_cores=4.0, server_cores=0.5))
    assert "other programs keep the CPU from the load generator: it sent 10%" in others["limit.generator"]
    assert "not the server" not in others["limit.generator"]


def test_queue_with_the_cpu_used_up() -> None:
    said = found(with_machine(with_model(queue_ms=18.0), busy_cores=3.8, server_cores=3.2))["limit.cpu"]
    assert "queue time is 82%" in said
    assert "the CPU is at 95%: more instances will not help" in said


def test_queue_while_the_cpu_idles() -> None:
    said = found(with_model(queue_ms=18.0))["limit.instances"]
    assert "1.40 cores" in said
    assert "instances: {count: 2}" in said
    assert "{count: 6}" in found(with_model(queue_ms=18.0, instances=3))["limit.instances"]


def test_a_queue_that_others_programs_do_not_explain() -> None:
    """The machine is full, but the model sleeps: it wants no core."""
    sleeping = with_machine(
        with_model(queue_ms=350.0, compute_ms=50.0, executions=1000),
        busy_cores=4.0,
        server_cores=0.02,
        server_waiting=0.6,
    )
    assert set(found(replace(sleeping, answered_per_s=20.0))) == {"limit.instances", "limit.model_waits"}


def test_queue_on_purpose() -> None:
    said = found(with_model(queue_ms=48.0, queue_delay_us=50_000))
    assert "max_queue_delay_microseconds is 50000" in said["limit.queue_delay"]
    assert "limit.instances" not in said
    assert "limit.instances" in found(with_model(queue_ms=48.0, queue_delay_us=500))


def test_queue_with_a_gpu_or_far_away() -> None:
    assert "GPU is at 97%" in found(replace(with_model(queue_ms=18.0), gpu=0.97))["limit.gpu"]
    far = with_machine(with_model(queue_ms=18.0), server_cores=None, server_waiting=None)
    assert "not measured" in found(far)["limit.queue"]


def test_computing_uses_the_cpu_up() -> None:
    said = found(with_machine(busy_cores=3.9, server_cores=3.4))["limit.cpu"]
    assert "3.4 cores the server, 0.5 the load generator" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"busy_cores": 4.0, "server_cores": 0.8, "server_waiting": 0.6}, "other programs take 2.7 of 4 cores"),
        ({"server_allowed": 1.5, "server_cores": 1.45}, "may use 1.50 of 4 cores"),
        ({"server_allowed": 1.5, "server_cores": 0.6, "server_held_back": 0.4}, "held its threads back for 2.0 ms"),
    ],
)
def test_a_server_starved_of_cpu(changes: dict[str, Any], words: str) -> None:
    said = found(with_machine(**changes))["limit.cpu_starved"]
    assert "the server is starved of CPU" in said
    assert words in said
    queued = found(with_machine(with_model(queue_ms=60.0), **changes))
    assert {check for check in queued if check.startswith("limit.")} == {"limit.cpu_starved"}


def test_others_that_do_not_hinder_are_no_starvation() -> None:
    assert "limit.cpu_starved" not in found(with_machine(busy_cores=4.0, server_cores=0.8, server_waiting=0.05))
    sleeps = replace(with_model(queue_ms=300.0, compute_ms=30.0, executions=MODEL.served), answered_per_s=20.0)
    said = found(with_machine(sleeps, busy_cores=4.0, server_cores=0.02, server_waiting=0.9))
    assert "limit.cpu_starved" not in said
    assert "limit.instances" in said
    assert "limit.cpu_starved" not in found(with_machine(server_allowed=1.5, server_cores=0.3))
    assert "limit.cpu_starved" not in found(with_machine(server_allowed=1.5, server_cores=0.3, server_held_back=0.1))


def test_a_model_that_waits_for_something_else() -> None:
    waits = replace(
        with_machine(with_model(queue_ms=0.2, compute_ms=50.0, executions=1000), server_cores=0.1, busy_cores=0.7),
        answered_per_s=20.0,
    )
    assert "computes 1.0 runs at once on 0.10 cores" in found(waits)["limit.model_waits"]
    assert "limit.model_waits" not in found(with_machine(waits, server_cores=1.0))
    locked = replace(with_model(queue_ms=90.0, compute_ms=31.0, executions=1000, instances=2), answered_per_s=64.0)
    assert {"limit.instances", "limit.model_waits"} <= set(found(with_machine(locked, server_cores=0.1)))


def test_time_outside_the_models() -> None:
    said = found(replace(CALM, mean_ms=40.0))["limit.outside"]
    assert "88%" in said
    assert "40.0 ms" in said
    assert "limit.outside" not in found(replace(CALM, mean_ms=40.0, busiest_generator=0.97))
    crowded = with_machine(replace(CALM, mean_ms=40.0), busy_cores=4.0, server_cores=0.8, server_waiting=0.6)
    assert "limit.outside" not in found(crowded)
    late = LateStarts(1000, 500, 0, 90.0)
    assert "limit.outside" not in found(replace(CALM, mean_ms=40.0, late=late, offered_per_s=200.0))


def test_falling_behind() -> None:
    said = found(replace(CALM, offered_per_s=300.0))["rate.behind"]
    assert "200.0 requests/s were answered of 300.0" in said
    assert "rate.behind" not in found(replace(CALM, offered_per_s=205.0))


def test_memory_and_cache() -> None:
    assert "from 100 to 900 MiB" in found(with_machine(server_bytes=(100 << 20, 900 << 20)))["memory.growth"]
    assert "memory.growth" not in found(with_machine(server_bytes=(100 << 20, 140 << 20)))
    assert "70%" in found(with_model(cache_hits=700))["cache.hits"]


def test_the_members_of_an_ensemble_are_judged() -> None:
    whole = replace(MODEL, name="whole", ensemble=True, queue_ms=0.0, compute_ms=90.0)
    slow = replace(MODEL, name="slow", requests=0, queue_ms=60.0, compute_ms=20.0)
    said = found(replace(CALM, models=(whole, MODEL, slow)))
    assert "model slow" in said["limit.instances"]


ALONE = replace(MODEL, executions=980, batches=((1, 960), (2, 20)))


def test_a_backend_that_cannot_batch_is_not_told_to() -> None:
    finding = batching_finding(replace(ALONE, max_batch_size=0, backend="openvino"), 2000.0)
    assert finding is not None
    assert finding.severity == "info"
    assert "max_batch_size: 8" not in finding.remedy
    assert "onnxruntime" in finding.remedy


@pytest.mark.parametrize(
    ("changes", "rate", "reason"),
    [
        ({"row_sizes": (8, 8), "batches": ((8, 980),), "rows": 8000}, 2000.0, "every request fills max_batch_size 8"),
        ({"dynamic_batching": False}, 2000.0, "dynamic_batching is off"),
        ({"max_batch_size": 0}, 2000.0, "max_batch_size is 0"),
        ({}, 100.0, "one at a time (0.5 in the server"),
        ({"instances": 8}, 2000.0, "8 instances take the requests"),
        ({}, 2000.0, "different shapes"),
    ],
)
def test_why_nothing_was_merged(changes: dict[str, Any], rate: float, reason: str) -> None:
    finding = batching_finding(replace(ALONE, **changes), rate)
    assert finding is not None
    assert "merged nothing" in finding.message
    assert reason in finding.message
    assert finding.remedy
    assert finding.severity == ("info" if rate < 1000 else "warning")


def test_merging_needs_no_word() -> None:
    assert batching_finding(MODEL, 2000.0) is None
    assert batching_finding(replace(ALONE, served=10), 2000.0) is None
    assert batching_finding(replace(ALONE, max_batch_size=0), 100.0) is None


def test_the_share_of_single_runs() -> None:
    assert single_share(ALONE) == pytest.approx(960 / 980)
    assert single_share(replace(MODEL, row_sizes=(8, 8), batches=((8, 98), (16, 2)))) == pytest.approx(0.98)
    assert single_share(replace(MODEL, row_sizes=(1, 3), executions=500)) == pytest.approx(0.0)
    assert single_share(replace(MODEL, row_sizes=(1, 3), executions=950)) == pytest.approx(0.947, abs=0.001)


def test_wrong_answers() -> None:
    figures = AnswerFigures(seen=900, compared=400, wrong=120, asked_alone=10, wrong_alone=0, texts=("net: far off",))
    (only_merged,) = answer_findings(figures, ("net",))
    assert (only_merged.severity, only_merged.check) == ("error", "answers.wrong_when_batched")
    assert "120 of 400" in only_merged.message
    assert "set max_batch_size: 0" in str(only_merged.remedy)
    merged = replace(MODEL, served=900, executions=300)
    assert answer_findings(figures, ("net",), (merged,)) == (only_merged,)
    (unmerged,) = answer_findings(figures, ("net",), (replace(merged, executions=900),))
    assert unmerged.check == "answers.wrong_when_batched"
    assert "its instances share it" in str(unmerged.remedy)
    (always,) = answer_findings(replace(figures, wrong_alone=8), ("net",))
    assert always.check == "answers.wrong"
    assert "8 of 10 where the same requests are sent alone" in always.message
    (unknown,) = answer_findings(replace(figures, asked_alone=0), ("net",))
    assert unknown.check == "answers.wrong"
    assert answer_findings(replace(figures, wrong=0), ("net",)) == ()


def test_a_rare_wrong_answer_is_not_laid_on_merging_by_a_few_right_ones() -> None:
    figures = AnswerFigures(seen=9000, compared=9000, wrong=18, asked_alone=300)
    (unknown,) = answer_findings(figures, ("net",))
    assert unknown.check == "answers.wrong"
    assert "too few to say" in unknown.message
    assert "--users 1" in str(unknown.remedy)
    (known,) = answer_findings(replace(figures, asked_alone=1500), ("net",))
    assert known.check == "answers.wrong_when_batched"
