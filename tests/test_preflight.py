"""Deferred TensorRT targets, tried with `tensorrt-rtx`; and the words of the spec that reach them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_refused, build
from small_graphs import write_export
from tiny_models import LINEAR, determinant, linear

from builder.cache import Cache
from builder.errors import SpecError
from builder.judge import judge_model
from builder.machine import has_nvidia_gpu
from builder.measurement import PREFLIGHT_FILE, PREPARE_FILE, KeptNode, PrecisionProof, PreflightReport, PrepareReport
from builder.pipeline import Outcome
from builder.plan import Plan, make_plan
from builder.records import write_record
from builder.spec_file import load_spec
from builder.work import Target, work_key

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
pytestmark = pytest.mark.skipif(has_nvidia_gpu(), reason="this machine has an NVIDIA GPU")

DEFER = ("--targets", "onnxruntime:fp32,tensorrt:fp32", "--defer", "--json")


def target_of(ran: Any, name: str) -> dict[str, Any]:
    targets = ran.document["models"][0]["targets"]
    return next(item for item in targets if f"{item['backend']}:{item['precision']}" == name)


def findings(ran: Any) -> list[dict[str, Any]]:
    said = target_of(ran, "tensorrt:fp32")["findings"]
    return [finding for finding in said if finding["check"] == "tensorrt.preflight"]


def planned(folder: Path, words: str = "", **options: Any) -> Plan:
    linear(folder / "m.onnx")
    text = f'models: [{{name: m, source: {{path: m.onnx}}, targets: ["onnxruntime:fp32", "tensorrt:fp32"]{words}}}]'
    (folder / "models.yaml").write_text(text, encoding="utf-8")
    return make_plan(load_spec(folder / "models.yaml"), defer=True, **options)


def options_of(plan: Plan, place: int) -> dict[str, Any]:
    target = plan.models[0].targets[place]
    assert target.convert.options == (target.measure.options if target.target.backend == "tensorrt" else "{}")
    loaded: dict[str, Any] = json.loads(target.measure.options)
    return loaded


def test_a_deferred_target_is_tried_and_nothing_of_it_is_kept(tmp_path: Path) -> None:
    linear(tmp_path / "m.onnx")
    ran = build("m.onnx", "-o", "repo", *DEFER, cwd=tmp_path, check="offline")
    assert ran.code == 0, ran.err
    (finding,) = findings(ran)
    assert finding["severity"] == "info"
    assert "pre-flight with tensorrt-rtx " in finding["message"]
    assert "which is not the engine that will be served" in finding["message"]
    assert "100% fp32" in finding["message"]
    assert "1 optimisation profile" in finding["message"]
    assert target_of(ran, "tensorrt:fp32")["status"] == "deferred"
    assert not list((tmp_path / "repo").rglob("*.plan"))
    assert "tensorrt:fp32 preflight" in ran.err
    again = build("m.onnx", "-o", "repo", *DEFER, cwd=tmp_path, check="offline")
    assert "preflight: started" not in again.err
    assert findings(again) == findings(ran)


def test_an_unsupported_operator_shows_now_and_not_on_the_gpu_machine(tmp_path: Path) -> None:
    determinant(tmp_path / "m.onnx")
    ran = build("m.onnx", "-o", "repo", *DEFER, cwd=tmp_path, check="offline")
    assert ran.code == 0, ran.err
    (finding,) = findings(ran)
    assert finding["severity"] == "warning"
    assert "the pre-flight failed" in finding["message"]
    assert "has no operator Det: node 0 (Det), which writes 'y': not supported" in finding["message"]
    assert "onnxruntime+tensorrt" in finding["remedy"]
    assert target_of(ran, "tensorrt:fp32")["status"] == "deferred"
    assert (tmp_path / "repo" / "m" / "config.pbtxt").is_file()


def test_a_failed_pre_flight_does_not_stop_the_others(tmp_path: Path) -> None:
    determinant(tmp_path / "m.onnx")
    ran = build("m.onnx", "-o", "repo", *DEFER, "--fail-fast", cwd=tmp_path, check="offline")
    assert ran.code == 0, ran.err
    assert target_of(ran, "onnxruntime:fp32")["status"] in ("built", "cached")


def test_the_key_of_a_pre_flight_is_its_own(tmp_path: Path) -> None:
    target = planned(tmp_path).models[0].targets[1]
    assert target.deferred
    assert target.preflight is not None
    assert list(target.preflight.libraries) == ["tensorrt-rtx"]
    assert work_key(target.preflight) != work_key(target.convert)
    assert target.works[-1] == target.preflight


def test_words_of_the_spec_reach_the_conversion(tmp_path: Path) -> None:
    words = (
        ", batching: {max_batch_size: 16, preferred: [4, 12]}, tensorrt: {workspace_bytes: 1024, tf32: false,"
        " version_compatible: true, hardware_compatible: ampere_plus, profiles: [{length: [1, 8, 16]}]},"
        " onnxruntime: {intra_op_threads: 2, cuda: {}}"
    )
    plan = planned(tmp_path, words)
    assert options_of(plan, 0) == {"intra_op_threads": 2, "cuda": {}}
    assert options_of(plan, 1) == {
        "max_batch_size": 16,
        "best_batch_size": 12,
        "workspace_bytes": 1024,
        "tf32": False,
        "version_compatible": True,
        "hardware_compatible": "ampere_plus",
        "profiles": [{"length": [1, 8, 16]}],
    }
    assert options_of(planned(tmp_path), 0) == {}
    assert options_of(planned(tmp_path), 1) == {"max_batch_size": 8, "best_batch_size": 8}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tensorrt: {profiles: [{length: [8, 4, 16]}]}", "sizes of 'length' are .*write .smallest, best, largest"),
        (
            "tensorrt: {profiles: [{length: [0, 4, 16]}]}",
            r"profiles\[0\].length\[0\]: .*greater than or equal to 1",
        ),
        ("tensorrt: {profiles: [{}]}", "tensorrt.profiles"),
        ("tensorrt: {workspace_bytes: 0}", "workspace_bytes"),
        ("tensorrt: {hardware_compatible: turing_plus}", "hardware_compatible"),
        ("tensorrt: {precision: fp16}", "precision"),
        ("onnxruntime: {cuda: {arena: huge}}", "onnxruntime.cuda.arena"),
        ("onnxruntime: {intra_op_threads: 0}", "intra_op_threads"),
    ],
)
def test_wrong_words_are_refused_by_their_place(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        planned(tmp_path, f", {words}")


def test_a_profile_that_does_not_fit_the_model_is_said_by_the_pre_flight(tmp_path: Path) -> None:
    linear(tmp_path / "m.onnx")
    text = (
        'models: [{name: m, source: {path: m.onnx}, targets: ["onnxruntime:fp32", "tensorrt:fp32"],'
        " tensorrt: {profiles: [{length: [1, 8, 16]}]}}]"
    )
    (tmp_path / "models.yaml").write_text(text, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", "--defer", "--json", cwd=tmp_path, check="offline")
    assert ran.code == 0, ran.err
    (finding,) = findings(ran)
    assert "no input has an axis 'length'" in finding["message"]


def test_tensorrt_inside_onnxruntime_is_deferred_too(tmp_path: Path) -> None:
    linear(tmp_path / "m.onnx")
    targets = ("--targets", "onnxruntime:fp32,onnxruntime+tensorrt:fp16")
    ran = build("m.onnx", "-o", "repo", *targets, cwd=tmp_path)
    assert_refused(ran, 4, "onnxruntime+tensorrt:fp16 cannot be built on this machine", "--defer")
    ran = build("m.onnx", "-o", "repo", *targets, "--defer", "--json", cwd=tmp_path, check="offline")
    assert ran.code == 0, ran.err
    assert target_of(ran, "onnxruntime+tensorrt:fp16")["status"] == "deferred"


@pytest.mark.parametrize(("share", "severity"), [(0.9, "info"), (0.1, "warning")])
def test_a_graph_that_is_mostly_not_in_the_asked_precision_is_said(share: float, severity: str, tmp_path: Path) -> None:
    """As when a quantiser that was asked for int8 leaves everything in fp32."""
    plan = planned(tmp_path)
    (model,) = plan.models
    target = replace(model.targets[1], target=Target("tensorrt", "int8"))
    cache = Cache(tmp_path / "cache")
    assert target.preflight is not None
    folder = cache.folder("convert", work_key(target.preflight))
    folder.mkdir(parents=True)
    proof = PrecisionProof((("int8", share), ("fp32", 1 - share)), (), "TensorRT network")
    write_record(folder / PREFLIGHT_FILE, PreflightReport("tensorrt-rtx 1", 3, 1, proof))
    assert target.prepare is not None
    prepared = cache.folder("prepare", work_key(target.prepare))
    prepared.mkdir(parents=True)
    kept, notes = (KeptNode("times", "MatMul", 2.0),), ("what is inside 1 If stays in fp32",)
    write_record(prepared / PREPARE_FILE, PrepareReport("int8", "tensorrt", kept_fp32=kept, notes=notes))
    outcomes = {work_key(work): Outcome("cached") for work in (model.export, *target.works)}
    write_export_report(cache.folder("export", work_key(model.export)))
    state = judge_model(replace(model, targets=(target,)), outcomes, cache)
    (finding,) = [item for item in state.targets[0].findings if item.check == "tensorrt.preflight"]
    assert finding.severity == severity
    assert ("mostly something else" in finding.message) == (severity == "warning")
    why = [item.message for item in state.targets[0].findings if item.check in ("precision.note", "precision.kept")]
    assert why == [*notes, "1 node stays in fp32 within the int8 graph: times (MatMul)"]


def write_export_report(folder: Path) -> None:
    folder.mkdir(parents=True)
    write_export(folder, LINEAR, [])
