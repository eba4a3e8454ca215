"""`serve: best` by the live server: what is asked, what its word is, and that a build goes by it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from command_line import run
from onnx import helper
from small_graphs import signature, write_graph

from builder.manifest import read_manifest
from builder.runtime import Runtime
from builder.tune.belief import Turn, compare
from builder.tune.choose import _raced
from builder.tuning_records import Objective, Setting

ONE, TWO, THREE = (Setting(f"onnxruntime:{word}") for word in ("fp32", "fp16", "int8"))
THROUGHPUT, LATENCY = Objective("throughput", 8), Objective("latency", 1)


def turns(**levels: tuple[float, ...]) -> list[Turn[Setting]]:
    named = {"one": ONE, "two": TWO, "three": THREE}
    return [
        Turn(named[name], 0, number, score, 0.01)
        for name, scores in levels.items()
        for number, score in enumerate(scores)
    ]


def test_the_server_decides_where_it_tells_them_apart() -> None:
    belief = compare(turns(one=(5.0, 5.01, 4.99), two=(5.5, 5.49, 5.5), three=(4.0, 4.01, 4.0)))
    found = _raced((ONE, TWO, THREE), THROUGHPUT, belief, {})
    assert [target for target, _ in found.values] == ["onnxruntime:fp16", "onnxruntime:fp32", "onnxruntime:int8"]
    assert found.surely
    assert dict(found.values)["onnxruntime:fp16"] == pytest.approx(2.718281828**5.5, rel=0.05)
    slow = _raced((ONE, TWO, THREE), LATENCY, compare(turns(one=(-1.0, -1.0), two=(-2.0, -2.0))), {THREE.target: "x"})
    assert [target for target, _ in slow.values] == ["onnxruntime:fp32", "onnxruntime:fp16"]
    assert dict(slow.values)["onnxruntime:fp32"] == pytest.approx(2.718281828, rel=0.05)
    assert slow.wrong == (("onnxruntime:int8", "x"),)


def test_what_it_does_not_tell_apart_goes_by_the_process() -> None:
    """Also where two lead a third: the better in process of the two."""
    belief = compare(turns(one=(5.0, 5.06, 4.95), two=(5.01, 4.97, 5.06), three=(5.02, 5.0, 5.01)))
    found = _raced((ONE, TWO, THREE), THROUGHPUT, belief, {})
    assert found.values[0][0] == "onnxruntime:fp32"
    assert not found.surely
    belief = compare(turns(one=(4.0, 4.01, 3.99), two=(5.0, 5.05, 4.97), three=(5.02, 5.0, 5.01)))
    found = _raced((ONE, TWO, THREE), THROUGHPUT, belief, {})
    assert [target for target, _ in found.values] == ["onnxruntime:fp16", "onnxruntime:int8", "onnxruntime:fp32"]
    assert not found.surely


def test_what_holds_the_slo_comes_first() -> None:
    belief = compare(turns(one=(5.0, 5.01, 4.99), two=(5.5, 5.49, 5.5), three=(4.0, 4.01, 4.0)))
    late = {TWO.target: "p99 9.0 ms, limit 5 ms", ONE.target: "", THREE.target: ""}
    found = _raced((ONE, TWO, THREE), THROUGHPUT, belief, {}, late)
    assert [target for target, _ in found.values] == ["onnxruntime:fp32", "onnxruntime:int8", "onnxruntime:fp16"]
    assert found.missed == ((TWO.target, "p99 9.0 ms, limit 5 ms"),)
    every = dict.fromkeys((item.target for item in (ONE, TWO, THREE)), "p99 9.0 ms, limit 5 ms")
    assert _raced((ONE, TWO, THREE), THROUGHPUT, belief, {}, every).values[0][0] == "onnxruntime:fp16"


def test_none_is_right() -> None:
    wrong = {item.target: "wrong" for item in (ONE, TWO)}
    assert _raced((ONE, TWO), THROUGHPUT, None, wrong).values == ()


SPEC = """
models:
  - name: m
    source: {path: m.onnx}
    targets: [openvino:fp32, openvino:fp16, onnxruntime:fp32]
    accuracy: {max_relative_error: 0.2, min_cosine: 0.98}
    objective: throughput
