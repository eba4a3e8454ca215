"""`build-repo tune` on a small model and the real server."""

from __future__ import annotations

import json
import re
import signal
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import stateful_models
import tiny_models
import yaml
from command_line import run, start

from builder.tuning_file import read_tuning

pytestmark = [pytest.mark.live, pytest.mark.slow]

TARGETS = ["onnxruntime:fp32", "openvino:fp32"]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, runtime: object) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    tiny_models.linear(folder / "m.onnx")
    spec: dict[str, Any] = {"models": [{"name": "m", "source": {"path": "m.onnx"}, "targets": TARGETS}]}
    (folder / "models.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tuned(here: Path) -> Any:
    ran = run("tune", "models.yaml", "--budget", "40s", "--json", cwd=here, cache=here / "cache")
    assert ran.code == 0, ran.err
    return ran.document


def test_the_answer_is_measured_and_says_what_it_holds_for(here: Path, tuned: Any) -> None:
    (model,) = tuned["models"]
    assert Path(tuned["tuning_file"]).name == "models.tuning.yaml"
    assert model["space"] > 60
    assert 0 < model["measurements"] <= 0.15 * model["space"] + 10
    chosen = next(row for row in model["tried"] if row["setting"] == model["chosen"])
    default = next(row for row in model["tried"] if row["setting"] == model["default"])
    assert model["gain"] == pytest.approx(chosen["value"] / default["value"], rel=1e-6)
    assert model["gain"] >= 0.98, "never worse than the default, but for what is as good and simpler"
    for row in model["tried"]:
        assert row["low"] <= row["value"] <= row["high"]
        assert row["point"]["requests"] > 20
        assert row["refused"] == ""
    assert model["machine"]["cores"]
    assert model["measured_on"] == datetime.now(UTC).date().isoformat()
    assert any("load generator" in note for note in model["notes"])
    assert model["stopped"]


def test_the_next_build_takes_it(here: Path, tuned: Any) -> None:
    found = read_tuning(here / "models.tuning.yaml")
    assert found.measured["m"].chosen.target == found.words["m"].serve
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=here, cache=here / "cache")
    assert ran.code == 0, ran.err
    (model,) = ran.document["models"]
    assert model["tuned"] is True
    assert "{backend}:{precision}".format(**model["served"]) == tuned["models"][0]["chosen"]["target"]
    config = (here / "repo" / "m" / "config.pbtxt").read_text(encoding="utf-8")
    chosen = tuned["models"][0]["chosen"]
    assert f"count: {chosen['instances']}\n" in config
    assert f"max_batch_size: {chosen['max_batch_size']}\n" in config
    assert ("dynamic_batching" in config) == chosen["dynamic"]
    for size in chosen["preferred"]:
        assert re.search(rf"preferred_batch_size.*\b{size}\b", config)
    if chosen["max_queue_delay_us"]:
        assert f"max_queue_delay_microseconds: {chosen['max_queue_delay_us']}\n" in config
    page = run("report", "repo", "-o", "page.md", cwd=here)
    assert page.code == 0
    assert "1 of 1 tuned" in (here / "page.md").read_text(encoding="utf-8")


def test_the_same_command_goes_on_from_what_was_measured(here: Path, tuned: Any) -> None:
    begun = time.monotonic()
    ran = run("tune", "models.yaml", "--budget", "9s", "--json", "-o", "again.yaml", cwd=here, cache=here / "cache")
    assert ran.code == 0, ran.err
    (model,) = ran.document["models"]
    assert model["measurements"] == 0
    assert len(model["tried"]) >= len(tuned["models"][0]["tried"])
    assert time.monotonic() - begun < 60


def test_ctrl_c_leaves_a_valid_answer_and_no_process(here: Path) -> None:
    with start("tune", "models.yaml", "--budget", "60s", "-o", "cut.yaml", cwd=here, cache=here / "cut") as child:
        assert child.stderr is not None
        lines = iter(child.stderr.readline, "")
        assert any("serving" in line for line in lines)
        assert any("times as good as the default" in line for line in lines)
        family = psutil.Process(child.pid).children(recursive=True)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == 130
    if (here / "cut.yaml").exists():
        assert read_tuning(here / "cut.yaml").measured["m"].chosen.target in TARGETS
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


@pytest.mark.parametrize(("objective", "unit"), [("latency", 1), ("memory", 8)])
def test_other_objectives(here: Path, tuned: Any, objective: str, unit: int) -> None:
    arguments = ("--objective", objective, "--budget", "30s", "-o", f"{objective}.yaml", "--json")
    ran = run("tune", "models.yaml", *arguments, cwd=here, cache=here / "cache")
    assert ran.code == 0, ran.err
    (model,) = ran.document["models"]
    assert (model["objective"]["word"], model["objective"]["users"]) == (objective, unit)
    values = {row["value"]: row["setting"] for row in model["tried"] if not row["refused"]}
    assert min(values) > 0
    chosen = next(row["value"] for row in model["tried"] if row["setting"] == model["chosen"])
    assert chosen <= 1.02 * min(values), "less is better"


