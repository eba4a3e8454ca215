"""By what the served target was chosen, and what is said of targets that could not be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import tiny_models
from tuned_models import CHOSEN, DEFAULT, tried, tuned_model

from builder.choice import Choice, choice_findings, choice_of
from builder.judge import ModelState, TargetState, candidates, reject, soften
from builder.measurement import BatchProof, ConvertReport, Latency, Measurement
from builder.plan import make_plan
from builder.spec_file import spec_from_models
from builder.spec_tuning import TunedWords
from builder.tensors import Signature
from builder.tune.choose import near_in_process
from builder.tuning_records import Objective, Raced
from builder.work import parse_target

FIGURES = {"onnxruntime:fp32": (1.0, 8.0, 200), "openvino:fp32": (2.0, 4.0, 300), "openvino:fp16": (3.0, 12.0, 100)}
"""Milliseconds at batch 1 and 8, and bytes: each target is the best of one objective."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.linear(tmp_path_factory.mktemp("choice") / "m.onnx")


def state(
    model: Path,
    *deferred: str,
    targets: tuple[str, ...] = tuple(FIGURES),
    tuned: str = "",
    fastest: Mapping[str, float] = MappingProxyType({}),
    **words: Any,
) -> ModelState:
    every = [*targets, *deferred]
    given = {"m": TunedWords(serve=tuned)} if tuned else None
    models = [{"name": "m", "source": {"path": str(model)}, "targets": every, **words}]
    plan = make_plan(spec_from_models(models, {}, given), defer=True).models[0]
    made = []
    for target in plan.targets:
        one, eight, memory = FIGURES.get(str(target.target), (0, 0, 0))
        least = fastest.get(str(target.target), 0.0)
        latency = (Latency(1, one, one, 3, least), Latency(8, eight, eight, 3))
        measured = Measurement((), BatchProof(proven=True), latency, 1, memory, "fp32")
        built = TargetState(target, "built", converted=ConvertReport(Signature((), ()), {}, 1), measurement=measured)
        made.append(TargetState(target, "deferred") if str(target.target) in deferred else built)
    return ModelState(plan, None, tuple(made))


@pytest.mark.parametrize(
    ("objective", "best"),
    [("latency", "onnxruntime:fp32"), ("throughput", "openvino:fp32"), ("memory", "openvino:fp16")],
)
def test_the_objective_decides(model: Path, objective: str, best: str) -> None:
    made = state(model, objective=objective)
    assert str(candidates(made)[0].target) == best
    choice = choice_of(made, None)
    assert choice is not None
    assert (choice.by, choice.objective, choice.values[0][0]) == ("measurement", objective, best)
    (said,) = choice_findings(made, {})
    assert (said.check, said.severity) == ("serve.best", "info")
    assert said.message.startswith(f"best by {objective}, ")
    assert f"in process: {best} " in said.message


@pytest.mark.parametrize(
    ("fastest", "near"),
    [
        ({}, ["onnxruntime:fp32", "openvino:fp32"]),
        ({"openvino:fp16": 1.4}, ["onnxruntime:fp32", "openvino:fp32", "openvino:fp16"]),
        ({"openvino:fp16": 2.9, "onnxruntime:fp32": 0.3}, ["onnxruntime:fp32", "openvino:fp32"]),
    ],
)
def test_a_disturbed_median_leaves_no_target_out_of_the_race(
    model: Path, fastest: dict[str, float], near: list[str]
) -> None:
    made = state(model, fastest=fastest)
    assert [str(item.target) for item in near_in_process(made, candidates(made))] == near


def test_latency_is_what_is_sought_unless_said(model: Path) -> None:
    assert choice_of(state(model), None) == choice_of(state(model, objective="latency"), None)
    assert next(iter(choice_findings(state(model), {}))).message == (
        "best by latency, the median of the smallest request in process: onnxruntime:fp32 1.00 ms, before "
        "openvino:fp32 2.00 ms, openvino:fp16 3.00 ms"
    )


def test_the_live_server_is_above_the_measurement_in_process(model: Path) -> None:
    made = state(model, tuned="openvino:fp16", objective="latency")
    assert [str(item.target) for item in candidates(made)] == ["openvino:fp16", "onnxruntime:fp32", "openvino:fp32"]
    refused = replace(tried(replace(CHOSEN, target="openvino:fp16"), 900.0), refused="wrong answers")
    found = replace(tuned_model(), tried=(tried(DEFAULT, 90.0), tried(DEFAULT, 100.0), tried(CHOSEN, 200.0), refused))
    values = (("onnxruntime:fp32", 100.0), ("openvino:fp32", 200.0))
    assert choice_of(made, found) == Choice("tuning", "throughput", "rows/s", values)
    assert choice_of(made, None) == Choice("tuning")
    assert list(choice_findings(made, {"m": found})) == []


RACED = (("openvino:fp32", 30.0), ("onnxruntime:fp32", 20.0))


