"""Engines of several GPUs under one model: files, versions, configuration and checks. The plans here are only bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from builder.checks import CheckContext, run_checks
from builder.digests import file_digest
from builder.manifest import ServedRecord
from builder.repository import ModelFolder, engines_in, joined_engines, stage_model
from builder.spec_serving import BatchingSpec, InstancesSpec
from builder.tensors import Signature, Tensor
from builder.triton_config import ConfigRequest, parse_config, render_config
from builder.work import Target

TARGET = Target("tensorrt", "fp16")
LINEAR = Signature((Tensor("x", "float32", ("batch", 4)),), (Tensor("y", "float32", ("batch", 3)),))


def config(engines: dict[str, str], name: str = "m", **more: object) -> ConfigRequest:
    request = ConfigRequest(name, "tensorrt", "26.07", LINEAR, LINEAR, True, BatchingSpec(), (InstancesSpec(),))
    return replace(request, cc_model_filenames=engines, **more)


class Machines:
    """Builds of one model, one after the other, on machines with different GPUs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.current, self.count = folder, folder / "repo0", 0
        self.record: ServedRecord | None = None

    def build(self, name: str, content: str, recipe: str = "same") -> ServedRecord:
        self.count += 1
        made = self.folder / f"artefact{self.count}"
        made.mkdir()
        (made / name).write_text(content, encoding="utf-8")
        files = {name: file_digest(made / name)}
        joined = joined_engines(self.record, recipe, files)
        text = render_config(config(engines_in((*files, *joined)))).text
        model = ModelFolder("m", TARGET, made, files, text, True, None, {}, 2, joined, recipe)
        staged = self.folder / f"repo{self.count}"
        staged.mkdir()
        self.record = stage_model(staged, self.current, model, self.record)
        self.current = staged
        return self.record

    def held(self) -> dict[str, str]:
        root = self.current / "m"
        return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.plan"))}


def test_another_gpu_adds_its_engine_to_the_version_that_stands(tmp_path: Path) -> None:
    machines = Machines(tmp_path)
    assert machines.build("model_sm90.plan", "hopper").version == 1
    assert machines.build("model_sm89.plan", "ada").version == 1
    assert machines.held() == {"1/model_sm89.plan": "ada", "1/model_sm90.plan": "hopper"}
    assert machines.build("model_sm89.plan", "ada").version == 1, "nothing changed"
    text = (machines.current / "m" / "config.pbtxt").read_text(encoding="utf-8")
    assert parse_config(text)["cc_model_filenames"] == {"8.9": "model_sm89.plan", "9.0": "model_sm90.plan"}
    assert machines.record is not None
    assert {name for name in machines.record.files if name.endswith(".plan")} == set(machines.held())


def test_a_changed_engine_is_a_new_version_that_keeps_the_others(tmp_path: Path) -> None:
    machines = Machines(tmp_path)
    machines.build("model_sm90.plan", "hopper")
    machines.build("model_sm89.plan", "ada")
    assert machines.build("model_sm90.plan", "faster").version == 2
    assert machines.held() == {
        "1/model_sm89.plan": "ada", "1/model_sm90.plan": "hopper",
        "2/model_sm89.plan": "ada", "2/model_sm90.plan": "faster",
    }  # fmt: skip


def test_an_engine_of_another_model_or_release_is_not_kept(tmp_path: Path) -> None:
    machines = Machines(tmp_path)
    machines.build("model_sm90.plan", "hopper", recipe="old")
    assert machines.build("model_sm89.plan", "ada", recipe="new").version == 2
    assert machines.held() == {"1/model_sm90.plan": "hopper", "2/model_sm89.plan": "ada"}


