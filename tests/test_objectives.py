"""What best means, from the figures of a measurement."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import tiny_models

from builder.cli.tune import objective_word, slo_of
from builder.errors import SpecError
from builder.measurement import BatchProof, Latency, Measurement
from builder.objectives import MEANS, UNITS, Objective, cost_of, shown, value_of
from builder.spec import RepoSpec
from builder.spec_file import load_spec


def measured(*pairs: tuple[int, float], memory: int = 300_000_000) -> Measurement:
    latency = tuple(Latency(size, median, median, 3) for size, median in pairs)
    return Measurement((), BatchProof(proven=True), latency, 1, memory, "fp32")


@pytest.mark.parametrize(
    ("objective", "value", "text"),
    [("latency", 2.0, "2.00 ms"), ("throughput", 2000.0, "2000 rows/s"), ("memory", 3e8, "300 MB")],
)
def test_values(objective: Objective, value: float, text: str) -> None:
    assert value_of(measured((8, 4.0), (1, 2.0)), objective) == value
    assert shown(value, objective) == text
    assert objective in MEANS.keys() & UNITS.keys()


def test_a_request_as_it_is_counts_as_one_row() -> None:
    assert value_of(measured((0, 4.0)), "throughput") == 250
    assert value_of(measured((1, 1.0), (8, 16.0)), "throughput") == 1000, "the best size, not the largest"


@pytest.mark.parametrize("objective", list(UNITS))
def test_less_cost_is_better_and_what_is_not_measured_is_last(objective: Objective) -> None:
    good, bad = measured((1, 1.0), memory=100), measured((1, 2.0), memory=200)
    assert cost_of(good, objective) < cost_of(bad, objective) < cost_of(None, objective) == math.inf
    assert cost_of(measured(memory=0), objective) == math.inf
    assert value_of(None, objective) is None


def spec_of(*words: str | None, default: str | None = None) -> RepoSpec:
    models = [
        {"name": f"m{index}", "source": {"path": "m.onnx"}, "objective": word} for index, word in enumerate(words)
    ]
    return RepoSpec.model_validate({"models": models, "defaults": {"objective": default}})


@pytest.mark.parametrize(
    ("words", "only", "expected"),
    [
        ((None,), None, "throughput"),
        (("memory",), None, "memory"),
        (("latency", "latency"), None, "latency"),
        (("latency", "memory"), "m1", "memory"),
    ],
)
def test_tune_looks_for_what_the_spec_says(words: tuple[str | None, ...], only: str | None, expected: str) -> None:
    assert objective_word(spec_of(*words), only) == expected


def test_one_search_has_one_objective() -> None:
    with pytest.raises(SpecError, match="m0: latency, m1: throughput") as caught:
        objective_word(spec_of("latency", None), None)
    assert "--model m0" in caught.value.remedy
    assert "--objective" in caught.value.remedy


def test_tune_holds_what_the_spec_says() -> None:
    fast, slow = ({"name": name, "source": {"path": "m.onnx"}, "slo": {"p99_ms": 5.0}} for name in ("a", "b"))
    slow["slo"] = {"p50_ms": 2.0, "p99_ms": 50.0}
    both = RepoSpec.model_validate({"models": [fast, slow]})
    assert slo_of(both, "a") == (("p99", 5.0),)
    assert slo_of(both, "b") == (("p50", 2.0), ("p99", 50.0))
    assert slo_of(spec_of("latency"), None) == ()
    with pytest.raises(SpecError, match="one search holds one SLO") as caught:
        slo_of(both, None)
    assert "--model a" in caught.value.remedy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"slo": {}}, "say p50_ms or p99_ms"),
        ({"slo": {"p99_ms": 0}}, "greater than 0"),
        ({"slo": {"p99_ms": 5}, "objective": "memory"}, "memory is measured without a load"),
    ],
)
def test_an_slo_that_says_nothing(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RepoSpec.model_validate({"models": [{"name": "m", "source": {"path": "m.onnx"}, **words}]})


def test_the_defaults_word_reaches_the_models_and_none_stays_none(tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    for said, expected in (("memory", "memory"), (None, None)):
        text = "models:\n  - {name: m, source: {path: m.onnx}}\n"
        file = tmp_path / "models.yaml"
        file.write_text(text + (f"defaults: {{objective: {said}}}\n" if said else ""), encoding="utf-8")
        assert load_spec(file).models[0].objective == expected