"""


@pytest.mark.live
def test_runs_that_no_server_shows_are_not_compared(runtime: Runtime, tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    words = ("--targets", "onnxruntime:fp32,openvino:fp32", "--json")
    ran = run("build", "m.onnx", "-o", "repo", *words, cwd=tmp_path, cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    assert "on the live server" not in ran.err
    assert json.loads(ran.out)["models"][0]["choice"]["by"] == "measurement"


@pytest.mark.live
def test_memory_is_that_of_a_server_for_each(runtime: Runtime, tmp_path: Path) -> None:
    tiny_models.linear(tmp_path / "m.onnx")
    spec = "models:\n  - {name: m, source: {path: m.onnx}, objective: memory}\n"
    (tmp_path / "models.yaml").write_text(spec, encoding="utf-8")
    ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=tmp_path, cache=tmp_path / "cache")
    assert ran.code == 0, ran.err
    choice = json.loads(ran.out)["models"][0]["choice"]
    assert (choice["by"], choice["unit"]) == ("server", "bytes")
    assert set(choice["values"]) == {"onnxruntime:fp32", "openvino:fp32"}
    assert min(choice["values"].values()) > 50e6, "a whole server"


@pytest.mark.live
@pytest.mark.slow
@pytest.mark.parametrize("serve", ["best", "onnxruntime:fp32"])
def test_a_build_says_whether_the_slo_is_held(runtime: Runtime, tmp_path: Path, serve: str) -> None:
    """Also of the only target, of one that the spec names, and of runs that no server shows."""
    tiny_models.linear(tmp_path / "m.onnx")
    said = {}
    for limit_ms in (60000, 0.001):
        text = f"{{name: m, source: {{path: m.onnx}}, targets: [onnxruntime:fp32], serve: '{serve}', "
        text += f"slo: {{p99_ms: {limit_ms}}}}}"
        (tmp_path / "models.yaml").write_text(f"models:\n  - {text}\n", encoding="utf-8")
        ran = run("build", "models.yaml", "-o", "repo", "--json", cwd=tmp_path, cache=tmp_path / "cache")
        assert ran.code == 0, ran.err
        said[limit_ms] = {item["check"]: item["message"] for item in json.loads(ran.out)["findings"]}
    assert "serve.slo" not in said[60000]
    assert "limit 0.001 ms" in said[0.001]["serve.slo"]
    ran = run("build", "models.yaml", "-o", "repo", "--check", "offline", cwd=tmp_path, cache=tmp_path / "cache")
    assert "the SLO was not looked at" in ran.err


@pytest.mark.live
@pytest.mark.slow
def test_a_build_goes_by_the_live_server(runtime: Runtime, tmp_path: Path) -> None:
    """Asked once; the report says so; offline it goes by the process."""
    weights = np.random.default_rng(0).standard_normal((2048, 2048)).astype(np.float32) / 45
    names = ["x", *"abcdefg", "y"]
    products = [helper.make_node("MatMul", [before, "w"], [after]) for before, after in itertools.pairwise(names)]
    ports = signature(["x:float32:n,2048"], ["y:float32:n,2048"])
    write_graph(tmp_path / "m.onnx", ports, products, {"w": weights})
    (tmp_path / "models.yaml").write_text(SPEC, encoding="utf-8")

    def built(*words: str) -> tuple[dict[str, Any], str]:
        ran = run("build", "models.yaml", "-o", "repo", "--json", *words, cwd=tmp_path, cache=tmp_path / "cache")
        assert ran.code == 0, ran.err
        return json.loads(ran.out)["models"][0], ran.err

    first, said = built()
    assert "on the live server: done in" in said
    choice = first["choice"]
    assert (choice["by"], choice["objective"], choice["unit"]) == ("server", "throughput", "rows/s")
    assert len(choice["values"]) > 1
    assert min(choice["values"].values()) > 10
    served = first["served"]
    assert f"{served['backend']}:{served['precision']}" == next(iter(choice["values"]))
    stamp = (tmp_path / "repo" / "build-repo.json").stat().st_mtime_ns
    again, said = built()
    assert again["choice"] == choice
    assert "on the live server" not in said
    assert (tmp_path / "repo" / "build-repo.json").stat().st_mtime_ns == stamp
    manifest = read_manifest(tmp_path / "repo")
    assert manifest is not None
    assert dict(manifest.run.raced["m"].values) == pytest.approx(choice["values"])
    ran = run("report", "repo", "-o", "report.md", cwd=tmp_path)
    assert ran.code == 0, ran.err
    assert "on the live server with 8 users over gRPC" in (tmp_path / "report.md").read_text(encoding="utf-8")
    offline, _ = built("--check", "offline")
    assert offline["choice"]["by"] == "measurement"
