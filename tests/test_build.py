"""The main job end to end on ONNX models of a few nodes, without a server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from command_line import Ran, assert_refused, assert_sound, build, contents, run, snapshot

from builder.manifest import read_manifest

ORT = ("--targets", "onnxruntime:fp32")
BOTH = ("--targets", "onnxruntime:fp32,openvino:fp32")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    tiny_models.linear(tmp_path / "m.onnx")
    return tmp_path


@pytest.fixture
def built(here: Path) -> Path:
    ran = build("m.onnx", "-o", "repo", *ORT, cwd=here)
    assert ran.code == 0, ran.err
    return here


def target_of(ran: Ran, word: str, model: int = 0) -> dict[str, Any]:
    found = [t for t in ran.document["models"][model]["targets"] if f"{t['backend']}:{t['precision']}" == word]
    assert len(found) == 1
    return found[0]


def checks(target: dict[str, Any]) -> dict[str, str]:
    return {finding["check"]: finding["severity"] for finding in target["findings"]}


def test_a_bare_model_becomes_a_repository(here: Path) -> None:
    ran = build("m.onnx", "-o", "repo", *BOTH, "--json", cwd=here, check="offline")
    assert ran.code == 0, ran.err
    document = ran.document
    assert set(document) == {"repository", "models", "findings", "seconds"}
    assert document["repository"] == str(here / "repo")
    (model,) = document["models"]
    assert (model["name"], model["version"]) == ("m", 1)
    assert model["served"]["backend"] in ("onnxruntime", "openvino")
    for target in model["targets"]:
        fixed = {"backend", "precision", "status", "seconds", "size_bytes", "measurement", "findings"}
        assert set(target) == fixed | {"prepare"}
        assert target["status"] in ("built", "cached")
        assert target["size_bytes"] > 0
        assert target["measurement"]["batch"]["proven"]
    assert_sound(here / "repo")
    assert sorted(item.name for item in (here / "repo").iterdir()) == ["build-repo.json", "m"]
    assert sorted(item.name for item in here.iterdir()) == ["m.onnx", "repo"]


def test_nothing_changed_leaves_every_byte_and_time(built: Path) -> None:
    before = snapshot(built / "repo")
    for _ in range(2):
        ran = build("m.onnx", "-o", "repo", *ORT, "--json", cwd=built)
        assert ran.code == 0, ran.err
        assert target_of(ran, "onnxruntime:fp32")["status"] == "cached"
        assert ran.document["models"][0]["version"] == 1
    assert snapshot(built / "repo") == before


def test_two_caches_and_two_folders_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name
        tiny_models.linear(folder / "m.onnx")
        tiny_models.mixing(folder / "mixing.onnx")
        tiny_models.doubles(folder / "doubles.onnx")
        # One model served by each backend: which of two is the fastest is the clock's.
        spec = """
models:
  - {name: plain, source: {path: m.onnx}, serve: "onnxruntime:fp32"}
  - {name: mixing, source: {path: mixing.onnx}, serve: "openvino:fp32", warmup: {samples: 1}}
  - {name: doubles, source: {path: doubles.onnx}}
