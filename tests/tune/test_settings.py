"""Settings in the words of a spec, and the space of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tune.spaces import CANDIDATES, LOAD, model_spec, whole_space

from builder.plan import make_plan
from builder.spec import RepoSpec
from builder.spec_tuning import TunedWords
from builder.tune.settings import describe, free_words, way_of, with_setting, words_of
from builder.tune.space import Load, default_setting
from builder.tuning_records import Setting
from builder.work import work_key

BATCHED = Setting("onnxruntime:fp32", 8, True, (4,), 200, 2, 1)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (
            BATCHED,
            {
                "serve": "onnxruntime:fp32",
                "batching": {"max_batch_size": 8, "dynamic": True, "max_queue_delay_us": 200, "preferred": [4]},
                "instances": {"count": 2},
                "onnxruntime": {"intra_op_threads": 1},
            },
        ),
        (
            Setting("openvino:int8", instances=2, threads=1),
            {
                "serve": "openvino:int8",
                "batching": {"max_batch_size": 0},
                "instances": {"count": 2},
                "openvino": {"threads": 2, "streams": 2},
            },
        ),
        (
            Setting("openvino:int8", hint="throughput"),
            {
                "serve": "openvino:int8",
                "batching": {"max_batch_size": 0},
                "instances": {"count": 1},
                "openvino": {"hint": "throughput"},
            },
        ),
        (
            Setting("pytorch:fp32", 8, threads=1),
            {
                "serve": "pytorch:fp32",
                "batching": {"max_batch_size": 8, "dynamic": False},
                "instances": {"count": 1},
                "pytorch": {"intra_op_threads": 1},
            },
        ),
        (
            Setting("python:native", instances=3),
            {"serve": "python:native", "batching": {"max_batch_size": 0}, "instances": {"count": 3}},
        ),
    ],
)
def test_words_of_a_setting_are_the_spec_s(setting: Setting, words: dict[str, object]) -> None:
    assert words_of(setting) == words
    assert TunedWords.model_validate(words).said().keys() == words.keys() - {"serve"}


def test_an_instance_of_openvino_is_profiled_with_its_own_threads(tmp_path: Path) -> None:
    spec = model_spec(tmp_path)
    assert json.loads(way_of(Setting("openvino:fp32", instances=2, threads=1), spec)) == {"threads": 1, "streams": 1}
    assert json.loads(way_of(Setting("openvino:fp32", instances=2), spec)) == {}
    assert json.loads(way_of(BATCHED, spec)) == {"intra_op_threads": 1}


def test_a_spec_with_a_setting_serves_it_and_makes_no_other_artefact(tmp_path: Path) -> None:
    spec = model_spec(tmp_path, warmup={"samples": 2})
    made = with_setting(spec, BATCHED, "m-0")
    assert (made.name, made.serve, made.targets) == ("m-0", "onnxruntime:fp32", spec.targets)
    assert made.batching is not None and made.batching.preferred == (4,)
    assert made.onnxruntime is not None and made.onnxruntime.intra_op_threads == 1
    assert made.tuned.target == "onnxruntime:fp32"
    assert made.warmup == spec.warmup


def test_no_setting_exports_or_converts_anything_again(tmp_path: Path) -> None:
    """With an int8 target among them: it decides which samples are left for the others."""
    np.savez(tmp_path / "s.npz", x=np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32))
    targets = ["onnxruntime:fp32", "openvino:fp32", "openvino:int8"]
    spec = model_spec(tmp_path, targets=targets, samples={"path": "s.npz"})
    built = {str(item.target): work_key(item.convert) for item in make_plan(RepoSpec(models=(spec,))).models[0].targets}
    for setting in (BATCHED, Setting("openvino:fp32", instances=2, threads=1), Setting("openvino:int8")):
        made = make_plan(RepoSpec(models=(with_setting(spec, setting, "m-0"),))).models[0]
        assert {str(item.target): work_key(item.convert) for item in made.targets} == built


def test_the_spec_s_own_words_stand_whole(tmp_path: Path) -> None:
    spec = model_spec(
        tmp_path,
        batching={"max_batch_size": 16, "max_queue_delay_us": 50},
        instances={"count": 3},
        onnxruntime={"optimization": "basic"},
    )
    settings = whole_space(spec)
    batched = {item for item in settings if item.target == "onnxruntime:fp32"}
    assert batched == {Setting("onnxruntime:fp32", 16, True, (), 50, 3)}
    assert free_words(spec, next(iter(batched))) == {"serve": "onnxruntime:fp32"}
    made = with_setting(spec, next(iter(batched)), "m-0")
    assert (made.batching, made.instances, made.onnxruntime) == (spec.batching, spec.instances, spec.onnxruntime)


def test_the_space_holds_the_defaults_and_only_what_native_backends_take(tmp_path: Path) -> None:
    spec = model_spec(tmp_path)
    settings = whole_space(spec)
    assert len(set(settings)) == len(settings)
    assert 120 <= len(settings) <= 180
    for candidate in CANDIDATES:
        assert default_setting(spec, candidate) in settings
    for setting in settings:
        TunedWords.model_validate(words_of(setting))
        assert setting.target.startswith("onnxruntime") or not setting.max_batch_size
        assert setting.max_batch_size in (0, 8), "clients may send as many rows as without tuning"
        assert setting.instances * (setting.threads or 1) <= 4


def test_larger_batches_are_tried_where_the_load_can_fill_them(tmp_path: Path) -> None:
    spec = model_spec(tmp_path)
    sizes = {item.max_batch_size for item in whole_space(spec, load=Load(8, 4))}
    assert sizes == {0, 8, 16, 32}


def test_latency_and_memory_have_no_merging_to_try(tmp_path: Path) -> None:
    spec = model_spec(tmp_path)
    usual = {default_setting(spec, candidate) for candidate in CANDIDATES}
    for word in ("latency", "memory"):
        assert not any(item.dynamic for item in whole_space(spec, word) if item not in usual)
    assert {item.instances for item in whole_space(spec, "memory")} == {1}


def test_settings_are_described_in_a_line() -> None:
    assert describe(BATCHED) == "onnxruntime:fp32, 2 instances x 1 thread, batch 8, preferred 4, delay 200 us"
    assert describe(Setting("openvino:int8", hint="latency")) == "openvino:int8, 1 instance, hint latency, no batching"
    assert LOAD.largest == 8