def test_a_backend_without_recipe_joins_nothing() -> None:
    record = ServedRecord("m", TARGET, 1, "a", batching=True, files={"1/model_sm90.plan": "d"})
    assert joined_engines(record, "", ()) == {}
    assert joined_engines(None, "r", ()) == {}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("model_sm89.plan", "model_sm120.plan"), {"8.9": "model_sm89.plan", "12.0": "model_sm120.plan"}),
        (("model.plan", "model_smx.plan", "other_sm90.plan"), {}),
    ],
)
def test_the_file_says_which_gpu_it_is_for(names: tuple[str, ...], found: dict[str, str]) -> None:
    assert engines_in(names) == found


def test_the_configuration_says_what_other_gpus_get() -> None:
    (finding,) = render_config(config({"9.0": "model_sm90.plan"})).findings
    assert (finding.severity, finding.check) == ("info", "config.engines")
    assert "compute capability 9.0; on any other GPU Triton refuses this model" in finding.message
    for way in ("adds its engine", "hardware_compatible: ampere_plus", "serve: all"):
        assert way in finding.remedy
    assert render_config(config({})).findings == ()


def test_every_profile_is_given_to_the_instances() -> None:
    from builder.backends import Settings, backend_module

    options = {"profiles": [{"n": [1, 2, 3]}, {"n": [3, 4, 5]}]}
    settings = backend_module("tensorrt").config_fields(Settings("fp16", options))
    (group,) = parse_config(render_config(config({}, settings=settings)).text)["instance_group"]
    assert group == {"count": 1, "kind": "KIND_GPU", "profile": ["0", "1"]}
    assert backend_module("tensorrt").config_fields(Settings("fp16", {"profiles": options["profiles"][:1]})) == {}


def test_the_rules_look_for_each_engine(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "1"
    folder.mkdir(parents=True)
    engines = {"8.9": "model_sm89.plan", "9.0": "model_sm90.plan"}
    (tmp_path / "m" / "config.pbtxt").write_text(render_config(config(engines)).text, encoding="utf-8")
    (folder / "model_sm90.plan").write_bytes(b"plan")
    context = CheckContext("26.07", gpus=1)
    (found,) = [item for item in run_checks(tmp_path, context) if item.severity == "error"]
    assert found.file == "m/1/model_sm89.plan"
    assert "cc_model_filenames names it for compute capability 8.9" in found.message
    (folder / "model_sm89.plan").write_bytes(b"plan")
    assert [item for item in run_checks(tmp_path, context) if item.severity == "error"] == []


def test_a_gpu_kind_of_the_settings_gives_way_to_the_users() -> None:
    settings = {"instance_group": [{"kind": "KIND_AUTO"}]}
    request = ConfigRequest("m", "onnxruntime", "26.07", LINEAR, LINEAR, True, BatchingSpec(), (InstancesSpec(),))
    for kind, written in (("auto", "KIND_AUTO"), ("cpu", "KIND_CPU"), ("gpu", "KIND_GPU")):
        made = render_config(replace(request, settings=settings, instances=(InstancesSpec(kind=kind),)))
        assert f"kind: {written}\n" in made.text


def test_tensorrt_inside_onnxruntime_is_the_onnxruntime_backend() -> None:
    from builder.backends import Settings, backend_module

    settings = backend_module("onnxruntime+tensorrt").config_fields(Settings("fp16", {}))
    request = config({}, backend="onnxruntime+tensorrt", settings=settings)
    written = parse_config(render_config(request).text)
    assert written["backend"] == "onnxruntime"
    assert "platform" not in written
    assert written["instance_group"] == [{"count": 1, "kind": "KIND_GPU"}]
    (accelerator,) = written["optimization"]["execution_accelerators"]["gpu_execution_accelerator"]
    assert accelerator["name"] == "tensorrt"
    assert accelerator["parameters"]["trt_engine_cache_enable"] == "true"
    assert accelerator["parameters"]["trt_engine_cache_path"] == "/tmp/build-repo-engines"
    assert "precision_mode" not in accelerator["parameters"]


def test_its_folder_is_a_model_name() -> None:
    from builder.spec import check_name

    assert check_name(f"m_{Target('onnxruntime+tensorrt', 'fp16').suffix}") == "m_onnxruntime_tensorrt_fp16"