"""
        (folder / "models.yaml").write_text(spec, encoding="utf-8")
        ran = build("models.yaml", "-o", "repo", cwd=folder, cache=tmp_path / f"cache-{name}")
        assert ran.code == 0, ran.err
    one, two = contents(tmp_path / "one" / "repo"), contents(tmp_path / "two" / "repo")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []
    assert str(tmp_path).encode() not in one["build-repo.json"]


def test_models_of_earlier_builds_stay_until_pruned(built: Path) -> None:
    (built / "repo" / "theirs" / "1").mkdir(parents=True)
    (built / "repo" / "theirs" / "1" / "model.onnx").write_text("theirs", encoding="utf-8")
    (built / "repo" / "README").write_text("mine", encoding="utf-8")
    tiny_models.wide(built / "other.onnx")
    ran = build("other.onnx", "-o", "repo", *ORT, cwd=built)
    assert ran.code == 0, ran.err
    assert sorted(item.name for item in (built / "repo").iterdir()) == [
        "README",
        "build-repo.json",
        "m",
        "other",
        "theirs",
    ]
    manifest = read_manifest(built / "repo")
    assert manifest is not None
    assert list(manifest.models) == ["m", "other"]
    assert list(manifest.run.timings) == ["m", "other"]
    assert_sound(built / "repo")
    ran = build("other.onnx", "-o", "repo", *ORT, "--prune", cwd=built)
    assert ran.code == 0, ran.err
    assert sorted(item.name for item in (built / "repo").iterdir()) == ["README", "build-repo.json", "other", "theirs"]
    assert (built / "repo" / "theirs" / "1" / "model.onnx").read_text(encoding="utf-8") == "theirs"


def test_a_changed_artefact_gets_the_next_version(built: Path) -> None:
    tiny_models.linear(built / "m.onnx", seed=1)
    ran = build("m.onnx", "-o", "repo", *ORT, "--json", cwd=built)
    assert (ran.code, ran.document["models"][0]["version"]) == (0, 2), ran.err
    assert sorted(item.name for item in (built / "repo" / "m").iterdir() if item.is_dir()) == ["1", "2"]
    assert_sound(built / "repo")


def test_a_changed_signature_is_refused_with_the_difference(built: Path) -> None:
    tiny_models.wide(built / "m.onnx")
    before = snapshot(built / "repo")
    ran = build("m.onnx", "-o", "repo", *ORT, cwd=built)
    assert_refused(ran, 3, "- output y float32[batch,3]; + output y float32[batch,5]", "m_v2")
    assert snapshot(built / "repo") == before


def test_a_tolerance_is_judged_without_building_again(built: Path) -> None:
    before = snapshot(built / "repo")
    accuracy = "{min_cosine: 1.0, max_relative_error: 0}"
    spec = f'models: [{{name: m, source: {{path: m.onnx}}, targets: ["onnxruntime:fp32"], accuracy: {accuracy}}}]'
    (built / "models.yaml").write_text(spec, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", "--json", cwd=built)
    target = target_of(ran, "onnxruntime:fp32")
    assert target["status"] in ("cached", "rejected")
    assert target["seconds"] == 0
    if ran.code:
        assert ran.code == 3
        assert snapshot(built / "repo") == before


def test_serve_all_adds_a_folder_for_every_target(here: Path) -> None:
    ran = build("m.onnx", "-o", "repo", *BOTH, "--serve", "all", cwd=here, check="offline")
    assert ran.code == 0, ran.err
    names = ["build-repo.json", "m", "m_onnxruntime_fp32", "m_openvino_fp32"]
    assert sorted(item.name for item in (here / "repo").iterdir()) == names
    assert_sound(here / "repo")
    assert 'name: "m_openvino_fp32"' in (here / "repo" / "m_openvino_fp32" / "config.pbtxt").read_text(encoding="utf-8")
    ran = build("m.onnx", "-o", "repo", *BOTH, cwd=here)
    assert ran.code == 0, ran.err
    assert sorted(item.name for item in (here / "repo").iterdir()) == ["build-repo.json", "m"], (
        "what is ours and not served goes"
    )


def test_two_models_for_one_folder_are_refused_before_any_work(here: Path) -> None:
    spec = """
models:
  - {name: a, source: {path: m.onnx}, serve: all}
  - {name: a_onnxruntime_fp32, source: {path: m.onnx}}
