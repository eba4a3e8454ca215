from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import tiny_models

from builder.errors import MachineError, SpecError
from builder.plan import Plan, changed_fields, make_plan
from builder.records import to_json
from builder.spec_file import spec_from_models
from builder.work import portable, work_key


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return tiny_models.linear(tmp_path / "m.onnx")


def plan(
    path: Path, *, triton: str = "26.07", targets: list[str] | None = None, defer: bool = False, **words: Any
) -> Plan:
    overrides = {"triton": triton, "targets": targets or ["onnxruntime:fp32"]}
    return make_plan(spec_from_models([{"name": "m", "source": {"path": str(path)}, **words}], overrides), defer=defer)


def keys(made: Plan) -> list[str]:
    return list(made.works())


def test_many_targets_share_one_export(model: Path) -> None:
    made = plan(model, targets=["onnxruntime:fp32", "openvino:fp32", "openvino:fp16"])
    kinds = [work.kind for work in made.works().values()]
    assert sorted(kinds) == ["convert"] * 3 + ["export"] + ["measure"] * 3 + ["prepare"] * 2, "one graph a dialect"
    assert kinds[0] == "export"


def test_two_models_from_one_file_are_one_work(model: Path) -> None:
    models = [{"name": name, "source": {"path": str(model)}} for name in ("a", "b")]
    made = make_plan(spec_from_models(models, {"targets": ["onnxruntime:fp32"]}))
    assert len(made.models) == 2
    assert len(made.works()) == 4


@pytest.mark.parametrize(
    "words",
    [
        {"accuracy": {"min_cosine": 0.5, "max_relative_error": 1.0}},
        {"versions": {"keep": 7}},
        {"instances": {"count": 3}},
        {"batching": {"max_queue_delay_us": 5, "preferred": [2]}},
        {"warmup": {"samples": 1}},
        {"config": {"version_policy": {"all": {}}}},
        {"serve": "onnxruntime:fp32"},
    ],
    ids=lambda words: next(iter(words)),
)
def test_what_only_judges_or_configures_rebuilds_nothing(model: Path, words: dict[str, Any]) -> None:
    assert keys(plan(model, **words)) == keys(plan(model))