def test_an_slo_that_nothing_can_hold_is_said(here: Path, tuned: Any) -> None:
    arguments = ("--slo", "p99=1us", "--budget", "25s", "-o", "slo.yaml", "--users", "2", "--json")
    ran = run("tune", "models.yaml", *arguments, cwd=here, cache=here / "cache")
    assert ran.code == 0, ran.err
    (model,) = ran.document["models"]
    assert all("misses the SLO" in row["refused"] for row in model["tried"])
    assert model["chosen"] == model["default"]
    assert any("even the chosen setting" in note for note in model["notes"])


def test_several_models_get_their_shares(tmp_path: Path, runtime: object) -> None:
    for seed, name in enumerate(("one", "two")):
        tiny_models.linear(tmp_path / f"{name}.onnx", seed=seed)
    models = [
        {"name": name, "source": {"path": f"{name}.onnx"}, "targets": ["onnxruntime:fp32"]} for name in ("one", "two")
    ]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}), encoding="utf-8")
    ran = run("tune", "models.yaml", "--budget", "20s", "--json", cwd=tmp_path, cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    made = ran.document["models"]
    assert [model["name"] for model in made] == ["one", "two"]
    said = [model["together"] for model in made if "called at once" in model["together"]]
    same = all(model["chosen"]["instances"] * (model["chosen"]["threads"] or 2) <= 1 for model in made)
    assert len(said) == 2 or same
    assert read_tuning(tmp_path / "models.tuning.yaml").words.keys() == {"one", "two"}
    for model in made:
        values = {json.dumps(row["setting"]): row["value"] for row in model["tried"]}
        chosen, default = (values[json.dumps(model[name])] for name in ("chosen", "default"))
        assert model["gain"] == pytest.approx(chosen / default, rel=1e-6), "of what its share made of it"


def test_what_cannot_be_tuned_is_said_and_the_file_stays_away(tmp_path: Path, runtime: object) -> None:
    tiny_models.linear(tmp_path / "one.onnx", seed=1)
    tiny_models.linear(tmp_path / "two.onnx", seed=2)
    stateful_models.gru(tmp_path / "gru.onnx")
    models = [
        {
            "name": "steps",
            "source": {"path": "gru.onnx"},
            "targets": ["onnxruntime:fp32"],
            "sequence": {"states": [{"input": "h", "output": "k"}]},
        },
        {
            "name": "twofold",
            "sources": {1: {"path": "one.onnx"}, 2: {"path": "two.onnx"}},
            "targets": ["onnxruntime:fp32"],
        },
    ]
    (tmp_path / "models.yaml").write_text(yaml.safe_dump({"models": models}), encoding="utf-8")
    ran = run("tune", "models.yaml", "--budget", "20s", "--json", cwd=tmp_path, cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    assert ran.document["models"] == []
    said = {finding["check"]: finding for finding in ran.document["findings"] if finding["check"].startswith("tune.")}
    assert {name: (item["severity"], item["model"]) for name, item in said.items()} == {
        "tune.sequence": ("warning", "steps"),
        "tune.versions": ("warning", "twofold"),
    }
    assert "loadtest" in said["tune.sequence"]["remedy"]
    assert not (tmp_path / "models.tuning.yaml").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--budget", "0"), "is no duration"),
        (("--budget", "0s"), "is no duration"),
        (("--slo", "rps=5"), "tune cannot hold rps"),
        (("--slo", "soon"), "is no term of an SLO"),
        (("--slo", "p99=5ms", "--objective", "memory"), "memory is measured without a load"),
        (("--model", "other"), "there is no model 'other'"),
        (("-o", "nowhere/t.yaml"), "cannot be written"),
    ],
)
def test_bad_input_changes_nothing(tmp_path: Path, runtime: object, arguments: tuple[str, ...], said: str) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    before = sorted(tmp_path.rglob("*"))
    ran = run("tune", "m.onnx", *arguments, cwd=tmp_path, cache=tmp_path.parent / f"{tmp_path.name}-cache")
    assert ran.code == 2, ran.err
    assert said in ran.err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tuning_file_that_cannot_be_read_is_not_answered_with_the_same_command(
    tmp_path: Path, runtime: object
) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    (tmp_path / "m.tuning.yaml").write_text("format: 1\nmeasured: {m: {name: m}}\n", encoding="utf-8")
    ran = run("tune", "m.onnx", cwd=tmp_path, cache=tmp_path / "cache")
    assert ran.code == 2
    assert "m.tuning.yaml: line 2" in ran.err
    assert "remove m.tuning.yaml" in ran.err