"""
    (here / "models.yaml").write_text(spec, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", cwd=here)
    assert_refused(ran, 2, "would both be served as 'a_onnxruntime_fp32'")
    assert "started" not in ran.err


def test_a_lost_target_is_a_warning_while_another_stands(tmp_path: Path) -> None:
    tiny_models.doubles(tmp_path / "d.onnx")
    ran = build("d.onnx", "-o", "repo", *BOTH, "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    lost = target_of(ran, "openvino:fp32")
    assert lost["status"] == "failed"
    assert (lost["size_bytes"], lost["measurement"]) == (None, None)
    assert checks(lost) == {"target.failed": "warning"}
    assert ran.document["models"][0]["served"] == {"backend": "onnxruntime", "precision": "fp32"}
    before = snapshot(tmp_path / "repo")
    again = build("d.onnx", "-o", "repo", *BOTH, cwd=tmp_path)
    assert again.code == 0, again.err
    assert snapshot(tmp_path / "repo") == before, "a target that fails again changes nothing"


@pytest.mark.parametrize("asked", [("--serve", "openvino:fp32"), ("--serve", "all"), ("--strict",)], ids=" ".join)
def test_a_lost_target_that_was_asked_for_is_an_error(tmp_path: Path, asked: tuple[str, ...]) -> None:
    tiny_models.doubles(tmp_path / "d.onnx")
    ran = build("d.onnx", "-o", "repo", *BOTH, *asked, "--json", cwd=tmp_path)
    assert ran.code == 1, ran.err
    assert checks(target_of(ran, "openvino:fp32")) == {"target.failed": "error"}
    (model,) = ran.document["models"]
    assert (model["served"], model["version"]) == (None, None)
    assert not (tmp_path / "repo").exists()


def test_a_target_that_answers_wrongly_is_rejected_and_the_right_one_served(tmp_path: Path) -> None:
    tiny_models.drifting(tmp_path / "m.onnx")
    targets = ("--targets", "onnxruntime:fp32,openvino:fp16")
    ran = build("m.onnx", "-o", "repo", *targets, "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    wrong = target_of(ran, "openvino:fp16")
    assert wrong["status"] == "rejected", wrong
    assert wrong["findings"]
    assert set(checks(wrong).values()) == {"warning"}
    assert ran.document["models"][0]["served"] == {"backend": "onnxruntime", "precision": "fp32"}
    asked = build("m.onnx", "-o", "repo2", *targets, "--serve", "openvino:fp16", "--json", cwd=tmp_path)
    assert asked.code == 3, asked.err
    assert "error" in checks(target_of(asked, "openvino:fp16")).values()
    assert not (tmp_path / "repo2").exists()


def test_a_target_that_cannot_hold_the_weights_fails_and_the_right_one_is_served(tmp_path: Path) -> None:
    tiny_models.overflowing(tmp_path / "m.onnx")
    targets = ("--targets", "onnxruntime:fp32,openvino:fp16")
    ran = build("m.onnx", "-o", "repo", *targets, "--json", cwd=tmp_path)
    assert ran.code == 0, ran.err
    failed = target_of(ran, "openvino:fp16")
    assert failed["status"] == "failed", failed
    assert "values beyond 65504" in failed["findings"][0]["message"], failed
    assert ran.document["models"][0]["served"] == {"backend": "onnxruntime", "precision": "fp32"}
    assert build("m.onnx", "-o", "repo2", *targets, "--serve", "openvino:fp16", cwd=tmp_path).code == 1
    assert not (tmp_path / "repo2").exists()


def test_a_model_that_mixes_the_rows_of_a_batch_is_served_unbatched(tmp_path: Path) -> None:
    tiny_models.mixing(tmp_path / "m.onnx")
    ran = build("m.onnx", "-o", "repo", *BOTH, "--json", cwd=tmp_path, check="offline")
    assert ran.code == 0, ran.err
    for target in ran.document["models"][0]["targets"]:
        assert "batch.unproven" in checks(target)
        assert not target["measurement"]["batch"]["proven"]
    (said,) = {
        f["message"]
        for t in ran.document["models"][0]["targets"]
        for f in t["findings"]
        if f["check"] == "batch.unproven"
    }
    assert "served without batching, with full dims" in said
    assert "over_rows (ReduceMean)" in said
    config = (tmp_path / "repo" / "m" / "config.pbtxt").read_text(encoding="utf-8")
    assert "max_batch_size: 0" in config
    assert "dynamic_batching" not in config
    assert "dims: [-1, 4]" in " ".join(config.split()).replace("[ ", "[").replace(" ]", "]")


def no_gpu() -> None:
    from builder.machine import has_nvidia_gpu

    if has_nvidia_gpu():
        pytest.skip("this machine has an NVIDIA GPU")


def test_tensorrt_without_a_gpu_is_the_environments_fault_or_deferred(here: Path) -> None:
    no_gpu()
    targets = ("--targets", "onnxruntime:fp32,tensorrt:fp32")
    ran = build("m.onnx", "-o", "repo", *targets, cwd=here)
    assert_refused(ran, 4, "tensorrt:fp32 cannot be built on this machine", "--defer", "remove the tensorrt target")
    assert not (here / "repo").exists()
    ran = build("m.onnx", "-o", "repo", *targets, "--defer", "--json", cwd=here)
    assert ran.code == 0, ran.err
    assert target_of(ran, "tensorrt:fp32")["status"] == "deferred"
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert [target.status for target in manifest.models["m"].targets] == ["built", "deferred"]


@pytest.mark.parametrize("asked", [("onnxruntime:fp32,tensorrt:fp32", "tensorrt:fp32"), ("tensorrt:fp32", "best")])
def test_nothing_but_a_deferred_target_to_serve_is_said(here: Path, asked: tuple[str, str]) -> None:
    no_gpu()
    ran = build("m.onnx", "-o", "repo", "--targets", asked[0], "--serve", asked[1], "--defer", cwd=here)
    assert_refused(ran, 1, "nothing to serve: ", "deferred")
    assert not (here / "repo").exists()


def test_one_lost_model_keeps_the_whole_repository(built: Path) -> None:
    before = snapshot(built / "repo")
    tiny_models.doubles(built / "d.onnx")
    tiny_models.wide(built / "new.onnx")
    spec = """
