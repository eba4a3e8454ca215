"""What runs an artefact is not what it is: which words reach the conversion, the measurement, the configuration."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import build, run

from builder.backends import BACKENDS, Settings, backend_module
from builder.plan import Plan, make_plan
from builder.spec_file import spec_from_models
from builder.work import Convert, Measure


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_models.linear(tmp_path / "m.onnx")


def plan(path: Path, target: str, **words: Any) -> Plan:
    return make_plan(spec_from_models([{"name": "m", "source": {"path": str(path)}, "targets": [target], **words}], {}))


def works(made: Plan) -> tuple[dict[str, Convert], dict[str, Measure]]:
    every = made.works()
    return (
        {key: work for key, work in every.items() if isinstance(work, Convert)},
        {key: work for key, work in every.items() if isinstance(work, Measure)},
    )


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("onnxruntime:fp32", {"onnxruntime": {"intra_op_threads": 1}}),
        ("openvino:fp32", {"openvino": {"threads": 1}}),
        ("openvino:fp32", {"openvino": {"hint": "throughput"}}),
        ("openvino:fp32", {"instances": {"count": 2}}),
    ],
)
def test_how_it_runs_is_measured_again_and_converted_once(model: Path, target: str, words: dict[str, Any]) -> None:
    plain, changed = works(plan(model, target)), works(plan(model, target, **words))
    assert plain[0].keys() == changed[0].keys()
    assert plain[1].keys().isdisjoint(changed[1])


def test_a_word_of_another_backend_changes_nothing(model: Path) -> None:
    plain = plan(model, "onnxruntime:fp32")
    changed = plan(model, "onnxruntime:fp32", openvino={"threads": 1}, pytorch={"intra_op_threads": 1})
    assert plain.works().keys() == changed.works().keys()


def options(made: Plan) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(made.models[0].targets[0].measure.options)
    return loaded


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ({}, {}),
        ({"instances": {"count": 2}}, {"streams": 2}),
        ({"instances": [{"count": 2}, {"count": 1}, {"count": 4, "passive": True}]}, {"streams": 3}),
        ({"instances": {"count": 2}, "openvino": {"threads": 4}}, {"streams": 2, "threads": 4}),
        ({"instances": {"count": 4}, "openvino": {"streams": 2}}, {"streams": 2}),
        ({"instances": {"count": 2}, "openvino": {"hint": "throughput"}}, {"hint": "throughput"}),
        ({"instances": {"count": 2}, "config": {"parameters": {"NUM_STREAMS": "AUTO"}}}, {}),
    ],
)  # fmt: skip
def test_instances_of_openvino_have_streams(model: Path, words: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert options(plan(model, "openvino:fp32", **words)) == wanted


def test_only_these_backends_build_what_the_words_say() -> None:
    assert {word for word in BACKENDS if backend_module(word).OPTIONS_DECIDE} == {"tensorrt", "python"}


@pytest.mark.parametrize(
    ("backend", "said", "parameters"),
    [
        ("openvino", {}, {}),
        (
            "openvino",
            {"threads": 4, "streams": 2, "hint": "latency"},
            {"INFERENCE_NUM_THREADS": "4", "NUM_STREAMS": "2", "PERFORMANCE_HINT": "LATENCY"},
        ),
        ("pytorch", {"intra_op_threads": 3}, {"INTRA_OP_THREAD_COUNT": "3"}),
        ("pytorch", {}, {}),
    ],
)
def test_the_server_gets_them_as_parameters(backend: str, said: dict[str, Any], parameters: dict[str, str]) -> None:
    fields = backend_module(backend).config_fields(Settings("fp32", said))
    assert {key: item["string_value"] for key, item in fields.get("parameters", {}).items()} == parameters


def test_a_build_writes_the_streams_that_validate_asks_for(model: Path) -> None:
    here = model.parent
    spec = "models: [{name: m, source: {path: m.onnx}, targets: ['openvino:fp32'], instances: {count: 2}}]"
    (here / "models.yaml").write_text(spec, encoding="utf-8")
    assert build("models.yaml", "-o", "repo", cwd=here, check="offline").code == 0
    path = here / "repo" / "m" / "config.pbtxt"
    text = path.read_text(encoding="utf-8")
    assert 'key: "NUM_STREAMS"\n  value: { string_value: "2" }' in text
    assert run("validate", "repo", "--format", "json", cwd=here).document["findings"] == []
    path.write_text(text.replace('string_value: "2"', 'string_value: "1"'), encoding="utf-8")
    found = run("validate", "repo", "--format", "json", cwd=here).document["findings"]
    assert [(item["severity"], item["check"]) for item in found if "NUM_STREAMS" in item["message"]] == [
        ("warning", "native.openvino")
    ]