def test_the_live_server_decides_between_near_targets(model: Path) -> None:
    """What it was not asked about stays behind, what answered wrongly comes last."""
    eight = Objective("throughput", 8)
    made = replace(state(model, objective="throughput"), raced=Raced(eight, RACED, surely=True))
    assert [str(item.target) for item in candidates(made)] == ["openvino:fp32", "onnxruntime:fp32", "openvino:fp16"]
    assert choice_of(made, None) == Choice("server", "throughput", "rows/s", RACED)
    (said,) = choice_findings(made, {})
    assert said.message == (
        "best by throughput on the live server with 8 users: openvino:fp32 30 rows/s, before onnxruntime:fp32 20 rows/s"
    )
    near = replace(made, raced=Raced(eight, RACED[::-1], surely=False))
    assert str(candidates(near)[0].target) == "onnxruntime:fp32"
    (said,) = choice_findings(near, {})
    assert said.message.endswith("of what is too near to be told apart, the best in process is served")
    wrong = (("onnxruntime:fp32", "2 of 9 answers were wrong: y"),)
    bad = replace(made, raced=Raced(Objective("latency", 1), RACED[:1], surely=True, wrong=wrong))
    assert [str(item.target) for item in candidates(bad)] == ["openvino:fp32", "openvino:fp16", "onnxruntime:fp32"]
    best, warned = choice_findings(bad, {})
    assert best.message == (
        "by latency on the live server with 1 user: openvino:fp32 30.00 ms is the only one that answered rightly"
    )
    assert (warned.check, warned.severity, warned.target) == ("serve.wrong", "warning", "onnxruntime:fp32")
    tuned = replace(made, plan=state(model, tuned="openvino:fp16").plan)
    assert str(candidates(tuned)[0].target) == "openvino:fp16"


def test_one_target_that_is_far_ahead_was_chosen_in_process(model: Path) -> None:
    """The live server was asked about its SLO alone: nothing else was near, and nothing else was wrong."""
    made = state(model, objective="throughput", slo={"p99_ms": 50})
    raced = replace(made, raced=Raced(Objective("throughput", 8, slo=(("p99", 50.0),)), RACED[:1], surely=True))
    choice = choice_of(raced, None)
    assert choice is not None
    assert choice.by == "measurement"
    (said,) = choice_findings(raced, {})
    assert "in process: openvino:fp32" in said.message


def test_an_slo_is_held_missed_or_not_looked_at(model: Path) -> None:
    bound: Any = {"p99_ms": 50}
    eight = Objective("throughput", 8, slo=(("p99", 50.0),))
    made = state(model, objective="throughput", slo=bound)
    (best, unseen) = choice_findings(made, {})
    assert (best.check, unseen.check, unseen.severity) == ("serve.best", "serve.slo", "warning")
    assert "was not looked at" in unseen.message
    missed = (("onnxruntime:fp32", "p99 71.0 ms, limit 50 ms"),)
    (said,) = choice_findings(replace(made, raced=Raced(eight, RACED, surely=True, missed=missed)), {})
    assert said.message == (
        "best by throughput with p99 ≤ 50 ms on the live server with 8 users: openvino:fp32 30 rows/s, before "
        "onnxruntime:fp32 20 rows/s (p99 71.0 ms, limit 50 ms)"
    )
    none = Raced(eight, RACED[::-1], surely=True, missed=missed)
    (_, warned) = choice_findings(replace(made, raced=none), {})
    assert warned.message == "with 8 users at a time the SLO is missed: p99 71.0 ms, limit 50 ms"
    alone = state(model, targets=("onnxruntime:fp32",), objective="throughput", slo=bound)
    raced = replace(alone, raced=Raced(eight, RACED[1:], surely=True, missed=missed))
    choice = choice_of(raced, None)
    assert choice is not None
    assert choice.by == "only"
    assert [finding.check for finding in choice_findings(raced, {})] == ["serve.slo"]
    tuned = state(model, tuned="openvino:fp16", slo=bound)
    assert list(choice_findings(tuned, {"m": tuned_model()})) == []


def test_a_tuned_target_that_is_rejected_gives_way_and_blocks_nothing(model: Path) -> None:
    made = state(model, tuned="openvino:fp16")
    made = soften(reject(made, parse_target("openvino:fp16"), []), strict=False)
    choice = choice_of(made, tuned_model())
    assert choice is not None
    assert (choice.by, choice.values[0][0]) == ("measurement", "onnxruntime:fp32")


def test_without_a_choice_little_is_said(model: Path) -> None:
    alone = state(model, targets=("onnxruntime:fp32",))
    assert choice_of(alone, None) == Choice("only", "latency", "ms", (("onnxruntime:fp32", 1.0),))
    asked = state(model, serve="openvino:fp32")
    assert choice_of(asked, None) == Choice("spec")
    assert [*choice_findings(alone, {}), *choice_findings(asked, {})] == []


def test_the_prior_holds_where_nothing_can_be_measured(model: Path) -> None:
    made = state(model, "onnxruntime+tensorrt:fp16", "tensorrt:fp16", targets=("openvino:fp32",))
    (said,) = choice_findings(made, {})
    assert (said.check, said.severity, said.target) == ("serve.prior", "info", "tensorrt:fp16")
    assert said.message == (
        "nothing of onnxruntime+tensorrt:fp16, tensorrt:fp16 could be measured here: TensorRT is expected to be the "
        "best on an NVIDIA GPU; openvino:fp32 is served until then"
    )
    assert list(choice_findings(state(model, "tensorrt:fp16", serve="onnxruntime:fp32"), {})) == []