models:
  - {name: new, source: {path: new.onnx}, targets: ["onnxruntime:fp32"]}
  - {name: d, source: {path: d.onnx}, targets: ["openvino:fp32"]}
"""
    (built / "models.yaml").write_text(spec, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", cwd=built)
    assert_refused(ran, 1, "unsupported datatype TYPE_FP64")
    assert snapshot(built / "repo") == before


def test_class_names_become_the_label_file(here: Path) -> None:
    (here / "names.txt").write_text("cat\ndog\nbird\n", encoding="utf-8")
    spec = 'models: [{name: m, source: {path: m.onnx}, targets: ["onnxruntime:fp32"], class_names: names.txt}]'
    (here / "models.yaml").write_text(spec, encoding="utf-8")
    ran = build("models.yaml", "-o", "repo", cwd=here, check="offline")
    assert ran.code == 0, ran.err
    assert (here / "repo" / "m" / "labels.txt").read_text(encoding="utf-8") == "cat\ndog\nbird\n"
    (here / "names.txt").write_text("cat\ndog\n", encoding="utf-8")
    before = snapshot(here / "repo")
    ran = build("models.yaml", "-o", "repo", cwd=here)
    assert_refused(ran, 2, "names.txt has 2 lines, but no output has that many classes", "y float32[batch,3]")
    assert snapshot(here / "repo") == before


def test_the_replay_command_shows_the_failure_again(tmp_path: Path) -> None:
    import shlex
    import subprocess

    from command_line import environment

    tiny_models.determinant(tmp_path / "d.onnx")
    ran = build("d.onnx", "-o", "repo", *BOTH, "--json", cwd=tmp_path)
    remedy = target_of(ran, "openvino:fp32")["findings"][0]["remedy"]
    log, _, replay = remedy.partition("log: ")[2].partition("; replay: ")
    assert Path(log).is_file()
    done = subprocess.run(
        shlex.split(replay), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert "no such operator: Det" in json.loads(done.stdout)["message"]


def test_works_run_in_this_process_with_no_jobs(here: Path, tmp_path: Path) -> None:
    ran = build("m.onnx", "-o", "repo", *ORT, "--jobs", 0, cwd=here, cache=tmp_path / "own-cache")
    assert ran.code == 0, ran.err
    again = build("m.onnx", "-o", "repo2", *ORT, cwd=here, cache=tmp_path / "own-cache")
    assert "cached" in again.err
    assert "started" not in again.err
    assert contents(here / "repo").keys() == contents(here / "repo2").keys()


def test_a_failure_stops_everything_else_when_asked(tmp_path: Path) -> None:
    tiny_models.doubles(tmp_path / "d.onnx")
    spec = 'models: [{name: d, source: {path: d.onnx}, targets: ["openvino:fp32", "onnxruntime:fp32"]}]'
    (tmp_path / "models.yaml").write_text(spec, encoding="utf-8")
    args = ("models.yaml", "-o", "repo", "--jobs", 1, "--fail-fast")
    ran = build(*args, cwd=tmp_path, cache=tmp_path / "cache")
    assert_refused(ran, 1, "--fail-fast and another work failed")
    assert "onnxruntime:fp32 convert: started" not in ran.err


@pytest.mark.live
def test_the_live_check_judges_and_its_verdict_is_kept(here: Path, runtime: Any) -> None:
    ran = build("m.onnx", "-o", "repo", *ORT, "--json", cwd=here, check="live")
    assert ran.code == 0, ran.err
    assert "live check" in ran.err
    manifest = read_manifest(here / "repo")
    assert manifest is not None
    assert manifest.models["m"].live["m"]["checked"] is True
    before = snapshot(here / "repo")
    again = build("m.onnx", "-o", "repo", *ORT, "--json", cwd=here, check="live")
    assert "m live check: cached" in again.err
    assert snapshot(here / "repo") == before
    checked = run("check", "repo", "--json", "--junit", "r.xml", cwd=here)
    assert checked.code == 0, checked.err
    assert [model["status"] for model in checked.document["models"]] == ["passed"]
    assert 'failures="0"' in (here / "r.xml").read_text(encoding="utf-8")
    shutil.copytree(here / "repo", here / "broken")
    weights = tiny_models.linear(here / "wrong.onnx", seed=5)
    shutil.copyfile(weights, here / "broken" / "m" / "1" / "model.onnx")
    wrong = run("check", "broken", "--json", cwd=here)
    assert wrong.code == 3, wrong.err
    assert [model["status"] for model in wrong.document["models"]] == ["failed"]