def test_the_name_and_the_place_of_the_file_rebuild_nothing(model: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "other.onnx"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(model.read_bytes())
    assert keys(plan(elsewhere, name="other")) == keys(plan(model))


@pytest.mark.parametrize(
    "words",
    [
        {"inputs": [{"name": "x", "shape": [2, 4]}]},
        {"outputs": ["y"]},
        {"batching": {"max_batch_size": 4}},
        {"triton": "25.01"},
    ],
    ids=lambda words: next(iter(words)),
)
def test_what_decides_the_export_changes_every_key(model: Path, words: dict[str, Any]) -> None:
    assert not set(keys(plan(model, **words))) & set(keys(plan(model)))


def test_a_release_with_the_same_limits_shares_the_onnx_graphs_only(model: Path) -> None:
    from builder.releases import get_release, known_releases

    now = get_release("26.07")
    same = [r.release for r in known_releases() if (r.max_opset, r.max_ir) == (now.max_opset, now.max_ir)]
    other = next((release for release in same if release != "26.07"), None)
    if other is None:
        pytest.skip("no two releases load the same opset and IR version")
    left, right = plan(model), plan(model, triton=other)
    assert work_key(left.models[0].export) == work_key(right.models[0].export)
    shared = set(keys(left)) & set(keys(right))
    assert {left.works()[key].kind for key in shared} == {"export", "prepare"}


def test_a_changed_file_changes_every_key_even_in_one_process(model: Path) -> None:
    before = keys(plan(model))
    tiny_models.linear(model, seed=1)
    assert not set(before) & set(keys(plan(model)))


def test_changed_samples_change_every_key(model: Path, tmp_path: Path) -> None:
    import numpy as np

    samples = {"samples": {"path": str(tmp_path / "s.npz")}}
    np.savez(tmp_path / "s.npz", x=np.zeros((3, 4), np.float32))
    before = keys(plan(model, **samples))
    assert not set(before) & set(keys(plan(model)))
    np.savez(tmp_path / "s.npz", x=np.ones((3, 4), np.float32))
    assert not set(before) & set(keys(plan(model, **samples)))


def test_no_machine_path_is_in_what_the_manifest_keeps(model: Path, tmp_path: Path) -> None:
    import numpy as np

    np.savez(tmp_path / "s.npz", x=np.zeros((3, 4), np.float32))
    made = plan(model, samples={"path": str(tmp_path / "s.npz")})
    assert all(str(tmp_path) not in str(portable(to_json(work))) for work in made.works().values())


def no_gpu() -> None:
    from builder.machine import has_nvidia_gpu

    if has_nvidia_gpu():
        pytest.skip("this machine has an NVIDIA GPU")


def test_tensorrt_without_a_gpu_names_the_choices(model: Path) -> None:
    no_gpu()
    with pytest.raises(MachineError) as error:
        plan(model, targets=["onnxruntime:fp32", "tensorrt:fp32"])
    assert "m: tensorrt:fp32 cannot be built on this machine" in error.value.message
    for choice in ("remove the tensorrt target", "--defer", "NVIDIA GPU"):
        assert choice in error.value.remedy


def test_instances_on_a_gpu_that_is_not_there_are_refused_before_any_work(model: Path) -> None:
    no_gpu()
    with pytest.raises(MachineError) as error:
        plan(model, targets=["onnxruntime:fp32"], instances={"kind": "gpu"})
    assert "instances: asks for an NVIDIA GPU, and this machine shows none" in error.value.message
    assert "instances: {kind: auto}" in error.value.remedy
    with pytest.raises(MachineError):
        plan(model, targets=["onnxruntime:fp32"], instances=[{"count": 1}, {"gpus": [0]}])
    beside = plan(model, targets=["onnxruntime:fp32", "openvino:fp32"], instances={"kind": "gpu"})
    assert [bool(target.missing) for target in beside.models[0].targets] == [True, False]


def test_a_deferred_target_has_no_works_but_its_pre_flight(model: Path) -> None:
    no_gpu()
    made = plan(model, targets=["onnxruntime:fp32", "tensorrt:fp32"], defer=True)
    assert [target.deferred for target in made.models[0].targets] == [False, True]
    works = made.works()
    (deferred,) = made.models[0].targets[1:]
    assert work_key(deferred.convert) not in works
    assert work_key(deferred.measure) not in works
    assert (deferred.preflight is not None) == (find_spec("tensorrt_rtx") is not None)
    if deferred.preflight is not None:
        assert [work.kind for work in deferred.works] == ["prepare", "convert"]


def test_why_a_work_is_not_cached_is_said_in_words() -> None:
    old = {"libraries": {"onnx": "1.0"}, "opset": 18, "gone": 1}
    new = {"libraries": {"onnx": "1.1"}, "opset": 18, "come": "x" * 80}
    said = list(changed_fields(old, new))
    assert said[0] == f'come: null → "{"x" * 35}…'
    assert said[1:] == ["gone: 1 → null", 'libraries.onnx: "1.0" → "1.1"']


def test_a_target_made_of_torchscript_needs_no_onnx(tmp_path: Path) -> None:
    from script_models import Doubling, save_script

    path = save_script(Doubling(), tmp_path / "m.pt")
    inputs = [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]
    alone = plan(path, targets=["pytorch:fp32"], inputs=inputs)
    assert [work.kind for work in alone.works().values()] == ["export", "convert", "measure"]
    assert alone.models[0].export.formats == ("torchscript",)
    both = plan(path, targets=["pytorch:fp32", "onnxruntime:fp32"], inputs=inputs)
    assert both.models[0].export.formats == ("onnx", "torchscript")
    assert plan(path, inputs=inputs).models[0].export.formats == ("onnx",)


def test_an_onnx_file_is_no_source_for_torchscript(model: Path) -> None:
    made = plan(model, targets=["onnxruntime:fp32", "pytorch:fp32"])
    assert made.models[0].export.formats == ("onnx",)
    assert [bool(target.missing) for target in made.models[0].targets] == [False, True]
    with pytest.raises(SpecError, match="can only be written as ONNX"):
        plan(model, targets=["onnxruntime:fp32", "pytorch:fp32"], serve="pytorch:fp32")
